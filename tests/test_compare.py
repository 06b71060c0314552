"""compare() from a model's folder to the report, on a model and a judge known in closed form."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from hublatent.data import DataSource, load_dataset
from hublatent.discovery import FROM_LABELS, METHODS
from hublatent.errors import HublatentError
from hublatent.evaluation import outcomes, run, table
from hublatent.evaluation.judges import Judges
from hublatent.evaluation.subjects import Subject, untrained
from hublatent.perception.classifier import AttributeClassifier
from tests.comparison_helpers import SIZE, known_judge, linear_model, write_known_faces
from tests.test_audit import AllWhole
from tests.tiny_models import save_model, tiny_stylegan2, tiny_vae


def test_compare_finds_and_edits_what_was_planted_and_reuses_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges = Judges(known_judge(), AllWhole(), AllWhole(), "judge", np.ones(2))  # type: ignore[arg-type]
    monkeypatch.setattr(Judges, "load", lambda *_: judges)
    folder, out = save_model(linear_model(), tmp_path / "linear"), tmp_path / "out"
    data = DataSource(str(write_known_faces(tmp_path / "data")), cache=tmp_path / "cache")

    def compare() -> dict[str, bytes]:
        run.compare(
            [folder], data, out, judge="judge", attributes=["Bright"], methods=["svm"],
            n_faces=10,
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


def test_every_method_is_compared_where_a_model_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = known_judge()
    judges = Judges(judge, AllWhole(), AllWhole(), "judge", np.ones(2))  # type: ignore[arg-type]
    monkeypatch.setattr(Judges, "load", lambda *_: judges)
    monkeypatch.setattr(AttributeClassifier, "from_pretrained", lambda *_: judge)
    module = import_module("hublatent.discovery.methods.assessor")  # the name is its function's too
    monkeypatch.setattr(module, "learn", partial(module.learn, n_steps=20))
    generator = tiny_stylegan2(SIZE)
    generator.measure_latents(200)
    generator.add_encoder(4, generator.fingerprint())
    folders = [
        save_model(linear_model(), tmp_path / "linear"),
        save_model(generator.eval(), tmp_path / "styles"),
    ]
    methods = [m for m in METHODS if m not in FROM_LABELS or m == "joint"]
    faces = write_known_faces(tmp_path / "data", 240)
    out, data = tmp_path / "out", DataSource(str(faces), cache=tmp_path / "cache")
    run.compare(
        folders, data, out, judge="cards/judge", attributes=["Bright"], methods=methods,
        n_faces=4,
    )  # fmt: skip
    rows = table.load(out / table.TABLE_NAME)
    found = rows[rows["reading"] == "step"].groupby("model", observed=True)["method"].unique()
    assert set(found["linear"]) == set(methods) - {"axis", "stylespace"}
    assert set(found["styles"]) == {*methods, "mean-difference"} - {"axis"}
    assert set(found["styles in W"]) == {"joint"}
    told = capsys.readouterr()
    assert (
        "linear, Bright: axis is left out. The method 'axis' needs a model" in told.out + told.err
    )
    learnt = outcomes.edits(rows, attribute="Bright", model="linear", method="assessor")
    assert outcomes.summary(learnt)["strong"] == 1
    with pytest.raises(HublatentError, match="Unknown method 'guess'"):
        run.compare(
            folders, data, out, judge="judge", attributes=["Bright"], methods=["guess"],
            n_faces=4,
        )  # fmt: skip
