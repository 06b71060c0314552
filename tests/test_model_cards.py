"""The bundled checkpoints: each the exact folder that goes to the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import hublatent
from hublatent.demo.session import EditRequest
from hublatent.direction_set import DirectionSet
from hublatent.hub import DISCRIMINATOR_NAME, PUBLISHED_FILES
from hublatent.perception.classifier import CELEBA_ATTRIBUTES, AttributeClassifier, split_names
from hublatent.publish import CardInput, check_folder, render_card
from hublatent.publish.licences import CELEBA, face_licence
from tests.conftest import PROJECT
from training.recipes import RECIPES

CARDS = PROJECT / "model_cards"
BUNDLED = (
    "ae-celeba", "betavae-celeba", "btcvae-celeba", "eigenfaces-celeba", "factorvae-celeba",
    "lsavae-celeba", "stylegan2-celeba", "vae-celeba",
)  # fmt: skip
CLASSIFIERS = ("attributes-celeba", "judge-celeba")
MAX_BYTES = 30_000_000


@pytest.fixture(scope="module", params=BUNDLED)
def folder(request: pytest.FixtureRequest) -> Path:
    return CARDS / request.param


def test_it_may_be_published_as_it_is(folder: Path) -> None:
    check_folder(folder)
    present = {path.name for path in folder.iterdir()}
    assert present - {DISCRIMINATOR_NAME} == {*PUBLISHED_FILES} - {DISCRIMINATOR_NAME}
    assert (
        sum((folder / name).stat().st_size for name in present - {DISCRIMINATOR_NAME}) < MAX_BYTES
    )


@pytest.mark.parametrize("card", sorted(CARDS.glob("*/README.md")), ids=lambda p: p.parent.name)
def test_every_card_states_the_licence_of_its_data(card: Path) -> None:
    data = ModelCard.load(card).data
    if card.parent.name.endswith("-celeba") or card.parent.name == "latent-maps":
        assert (data.license_name, data.license_link) == (CELEBA.name, CELEBA.link)
    else:  # from packages of others, whose licence lies beside
        assert data.license in ("mit", "apache-2.0", "cc0-1.0")
        assert (card.parent / "LICENSE").is_file()


@pytest.mark.parametrize("dataset", ["celeba", "user/ffhq", "user/pets"])
def test_a_classifiers_licence_follows_the_data_set(dataset: str) -> None:
    model = AttributeClassifier(16, 3, 4, 1, attributes="Cat")
    card = ModelCard(render_card(CardInput("user/reader", model, dataset=dataset)))
    known = face_licence(dataset)
    assert card.data.license == (known.hub_id if known else "unknown")
    assert known is None or known.sentence in card.text
    assert ("must not be used for" in card.text) == (known is not None)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_states_the_data_sets_licence_and_what_it_is_not_for(name: str) -> None:
    assert isinstance(check_folder(CARDS / name), AttributeClassifier)
    card = ModelCard.load(CARDS / name / "README.md")
    assert card.data.license == "other"
    assert card.data.license_name == "celeba-non-commercial-research"
    assert CELEBA.sentence in card.text and "## What it must not be used for" in card.text


def test_directions_of_all_attributes_edit(folder: Path) -> None:
    model = hublatent.load(folder)
    directions = DirectionSet.from_pretrained(folder, model)
    names = {(a, m) for a in split_names(CELEBA_ATTRIBUTES) for m in ("svm", "pattern", "joint")}
    assert {(d.attribute, d.method) for d in directions} >= names
    generator = torch.Generator().manual_seed(0)
    latents = model.sample_latents(16, generator=generator)
    with torch.inference_mode():
        plain = model.decode(latents)
        assert plain.std() > 0.2  # pictures, not grey
        for attribute in ("Eyeglasses", "Smiling", "Male"):
            # The filter reads more of the attribute after an edit along any of the three.
            reader = directions[attribute, "svm"]
            for method in ("svm", "pattern", "joint"):
                moved = hublatent.edit(latents, directions[attribute, method], 3.0)
                assert (reader.coordinate(moved) > reader.coordinate(latents)).all()
                assert (model.decode(moved) - plain).abs().mean() > 0.01


def test_it_is_what_its_recipe_says(folder: Path) -> None:
    if folder.name not in RECIPES:
        pytest.skip(f"{folder.name} is not trained from a recipe of train_vae.py")
    assert hublatent.load(folder).config == RECIPES[folder.name].build().config


def test_the_small_networks_differ_in_the_objective_only() -> None:
    ours, other = RECIPES["betavae-celeba"], RECIPES["btcvae-celeba"]
    assert ours.beta == other.beta >= 2
    config, theirs = (hublatent.load(CARDS / n).config for n in ("betavae-celeba", "btcvae-celeba"))
    assert {**config, "architecture": ""} == {**theirs, "architecture": ""}


def test_the_demo_starts_with_an_attribute_that_is_there() -> None:
    assert EditRequest().attribute in split_names(CELEBA_ATTRIBUTES)
