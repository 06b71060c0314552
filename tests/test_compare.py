"""compare() from a model's folder to the report, on a model and a judge known in closed form."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from hublatent.evaluation import outcomes, run, table
from hublatent.evaluation.judges import Judges
from tests.comparison_helpers import known_judge, linear_model, write_known_faces
from tests.test_audit import AllWhole
from tests.tiny_models import save_model


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
        content = {name: (out / name).read_bytes() for name in names}
        return {**content, "table": gzip.decompress((out / table.TABLE_NAME).read_bytes())}

    first = compare()
    rows = table.load(out / table.TABLE_NAME)
    assert outcomes.accuracy(rows).to_numpy().mean() > 0.9
    assert outcomes.summary(outcomes.edits(rows, attribute="Bright"))["strong"] == 1
    monkeypatch.setattr(run, "edit_rows", None)  # measuring again would fail
    monkeypatch.setattr(run, "null_rows", None)
    monkeypatch.setattr(run, "read_attributes", None)
    assert compare() == first
