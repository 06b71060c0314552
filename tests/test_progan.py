"""ProGAN: golden values, a plain formulation of the same network, and edits on the sphere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import hublatent
from hublatent.direction import Direction
from hublatent.errors import CheckpointError
from hublatent.models import ProGAN
from tests import generators_reference as reference
from tests import golden_values

TINY = {"image_size": 16, "latent_dim": 8, "channel_base": 64, "channel_max": 10}
RULES = (
    (r"layer(\d+)\.(weight|bias)", r"layers.\1.\2"),
    (r"output3\.(weight|bias)", r"to_rgb.\1"),
)


def tiny(**values: Any) -> ProGAN:
    torch.manual_seed(1)
    model = ProGAN(**{**TINY, **values})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("gradients", [False, True])
def test_golden_pictures(shared: Path, gradients: bool) -> None:
    config, io = golden_values.read(shared, "pggan_tiny")
    model = ProGAN(
        config["resolution"], latent_dim=config["z_space_dim"],
        channel_base=2 * config["fmaps_base"], channel_max=config["fmaps_max"],
    )  # fmt: skip
    golden_values.fill(model, io, RULES)
    with torch.set_grad_enabled(gradients):
        golden_values.assert_golden(model.synthesize(io["io.z"]), io["io.img"])


@pytest.mark.parametrize("values", [{}, {"image_size": 64, "channels": 4, "channel_base": 256}])
def test_pictures_equal_those_of_the_usual_formulation(values: dict[str, Any]) -> None:
    model = tiny(**values)
    z = torch.randn(5, 8)
    expected = reference.progan(model, z)
    torch.testing.assert_close(model.synthesize(z), expected, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(model.synthesize(z), expected, rtol=1e-3, atol=1e-4)


def test_only_the_direction_of_a_latent_is_seen() -> None:
    model, z = tiny(), torch.randn(3, 8)
    torch.testing.assert_close(model.synthesize(7 * z), model.synthesize(z), rtol=1e-4, atol=1e-5)


def test_latents_are_standard_normal() -> None:
    model = tiny()
    z = model.sample_latents(20_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(8), atol=0.05, rtol=0)
    direction = Direction("Smiling", "svm", 4 * torch.eye(8)[2]).with_sigma(model)
    assert direction.sigma == pytest.approx(0.25)


def test_an_edit_turns_the_latent() -> None:
    model = tiny()
    z = model.sample_latents(2, generator=torch.Generator().manual_seed(0))
    direction = Direction("Smiling", "svm", torch.eye(8)[2]).with_sigma(model)
    far = hublatent.edit(z, direction, 1e6)  # in the limit, every face ends at the same one
    torch.testing.assert_close(model.decode(far)[0], model.decode(far)[1], atol=1e-3, rtol=0)


def test_the_default_is_nvidias_network_at_1024_pixels() -> None:
    with torch.device("meta"):
        model = ProGAN()
    assert model.latent_shape == (512,)
    n_parameters = sum(p.numel() for p in model.parameters())
    assert round(n_parameters / 1e6, 1) == 23.1


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"image_size": 48}, "image_size = 48; expected a power of two"),
        ({"channels": 0}, "channels = 0"),
        ({"latent_dim": 10**9}, "latent_dim"),
        ({"channel_base": 2**20, "channel_max": 4096}, "weights"),
    ],
)
def test_absurd_configs_are_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        ProGAN(**{**TINY, **values})
