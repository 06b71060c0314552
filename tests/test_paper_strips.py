"""The paper's strips: onsets, the outcomes that follow, and what was published of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from hublatent.errors import DataError
from hublatent.evaluation.judges import Condition
from training.judges.paper_strips import ALPHAS, Onsets, Readings, read_labels, read_pictures

TABLE = Path(__file__).parent.parent / "model_cards" / "replication" / "strips.csv"


def test_outcomes_follow_from_onsets() -> None:
    never = np.inf
    onsets = Onsets(
        np.array([31, 31, 31, never, never]), np.array([never, 37, 31, 97, never], float)
    )
    expected = ["strong", "strong", "decohered", "decohered", "no effect"]
    assert onsets.outcomes().tolist() == expected


def test_glasses_have_to_last_and_a_face_breaks_once() -> None:
    glasses = np.full((2, 43), -6.0)
    glasses[0, [3, 10, 11]] = glasses[1, -1] = 4
    confidence = torch.full((2, 43), 12.0)
    confidence[1, 20] = 0
    condition = Condition(confidence, torch.full((2, 43), 9.0))
    onsets = Readings(glasses, condition, torch.zeros(2, 43)).onsets()
    assert onsets.glasses.tolist() == [ALPHAS[10], np.inf]
    assert onsets.broken.tolist() == [np.inf, ALPHAS[20]]


def test_another_picture_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (128, 128)).save(tmp_path / "set1_00.jpg")
    with pytest.raises(DataError, match="43 pictures"):
        read_pictures(tmp_path / "set1_00.jpg", 64)
    with pytest.raises(DataError, match="labels"):
        read_labels(tmp_path)


def test_the_published_outcomes_are_the_eyes(shared: Path) -> None:
    labels, _ = read_labels(shared / "paper" / "stylegan2_strips")
    published = pd.read_csv(TABLE)
    assert list(published) == ["set", "sample", "outcome", "glasses_from", "broken_from"]
    found = published[published["set"] == 1].sort_values("sample")["outcome"]
    for reader in range(3):
        seen = [
            Onsets(onsets.glasses[[reader]], onsets.broken[[reader]]).outcomes()[0]
            for _, onsets in sorted(labels.items())
        ]
        assert cohen_kappa_score(found, seen) > 0.8
