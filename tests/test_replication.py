"""The paper's table replicated: its choices of images, its ways of scoring, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hublatent.cli import main
from hublatent.data import FaceDataset
from hublatent.evaluation import replication
from hublatent.evaluation.replication import (
    ATTRIBUTES,
    Draw,
    PaperRow,
    Posteriors,
    Training,
    choose,
    means_not_samples,
    resampled,
    stated_weight,
    walk,
    winner,
)
from hublatent.models import BetaVAE

N = 240
ROW = PaperRow("VAE", "paper-vae", "Smiling", 0.75, sampled=True, fitted=True, solver="LinearSVC")


def faces(n: int = N) -> FaceDataset:
    """Three images of each person; every other image smiles."""
    labels = (np.arange(n) % 2 == 0)[:, None]
    return FaceDataset(
        np.zeros((n, 8, 8, 3), np.uint8), labels, ("Smiling",), np.arange(n) // 3,
        np.zeros(n, np.uint8), tuple(map(str, range(n))), (), "digest", "none",
    )  # fmt: skip


class Known(Posteriors):
    """One dimension that tells the label, noise in the others, and a wide posterior."""

    def __init__(self, dataset: FaceDataset, n_dimensions: int = 400) -> None:
        draws = np.random.default_rng(0)
        self.dataset, self.indices = dataset, np.arange(len(dataset))
        self.means = 0.01 * draws.standard_normal((len(dataset), n_dimensions), np.float32)
        self.means[:, 0] = 2.0 * dataset.label("Smiling") - 1
        self.samples = self.means + draws.standard_normal(self.means.shape, np.float32)


def test_the_first_images_of_each_kind_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.arange(200) % 5 == 0
    assert choose(label).sum() == np.arange(50).sum() + np.arange(0, 200, 5)[10:].sum()
    monkeypatch.setattr(replication, "N_OF_EACH", 30)
    assert label[choose(label)].sum() == 30 and len(choose(label)) == 60
    assert choose(label).max() == 29 * 5
    assert not np.array_equal(choose(label, 1), choose(label, 2))
    assert np.array_equal(choose(label, 1), choose(label, 1))


def test_samples_in_many_dimensions_are_learnt_by_heart_and_means_are_read() -> None:
    steps = walk(ROW, Known(faces()))
    as_coded, held_out, means, people, _, draws = (step.accuracy.estimate.value for step in steps)
    assert as_coded == 1.0 and held_out < 0.9
    assert [means, people, draws] == pytest.approx([1.0, 1.0, 1.0])
    assert steps[1].change is not None and steps[1].change.estimate.high < 0
    assert steps[2].change is not None
    assert steps[2].change.estimate.value == pytest.approx(1 - held_out)
    (contrast,) = means_not_samples({ROW: steps})
    assert contrast.verdict == "better, this checkpoint only"


def test_a_row_that_holds_images_out_and_reads_means_starts_further_down() -> None:
    steps = walk(PaperRow("β-VAE", "paper-betavae", "Smiling", 0.8), Known(faces()))
    assert [step.change is None for step in steps] == [True, True, True, False, False, False]
    assert len({step.accuracy.estimate.value for step in steps[:3]}) == 1


def test_accuracies_are_weighted_by_people_and_averaged_over_draws() -> None:
    people = np.arange(4)
    draws = [
        Draw(np.array([0, 0, 1]), np.array([True, False, True])),
        Draw(np.array([2, 3]), np.array([False, True])),
    ]
    values = resampled(draws, people)
    assert values[0] == pytest.approx((2 / 3 + 1 / 2) / 2)
    one = resampled(draws[:1], people)[1:]
    counts = np.concatenate([*replication.bootstrap_weights(people)])
    there = counts[:, :2].any(axis=1)  # somebody of this draw
    once, twice = counts[there, 1], counts[there, 0]
    np.testing.assert_allclose(one[there], (twice + once) / (2 * twice + once), rtol=1e-6)


def training(name: str, accuracy: float, kl: float) -> Training:
    values = accuracy + 0.001 * np.random.default_rng(0).standard_normal(1001)
    values[0] = accuracy
    return Training(Path(name), {"kl": kl}, 148, dict.fromkeys(ATTRIBUTES, values))


def test_trainings_are_compared_by_recipe_and_at_equal_rate() -> None:
    coded = [training(f"paper-btcvae-as-coded-{i}", 0.87 + i / 1000, 55) for i in range(3)]
    beta = [training(f"paper-betavae-{i}", 0.81 + i / 1000, 17 + i) for i in range(3)]
    found = list(winner([*coded, *beta]))
    assert [c.verdict for c in found] == ["better"] * 3
    assert found[0].text == "paper-btcvae-as-coded minus paper-betavae, Eyeglasses"
    stated = training("paper-btcvae-0", 0.812, 19.4)
    (first, *_) = stated_weight([*beta, stated])
    assert first.text == "paper-btcvae-0 minus paper-betavae-2, Eyeglasses"
    assert first.verdict == "equivalent, this checkpoint only"
    assert list(winner(beta)) == []


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    draws = np.random.default_rng(0)
    rows = ["name,identity,partition,Eyeglasses,Male,Smiling"]
    for i in range(160):
        pixels = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels[:4] = 255 * (i % 2)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{i // 2},{i % 3},{i % 2},{i // 2 % 2},{i // 4 % 2}")
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_the_command_writes_the_page(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication, "N_DRAWS", 2)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_size": 8, "latent_dim": 4, "width": 4, "n_stages": 2}
    for name in ("paper-vae-0", "paper-vae-1", "paper-betavae-0", "paper-betavae-1", "other-0"):
        BetaVAE(**sizes, blocks="plain").save_pretrained(tmp_path / "runs" / name / "model")
    words = [str(tmp_path / "runs"), "--data", str(data), "--out", str(tmp_path / "out")]
    main(["replicate", *words, "--cache", str(tmp_path / "cache")])
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| the paper | 0.7611 | 0.7500 | 0.7700 | 0.8387 |" in page.replace("β-", "")
    assert (
        "| Total correlation at its stated weight is read better, at equal rate | not measured"
        in page
    )
    assert "means minus samples, Smiling: " in page
    assert page.count("paper-betavae-") >= 2 and "other-0" not in page
    assert "python -m hublatent replicate runs --data faces --out out --seed 0" in page


def test_trainings_that_are_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["replicate", str(tmp_path), "--data", "faces", "--out", str(tmp_path / "out")])
    assert exit_.value.code == 2
    assert "paper-btcvae-as-coded" in capsys.readouterr().err
