"""StyleGAN2: NVIDIA's golden values, a plain formulation of the same network, and bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

import hublatent
from hublatent.direction import Direction
from hublatent.errors import CheckpointError, HublatentError
from hublatent.interop.layouts import LAYOUTS, read_layout
from hublatent.models.layers import channels_by_height
from hublatent.models.style_space import StyleSpace
from hublatent.models.stylegan2 import StyleGAN2, blurred, mix_styles, upsampling_conv
from tests import stylegan2_reference as reference
from training.trainers.loop import parameter_count
from training.trainers.stylegan2.adversarial import path_lengths
from training.trainers.stylegan2.discriminator import Discriminator, EqualConv, blur, halve

TINY = {
    "image_size": 16, "latent_dim": 8, "z_dim": 6, "mapping_layers": 2,
    "channel_base": 64, "channel_max": 10, "channel_min": 3,
}  # fmt: skip


def tiny(seed: int = 1, **values: Any) -> StyleGAN2:
    """A small generator whose noise, biases and latent mean all matter."""
    torch.manual_seed(seed)
    model = StyleGAN2(**{**TINY, **values})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.latent_mean.normal_()
    return model.eval()


def codes(model: StyleGAN2, n: int, seed: int = 2) -> Tensor:
    return torch.randn(n, *model.latent_shape, generator=torch.Generator().manual_seed(seed))


# --- NVIDIA's golden values -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(shared / "golden" / "stylegan2_tiny.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["config"]), tensors


@pytest.fixture(scope="module")
def golden_generator(golden: tuple[dict[str, Any], dict[str, Tensor]]) -> StyleGAN2:
    _, tensors = golden
    theirs = {k.removeprefix("G."): v.numpy() for k, v in tensors.items() if k.startswith("G.")}
    layout = next(x for x in LAYOUTS if "synthesis.b4.const".startswith(x.sign))
    model = read_layout(theirs, layout).model
    assert isinstance(model, StyleGAN2)
    return model


def _assert_golden(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-4


@torch.no_grad()
def test_golden_mapping(golden: Any, golden_generator: StyleGAN2) -> None:
    _, io = golden
    _assert_golden(golden_generator.mapping(io["io.z"]), io["io.ws"])
    truncated = golden_generator.mapping(io["io.z"], truncation=0.5, cutoff=4)
    _assert_golden(truncated, io["io.ws_psi05_cut4"])


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize(
    ("latents", "noise", "images"),
    [
        ("io.ws", "const", "io.img_const"),
        ("io.ws", "none", "io.img_none"),
        ("io.ws_psi05_cut4", "const", "io.img_psi05_cut4"),
        ("io.wplus", "const", "io.img_wplus_const"),
    ],
)
def test_golden_pictures(
    golden: Any, golden_generator: StyleGAN2, latents: str, noise: Any, images: str, gradients: bool
) -> None:
    _, io = golden
    with torch.set_grad_enabled(gradients):  # without them the layers work in place
        _assert_golden(golden_generator.synthesize(io[latents], noise), io[images])


def test_golden_discriminator(golden: Any) -> None:
    config, tensors = golden
    model = Discriminator(
        config["img_resolution"], config["img_channels"], config["channel_base"],
        config["channel_max"], channel_min=1,
    )  # fmt: skip
    rules = (
        (r"b\d+\.fromrgb\.(.+)", r"from_rgb.\1"),
        (r"b4\.conv\.(.+)", r"last_conv.\1"),
        (r"b4\.fc\.(.+)", r"last_linear.\1"),
        (r"b4\.out\.(.+)", r"out.\1"),
        (r"b(\d+)\.(.+)", r"blocks.\1.\2"),
    )
    weights = {}
    for name, tensor in tensors.items():
        if name.startswith("D.") and not name.endswith("resample_filter"):
            rule = next(r for r in rules if re.fullmatch(r[0], name.removeprefix("D.")))
            weights[re.sub(rule[0], rule[1], name.removeprefix("D."))] = tensor
    model.load_state_dict(weights, strict=True)
    _assert_golden(model(tensors["io.img_const"]), tensors["io.logits_D_of_img_const"])


# --- the plain formulation ------------------------------------------------------------------------

SIZES = [
    TINY,
    {**TINY, "conv_clamp": 0.5},
    {**TINY, "image_size": 64, "channels": 1, "channel_base": 256},
    {**TINY, "image_size": 256, "channel_base": 512, "channel_min": 1},
]


@pytest.mark.parametrize("noise", ["const", "none"])
@pytest.mark.parametrize("values", SIZES)
def test_pictures_equal_those_of_the_usual_formulation(values: dict[str, Any], noise: Any) -> None:
    model = tiny(**values)
    with torch.no_grad():
        latents = codes(model, 3)
        expected = reference.synthesize(model, latents, noise)
        torch.testing.assert_close(model.synthesize(latents, noise), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.synthesize(latents, noise), expected, rtol=1e-4, atol=1e-4)


def test_a_blur_folded_into_the_kernel_is_the_blur_and_the_convolution() -> None:
    # What a GPU computes, on the CPU.
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 8, 8, generator=draws)
    weight = torch.randn(7, 5, 3, 3, generator=draws)
    up = F.conv_transpose2d(x, blurred(weight.transpose(0, 1), 4), stride=2, padding=2)
    torch.testing.assert_close(up, upsampling_conv(x, weight), atol=1e-5, rtol=1e-5)
    down = F.conv2d(x, blurred(weight), stride=2, padding=2)
    usual = F.conv2d(blur(x, padding=2), weight, stride=2)
    torch.testing.assert_close(down, usual, atol=1e-5, rtol=1e-5)
    short = F.conv2d(x, blurred(weight[:, :, :1, :1]), stride=2, padding=1)
    usual = F.conv2d(halve(x), weight[:, :, :1, :1])
    torch.testing.assert_close(short, usual, atol=1e-5, rtol=1e-5)


def test_a_discriminator_that_does_not_blur_convolves_every_other_pixel() -> None:
    conv = EqualConv(5, 7, 3)
    x = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    halved = conv.halving(x, 1.5, blurs=False)
    torch.testing.assert_close(halved, conv(x, 1.5)[..., ::2, ::2])


def test_clamping_matters_in_that_comparison() -> None:
    free, clamped = tiny(), tiny(conv_clamp=0.5)
    latents = codes(free, 2)
    assert not torch.allclose(free.synthesize(latents), clamped.synthesize(latents), atol=0.05)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("clamp", [0.0, 1.0])
def test_gradients_equal_those_of_the_usual_formulation(
    monkeypatch: pytest.MonkeyPatch, order: int, clamp: float
) -> None:
    model = tiny(conv_clamp=clamp)
    latents = codes(model, 3).requires_grad_()
    draw = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    trained = {k: v for k, v in model.named_parameters() if "mapping" not in k}
    tracked = {**trained, **dict(model.named_buffers())}

    def gradients(images: Tensor) -> list[Tensor | None]:
        if order == 1:
            value = (images * draw).sum()
        else:  # as path length regularisation does
            value = path_lengths(images, latents, draw).square().sum()
        return list(torch.autograd.grad(value, [latents, *trained.values()], allow_unused=True))

    ours = gradients(model.synthesize(latents))
    monkeypatch.setattr(model, "state_dict", lambda: tracked)  # with the graph
    theirs = gradients(reference.synthesize(model, latents))
    assert sum(g is not None for g in theirs) > 20
    for mine, plain in zip(ours, theirs, strict=True):
        assert (mine is None) == (plain is None)
        if mine is not None and plain is not None:
            torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-4)


def test_bf16_draws_nearly_the_same_pictures() -> None:
    model = tiny(image_size=32)
    with torch.no_grad():
        exact = model.synthesize(codes(model, 4))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.synthesize(codes(model, 4))
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.std()


@pytest.mark.parametrize("values", [{}, {"channel_base": 1, "channel_max": 1, "channel_min": 1}])
def test_drawing_leaves_weights_and_latents_alone(values: dict[str, Any]) -> None:
    model = tiny(**values)
    before, latents = model.fingerprint(), codes(model, 1)
    original = latents.clone()
    with torch.no_grad():
        first, second = model.decode(latents), model.decode(latents)
    assert torch.equal(first, second)
    assert model.fingerprint() == before and torch.equal(latents, original)


def test_each_picture_depends_on_its_own_code_alone() -> None:
    model = tiny()
    latents = codes(model, 4)
    with torch.no_grad():
        together = model.synthesize(latents)
        alone = torch.cat([model.synthesize(one) for one in latents.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [16, 32, 64, 128, 256, 512, 1024])
def test_any_power_of_two(image_size: int) -> None:
    model = tiny(image_size=image_size, channel_max=4, channel_min=1)
    n_layers = model.latent_shape[0]
    with torch.no_grad():
        images = model.decode(codes(model, 1))
    assert images.shape == (1, 3, image_size, image_size) and images.isfinite().all()
    assert 2 ** (n_layers // 2 + 1) == image_size
    assert len(model.noise_maps()) == n_layers - 1


def test_nvidias_channel_rule() -> None:
    widths = channels_by_height(1024, 3, 32768, 512, 1)  # config F
    assert widths == {
        4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32,
    }  # fmt: skip


def test_the_default_is_the_64_pixel_network_of_three_million_parameters() -> None:
    with torch.device("meta"):
        model = StyleGAN2()
    assert channels_by_height(64, 3, model.channel_base, model.channel_max, model.channel_min) == {
        4: 256, 8: 256, 16: 128, 32: 64, 64: 48,
    }  # fmt: skip
    assert round(parameter_count(model) / 1e6, 2) == 3.21


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"image_size": 48}, "image_size = 48; expected a power of two"),
        ({"image_size": 8}, "image_size = 8; expected an integer from 16 to 1024"),
        ({"image_size": 2048}, "image_size = 2048"),
        ({"image_size": 64.0}, "image_size = 64.0"),
        ({"channels": 0}, "channels = 0"),
        ({"latent_dim": 10**9}, "latent_dim"),
        ({"mapping_layers": 0}, "mapping_layers"),
        ({"conv_clamp": -1.0}, "conv_clamp"),
        ({"channel_base": 2**40}, "channel_base"),
        ({"image_size": 1024, "channel_min": 512, "channel_max": 512}, "feature maps of"),
        ({"channel_base": 2**20, "channel_max": 4096}, "weights"),
    ],
)
def test_absurd_configs_are_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        StyleGAN2(**{**TINY, **values})


# --- latents --------------------------------------------------------------------------------------


def test_mapping_normalises_its_input() -> None:
    model = tiny()
    z = torch.randn(5, 6)
    torch.testing.assert_close(model.mapping(z), model.mapping(7 * z), rtol=1e-4, atol=1e-5)
    assert torch.equal(model.mapping(z)[:, :1].expand(-1, 6, -1), model.mapping(z))


def test_truncation_is_a_straight_line_to_the_mean() -> None:
    model, z = tiny(), torch.randn(5, 6)
    w = model.mapping(z)
    for psi in (0.0, 0.3, 0.7):
        expected = model.latent_mean + psi * (w - model.latent_mean)
        torch.testing.assert_close(model.mapping(z, truncation=psi), expected)
        partly = model.mapping(z, truncation=psi, cutoff=2)
        torch.testing.assert_close(partly[:, :2], expected[:, :2])
        assert torch.equal(partly[:, 2:], w[:, 2:])


def test_samples_follow_the_seed() -> None:
    model = tiny()
    first, again, other = (
        model.sample_latents(4, generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6)
    )
    assert first.shape == (4, *model.latent_shape) and not first.requires_grad
    assert torch.equal(first, again) and not torch.equal(first, other)
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(first, model.mapping(z).detach())


def test_latent_statistics_are_those_of_w() -> None:
    model = tiny()
    model.measure_latents(3000, seed=3)
    w = model.mapping(torch.randn(20_000, 6))[:, 0].detach()
    torch.testing.assert_close(model.latent_mean, w.mean(dim=0), rtol=0.1, atol=0.05)
    torch.testing.assert_close(model.latent_covariance, torch.cov(w.T), rtol=0.2, atol=0.05)
    kept = model.latent_mean.fill_(9.0).clone()
    model.measure_latents(100, keep_mean=True)
    assert torch.equal(model.latent_mean, kept)


def test_mixed_styles_change_over_at_the_crossover() -> None:
    first, second = torch.zeros(3, 5, 2), torch.ones(3, 5, 2)
    assert mix_styles(first, second, 2)[:, :, 0].tolist() == [[0, 0, 1, 1, 1]] * 3
    mixed = mix_styles(first, second, torch.tensor([0, 3, 5]))
    assert mixed[:, :, 1].tolist() == [[1, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]


def test_the_fine_layers_code_leaves_the_coarse_layers_alone() -> None:
    model = tiny()
    base, changed = codes(model, 2), codes(model, 2)
    changed[:, 4:] = 1.0
    seen: list[Tensor] = []
    model.blocks["8"].register_forward_hook(lambda m, i, o: seen.append(o[0]))
    model.synthesize(base)
    model.synthesize(changed)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(model.synthesize(base), model.synthesize(changed))


# --- noise ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_kinds_of_noise() -> None:
    model = tiny()
    latents = codes(model, 2).expand(2, -1, -1)
    const = model.synthesize(latents, "const")
    assert torch.equal(const, model.synthesize(latents, model.noise_maps()))
    assert not torch.allclose(const, model.synthesize(latents, "none"), atol=1e-2)
    zeros = [torch.zeros_like(m) for m in model.noise_maps()]
    torch.testing.assert_close(model.synthesize(latents, zeros), model.synthesize(latents, "none"))


@torch.no_grad()
def test_random_noise_differs_between_images_and_follows_the_generator() -> None:
    model = tiny()
    latents = codes(model, 1).expand(2, -1, -1)
    first, again, other = (
        model.synthesize(latents, "random", torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.allclose(first[0], first[1], atol=1e-2)


def test_noise_maps_can_be_optimised() -> None:
    model = tiny()
    maps = [torch.randn(2, 1, *m.shape, requires_grad=True) for m in model.noise_maps()]
    model.synthesize(codes(model, 2), maps).square().sum().backward()
    assert all(m.grad is not None and m.grad.abs().max() > 0 for m in maps)


@pytest.mark.parametrize("noise", ["const", "random", "maps"])
def test_images_drawn_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch, noise: Any) -> None:
    model = tiny()
    monkeypatch.setattr(model, "_chunk_size", 3)
    if noise == "maps":
        noise = [torch.randn(7, 1, *m.shape) for m in model.noise_maps()]
        noise[0] = noise[0][:1]
    whole = model.synthesize(codes(model, 7), noise, torch.Generator().manual_seed(0)).detach()
    with torch.no_grad():
        pieces = model.synthesize(codes(model, 7), noise, torch.Generator().manual_seed(0))
        assert model.synthesize(codes(model, 0)).shape == (0, 3, 16, 16)
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", ["constant", [torch.zeros(4, 4)], [torch.zeros(5, 5)] * 5])
def test_wrong_noise_is_refused(noise: Any) -> None:
    model = tiny()
    with pytest.raises(HublatentError, match="synthesize got noise"):
        model.synthesize(codes(model, 1), noise)


# --- styles ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_styles_draw_the_pictures_of_their_codes() -> None:
    model = tiny()
    space = StyleSpace(model)
    latents = codes(model, 3)
    styles = space.to_styles(latents)
    assert torch.equal(space.decode(styles), model.decode(latents))
    assert styles.shape == (3, *space.latent_shape)
    assert space.fingerprint() == model.fingerprint() and space.architecture == "stylegan2"
    with pytest.raises(HublatentError, match="styles of shape"):
        model.decode_styles(styles[:, 1:])


@torch.no_grad()
def test_the_statistics_of_styles_are_those_of_samples() -> None:
    model = tiny()
    model.measure_latents(20_000)
    space = StyleSpace(model)
    styles = space.sample_latents(20_000, generator=torch.Generator().manual_seed(3))
    scale = styles.std(dim=0)
    assert ((styles.mean(dim=0) - space.latent_mean).abs() < 0.05 * scale + 1e-4).all()
    difference = torch.cov(styles.T) - space.latent_covariance
    assert (difference.abs() / torch.outer(scale, scale)).max() < 0.1


@torch.no_grad()
def test_one_channel_is_edited_at_a_time() -> None:
    model = tiny()
    space = StyleSpace(model)
    styles = space.sample_latents(2, generator=torch.Generator().manual_seed(3))
    vector = torch.zeros(space.latent_shape)
    vector[5] = 1
    direction = Direction("Smiling", "stylespace", vector).with_sigma(space)
    moved = hublatent.edit(styles, direction, 2.0)
    assert direction.sigma == pytest.approx(float(space.latent_covariance[5, 5].sqrt()))
    assert ((moved - styles).abs() > 1e-6).sum(dim=1).tolist() == [1, 1]
    assert not torch.equal(space.decode(moved), space.decode(styles))


def test_the_weights_that_make_the_styles_of_a_layer() -> None:
    model = tiny()
    affine = model.blocks["8"].conv0.affine.weight
    assert torch.equal(model.first_affine([1]), affine)
    assert torch.equal(model.first_affine([5]), model.blocks["16"].to_rgb.affine.weight)
    assert model.first_affine().shape[1] == model.latent_dim


# --- the contract ---------------------------------------------------------------------------------


def test_pictures_are_clamped_only_by_decode() -> None:
    model = tiny()
    latents = 5 * codes(model, 4)
    assert model.synthesize(latents).abs().max() > 1
    assert torch.equal(model.decode(latents), model.synthesize(latents).clamp(-1, 1))


def test_encoding_names_the_projection() -> None:
    with pytest.raises(HublatentError, match=r"hublatent\.project"):
        tiny().encode(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("shape", [(2, 8), (2, 5, 8), (2, 6, 7), (6, 8)])
def test_latents_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(HublatentError, match=r"expected \(B, 6, 8\)"):
        tiny().decode(torch.zeros(shape))


def test_z_of_another_shape_is_refused() -> None:
    with pytest.raises(HublatentError, match=r"expected \(B, 6\)"):
        tiny().mapping(torch.zeros(2, 8))


def test_a_saved_model_draws_the_same_pictures(tmp_path: Path) -> None:
    model = tiny(conv_clamp=2.0)
    model.save_pretrained(tmp_path)
    again = StyleGAN2.from_pretrained(tmp_path)
    assert again.config == model.config and again.fingerprint() == model.fingerprint()
    assert torch.equal(again.decode(codes(model, 2)), model.decode(codes(model, 2)))


# --- the discriminator ----------------------------------------------------------------------------


def test_logits_of_groups_do_not_depend_on_other_groups() -> None:
    torch.manual_seed(0)
    model = Discriminator(16, 3, 64, 10, 3)
    images = torch.randn(8, 3, 16, 16)
    # Image i is of the group i mod 2: the even ones form one group of four.
    changed = images.clone()
    changed[1::2] = torch.randn(4, 3, 16, 16)
    before, after = model(images), model(changed)
    torch.testing.assert_close(before[::2], after[::2])
    assert not torch.allclose(before[1::2], after[1::2])


def test_identical_images_have_no_deviation() -> None:
    torch.manual_seed(0)
    model = Discriminator(16, 3, 64, 10, 3)
    one = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(model(one.expand(4, -1, -1, -1)), model(one).expand(4, -1))
