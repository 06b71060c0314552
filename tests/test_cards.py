"""A card says what was measured, parses, and refuses what is not finite or of other weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from hublatent.direction import Origin
from hublatent.direction_set import DirectionSet
from hublatent.errors import DataError, DirectionError, HublatentError
from hublatent.hub import DISCRIMINATOR_NAME, PUBLISHED_FILES
from hublatent.model import LatentModel
from hublatent.publish import CardInput, check_card, check_folder, render_card
from hublatent.publish.card_tables import best_of_each, of_headline
from hublatent.publish.cells import check_number
from hublatent.publish.licences import Licence
from hublatent.publish.push import draw_samples
from hublatent.stats import Estimate
from tests.tiny_models import random_directions, save_model, tiny_stylegan2, tiny_vae
from training import train_vae
from training.cards.make_card import Arguments, assemble
from training.recipes import RECIPES
from training.trainers.commands import parse_command

SCORES = ("accuracy", "precision", "recall", "f1", "auroc")


@pytest.fixture(scope="module")
def model() -> LatentModel:
    torch.manual_seed(0)
    return tiny_vae()


def scored(model: LatentModel, first: float = 0.7) -> DirectionSet:
    """Random directions; the i-th has the accuracy first + i / 100."""
    found = random_directions(model)
    directions = []
    for i, direction in enumerate(found):
        value = first + i / 100
        scores = {name: Estimate(value, value - 0.05, value + 0.05) for name in SCORES}
        counted = replace(
            direction,
            scores=scores,
            n_positive=40,
            n_negative=40,
            origin=Origin("encoded", "faces"),
        )
        directions.append(counted)
    return replace(found, directions=tuple(directions))


def results_of(model: LatentModel) -> dict:
    return {
        "recipe": asdict(RECIPES["vae-celeba"]),
        "data": "ab" * 32,
        "n_train": 7187,
        "fingerprint": model.fingerprint(),
        "torch": "2.9.0",
        "precision": "bf16",
        "test": {"n_images": 997, "mse": np.float32(0.0125), "kl": 31.25},
    }


def card_input(model: LatentModel, **changes) -> CardInput:
    given = CardInput(
        "model_cards/vae-tiny", model, scored(model), results_of(model), "celeba",
        shares={"Male": 0.419},
    )  # fmt: skip
    return replace(given, **changes)


def test_a_card_holds_what_was_measured(model):
    text = render_card(card_input(model, left_out=["Bald: 3 examples"], commands=["make it"]))
    assert "| Eyeglasses | `svm` | 0.700 (0.650-0.750) |" in text
    assert "| Male | 41.9% | 40 | 0.740 (0.690-0.790) | 0.750 (0.700-0.800) |" in text
    assert "pixels in [0, 1] | 0.0125 |" in text
    assert "KL divergence from the prior, nats per image | 31.25 |" in text
    assert "training images | 7,187 |" in text
    assert "| beta | 1 |" in text
    assert "arXiv:1312.6114" in text
    assert "non-commercial research purposes only" in text
    assert "Left out: Bald: 3 examples" in text
    assert "make it" in text
    assert model.fingerprint() in text
    for word in ("{{", "{%", "None", "nan", "\n\n\n"):
        assert word not in text


def test_the_head_parses_and_passes_the_check_before_publishing(model, tmp_path):
    text = render_card(card_input(model, samples_caption="Samples."))
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    check_card(tmp_path / "README.md")
    data = ModelCard(text).data
    assert data.license == "other"
    assert data.license_name == "celeba-non-commercial-research"
    assert data.license_link.startswith("https://mmlab.ie.cuhk.edu.hk/")
    assert data.library_name == "hublatent"
    assert "arxiv:1312.6114" in data.tags
    assert data.widget == [{"text": "Samples.", "output": {"url": "samples.png"}}]
    values = {r.metric_name: r.metric_value for r in data.eval_results}
    assert values["MSE, pixels in [0, 1]"] == pytest.approx(0.0125)
    assert values["Eyeglasses.svm accuracy"] == 0.7
    assert values["Male.joint accuracy"] == 0.75
    assert all(type(value) is float for value in values.values())


def test_every_table_is_rectangular(model):
    text = render_card(card_input(model))
    lines = text.splitlines()
    tables = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    found = [table.strip().splitlines() for table in tables if table.strip()]
    assert len(found) == 4
    for table in found:
        assert len({line.count("|") for line in table}) == 1
        assert set(table[1]) <= set("|-")


def test_the_example_runs(model, tmp_path, monkeypatch):
    save_model(model, tmp_path / "model_cards" / "vae-tiny", scored(model))
    text = render_card(card_input(model))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert names["images"].shape == (4, 3, 32, 32)


def test_baselines_stand_beside_on_the_same_data_only(model):
    other = scored(model, first=0.8)
    text = render_card(card_input(model, baselines={"eigenfaces": other}))
    assert "| Eyeglasses | eigenfaces `svm` | 0.800 (0.750-0.850) |" in text
    assert text.index("eigenfaces `svm`") > text.index("| Eyeglasses | `joint`")
    elsewhere = tuple(replace(d, origin=Origin("encoded", "other faces")) for d in other)
    with pytest.raises(HublatentError, match="found on other data"):
        baselines = {"eigenfaces": replace(other, directions=elsewhere)}
        render_card(card_input(model, baselines=baselines))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "a few"])
def test_numbers_that_are_none_are_refused(model, bad):
    with pytest.raises(HublatentError, match="MSE, pixels"):
        results = {**results_of(model), "test": {"n_images": 1, "mse": bad}}
        render_card(card_input(model, results=results))
    with pytest.raises(HublatentError, match="kl"):
        results = {**results_of(model), "test": {"n_images": 1, "kl": math.nan}}
        render_card(card_input(model, results=results))


def test_scores_that_are_not_finite_are_refused(model):
    found = scored(model)
    last = found.directions[-1]
    broken = replace(last, scores={**last.scores, "f1": Estimate(math.nan, 0.1, 0.2)})
    directions = replace(found, directions=(*found.directions[:-1], broken))
    with pytest.raises(HublatentError, match=r"Male.joint f1 = nan"):
        render_card(card_input(model, directions=directions))


def test_numbers_of_numpy_and_torch_become_plain():
    for value in (np.float32(0.5), np.float64(0.5), torch.tensor(0.5), 0.5):
        assert type(check_number("x", value)) is float


def test_other_weights_are_refused(model):
    torch.manual_seed(1)
    other = tiny_vae()
    with pytest.raises(HublatentError, match="were measured on weights"):
        render_card(card_input(model, results=results_of(other)))
    with pytest.raises(DirectionError):
        render_card(card_input(model, directions=scored(other)))


def test_a_model_without_encoder_results_or_directions_has_a_card():
    model = tiny_stylegan2()
    terms = Licence("some-terms", "https://example.com/terms", "Only as the terms say.")
    text = render_card(CardInput("cats", model, licence=terms))
    assert "Only as the terms say." in text
    assert "hublatent.project(model, images)" in text
    assert "nobody here exists" not in text and "must not be used" not in text
    assert "CelebA" not in text
    assert ModelCard(text).data.license_name == "some-terms"


def test_a_direction_of_encoded_images_is_shown_before_one_of_samples(model):
    kinds = [("sampled", "joint"), ("encoded", "svm"), ("encoded", "joint")]
    found = [
        replace(direction, attribute="Male", method=method, origin=Origin(kind, "faces"))
        for direction, (kind, method) in zip(scored(model), kinds, strict=False)
    ]
    for order in (found, found[::-1]):
        (best,) = best_of_each(order)
        assert best.origin.kind == "encoded" and best.method == "joint"


def test_results_of_several_data_sets_may_alternate(model):
    """The head gathers what it holds by data set, whatever the order of the directions."""
    origins = (
        Origin("sampled", "attributes", n=7),
        Origin("encoded", "faces", "01ab", 9),
        Origin("projected", "faces", "01ab", 9),
    )
    mixed = [replace(direction, origin=origins[i % 3]) for i, direction in enumerate(scored(model))]
    given = card_input(model, directions=DirectionSet.of(model, mixed))
    card = ModelCard(render_card(given))
    stated = {r.metric_name: r.metric_value for r in card.data.eval_results}
    for direction in mixed:
        if f"{direction.name} accuracy" in stated:
            assert stated[f"{direction.name} accuracy"] == direction.scores["accuracy"].value
    splits = {str(r.dataset_split).split(", balanced")[0] for r in card.data.eval_results}
    splits.discard("test")  # of the reconstructions
    assert splits == {
        "7 samples of the model, labelled by attributes",
        "train and validation",
        "9 projected images of faces (01ab), train and validation",
    }  # fmt: skip


def test_cells_keep_within_their_table(model):
    results = {**results_of(model), "recipe": {"note": "a | b\nc"}}
    assert "| note | a \\| b c |" in render_card(card_input(model, results=results))


def test_what_a_direction_file_says_is_no_markup(model):
    origin = Origin("encoded", "a|b <script> [l](http://e)", None, 5)
    directions = [replace(direction, origin=origin) for direction in scored(model)]
    given = CardInput("user/x", None, directions=DirectionSet.of(model, directions))
    card = ModelCard(render_card(given)).text
    assert "<script" not in card and "a|b" not in card and " [l](http" not in card
    assert card.count(r"5 images of a\|b &lt;script> \[l](http://e) |") == len(directions)


def test_samples_are_the_same_for_a_seed(model):
    shown = best_of_each(of_headline(scored(model)))
    first, caption = draw_samples(model, shown, seed=3)
    again, _ = draw_samples(model, shown, seed=3)
    other, _ = draw_samples(model, shown, seed=4)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert "edited" in caption
    plain, caption = draw_samples(model)
    assert caption == "Samples."
    assert plain.height < first.height
    assert draw_samples(model, shown, n_rows=6)[0].height > 2 * first.height * 0.75


@pytest.fixture
def run(model, tmp_path) -> Path:
    """A run's folder, as the training and find_directions.py leave it."""
    folder = tmp_path / "runs" / "vae-tiny"
    directions = scored(model)
    save_model(model, folder / "model", directions)
    found = {
        "fingerprint": model.fingerprint(),
        "training_shares": {"Male": 0.25},
        "left_out": {},
        "seed": 0,
        "commands": ["python training/find_directions.py --data DATA --methods svm joint"],
    }
    (folder / "model" / "directions.json").write_text(json.dumps(found))
    command = "python training/train_vae.py --recipe vae-celeba --data DATA --out runs/vae-tiny"
    results = {**results_of(model), "command": command, "test": {"n_images": 5, "mse": 0.25}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_an_assembled_folder_is_fit_to_be_published(run, tmp_path):
    out = assemble(Arguments(run=run, out=tmp_path / "cards" / "vae-tiny"))
    assert {path.name for path in out.iterdir()} == {*PUBLISHED_FILES} - {DISCRIMINATOR_NAME}
    check_folder(out)
    with Image.open(out / "samples.png") as picture:
        assert picture.mode == "RGB"
    for name in ("config.json", "model.safetensors", "directions.safetensors"):
        assert (out / name).read_bytes() == (run / "model" / name).read_bytes()
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "train_vae.py --recipe vae-celeba --data DATA --out runs/vae-tiny" in text
    assert "find_directions.py --data DATA --methods svm joint" in text
    assert str(tmp_path) not in text


def test_what_an_encoders_training_measured_stands_in_the_card(run, model, tmp_path):
    trained = tmp_path / "runs" / "encoder"
    trained.mkdir()
    test = {"mse": 0.0175, "n_images": 997, "refined_mse": 0.0071, "refining_steps": 60,
            "n_refined": 16}  # fmt: skip
    results = {
        "n_parameters": 2_515_616, "images_seen": 70_016, "test": test,
        "generator": model.fingerprint(), "command": "python training/train_encoder.py",
    }  # fmt: skip
    (trained / "results.json").write_text(json.dumps(results))
    out = assemble(Arguments(run=run, encoder=trained, out=tmp_path / "cards" / "vae-tiny"))
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "2,515,616 more parameters" in text
    assert "| the encoder alone | 0.0175 | 997 |" in text
    assert "60 steps of `hublatent.project` | 0.0071 | 16 |" in text
    assert "train_encoder.py" in text and "--encoder runs/encoder" in text
    (trained / "results.json").write_text(json.dumps({**results, "generator": "0" * 64}))
    with pytest.raises(DataError, match="another model's encoder"):
        assemble(Arguments(run=run, encoder=trained))


def test_a_refused_card_changes_nothing(run, tmp_path):
    out = assemble(Arguments(run=run, out=tmp_path / "cards" / "vae-tiny"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    results = json.loads((run / "results.json").read_text())
    results["test"]["mse"] = math.nan
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(HublatentError, match="finite numbers only"):
        assemble(Arguments(run=run, out=out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_directions_of_earlier_weights_do_not_stay(run, tmp_path):
    out = assemble(Arguments(run=run, out=tmp_path / "cards" / "vae-tiny"))
    (run / "model" / "directions.safetensors").unlink()
    assemble(Arguments(run=run, out=out))
    assert not (out / "directions.safetensors").exists()
    check_folder(out)


def test_what_is_missing_is_named(run):
    (run / "results.json").unlink()
    with pytest.raises(DataError, match=r"results.json does not exist; it is written by"):
        assemble(Arguments(run=run))


def test_the_command_names_what_differs_from_the_recipe():
    where = ["--recipe", "btcvae-celeba", "--data", "/faces", "--out", "/tmp/mine"]
    words = [*where, "--beta", "4", "--no-flip"]
    arguments = parse_command(train_vae.Arguments, RECIPES, words)
    command = arguments.command("training/train_vae.py", RECIPES, precision="fp32")
    assert command == (
        "python training/train_vae.py --data DATA --recipe btcvae-celeba --out runs/mine "
        "--precision fp32 --beta 4.0 --no-flip"
    )
