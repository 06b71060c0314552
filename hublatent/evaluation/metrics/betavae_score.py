"""The BetaVAE score (Higgins et al. 2017, "beta-VAE", section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hublatent.evaluation.metrics.arrays import Alike, checked
from hublatent.stats import Floats, Ints

CHUNK = 500


def betavae_score(
    latents: ArrayLike,
    factors: ArrayLike,
    n_train: int = 10_000,
    n_test: int = 5_000,
    batch: int = 64,
    seed: int = 0,
) -> dict[str, float]:
    """Can a linear classifier tell which factor two images share from how far they lie apart?

    A point is the mean of |z_1 - z_2| over a batch of pairs that share one factor's value;
    n_train points are fitted on, n_test scored.

    Returns:
        "betavae-score", the accuracy.
    """
    from sklearn.linear_model import LogisticRegression

    z, v = checked(latents, factors)
    rng = np.random.default_rng(seed)
    if v.shape[1] == 1:
        return {"betavae-score": 1.0}
    points, shared = _points(z, v, n_train + n_test, batch, rng)
    classifier = LogisticRegression(max_iter=1000).fit(points[:n_train], shared[:n_train])
    return {"betavae-score": float(classifier.score(points[n_train:], shared[n_train:]))}


def _points(
    latents: Floats, factors: Ints, n: int, batch: int, rng: np.random.Generator
) -> tuple[Floats, Ints]:
    """n points (n, D), and which factor the pairs of each share (n,)."""
    shared = rng.integers(factors.shape[1], size=n)
    points = np.empty((n, latents.shape[1]))
    for k in range(factors.shape[1]):
        alike = Alike(factors[:, k])
        held = np.flatnonzero(shared == k)
        for part in np.split(held, range(CHUNK, len(held), CHUNK)):
            first = rng.integers(len(latents), size=(len(part), batch))
            second = alike.draw(first, rng)
            points[part] = np.abs(latents[first] - latents[second]).mean(axis=1)
    return points, shared
