"""The README's picture and table, from folders of tiny models."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from PIL import Image

import hublatent
from hublatent.errors import DataError
from hublatent.evaluation.report import write_report
from tests.made_up_evidence import simulate
from tests.tiny_models import random_directions, save_model, tiny_stylegan2, tiny_vae
from training.cards import update_readme
from training.cards.update_readme import COMPARISON, MODELS, Arguments, markers

START, END = markers(MODELS)
COMPARED = "\n".join(markers(COMPARISON))


def write_card(folder: Path, mse: float, accuracy: float, projected: float | None) -> None:
    """A card whose head holds two or three numbers."""
    found = [
        ("mse", "MSE, pixels in [0, 1]", mse),
        ("accuracy", "Eyeglasses.svm accuracy", accuracy),
    ]
    if projected is not None:
        found.append(("accuracy", "Eyeglasses.svm-projected accuracy", projected))
    results = [
        EvalResult("t", "celeba", "CelebA", kind, value, metric_name=name)
        for kind, name, value in found
    ]
    data = ModelCardData(model_name=folder.name, eval_results=results)
    ModelCard(f"---\n{data.to_yaml()}\n---\n# {folder.name}\n").save(folder / "README.md")


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "model_cards"
    for name, model in (("gan", tiny_stylegan2()), ("vae", tiny_vae())):
        if not model.has_encoder:
            model.measure_latents(200)
        save_model(model, folder / name, random_directions(model))
        projected = None if model.has_encoder else 0.7286
        write_card(folder / name, mse=0.00541, accuracy=0.8286, projected=projected)
    (folder / "comparison").mkdir()
    Image.new("RGB", (32, 32), "peru").save(folder / "example.png")
    return folder


def test_the_readme_gets_what_the_cards_say(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hublatent, "project", partial(hublatent.project, n_steps=3))
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{START}\nold\n{END}\n\n{COMPARED}\n\nend\n", encoding="utf-8")
    for _ in range(2):  # the second time replaces what the first one wrote
        update_readme.run(Arguments(cards, readme, face=cards / "example.png"))
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\n") and text.endswith(f"{markers(COMPARISON)[1]}\n\nend\n")
    assert "have not been compared yet" in text
    assert "\nold\n" not in text and "It is projected into" in text
    assert f"[gan]({cards}/gan) | 0.0054 | 0.729 | – | – |" in text  # not of its own samples
    assert f"[vae]({cards}/vae) | 0.0054 | 0.829 | – | – |" in text
    with Image.open(cards / update_readme.PICTURE_NAME) as picture:
        assert picture.width > 6 * update_readme.SIDE and picture.height > 2 * update_readme.SIDE


def test_the_comparison_is_quoted_from_its_summary(tmp_path: Path) -> None:
    found = write_report(simulate({"btcvae": {}, "vae": {}}), tmp_path, "compare", "judge")
    block = update_readme.comparison_block(tmp_path, "Eyeglasses")
    assert f"> {' '.join(found.answer)}\n" in block
    assert all(claim[0] in block for claim in found.claims)
    assert "| btcvae |" not in block
    (tmp_path.parent / "vae").mkdir()
    block = update_readme.comparison_block(tmp_path, "Eyeglasses")
    assert "| vae |" in block and "| btcvae |" not in block
    assert "In the report alone, since they are not bundled: btcvae." in block


def test_a_readme_without_markers_stays_as_it_is(cards: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n", encoding="utf-8")
    with pytest.raises(DataError, match="needs the lines"):
        update_readme.run(Arguments(cards, readme))
    assert readme.read_text(encoding="utf-8") == "# Title\n"
    assert not (cards / update_readme.PICTURE_NAME).exists()


def test_no_models(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no model"):
        update_readme.run(Arguments(tmp_path / "none", tmp_path / "README.md"))


def test_disentanglement_is_told_by_recipe_and_between_trainings() -> None:
    mig = {"beta-0": 0.1, "beta-1": 0.2, "beta-2": 0.3, "tc-0": 0.5, "tc-1": 0.6, "tc-2": 0.7}
    scores = pd.DataFrame({"mig": mig, "factorvae-score": mig})
    head, _, beta, tc = update_readme.disentanglement_block(scores).splitlines()
    assert head.startswith("| recipe | trainings | MIG |") and "MIG, less beta" in head
    assert beta.startswith("| beta | 3 | 0.2 |")
    # Welch's t of two groups of three with variance 0.01: 4 degrees of freedom, 2.776 * 0.0816.
    assert tc.startswith("| tc | 3 | 0.6 |") and "+0.400 (+0.173 to +0.627)" in tc
