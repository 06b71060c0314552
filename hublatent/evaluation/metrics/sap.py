"""SAP, the separated attribute predictability (Kumar et al. 2018, arXiv:1711.00848, section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hublatent.evaluation.metrics.arrays import checked, gap, halves
from hublatent.stats import Floats, Ints

MIN_VARIANCE = 1e-12
SVM_C = 0.01


def sap(
    latents: ArrayLike, factors: ArrayLike, continuous: bool = False, seed: int = 0
) -> dict[str, float]:
    """How much better one dimension predicts a factor than the next.

    Continuous factors are predicted by linear regression, whose score is R squared; others by a
    linear support vector machine, with the accuracy on the third of the rows not fitted on.

    Returns:
        "sap", from 0 to 1.
    """
    z, v = checked(latents, factors)
    scores = _squared_correlations(z, v) if continuous else _accuracies(z, v, seed)
    return {"sap": float(gap(scores).mean())}


def _squared_correlations(latents: Floats, factors: Ints) -> Floats:
    z, v = latents - latents.mean(axis=0), factors - factors.mean(axis=0)
    spread = z.var(axis=0)[:, None] * v.var(axis=0)  # (D, K)
    squared = (z.T @ v / len(z)) ** 2
    seen = (z.var(axis=0) > MIN_VARIANCE)[:, None]
    return np.divide(squared, spread, out=np.zeros_like(spread), where=seen)


def _accuracies(latents: Floats, factors: Ints, seed: int) -> Floats:
    from sklearn.svm import LinearSVC

    train, test = halves(len(latents), seed)
    found = np.zeros((latents.shape[1], factors.shape[1]))
    for d, k in np.ndindex(found.shape):
        column, values = latents[:, [d]], factors[:, k]
        machine = LinearSVC(C=SVM_C, class_weight="balanced").fit(column[train], values[train])
        found[d, k] = machine.score(column[test], values[test])
    return found
