"""The audit of a direction whose effect is known: brightness in a linear model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hublatent.data import load_dataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.errors import DataError, HublatentError
from hublatent.evaluation import defaults
from hublatent.evaluation.audit import choose, measure, write_page
from hublatent.evaluation.defaults import choose_defaults
from hublatent.evaluation.judges import Condition, Judges
from hublatent.evaluation.subjects import Subject
from tests.comparison_helpers import SIZE, known_judge, linear_model, write_known_faces
from tests.tiny_models import save_model


class AllWhole:
    """Finds every picture whole, and of one person."""

    def read(self, images: torch.Tensor) -> Condition:
        return Condition(torch.full((len(images),), 9.0), torch.zeros(len(images)))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 128)


@pytest.fixture
def judges() -> Judges:
    return Judges(known_judge(), AllWhole(), AllWhole(), "judge", np.ones(2))  # type: ignore[arg-type]


def planted(attribute: str = "Bright", method: str = "svm") -> Direction:
    return Direction(attribute, method, torch.eye(4)[0]).with_sigma(linear_model())


def test_a_planted_direction_is_seen_and_leaks_nothing(tmp_path: Path, judges: Judges) -> None:
    data = load_dataset(write_known_faces(tmp_path / "d"), SIZE, cache=tmp_path / "c")
    subject = Subject("linear", "linear", linear_model(), data, tmp_path)
    found = measure(subject, judges, planted(), n_faces=10)
    curve = found.curve
    assert curve["P"].is_monotonic_increasing and curve["P"].iloc[-1] > 0.9
    assert (curve["leakage, P"] < 0.01).all() and (curve["same person"] == 1).all()
    assert found.safe_up_to == 10 and "cosines" in found.stability
    assert curve["null band"].iloc[0] == 0
    html = write_page(found, tmp_path / "out", "judge").read_text(encoding="utf-8")
    assert "Bright" in html and "data:image/png" in html
    other = measure(subject, judges, planted(method="found-by-hand"), n_faces=4)
    assert "cannot be refitted" in other.stability
    with pytest.raises(HublatentError, match="judge cannot see"):
        measure(subject, judges, planted("Hat"), n_faces=4)


def test_faces_without_labels_are_read_by_the_judge(tmp_path: Path, judges: Judges) -> None:
    labelled = load_dataset(write_known_faces(tmp_path / "d"), SIZE, cache=tmp_path / "c")
    data = replace(labelled, labels=labelled.labels[:, :0], attributes=())
    subject = Subject("linear", "linear", linear_model(), data, tmp_path)
    found = measure(subject, judges, planted(), n_faces=10)
    assert found.curve["P"].iloc[0] < 0.5 < found.curve["P"].iloc[-1]
    assert "stability is unknown" in found.stability


def test_a_model_without_a_face_in_its_reconstructions_is_told_so(tmp_path: Path) -> None:
    class NoFace(AllWhole):
        def read(self, images: torch.Tensor) -> Condition:
            return Condition(torch.full((len(images),), -30.0), torch.zeros(len(images)))

    data = load_dataset(write_known_faces(tmp_path / "d"), SIZE, cache=tmp_path / "c")
    subject = Subject("linear", "linear", linear_model(), data, tmp_path)
    blind = Judges(known_judge(), NoFace(), AllWhole(), "judge", np.ones(2))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="linear, Bright: in none of its unedited images is a face"):
        measure(subject, blind, planted(), n_faces=10)


def test_the_direction_is_chosen_or_refused_in_a_sentence(tmp_path: Path) -> None:
    path = str(tmp_path / "directions.safetensors")
    model = linear_model()
    DirectionSet.of(model, [planted(), planted("Green")]).save(path)
    assert choose(path, model, "bright", None).attribute == "Bright"
    with pytest.raises(HublatentError, match="name one, with --attribute"):
        choose(path, model, None, None)
    with pytest.raises(HublatentError, match="Did you mean Bright"):
        choose(path, model, "Brigt", None)
    model.components.neg_()
    with pytest.raises(HublatentError, match="fingerprint"):
        choose(path, model, "Bright", None)


def test_the_default_is_what_edits_as_well_and_leaks_least(tmp_path: Path, judges: Judges) -> None:
    data = load_dataset(write_known_faces(tmp_path / "d", 400), SIZE, cache=tmp_path / "c")
    model = linear_model()
    clean, leaking, idle = torch.eye(4)[0], torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.eye(4)[3]
    stored = DirectionSet.of(
        model,
        [
            Direction("Bright", method, vector).with_sigma(model)
            for method, vector in (("joint", leaking), ("svm", clean), ("pattern", idle))
        ],
    )
    stored.save(save_model(model, tmp_path / "linear") / "directions.safetensors")
    subject = Subject("linear", "linear", model, data, tmp_path / "linear")
    found, table = choose_defaults(subject, judges, ["Bright"], n_faces=6)
    assert found.defaults == {"Bright": ("svm", "")}
    told = table.set_index(["partition", "method"])
    assert told.loc[("validation", "pattern"), "strong"] == 0
    assert told.loc[("test", "svm"), "strong"] == 1
    assert told.loc[("test", "svm"), "logit_leakage"] < told.loc[("test", "joint"), "logit_leakage"]
    with pytest.raises(DataError, match="no direction of logistic"):
        choose_defaults(subject, judges, ["Bright"], ["logistic"], n_faces=6)


def test_a_choice_that_is_killed_keeps_the_finished_attributes(
    tmp_path: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset(write_known_faces(tmp_path / "d", 400), SIZE, cache=tmp_path / "c")
    model = linear_model()
    stored = DirectionSet.of(model, [planted(), planted(method="joint"), planted("Green")])
    stored.save(save_model(model, tmp_path / "linear") / "directions.safetensors")
    subject = Subject("linear", "linear", model, data, tmp_path / "linear")
    whole, table = choose_defaults(subject, judges, ["Bright", "Green"], n_faces=6)
    tried: list[str] = []

    def killed_at_green(subject: Any, judges: Any, attribute: str, *others: Any) -> Any:
        tried.append(attribute)
        if attribute == "Green" and len(tried) < 4:
            raise KeyboardInterrupt
        return scores(subject, judges, attribute, *others)

    scores = defaults._scores
    monkeypatch.setattr(defaults, "_scores", killed_at_green)
    kept = tmp_path / "finished.json"
    with pytest.raises(KeyboardInterrupt):
        choose_defaults(subject, judges, ["Bright", "Green"], n_faces=6, finished=kept)
    again = choose_defaults(subject, judges, ["Bright", "Green"], n_faces=6, finished=kept)
    assert tried == ["Bright"] * 2 + ["Green"] * 3  # validation and test, once of each
    assert again[0].defaults == whole.defaults
    pd.testing.assert_frame_equal(again[1], table)
    choose_defaults(subject, judges, ["Bright"], n_faces=6, seed=1, finished=kept)
    assert tried[5:] == ["Bright"] * 2  # another seed is another call
