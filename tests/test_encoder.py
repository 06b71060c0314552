"""StyleGAN2's encoder: it belongs to one generator, and changes nothing of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import hublatent
from hublatent.data import load_dataset
from hublatent.errors import CheckpointError, HublatentError
from hublatent.hub import DISCRIMINATOR_NAME
from hublatent.inversion.perceptual import perceptual_embedding
from hublatent.models import StyleGAN2
from tests.conftest import PROJECT
from tests.training_helpers import write_faces
from training import train_encoder
from training.train_stylegan2 import StyleGAN2Recipe, Trainer
from training.trainers.commands import parse_command
from training.trainers.loop import start_accelerator
from training.trainers.run import Run
from training.trainers.stylegan2.discriminator import save_discriminator

FEATURES = PROJECT / "model_cards" / "image-features"


@pytest.fixture
def generator() -> StyleGAN2:
    torch.manual_seed(0)
    sizes = {"image_size": 16, "latent_dim": 8, "z_dim": 8, "mapping_layers": 2}
    model = StyleGAN2(**sizes, channel_base=64, channel_max=8, channel_min=4)
    model.measure_latents(500)
    return model.eval()


def with_encoder(model: StyleGAN2) -> StyleGAN2:
    model.add_encoder(4, model.fingerprint())
    return model.eval()


def test_an_encoder_leaves_the_fingerprint_alone_and_comes_back_whole(
    generator: StyleGAN2, tmp_path: Path
) -> None:
    fingerprint = generator.fingerprint()
    assert not generator.has_encoder
    model = with_encoder(generator)
    assert model.has_encoder and model.fingerprint() == fingerprint
    model.save_pretrained(tmp_path)
    again = hublatent.load(tmp_path)
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    assert again.has_encoder and again.fingerprint() == fingerprint
    assert torch.equal(again.encode(images), model.encode(images))
    assert again.encode(images).shape == (3, *model.latent_shape)


def test_a_generator_without_one_says_what_to_do(generator: StyleGAN2) -> None:
    with pytest.raises(HublatentError, match="has no encoder"):
        generator.encode(torch.zeros(1, 3, 16, 16))


def test_an_encoder_of_another_generator_is_refused(generator: StyleGAN2, tmp_path: Path) -> None:
    model = with_encoder(generator)
    with torch.no_grad():
        model.const.add_(0.1)
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="encoder of another generator"):
        hublatent.load(tmp_path)


def test_projection_starts_from_the_encoders_latents_and_needs_no_labels(
    generator: StyleGAN2,
) -> None:
    model = with_encoder(generator)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = hublatent.project(model, images, n_steps=3)
    embed = perceptual_embedding("image-features")
    with torch.no_grad():
        drawn = model.synthesize(model.encode(images))
        losses = (embed(drawn) - embed(images)).square().sum(dim=1)
        losses += 5 * (drawn - images).square().mean(dim=(1, 2, 3))  # pixel_weight
    torch.testing.assert_close(found.losses[0], losses)
    assert (found.losses.min(dim=0).values <= found.losses[0]).all()


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder, 12, 6)
    return folder


def options(faces: Path, folder: Path, name: str, images: int) -> train_encoder.Arguments:
    words = [
        "--recipe", "encoder-celeba", "--model", str(folder / name), "--data", str(faces),
        "--out", str(folder / f"run-{name}"), "--cache", str(folder / "cache"), "--width", "4",
        "--image-features", str(FEATURES), "--batch-size", "4", "--feature-size", "32",
        "--images", str(images), "--log-every", "8", "--precision", "fp32",
    ]  # fmt: skip
    return parse_command(train_encoder.Arguments, train_encoder.RECIPES, words)


def test_training_lowers_the_loss_and_a_killed_run_goes_on_exactly(
    generator: StyleGAN2, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "killed"):
        generator.save_pretrained(tmp_path / name)
    train_encoder.train(options(faces, tmp_path, "whole", 32))

    update, n_updates = train_encoder.Trainer.update, 0

    def killed_at_the_fifth(trainer: train_encoder.Trainer) -> dict[str, float]:
        nonlocal n_updates
        n_updates += 1
        if n_updates == 5:
            raise KeyboardInterrupt
        return update(trainer)

    monkeypatch.setattr(train_encoder.Trainer, "update", killed_at_the_fifth)
    arguments = options(faces, tmp_path, "killed", 32)
    object.__setattr__(arguments, "state_seconds", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train_encoder.train(arguments)
    assert not StyleGAN2.from_pretrained(tmp_path / "killed").has_encoder  # nothing half done
    train_encoder.train(arguments)
    whole, resumed = (hublatent.load(tmp_path / name) for name in ("whole", "killed"))
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    results = json.loads((tmp_path / "run-whole" / "results.json").read_text())
    assert results["generator"] == generator.fingerprint()
    assert "train_encoder.py" in results["command"] and "--width 4" in results["command"]
    assert str(tmp_path) not in results["command"]
    state = Run(tmp_path / "run-whole").load_state()
    assert state is not None and state["n_steps"] == 8


def test_training_goes_on_from_a_published_generator_and_its_discriminator(
    generator: StyleGAN2, faces: Path, tmp_path: Path
) -> None:
    recipe = StyleGAN2Recipe(
        image_size=16, latent_dim=8, z_dim=8, mapping_layers=2, channel_base=64, channel_max=8,
        channel_min=4, batch_size=4,
    )  # fmt: skip
    discriminator = recipe.build()[1]
    with_encoder(generator).save_pretrained(tmp_path)
    save_discriminator(discriminator, tmp_path / DISCRIMINATOR_NAME)
    dataset = load_dataset(faces, 16, cache=tmp_path / "cache", progress=False)
    settings: Any = SimpleNamespace(settings=recipe, images=1000, kid_classifier=None)
    trainer = Trainer(settings, dataset, start_accelerator())
    trainer.start_from(tmp_path, 100)
    assert trainer.images_seen == 100
    same = discriminator.state_dict()
    assert all(torch.equal(w, same[n]) for n, w in trainer.discriminator.state_dict().items())
    for name, weight in trainer.average.state_dict().items():
        assert torch.equal(weight, generator.state_dict()[name])
    trainer.step()  # both learn at once
    assert not torch.equal(trainer.generator.const, generator.const)
