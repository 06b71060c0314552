"""compare() from a model's folder to the report, on a model and a judge known in closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hublatent.data import load_dataset
from hublatent.evaluation import outcomes, run, table
from hublatent.evaluation.judges import Judges
from hublatent.evaluation.subjects import Subject, untrained
from tests.comparison_helpers import known_judge, linear_model, write_known_faces
from tests.test_audit import AllWhole
from tests.tiny_models import save_model, tiny_vae


def test_compare_finds_and_edits_what_was_planted_and_reuses_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges = Judges(known_judge(), AllWhole(), AllWhole(), "judge", np.ones(2))  # type: ignore[arg-type]
    monkeypatch.setattr(Judges, "load", lambda *_: judges)
    folder, out = save_model(linear_model(), tmp_path / "linear"), tmp_path / "out"
    data = write_known_faces(tmp_path / "data")

    def compare() -> dict[str, bytes]:
        run.compare(
            [folder], data, out, judge="judge", attributes=["Bright"], methods=["svm"],
            n_faces=10, cache=tmp_path / "cache",
        )  # fmt: skip
        names = ("index.html", "summary.json")
        return {name: (out / name).read_bytes() for name in (*names, table.TABLE_NAME)}

    first = compare()
    rows = table.load(out / table.TABLE_NAME)
    assert outcomes.accuracy(rows).to_numpy().mean() > 0.9
    assert outcomes.summary(outcomes.edits(rows, attribute="Bright"))["strong"] == 1
    monkeypatch.setattr(run, "edit_rows", None)  # measuring again would fail
    monkeypatch.setattr(run, "null_rows", None)
    monkeypatch.setattr(run, "read_attributes", None)
    assert compare() == first


def test_a_network_with_random_weights_is_the_baseline(tmp_path: Path) -> None:
    data = load_dataset(write_known_faces(tmp_path / "data"), 32, cache=tmp_path / "cache")
    trained = Subject("vae", "vae-0", tiny_vae(), data, tmp_path, {"objective": "beta-vae"})
    (first,), (again,) = (untrained([trained], seed=3) for _ in range(2))
    assert first.baseline and first.model.config == trained.model.config
    assert first.model.fingerprint() == again.model.fingerprint() != trained.model.fingerprint()
    assert untrained([replace(trained, recipe={})], seed=3) == []
