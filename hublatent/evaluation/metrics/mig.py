"""MIG, the mutual information gap (Chen et al. 2018, arXiv:1802.04942, eq. 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hublatent.evaluation.metrics.arrays import checked, gap
from hublatent.stats import Floats, Ints


def mig(latents: ArrayLike, factors: ArrayLike, n_bins: int = 20) -> dict[str, float]:
    """How much more one dimension tells of a factor than the next, in shares of its entropy.

    mean over k of (I(z_1; v_k) - I(z_2; v_k)) / H(v_k), z_1 and z_2 the two that tell most, with
    `n_bins` bins of equal width for each dimension

    Returns:
        "mig", from 0 to 1.
    """
    z, v = checked(latents, factors)
    information = mutual_information(binned(z, n_bins), v)  # (D, K)
    return {"mig": float((gap(information) / entropies(v)).mean())}


def binned(latents: Floats, n_bins: int) -> Ints:
    """Each dimension (N, D) in bins of equal width between its ends, numbered from 0."""
    low, high = latents.min(axis=0), latents.max(axis=0)
    edges = np.linspace(low, high, n_bins + 1)[1:-1]  # (n_bins - 1, D)
    columns = [np.searchsorted(e, z, side="right") for e, z in zip(edges.T, latents.T, strict=True)]
    return np.stack(columns, axis=1)


def mutual_information(first: Ints, second: Ints) -> Floats:
    """Mutual information in nats of every column of (N, D) with every one of (N, K): (D, K)."""
    n_first, n_second = int(first.max()) + 1, int(second.max()) + 1
    found = np.empty((first.shape[1], second.shape[1]))
    shifted = (first * n_second).T.copy()  # (D, N)
    for k, column in enumerate(second.T):
        for d, row in enumerate(shifted):
            counts = np.bincount(row + column, minlength=n_first * n_second)
            found[d, k] = _information(counts.reshape(n_first, n_second) / len(column))
    return found


def entropies(factors: Ints) -> Floats:
    """Entropy in nats of every column (N, K): (K,)."""
    shares = [np.bincount(column) / len(column) for column in factors.T]
    return np.array([-(p[p > 0] * np.log(p[p > 0])).sum() for p in shares])


def _information(joint: Floats) -> float:
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())
