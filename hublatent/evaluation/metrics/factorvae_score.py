"""The FactorVAE score (Kim and Mnih 2018, arXiv:1802.05983, section 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hublatent.evaluation.metrics.arrays import Alike, checked
from hublatent.stats import Floats, Ints

MIN_DEVIATION = 0.05
CHUNK = 500


def factorvae_score(
    latents: ArrayLike,
    factors: ArrayLike,
    n_train: int = 10_000,
    n_test: int = 5_000,
    batch: int = 64,
    seed: int = 0,
) -> dict[str, float]:
    """Does the dimension that varies least tell which factor was held?

    A vote: of a batch of images that share one factor's value, the dimension with the least
    variance, in shares of its variance over all images; dimensions with a deviation below 0.05
    have no say. Each dimension stands for the factor that most of its n_train votes came from, and
    n_test votes are scored.

    Returns:
        "factorvae-score", the accuracy; 0 where no dimension varies.
    """
    z, v = checked(latents, factors)
    rng = np.random.default_rng(seed)
    active = z.std(axis=0, ddof=1) >= MIN_DEVIATION
    if not active.any():
        return {"factorvae-score": 0.0}
    scaled = z[:, active] / z[:, active].std(axis=0, ddof=1)
    train = _votes(scaled, v, n_train, batch, rng)
    test = _votes(scaled, v, n_test, batch, rng)
    stands_for = train.argmax(axis=1)
    return {"factorvae-score": float(test[np.arange(len(test)), stands_for].sum() / test.sum())}


def _votes(latents: Floats, factors: Ints, n: int, batch: int, rng: np.random.Generator) -> Ints:
    """How often each dimension won while each factor was held: (D, K)."""
    found = np.zeros((latents.shape[1], factors.shape[1]), np.int64)
    held = np.bincount(rng.integers(factors.shape[1], size=n), minlength=factors.shape[1])
    for k, count in enumerate(held):
        alike = Alike(factors[:, k])
        # As in the paper the value is drawn evenly, whatever its share among the images.
        values = rng.integers(len(alike.counts), size=count)
        for part in np.split(alike.order[alike.starts[values]], range(CHUNK, count, CHUNK)):
            rows = alike.draw(np.repeat(part[:, None], batch, axis=1), rng)  # (n, L)
            least = latents[rows].var(axis=1, ddof=1).argmin(axis=1)
            found[:, k] += np.bincount(least, minlength=latents.shape[1])
    return found
