"""Effects and costs of edits in closed form; few pairs against joint; carried directions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hublatent.cli import main
from hublatent.data import FaceDataset, load_dataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery import discover, encode
from hublatent.evaluation.judged_edits import JudgedEdits
from hublatent.mapping import load_maps
from tests.benchmarks.few_shot_pairs import few_shot_curve
from tests.comparison_helpers import (
    BRIGHT_SIGMA,
    GAIN,
    N_PIXELS,
    SIZE,
    known_judge,
    linear_model,
    write_known_faces,
)
from tests.tiny_models import save_model

SLOPE = GAIN * BRIGHT_SIGMA / math.sqrt(N_PIXELS)  # of the judge's logit, per sigma


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_known_faces(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture(scope="module")
def dataset(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    return load_dataset(faces, SIZE, cache=tmp_path_factory.mktemp("cache"), progress=False)


def test_effects_are_those_of_the_closed_form(dataset: FaceDataset) -> None:
    model, judge = linear_model(), known_judge()
    edits = JudgedEdits.of_test_faces(model, judge, dataset, "Bright", 20)
    assert 0 < len(edits.latents) <= 20
    bright = Direction("Bright", "joint", torch.eye(4)[0]).with_sigma(model)
    found = edits.along(bright, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(found[:, 0], [0, 0.5 * SLOPE, SLOPE], atol=2e-2)
    np.testing.assert_allclose(found[:, 1], 0, atol=2e-2)  # greenness stays where it is


def test_few_pairs_are_put_beside_joint(dataset: FaceDataset) -> None:
    model, judge = linear_model(), known_judge()
    data = encode(model, dataset, mirror=False)
    joint = discover(data, "Bright", model=model)
    assert joint.origin is not None
    assert joint.origin.dataset == dataset.name  # whose licence goes with the direction
    table = few_shot_curve(
        model, judge, DirectionSet.of(model, [joint]), dataset, data, ["Bright"],
        n_pairs=(1, 3), n_draws=2, n_faces=10,
    )  # fmt: skip
    assert list(table["direction"]) == ["joint", "1 pair", "3 pairs"]
    assert table["leakage"][0] < 0.1
    assert (table["n_reached"] <= table["n_draws"]).all()
    assert table["singular_share"][1] == 1


def test_the_commands_fit_keep_and_carry(
    faces: Path, dataset: FaceDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, judge = [tmp_path / name for name in ("one", "two")], tmp_path / "judge"
    for folder, turn in zip(models, (torch.eye(4), torch.eye(4).flip(0)), strict=True):
        model = linear_model()
        model.components.copy_(turn @ model.components)
        model.latent_covariance.copy_(turn @ model.latent_covariance @ turn.T)
        data = encode(model, dataset, mirror=False)
        save_model(model, folder, DirectionSet.of(model, [discover(data, "Bright", model=model)]))
    known_judge().save_pretrained(judge)
    words = ["map", *models, "--data", faces, "--out", tmp_path / "maps", "--seed", 3]
    main([str(word) for word in words])
    assert "one to two: R2" in capsys.readouterr().out
    written = (tmp_path / "maps" / "one--two.safetensors").stat().st_mtime_ns
    main([str(word) for word in words])  # a map that fits is kept
    assert (tmp_path / "maps" / "one--two.safetensors").stat().st_mtime_ns == written
    (latent_map,) = load_maps(tmp_path / "maps")
    card = (tmp_path / "maps" / "README.md").read_text()
    assert f"{latent_map.forward.scores['r2'].value:.3f}" in card
    table = pd.read_csv(tmp_path / "maps" / "maps.csv")
    assert list(table["source"]) == ["one", "two"]

    carried = tmp_path / "carried.safetensors"
    with pytest.raises(SystemExit):
        main(["carry", str(models[1]), "--map", str(tmp_path / "maps"), "--out", str(carried)])
    assert "name a map's file. Those in it: one--two.safetensors." in capsys.readouterr().err
    main(["carry", str(models[1]), "--map", str(tmp_path / "maps" / "one--two.safetensors"),
          "--attribute", "bright", "--out", str(carried)])  # fmt: skip
    found = DirectionSet.load(carried, linear_model())
    native = DirectionSet.from_pretrained(models[0])["Bright", "joint"]
    cosine = torch.cosine_similarity(found["Bright", "joint-carried"].vector, native.vector, dim=0)
    assert cosine > 0.95


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("map", "a", "--out", "maps"), "two or more"),
        (("map", "a", "x/a", "--out", "maps"), "each called otherwise"),
        (("map", "a", "b", "--out", "maps", "--judge", "c"), "--judge needs --data"),
        (("carry", "nothing", "--map", "m", "--out", "f"), "nothing"),
    ],
)
def test_mistakes_end_in_a_sentence(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2 and sentence in capsys.readouterr().err
