"""How many before/after pairs a direction needs: leakage at equal effect, against joint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from hublatent.discovery import LabelledLatents
from hublatent.discovery.methods.pairs import direction_of_pairs, same_person_pairs
from hublatent.evaluation.judged_edits import JudgedEdits

if TYPE_CHECKING:
    from hublatent.data import FaceDataset
    from hublatent.direction import Direction
    from hublatent.direction_set import DirectionSet
    from hublatent.model import LatentModel
    from hublatent.perception.classifier import AttributeClassifier

N_PAIRS = (1, 3, 5, 10, 20)
STRENGTHS = (1.0, 2.0, 3.0, 4.5, 6.0)
REFERENCE = 3.0  # sigma along joint: the effect at which costs are compared


def few_shot_curve(
    model: LatentModel,
    judge: AttributeClassifier,
    directions: DirectionSet,
    dataset: FaceDataset,
    data: LabelledLatents,
    attributes: Sequence[str] = ("Eyeglasses", "Smiling"),
    *,
    n_pairs: Sequence[int] = N_PAIRS,
    n_draws: int = 5,
    n_faces: int = 100,
    estimate: Literal["singular", "mean"] = "singular",
) -> pd.DataFrame:
    """Compare directions of few pairs with the joint direction of all labels.

    Every direction moves the test faces as far as changes the judge's logit as much as joint does
    at +3 sigma; the cost there is the mean change of the other attributes' logits, in their
    deviations over the unedited faces. Pairs are photographs of one person each.

    Args:
        model: a model with an encoder.
        judge: judges the edits.
        directions: of the model; their joint directions are the reference.
        dataset: faces; those of the test partition are edited.
        data: latents of its other partitions, as `encode` reads them.
        attributes: what appears.
        n_pairs: how many pairs.
        n_draws: how often they are drawn.
        n_faces: how many faces are edited at most.
        estimate: see `direction_of_pairs`.

    Returns:
        One row for each attribute's joint direction and each number of pairs: attribute,
        direction, n_pairs, singular_share (how well the pairs agree), effect at +3 sigma, leakage
        at equal effect with the lowest and highest draw's, n_reached of n_draws that reach it.
    """
    rows: list[dict[str, Any]] = []
    for attribute in attributes:
        edits = JudgedEdits.of_test_faces(model, judge, dataset, attribute, n_faces)
        joint = edits.along(directions[attribute, "joint"], STRENGTHS)
        wanted = joint[STRENGTHS.index(REFERENCE), 0]
        rows.append(_row(attribute, "joint", [joint], wanted))
        for n in n_pairs:
            found = list(_drawn(model, data, attribute, n, n_draws, estimate))
            curves = [edits.along(direction, STRENGTHS) for direction in found]
            shares = [d.scores["singular share"].value for d in found if d.scores]
            row = _row(attribute, f"{n} pairs" if n > 1 else "1 pair", curves, wanted)
            rows.append({**row, "n_pairs": n, "singular_share": np.mean(shares or [1.0])})
    return pd.DataFrame(rows)


def _drawn(
    model: LatentModel,
    data: LabelledLatents,
    attribute: str,
    n: int,
    n_draws: int,
    estimate: Literal["singular", "mean"],
) -> Iterator[Direction]:
    """The directions of n pairs, drawn anew each time."""
    for seed in range(n_draws):
        without, having = same_person_pairs(data.label(attribute), data.identities, n, seed).T
        before, after = (torch.from_numpy(data.latents[i]) for i in (without, having))
        yield direction_of_pairs(model, before, after, attribute, estimate=estimate)


def _row(
    attribute: str, direction: str, curves: Sequence[np.ndarray], wanted: float
) -> dict[str, Any]:
    costs = np.array([_cost_at(curve, wanted) for curve in curves])
    reached = costs[np.isfinite(costs)]
    return {
        "attribute": attribute,
        "direction": direction,
        "n_pairs": None,
        "singular_share": None,
        "effect": np.mean([curve[STRENGTHS.index(REFERENCE), 0] for curve in curves]),
        "leakage": reached.mean() if len(reached) else np.nan,
        "leakage_low": reached.min() if len(reached) else np.nan,
        "leakage_high": reached.max() if len(reached) else np.nan,
        "n_reached": len(reached),
        "n_draws": len(curves),
    }


def _cost_at(curve: np.ndarray, wanted: float) -> float:
    """The cost (S, 2) at an effect, by linear interpolation from no edit; NaN beyond the last."""
    effects, costs = np.vstack([[0.0, 0.0], curve]).T
    rising = np.maximum.accumulate(effects)  # the first strength that reaches it counts
    return float(np.interp(wanted, rising, costs, right=np.nan))
