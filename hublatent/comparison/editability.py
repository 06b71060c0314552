"""Edits of faces that lack an attribute: what the judge says at every strength.

Edits are compared at equal effect: at the strength where a stated share of the faces has the
attribute, what else has changed?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hublatent.comparison.judge import Reading, Support, distance, read
from hublatent.comparison.latents import Faces, to_tensor
from hublatent.comparison.outcomes import PRESENT, classify, count
from hublatent.comparison.results import Edits, EqualEffect, NullBand, OutcomeCounts
from hublatent.direction import Direction
from hublatent.editing import traverse
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import Estimate, Floats, Ints, bootstrap_weights, interval

STRENGTHS = (-8.0, -6.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
EQUAL_EFFECT = 0.8  # the share of faces with P(target) > 1/2 at which edits are compared
PICTURES = 224  # decoded together

DEFINITIONS = {
    "target": "Change of the judge's P(target) against the unedited reconstruction, mean over the "
    "faces.",
    "leakage": "|Change of P| against the unedited reconstruction, mean over the faces and over "
    "all attributes but the target.",
    "equal effect": f"The smallest strength from 0 at which {EQUAL_EFFECT:.0%} of the faces have "
    "P(target) > 0.5, by linear interpolation on the grid; costs are interpolated there. In a "
    "resample that does not reach it, it counts as the largest strength.",
    "monotonicity": "Spearman's rank correlation of strength and the judge's logit of the target "
    "over all strengths of one face, mean over the faces.",
    "path length": "Perceptual distance between neighbouring strengths, summed from 0 to the "
    "largest, mean over the faces.",
}


@dataclass(frozen=True, eq=False)
class Strips:
    """Readings of n faces at S strengths.

    Attributes:
        strengths: (S,), growing.
        probabilities: (n, S, K).
        logits: (n, S), of the target.
        distance, similarity: (n, S), against strength 0.
        steps: (n, S - 1), perceptual distance between neighbours.
        realism: (n, S), or None without a reference.
    """

    strengths: NDArray[np.float64]
    probabilities: Floats
    logits: Floats
    distance: Floats
    similarity: Floats
    steps: Floats
    realism: Floats | None

    @property
    def zero(self) -> int:
        """Where the unedited reconstruction stands."""
        return int(np.flatnonzero(self.strengths == 0)[0])

    def target(self, column: int) -> Floats:
        """P(target), (n, S)."""
        return self.probabilities[:, :, column]

    def changes(self) -> Floats:
        """Change of every P against the unedited reconstruction: (n, S, K)."""
        return self.probabilities - self.probabilities[:, [self.zero]]


@torch.inference_mode()
def measure(
    model: LatentModel,
    judge: AttributeClassifier,
    faces: Faces,
    direction: Direction,
    column: int,
    support: Support | None,
    strengths: Sequence[float] = STRENGTHS,
) -> Strips:
    """Edit, draw and judge faces at every strength, a few at a time.

    Args:
        model: draws.
        judge: judges.
        faces: n of them.
        direction: with sigma.
        column: the target among the judge's logits.
        support: of the realism score.
        strengths: growing, with 0 among them.
    """
    latents, grid = to_tensor(faces.latents), torch.tensor(strengths)
    size, parts = max(1, PICTURES // len(strengths)), []
    for some in latents.split(size):
        moved = traverse(some, direction, grid)  # (B, S, *latent_shape)
        reading = read(judge, model.decode(moved.flatten(0, 1)))
        parts.append(_strips(reading, len(some), strengths, column, support))
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("probabilities", "logits", "distance", "similarity", "steps")
    }
    realism = None if support is None else np.concatenate([p.realism for p in parts])
    return Strips(np.array(strengths), realism=realism, **joined)


def _strips(
    reading: Reading, n: int, strengths: Sequence[float], column: int, support: Support | None
) -> Strips:
    shape = (n, len(strengths))
    zero = list(strengths).index(0)
    maps = [m.unflatten(0, shape) for m in reading.maps]  # (B, S, C, H, W)
    features = reading.features.unflatten(0, shape)  # (B, S, F)
    logits = reading.logits.unflatten(0, shape)  # (B, S, K)
    steps = distance([m[:, 1:] for m in maps], [m[:, :-1] for m in maps])
    similarity = torch.cosine_similarity(features, features[:, [zero]], dim=2)
    realism = None
    if support is not None:
        realism = support.realism(reading.features).unflatten(0, shape).numpy()
    return Strips(
        strengths=np.array(strengths),
        probabilities=logits.sigmoid().numpy(),
        logits=logits[..., column].numpy(),
        distance=distance(maps, [m[:, [zero]] for m in maps]).numpy(),
        similarity=similarity.numpy(),
        steps=steps.numpy(),
        realism=realism,
    )


class Resamples:
    """Bootstrap over identities, the same draws for every measure of the same faces."""

    def __init__(self, identities: Ints, seed: int) -> None:
        self._weights = np.concatenate(list(bootstrap_weights(identities, seed=seed)))  # (R, n)
        self._weights /= self._weights.sum(axis=1, keepdims=True)

    def means(self, values: Floats) -> Floats:
        """Mean over faces (n, ...) in every resample: (R, ...)."""
        return np.tensordot(self._weights, values.astype(np.float32), axes=1)

    def score(self, values: Floats) -> Estimate:
        """Mean of (n,) with its interval."""
        return interval(self.means(values), float(values.mean()))

    def scores(self, values: Floats) -> tuple[Estimate, ...]:
        """Means of the columns of (n, S) with their intervals."""
        drawn = self.means(values)
        return tuple(
            interval(drawn[:, i], float(values[:, i].mean())) for i in range(values.shape[1])
        )


def crossing(strengths: Floats, shares: Floats, share: float = EQUAL_EFFECT) -> float:
    """The smallest strength from 0 on where a curve reaches a share, interpolated linearly.

    Args:
        strengths: (S,), growing from 0.
        shares: (S,).
        share: to be reached.

    Returns:
        The strength; infinite where the share is not reached.
    """
    reached = np.flatnonzero(shares >= share)
    if not len(reached):
        return float("inf")
    i = int(reached[0])
    if i == 0:
        return float(strengths[0])
    part = (share - shares[i - 1]) / (shares[i] - shares[i - 1])
    return float(strengths[i - 1] + part * (strengths[i] - strengths[i - 1]))


def equal_effect(strips: Strips, column: int, resamples: Resamples) -> EqualEffect:
    """The strength of equal effect and what is paid there, each with its interval."""
    forward = slice(strips.zero, None)
    strengths = strips.strengths[forward]
    present = (strips.target(column)[:, forward] > PRESENT).astype(np.float64)
    point = crossing(strengths, present.mean(axis=0))
    if not np.isfinite(point):
        return EqualEffect()
    drawn = np.array([crossing(strengths, s) for s in resamples.means(present)])
    drawn = drawn.clip(max=strengths[-1])

    def cost(values: Floats | None) -> Estimate | None:
        if values is None:
            return None
        curves = resamples.means(values[:, forward])
        at = [np.interp(s, strengths, curve) for s, curve in zip(drawn, curves, strict=True)]
        middle = np.interp(point, strengths, values[:, forward].mean(axis=0))
        return interval(np.array(at), float(middle))

    return EqualEffect(
        strength=interval(drawn, point),
        leakage=cost(leakage(strips, column)),
        distance=cost(strips.distance),
        similarity=cost(strips.similarity),
        realism=cost(strips.realism),
    )


def leakage(strips: Strips, column: int) -> Floats:
    """Mean over the other attributes of |change of P|: (n, S)."""
    others = np.delete(np.abs(strips.changes()), column, axis=2)
    return others.mean(axis=2) if others.shape[2] else np.zeros(others.shape[:2], np.float32)


def summarise(
    strips: Strips,
    faces: Faces,
    judge: AttributeClassifier,
    band: NullBand,
    threshold: float | None,
    direction: Direction,
    *,
    kind: str,
    model: str,
    found: str,
    note: str,
    seed: int,
) -> Edits:
    """Turn readings into a row of the table.

    Args:
        strips: the readings.
        faces: the same faces.
        judge: names the attributes.
        band: effects of the controls.
        threshold: realism below it is decoherence; None without a reference.
        direction: that was edited along.
        kind, model, found, note: of the row.
        seed: of the bootstrap.
    """
    attribute = direction.attribute
    column = judge.index(attribute)
    resamples = Resamples(faces.identities, seed)
    target = strips.target(column)
    changed = strips.changes()
    equal = equal_effect(strips, column, resamples)
    at = strips.strengths[-1] if equal.strength is None else equal.strength.value
    scores = resamples.scores(changed[:, :, column])
    means = changed.mean(axis=0)  # (S, K)
    by_attribute = {
        name: float(np.interp(at, strips.strengths, means[:, i]))
        for i, name in enumerate(judge.attribute_names)
        if i != column
    }
    return Edits(
        model=model,
        attribute=attribute,
        method=direction.method,
        faces=kind,
        n=len(faces),
        found=found,
        strengths=tuple(float(s) for s in strips.strengths),
        target=scores,
        share=tuple(float(x) for x in (target > PRESENT).mean(axis=0)),
        leakage=resamples.scores(leakage(strips, column)),
        distance=resamples.scores(strips.distance),
        similarity=resamples.scores(strips.similarity),
        realism=None if strips.realism is None else resamples.scores(strips.realism),
        monotonicity=resamples.score(rank_correlations(strips.strengths, strips.logits)),
        path_length=resamples.score(strips.steps[:, strips.zero :].sum(axis=1)),
        equal_effect=equal,
        leakage_by_attribute=by_attribute,
        outcomes=_outcomes(strips, column, threshold),
        above_null=_above(strips.strengths, scores, band, at),
        note=note,
    )


def _outcomes(strips: Strips, column: int, threshold: float | None) -> OutcomeCounts | None:
    if strips.realism is None or threshold is None:
        return None
    beyond = slice(strips.zero + 1, None)
    found = classify(strips.target(column)[:, beyond], strips.realism[:, beyond], threshold)
    return count(found, float(strips.strengths[-1]))


def _above(strengths: Floats, scores: Sequence[Estimate], band: NullBand, at: float) -> bool:
    """Whether the whole interval of the effect at a strength lies above the null band."""
    low = np.interp(at, strengths, [score.low for score in scores])
    return bool(low > np.interp(at, band.strengths, band.band))


def rank_correlations(x: Floats, y: Floats) -> Floats:
    """Spearman's rank correlation of x (S,) with each row of y (n, S); ties share their rank."""
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y, axis=1)
    a, b = a - a.mean(), b - b.mean(axis=1, keepdims=True)
    spread = np.sqrt((a**2).sum() * (b**2).sum(axis=1))
    return (b @ a) / np.where(spread > 0, spread, 1)
