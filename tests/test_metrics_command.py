"""hublatent data and hublatent metrics, on a tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hublatent.cli import main
from hublatent.data import sprites
from hublatent.evaluation.metrics import measure
from hublatent.models import BetaVAE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    BetaVAE(latent_dim=3, width=4, max_width=4).eval().save_pretrained(folder)
    return folder


def test_data_writes_what_is_drawn(tmp_path: Path) -> None:
    main(["data", "sprites", "--out", str(tmp_path / "s.npz"), "--count", "20", "--seed", "3"])
    with np.load(tmp_path / "s.npz") as file:
        assert np.array_equal(file["latents_classes"], sprites.draw_factors(20, 3))
        assert np.array_equal(file["imgs"], sprites.render(file["latents_classes"]))


def test_metrics_on_sprites(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.csv"
    other = shutil.copytree(folder, tmp_path / "runs" / "other-1" / "model")
    words = ["metrics", str(folder), str(other), "--data", "sprites", "--n", "300"]
    words += ["--out", str(out)]
    main([*words, "--metrics", "mig", "dci", "--estimator", "logistic"])
    table = pd.read_csv(out, index_col="model")
    assert list(table.index) == ["tiny", "other-1"] and table.nunique().eq(1).all()
    assert list(table)[:2] == ["mig", "dci-disentanglement (logistic)"]
    assert f"mig: {table['mig'].iloc[0]:.4f}" in (printed := capsys.readouterr()).out
    assert "encode: " in printed.err and "dci: 100%" in printed.err


def test_attributes_are_called_so_beside_their_correlations(celeba: Path, folder: Path) -> None:
    from hublatent.data import load_dataset
    from hublatent.models import load

    dataset = load_dataset(celeba, 64, progress=False)
    latents, labels, names = measure.attribute_latents(load(folder), dataset, 300)
    assert latents.shape == (300, 3) and labels.shape == (300, len(names))
    found = measure.scores(latents, labels, ["mig", "dci"], "logistic", attributes=True)
    assert all(name.startswith("attribute-") for name in found)
    correlations = pd.DataFrame(np.array([[1, 0.2, -0.6], [0.2, 1, 0], [-0.6, 0, 1]]))
    correlations.index = correlations.columns = pd.Index(["a", "b", "c"])
    sentence = measure.describe_correlations(correlations)
    assert "mean |r| 0.267" in sentence and "strongest: a and c -0.60" in sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--metrics", "migg"], "Did you mean mig"),
        (["--n", "3"], "200 or more"),
        (["--n", "800000"], "737,280"),
    ],
)
def test_mistakes_are_told(
    words: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["metrics", str(folder), "--data", "sprites", *words])
    assert caught.value.code == 2 and sentence in capsys.readouterr().err


def test_two_models_of_one_name_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(folder, tmp_path / folder.name)
    with pytest.raises(SystemExit):
        main(["metrics", str(folder), str(other), "--data", "sprites"])
    assert "Two folders are called tiny" in capsys.readouterr().err
