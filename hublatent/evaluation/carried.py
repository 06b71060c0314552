"""Directions carried across maps, against the directions found in the target model itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from hublatent.evaluation.judged_edits import JudgedEdits
from hublatent.mapping import LatentMap, carry_to

if TYPE_CHECKING:
    from hublatent.data import FaceDataset
    from hublatent.direction_set import DirectionSet
    from hublatent.model import LatentModel
    from hublatent.perception.classifier import AttributeClassifier

STRENGTH = 3.0


def carried_effects(
    models: Mapping[str, tuple[LatentModel, DirectionSet]],
    maps: Iterable[LatentMap],
    dataset: FaceDataset,
    judge: AttributeClassifier,
    attributes: Sequence[str] = ("Eyeglasses", "Smiling", "Male"),
    *,
    method: str = "joint",
    n_faces: int = 100,
) -> pd.DataFrame:
    """Edit test faces of each model by its own direction and by those carried from the others.

    Args:
        models: name -> model and its directions.
        maps: between them.
        dataset: faces; those of the test partition are edited.
        judge: judges the edits.
        attributes: what appears.
        method: of the directions.
        n_faces: how many faces are edited at most.

    Returns:
        One row for each attribute, target and source (the target itself for the native direction):
        attribute, target, source, cosine with the native direction, effect and leakage at +3 sigma
        (see `JudgedEdits.along`), share of the native direction's effect.
    """
    maps, rows = list(maps), list[dict[str, Any]]()
    for attribute in attributes:
        for target_name, (target, own) in models.items():
            edits = JudgedEdits.of_test_faces(target, judge, dataset, attribute, n_faces)
            native = own[attribute, method]
            ((native_effect, _),) = edits.along(native, [STRENGTH])
            for source_name, (source, theirs) in models.items():
                carried = carry_to(theirs[attribute, method], source, target, maps)
                cosine = torch.cosine_similarity(
                    carried.vector.flatten(), native.vector.flatten(), dim=0
                )
                ((effect, leakage),) = edits.along(carried, [STRENGTH])
                rows.append(
                    {
                        "attribute": attribute,
                        "target": target_name,
                        "source": source_name,
                        "cosine": float(cosine),
                        "effect": effect,
                        "leakage": leakage,
                        "share": effect / native_effect,
                    }
                )
    return pd.DataFrame(rows)
