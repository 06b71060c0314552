"""Coherence: its arithmetic, and that the judge tells whole faces from broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hublatent.data import load_dataset
from hublatent.errors import DataError
from hublatent.evaluation.judges import (
    WHOLE_ABOVE,
    Condition,
    ConditionJudge,
    coherence,
)

MODELS = Path(__file__).parent.parent / "model_cards"


def test_coherence_weighs_confidence_loss_and_damage() -> None:
    before = Condition(torch.tensor([10.0]), torch.tensor([9.0]))
    after = Condition(torch.tensor([10.0, 5.0, 5.0]), torch.tensor([9.0, 9.0, 9.5]))
    assert coherence(after, before).tolist() == pytest.approx([10, 3, 1])
    far = torch.tensor([1.2, 0.5, 1.2])
    judged = coherence(after, before, far)
    assert (judged < WHOLE_ABOVE).tolist() == [True, False, True]


def test_too_few_faces_are_refused() -> None:
    with pytest.raises(DataError, match="at least 200"):
        ConditionJudge.from_pretrained(MODELS, torch.zeros(10, 3, 64, 64))


def test_scrambled_faces_are_broken_and_dimmed_ones_are_not(celeba: Path) -> None:
    data = load_dataset(celeba, 64, progress=False)
    judge = ConditionJudge.from_pretrained(MODELS, data.batch(data.indices("train")[:200]))
    faces = data.batch(data.indices("test")[:30])
    rows = torch.arange(64).reshape(4, 16).flip(0).flatten()
    before = judge.read(faces)
    scrambled = coherence(judge.read(faces[:, :, rows]), before)
    dimmed = coherence(judge.read(faces * 0.9 - 0.1), before)
    assert (scrambled < WHOLE_ABOVE).float().mean() > 0.9
    assert (dimmed < WHOLE_ABOVE).float().mean() < 0.1
