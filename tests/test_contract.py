"""What every architecture promises, checked for each entry of ARCHITECTURES."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hublatent
from hublatent.checkpoint import init_parameters
from hublatent.errors import CheckpointError, DataError, HublatentError
from hublatent.model import LatentModel, weights_digest
from hublatent.models import ARCHITECTURES, OTHER_NETWORKS, why_no_latent_model

# A new architecture adds one line here; without it this module fails.
VAE_CONFIG = {"image_size": 16, "latent_dim": 4, "width": 4, "max_width": 8, "n_stages": 2}
TINY_CONFIGS: dict[str, dict[str, Any]] = {
    "vae": VAE_CONFIG,
    "betavae": VAE_CONFIG,
    "btcvae": VAE_CONFIG,
    "factorvae": VAE_CONFIG,
    "autoencoder": VAE_CONFIG,
    "lsavae": {
        "image_size": 16,
        "style_dim": 2,
        "attributes": "Eyeglasses,Smiling",
        "width": 4,
        "max_width": 8,
        "n_stages": 2,
    },
    "eigenfaces": {"image_size": 16, "latent_dim": 4},
    "stylegan2": {
        "image_size": 16,
        "latent_dim": 8,
        "z_dim": 8,
        "mapping_layers": 2,
        "channel_base": 64,
        "channel_max": 8,
        "channel_min": 4,
    },
    "progan": {"image_size": 16, "latent_dim": 8, "channel_base": 64, "channel_max": 8},
    "stylegan": {
        "image_size": 16,
        "latent_dim": 8,
        "z_dim": 8,
        "mapping_layers": 2,
        "channel_base": 64,
        "channel_max": 8,
    },
    "stylegan3": {
        "image_size": 16,
        "latent_dim": 8,
        "z_dim": 8,
        "synthesis_layers": 4,
        "channel_base": 64,
        "channel_max": 8,
    },
}


@pytest.fixture(params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest) -> LatentModel:
    """A tiny model whose every tensor is random."""
    torch.manual_seed(0)
    model = ARCHITECTURES[request.param](**TINY_CONFIGS[request.param])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    width = model.latent_shape[-1]
    mixing = torch.randn(width, width, generator=generator)
    model.set_latent_statistics(torch.randn(500, width, generator=generator) @ mixing + 1.0)
    return model.eval()


def images_for(model: LatentModel, n: int = 3) -> torch.Tensor:
    shape = (n, model.channels, model.image_size, model.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(2)) * 2 - 1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shapes_and_range(model: LatentModel) -> None:
    with torch.no_grad():
        latents = model.sample_latents(3, generator=seeded())
        images = model.decode(10 * latents)
    assert latents.shape == (3, *model.latent_shape) and latents.dtype == torch.float32
    assert images.shape == (3, model.channels, model.image_size, model.image_size)
    assert images.dtype == torch.float32 and images.min() >= -1 and images.max() <= 1
    if model.has_encoder:
        given = images_for(model)
        encoded = model.encode(given)
        assert encoded.shape == (3, *model.latent_shape)
        assert torch.equal(encoded, model.encode(given))
    else:
        with pytest.raises(HublatentError, match=r"project\("):
            model.encode(images_for(model))


def test_wrong_shapes_are_refused(model: LatentModel) -> None:
    width = model.latent_shape[-1]
    for shape in ((2, *model.latent_shape[:-1], width + 1), model.latent_shape, (2, 1, 1, width)):
        with pytest.raises(HublatentError, match="latents of shape"):
            model.decode(torch.zeros(shape))
    if model.has_encoder:
        for shape in ((2, model.channels, 8, 8), (2, 7, 16, 16), (model.channels, 16, 16)):
            with pytest.raises(HublatentError, match="images of shape"):
                model.encode(torch.zeros(shape))


def test_a_batch_is_its_examples(model: LatentModel) -> None:
    with torch.no_grad():
        latents = model.sample_latents(3, generator=seeded())
        together = model.decode(latents)
        apart = torch.cat([model.decode(z[None]) for z in latents])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_the_seed_decides(model: LatentModel) -> None:
    first = model.sample_latents(4, generator=seeded(7))
    assert torch.equal(first, model.sample_latents(4, generator=seeded(7)))
    assert not torch.equal(first, model.sample_latents(4, generator=seeded(8)))
    with torch.no_grad():
        assert torch.equal(model.decode(first), model.decode(first))


def test_samples_have_the_latent_statistics(model: LatentModel) -> None:
    if not model.has_encoder:
        # A mapping network draws its own samples: the statistics are measured on those.
        drawn = model.sample_latents(5000, generator=seeded(3))
        model.set_latent_statistics(drawn if drawn.ndim == 2 else drawn[:, 0])
    n = 20_000
    samples = model.sample_latents(n, generator=seeded(4)).double()
    rows = samples if samples.ndim == 2 else samples[:, 0]
    covariance = model.latent_covariance.double()
    scale = covariance.diagonal().sqrt()
    # Standard errors: of a mean scale / sqrt(n); of a covariance at most sqrt(2 / n) of the scales,
    # somewhat more where tails are heavy. StyleGAN2's own statistics come from 5,000 samples.
    allowed = 5 / (n if model.has_encoder else 5000) ** 0.5
    assert ((rows.mean(0) - model.latent_mean.double()).abs() < allowed * scale).all()
    difference = (torch.cov(rows.T) - covariance).abs() / torch.outer(scale, scale)
    assert difference.max() < 3 * allowed


def test_images_of_a_model_without_an_encoder_are_projected(model: LatentModel) -> None:
    if model.has_encoder:
        pytest.skip(f"{model.architecture} has an encoder")
    classifier = hublatent.AttributeClassifier(model.image_size, width=8, attributes="Smiling")
    images = model.decode(model.sample_latents(2, generator=seeded(5))).detach()
    for precision in ("fp32", "bf16"):
        found = hublatent.project(
            model, images, classifier=classifier, n_steps=20, n_candidates=4, precision=precision
        )
        assert found.latents.shape == (2, *model.latent_shape)
        assert (found.losses.nan_to_num(torch.inf).amin(dim=0) < found.losses[0]).all()


def test_damaged_statistics_are_refused_when_sampled() -> None:
    model = hublatent.VAE(**VAE_CONFIG)
    model.latent_covariance.neg_()
    with pytest.raises(HublatentError, match="no covariance"):
        model.sample_latents(2)


def test_the_plain_network_reads_and_draws_pixels() -> None:
    model = hublatent.VAE(image_size=8, latent_dim=2, width=2, n_stages=1, blocks="plain")
    images = torch.rand(3, 3, 8, 8, generator=seeded()) * 2 - 1
    read: list[torch.Tensor] = []
    model.encoder[1].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    drawn = model.decode_unclamped(model.encode(images))
    torch.testing.assert_close(read[0], (images + 1) / 2)
    with torch.no_grad():
        logits = model.decoder[:-1](model.encode(images))
    torch.testing.assert_close(drawn, 2 * logits.sigmoid() - 1)
    with pytest.raises(HublatentError, match="blocks"):
        hublatent.VAE(blocks="plan")


def test_a_model_that_uses_one_of_many_dimensions_can_be_drawn_from() -> None:
    model = hublatent.VAE(image_size=8, latent_dim=512, width=2, n_stages=1)
    draws = torch.Generator().manual_seed(0)
    latents = 1e-4 * torch.randn(256, 512, generator=draws)  # fewer images than dimensions
    latents += torch.randn(256, 1, generator=draws) * torch.randn(512, generator=draws)
    model.set_latent_statistics(latents)
    drawn = model.sample_latents(2000, generator=draws)
    torch.testing.assert_close(drawn.std(dim=0), latents.std(dim=0), rtol=0.15, atol=0.05)


def test_a_folder_gives_the_model_back_bit_by_bit(model: LatentModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for loaded in (hublatent.load(tmp_path), type(model).from_pretrained(tmp_path)):
        assert type(loaded) is type(model) and not loaded.training
        assert loaded.config == model.config
        assert loaded.fingerprint() == model.fingerprint()
        state, other = model.state_dict(), loaded.state_dict()
        assert state.keys() == other.keys()
        assert all(torch.equal(state[name], other[name]) for name in state)
        latents = model.sample_latents(2, generator=seeded())
        with torch.no_grad():
            assert torch.equal(model.decode(latents), loaded.decode(latents))


def test_the_config_is_the_signature(model: LatentModel) -> None:
    config = dict(model.config)
    assert config.pop("architecture") == model.architecture
    assert config.pop("format_version") == 1
    assert config.keys() == init_parameters(type(model)).keys()
    assert TINY_CONFIGS[model.architecture].items() <= config.items()
    assert type(model)(**config).config == model.config


def test_each_missing_weight_is_noticed(model: LatentModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in weights:
        rest = {k: v for k, v in weights.items() if k != name}
        save_file(rest, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match="lacks") as caught:
            hublatent.load(tmp_path)
        assert name in str(caught.value)


def test_any_weight_changes_the_fingerprint(model: LatentModel) -> None:
    seen = {model.fingerprint()}
    for tensor in model.state_dict().values():
        with torch.no_grad():
            tensor.reshape(-1)[-1:].add_(1)
        seen.add(model.fingerprint())
    assert len(seen) == 1 + len(model.state_dict())


@pytest.mark.parametrize("changed", [{"mapping_lr_multiplier": 0.02}, {"conv_clamp": 1.0}])
def test_a_setting_that_changes_images_changes_the_fingerprint(changed: dict[str, float]) -> None:
    torch.manual_seed(0)
    usual = hublatent.StyleGAN2(**TINY_CONFIGS["stylegan2"])
    other = hublatent.StyleGAN2(**TINY_CONFIGS["stylegan2"], **changed)
    other.load_state_dict(usual.state_dict())
    assert other.fingerprint() != usual.fingerprint()
    assert other.matches(weights_digest(usual))  # what files of the old format version name


def test_what_lies_beside_the_generator_is_not_fingerprinted() -> None:
    model = hublatent.StyleGAN2(**TINY_CONFIGS["stylegan2"])
    before = model.fingerprint()
    model.encoder = torch.nn.Linear(2, 2)
    assert "encoder.weight" in model.state_dict() and model.fingerprint() == before
    same = hublatent.StyleGAN2(**{**TINY_CONFIGS["stylegan2"], "conv_clamp": 0})
    same.load_state_dict(model.state_dict(), strict=False)
    assert same.fingerprint() == before  # 0 and 0.0 are one setting


def test_the_fingerprint_is_computed_once(model: LatentModel, monkeypatch: Any) -> None:
    before = model.fingerprint()
    monkeypatch.setattr("hublatent.model._digest", None)
    assert model.fingerprint() == before and model.matches(before)


def test_the_contracts_class_attributes(model: LatentModel) -> None:
    assert ARCHITECTURES[model.architecture] is type(model)
    assert model.space in ("z", "w+") and (model.space == "w+") == (len(model.latent_shape) == 2)
    assert all(0 <= layer < model.latent_shape[0] for layer in model.default_layers)
    width = model.latent_shape[-1]
    assert model.latent_mean.shape == (width,)
    assert model.latent_covariance.shape == (width, width)


def test_importing_is_light() -> None:
    code = (
        "import sys, hublatent, hublatent.cli\n"
        "heavy = ('gradio', 'sklearn', 'matplotlib', 'lpips', 'training', 'accelerate')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == "[]"


def test_why_a_folder_holds_no_latent_model(model: LatentModel, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert why_no_latent_model(folder) == "no model."
    model.save_pretrained(folder)
    assert not why_no_latent_model(folder)
    config = folder / "config.json"
    text = config.read_text()
    config.write_text(text.replace(f'"{model.architecture}"', '"classifier"'))
    assert "its architecture classifier is no latent model" in why_no_latent_model(folder)
    config.write_text("{")
    assert "is not JSON" in why_no_latent_model(folder)
    config.write_text(text)
    (folder / "model.safetensors").unlink()
    assert why_no_latent_model(folder) == "it has no model.safetensors."


def test_every_network_here_is_a_model_or_known_as_another() -> None:
    configs = (Path(__file__).parents[1] / "model_cards").glob("*/config.json")
    names = {json.loads(path.read_text())["architecture"] for path in configs}
    assert OTHER_NETWORKS.keys() <= names <= OTHER_NETWORKS.keys() | ARCHITECTURES.keys()


def test_every_public_name_is_there() -> None:
    import hublatent

    for name in hublatent.__all__:
        assert getattr(hublatent, name) is not None
    assert all(name in hublatent.__all__ for name in hublatent._HOMES)
    assert all(getattr(hublatent, cls.__name__) is cls for cls in ARCHITECTURES.values())
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        hublatent.Nothing  # noqa: B018


def test_latents_without_a_covariance_are_no_statistics() -> None:
    model = hublatent.VAE(16, latent_dim=8, width=4, n_stages=2)
    before = model.latent_covariance.clone()
    for latents in (torch.full((9, 8), 1e30) * torch.arange(9)[:, None], torch.ones(1, 8)):
        with pytest.raises(DataError, match="covariance"):
            model.set_latent_statistics(latents)
    assert torch.equal(model.latent_covariance, before)
