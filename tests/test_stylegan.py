"""StyleGAN: golden values, a plain formulation of the same network, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import hublatent
from hublatent.direction import Direction
from hublatent.errors import CheckpointError
from hublatent.models import StyleGAN
from hublatent.models.layers import channels_by_height, conv_after_doubling
from tests import generators_reference as reference
from tests import golden_values

TINY = {
    "image_size": 16, "latent_dim": 8, "z_dim": 6, "mapping_layers": 2,
    "channel_base": 64, "channel_max": 10,
}  # fmt: skip
RULES = (
    (r"mapping\.dense(\d+)\.(weight|bias)", r"mapping_network.\1.\2"),
    (r"truncation\.w_avg", "latent_mean"),
    (r"synthesis\.layer0\.const", "const"),
    (r"synthesis\.layer(\d+)\.(weight|bias)", r"layers.\1.\2"),
    (r"synthesis\.layer(\d+)\.apply_noise\.weight", r"layers.\1.noise_strength"),
    (r"synthesis\.layer(\d+)\.apply_noise\.noise", r"layers.\1.noise_const"),
    (r"synthesis\.layer(\d+)\.style\.(weight|bias)", r"layers.\1.affine.\2"),
    (r"synthesis\.output3\.(weight|bias)", r"to_rgb.\1"),
)


def tiny(seed: int = 1, **values: Any) -> StyleGAN:
    """A small generator whose every weight matters."""
    torch.manual_seed(seed)
    model = StyleGAN(**{**TINY, **values})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.latent_mean.normal_()
    return model.eval()


def codes(model: StyleGAN, n: int, seed: int = 2) -> Tensor:
    return torch.randn(n, *model.latent_shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[StyleGAN, dict[str, Tensor]]:
    config, tensors = golden_values.read(shared, "stylegan1_tiny")
    model = StyleGAN(
        config["resolution"], latent_dim=config["w_space_dim"], z_dim=config["z_space_dim"],
        mapping_layers=config["mapping_layers"], channel_base=2 * config["fmaps_base"],
        channel_max=config["fmaps_max"],
    )  # fmt: skip
    golden_values.fill(model, tensors, RULES)
    return model, tensors


@torch.no_grad()
def test_golden_mapping(golden: tuple[StyleGAN, dict[str, Tensor]]) -> None:
    model, io = golden
    golden_values.assert_golden(model.mapping(io["io.z"])[:, 0], io["io.w"])
    truncated = model.mapping(io["io.z"], truncation=0.5, cutoff=4)
    golden_values.assert_golden(truncated, io["io.w_psi05_cut4"])


@pytest.mark.parametrize("gradients", [False, True])
def test_golden_pictures(golden: tuple[StyleGAN, dict[str, Tensor]], gradients: bool) -> None:
    model, io = golden
    with torch.set_grad_enabled(gradients):  # without them the layers work in place
        w = io["io.w"][:, None].expand(-1, *model.latent_shape)
        golden_values.assert_golden(model.synthesize(w), io["io.img_w"])
        golden_values.assert_golden(
            model.synthesize(io["io.w_psi05_cut4"]), io["io.img_psi05_cut4"]
        )
        golden_values.assert_golden(model.synthesize(io["io.wplus"]), io["io.img_wplus"])


@pytest.mark.parametrize("values", [{}, {"image_size": 128, "channels": 1, "channel_base": 512}])
def test_pictures_equal_those_of_the_usual_formulation(values: dict[str, Any]) -> None:
    model = tiny(**values)
    latents = codes(model, 3)
    expected = reference.stylegan(model, latents)
    torch.testing.assert_close(model.synthesize(latents), expected, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(model.synthesize(latents), expected, rtol=1e-3, atol=1e-4)
        z = torch.randn(4, 6)
        torch.testing.assert_close(model.mapping(z)[:, 0], reference.stylegan_mapping(model, z))


def test_gradients_equal_those_of_the_usual_formulation(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    latents = codes(model, 2).requires_grad_()
    trained = {k: v for k, v in model.named_parameters() if "mapping" not in k}
    draw = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    ours = torch.autograd.grad(
        (model.synthesize(latents) * draw).sum(), [latents, *trained.values()]
    )
    tracked = {**dict(model.named_buffers()), **trained}
    monkeypatch.setattr(model, "state_dict", lambda: tracked)  # with the graph
    plain = reference.stylegan(model, latents)
    theirs = torch.autograd.grad((plain * draw).sum(), [latents, *trained.values()])
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-2, atol=1e-3)


def test_doubling_before_a_convolution_is_a_transposed_convolution_of_the_mirrored_kernel() -> None:
    x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    doubled = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, padding=1)
    torch.testing.assert_close(conv_after_doubling(x, weight), doubled, rtol=1e-5, atol=1e-5)
    # NVIDIA's fused up-sampling: the kernel, padded, summed over its four shifts by one pixel.
    padded = F.pad(weight, (1, 1, 1, 1))
    summed = (
        padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]
    )
    fused = F.conv_transpose2d(x, summed.transpose(0, 1), stride=2, padding=1)
    mirrored = conv_after_doubling(x, weight.flip(2, 3))
    torch.testing.assert_close(mirrored, fused, rtol=1e-5, atol=1e-5)


def test_the_style_normalises_each_map() -> None:
    model = tiny()
    seen: list[Tensor] = []
    model.layers[3].register_forward_hook(lambda module, inputs, output: seen.append(output))
    latents = codes(model, 2)
    model.synthesize(latents)
    scale, shift = model.layers[3].affine(latents[:, 3]).chunk(2, dim=1)
    torch.testing.assert_close(seen[0].mean(dim=(2, 3)), shift, rtol=1e-3, atol=1e-4)
    deviation = seen[0].std(dim=(2, 3), correction=0)
    torch.testing.assert_close(deviation, (1 + scale).abs(), rtol=1e-2, atol=1e-3)


def test_a_layers_code_leaves_the_layers_before_it_alone() -> None:
    model = tiny()
    base, changed = codes(model, 2), codes(model, 2)
    changed[:, 3:] = 1.0
    seen: list[Tensor] = []
    model.layers[2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = [model.synthesize(latents) for latents in (base, changed)]
    assert torch.equal(seen[0], seen[1]) and not torch.equal(images[0], images[1])


def test_an_edit_moves_the_layers_of_its_direction() -> None:
    model = tiny()
    model.measure_latents(500)
    latents = model.sample_latents(2, generator=torch.Generator().manual_seed(0))
    vector = torch.zeros(model.latent_shape)
    vector[:3] = torch.eye(8)[0]
    direction = Direction("Smiling", "svm", vector).with_sigma(model)
    moved = hublatent.edit(latents, direction, 2.0)
    assert torch.equal(moved[:, 3:], latents[:, 3:])
    assert not torch.equal(model.decode(moved), model.decode(latents))


def test_the_default_is_nvidias_network_at_1024_pixels() -> None:
    with torch.device("meta"):
        model = StyleGAN()
    assert model.latent_shape == (18, 512)
    assert channels_by_height(1024, 3, 16384, 512) == {
        4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16,
    }  # fmt: skip
    n_parameters = sum(p.numel() for p in model.parameters())
    assert round(n_parameters / 1e6, 1) == 26.2


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"image_size": 48}, "image_size = 48; expected a power of two"),
        ({"channels": 0}, "channels = 0"),
        ({"latent_dim": 10**9}, "latent_dim"),
        ({"mapping_layers": 0}, "mapping_layers"),
        ({"channel_base": 2**40}, "channel_base"),
        ({"channel_base": 2**20, "channel_max": 4096}, "weights"),
    ],
)
def test_absurd_configs_are_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        StyleGAN(**{**TINY, **values})
