"""StyleGAN3: golden values, a plain formulation, equivariance, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hublatent.errors import CheckpointError
from hublatent.models import StyleGAN3
from tests import generators_reference as reference
from tests import golden_values

TINY = {
    "image_size": 16, "latent_dim": 8, "z_dim": 6, "synthesis_layers": 4,
    "channel_base": 128, "channel_max": 12, "margin_size": 3,
}  # fmt: skip
R = {"kernel_size": 1, "radial_filters": True}
RULES = (
    (r"mapping\.fc(\d+)\.(weight|bias)", r"mapping_network.\1.\2"),
    (r"mapping\.w_avg", "latent_mean"),
    (r"(synthesis\..+)", r"\1"),
)


def tiny(**values: Any) -> StyleGAN3:
    torch.manual_seed(1)
    model = StyleGAN3(**{**TINY, **values})
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "filter" not in name:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval()


def codes(model: StyleGAN3, n: int) -> Tensor:
    return torch.randn(n, *model.latent_shape, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", params=["t", "r"])
def golden(
    shared: Path, request: pytest.FixtureRequest
) -> tuple[StyleGAN3, dict[str, Tensor], dict[str, Tensor]]:
    config, tensors = golden_values.read(shared, f"stylegan3_{request.param}_tiny")
    model = StyleGAN3(
        config["img_resolution"], config["img_channels"], config["w_dim"], config["z_dim"],
        config["mapping_kwargs"]["num_layers"],
        synthesis_layers=config["num_layers"], critical_layers=config["num_critical"],
        channel_base=config["channel_base"], channel_max=config["channel_max"],
        first_cutoff=config["first_cutoff"], first_stopband=config["first_stopband"],
        last_stopband_rel=config["last_stopband_rel"], margin_size=config["margin_size"],
        kernel_size=config.get("conv_kernel", 3),
        radial_filters=config.get("use_radial_filters", False),
    )  # fmt: skip
    designed = {k: v.clone() for k, v in model.state_dict().items() if "filter" in k}
    golden_values.fill(model, tensors, RULES)
    return model, tensors, designed


Golden = tuple[StyleGAN3, dict[str, Tensor], dict[str, Tensor]]


@torch.no_grad()
def test_golden_mapping(golden: Golden) -> None:
    model, io, _ = golden
    golden_values.assert_golden(model.mapping(io["io.z"]), io["io.ws"])
    golden_values.assert_golden(model.mapping(io["io.z"], truncation=0.5), io["io.ws_psi05"])


@pytest.mark.parametrize("gradients", [False, True])
def test_golden_pictures(golden: Golden, gradients: bool) -> None:
    model, io, _ = golden
    with torch.set_grad_enabled(gradients):
        golden_values.assert_golden(model.synthesize(io["io.ws"]), io["io.img_ws"])
        golden_values.assert_golden(model.synthesize(io["io.wplus"]), io["io.img_wplus"])


@torch.no_grad()
def test_golden_transform(golden: Golden) -> None:
    model, io, _ = golden
    own = model.synthesis["input"].transform.clone()
    model.synthesis["input"].transform.copy_(io["io.transform"])
    images = model.synthesize(io["io.ws"])
    model.synthesis["input"].transform.copy_(own)
    golden_values.assert_golden(images, io["io.img_ws_transformed"])


def test_filters_are_designed_as_nvidias(golden: Golden) -> None:
    _, io, designed = golden
    assert len(designed) == 12
    for name, taps in designed.items():
        torch.testing.assert_close(taps, io["G." + name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("values", [{}, R, {"image_size": 64, "channels": 1}])
def test_pictures_equal_those_of_the_usual_formulation(values: dict[str, Any]) -> None:
    model = tiny(**values)
    latents = codes(model, 3)
    with torch.no_grad():
        expected = reference.stylegan3(model, latents)
        torch.testing.assert_close(model.synthesize(latents), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.synthesize(latents), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("values", [{}, R])
def test_gradients_equal_those_of_the_usual_formulation(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    model = tiny(**values)
    trained = {k: v for k, v in model.named_parameters() if "mapping" not in k and "input" not in k}
    latents, sought = codes(model, 2), list(trained.values())
    draw = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    ours = torch.autograd.grad((model.synthesize(latents) * draw).sum(), sought)
    tracked = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    monkeypatch.setattr(model, "state_dict", lambda: tracked)  # with the graph
    theirs = torch.autograd.grad((reference.stylegan3(model, latents) * draw).sum(), sought)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-4)


def test_bf16_draws_nearly_the_same_pictures() -> None:
    model = tiny(image_size=32)
    with torch.no_grad():
        exact = model.synthesize(codes(model, 4))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.synthesize(codes(model, 4))
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).std() < 0.05 * exact.std()


@pytest.mark.parametrize("values", [{}, R])
def test_activations_are_clamped(values: dict[str, Any]) -> None:
    model = tiny(**values)
    latents = codes(model, 2)
    with torch.no_grad():
        model.synthesis[next(k for k in model.synthesis if k.startswith("L1_"))].bias.fill_(1e4)
        expected = reference.stylegan3(model, latents)
        torch.testing.assert_close(model.synthesize(latents), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("values", [{}, R])
@torch.no_grad()
def test_a_shifted_input_shifts_the_picture(values: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = StyleGAN3(**{**TINY, "image_size": 64, "margin_size": 10, **values})
    latents = model.sample_latents(2, generator=torch.Generator().manual_seed(0))
    images = model.synthesize(latents)
    pixels = 5
    model.synthesis["input"].transform[0, 2] = pixels / 64
    shifted = model.synthesize(latents)
    inner = slice(12, 52)  # away from the border
    moved = images.roll(-pixels, dims=3)
    error = (shifted - moved)[..., inner, inner].square().mean()
    peak = images.amax() - images.amin()
    assert 10 * torch.log10(peak**2 / error) > 40


def test_a_turned_input_turns_the_picture_of_r_alone() -> None:
    quality = {}
    for name, values in (("t", {}), ("r", R)):
        torch.manual_seed(0)
        model = StyleGAN3(**{**TINY, "image_size": 64, "margin_size": 10, **values})
        with torch.no_grad():
            latents = model.sample_latents(2, generator=torch.Generator().manual_seed(0))
            images = model.synthesize(latents)
            model.synthesis["input"].transform.copy_(
                torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
            )
            turned = model.synthesize(latents)
        candidates = [images.rot90(k, dims=(2, 3)) for k in (1, 3)]
        inner = slice(16, 48)
        errors = [(turned - c)[..., inner, inner].square().mean() for c in candidates]
        peak = images.amax() - images.amin()
        quality[name] = float(10 * torch.log10(peak**2 / min(errors)))
    assert quality["r"] > 35 > quality["t"]


def names(model: StyleGAN3) -> list[str]:
    return [name for name in model.synthesis if name != "input"]


@pytest.mark.parametrize(
    ("image_size", "expected", "t_millions", "r_millions"),
    [
        (
            256,
            "L0_36_512 L1_36_512 L2_36_512 L3_52_512 L4_52_512 L5_84_512 L6_84_512 L7_148_512 "
            "L8_148_512 L9_148_362 L10_276_256 L11_276_181 L12_276_128 L13_256_128 L14_256_3",
            28.47,
            18.82,
        ),
        (
            1024,
            "L0_36_512 L1_36_512 L2_52_512 L3_52_512 L4_84_512 L5_148_512 L6_148_512 L7_276_323 "
            "L8_276_203 L9_532_128 L10_1044_81 L11_1044_51 L12_1044_32 L13_1024_32 L14_1024_3",
            22.31,
            15.09,
        ),
    ],
)
def test_nvidias_networks(
    image_size: int, expected: str, t_millions: float, r_millions: float
) -> None:
    with torch.device("meta"):
        t = StyleGAN3(image_size)
        r = StyleGAN3(image_size, channel_base=65536, channel_max=1024, **R)
    assert names(t) == expected.split() and t.latent_shape == (16, 512)
    for model, millions in ((t, t_millions), (r, r_millions)):
        n_parameters = sum(p.numel() for p in model.parameters())
        assert n_parameters / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"image_size": 48}, "image_size = 48; expected a power of two"),
        ({"channels": 0}, "channels = 0"),
        ({"latent_dim": 10**9}, "latent_dim"),
        ({"synthesis_layers": 10**6}, "synthesis_layers"),
        ({"critical_layers": 4}, "critical_layers"),
        ({"first_cutoff": 100.0}, "first_cutoff"),
        ({"first_stopband": 0.0}, "first_stopband"),
        ({"margin_size": -1}, "margin_size"),
        ({"kernel_size": 5}, "kernel_size"),
        ({"image_size": 1024, "channel_base": 2**20, "channel_max": 4096}, "feature maps of"),
        ({"radial_filters": 3}, "radial_filters"),
    ],
)
def test_absurd_configs_are_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        StyleGAN3(**{**TINY, **values})
