"""What the metrics share: checked arrays, halves to fit and to score on, rows with one factor."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hublatent.errors import DataError
from hublatent.stats import Floats, Ints

TRAIN_SHARE = 2 / 3  # 10,000 to fit and 5,000 to score, as in Locatello et al. 2019


def checked(latents: ArrayLike, factors: ArrayLike) -> tuple[Floats, Ints]:
    """Check latents (N, D) and factors (N, K), and number each factor's values from 0.

    Raises:
        DataError: shapes disagree, a latent is not finite, factors are not integers, or one of
            them has a single value.
    """
    z, v = np.asarray(latents, np.float64), np.asarray(factors)
    if z.ndim != 2 or v.ndim != 2 or len(z) != len(v) or 0 in (*z.shape, *v.shape):
        raise DataError(
            f"latents of shape {z.shape} and factors of shape {v.shape}; expected (N, D) and "
            "(N, K) of the same N images."
        )
    if not np.isfinite(z).all():
        raise DataError("The latents hold NaN or infinite values.")
    if v.dtype.kind not in "iub":
        raise DataError(f"factors are {v.dtype}; expected integers, a number for each value.")
    columns = [np.unique(column, return_inverse=True) for column in v.T]
    constant = [k for k, (values, _) in enumerate(columns) if len(values) < 2]
    if constant:
        raise DataError(f"Factor {constant[0]} has a single value; there is nothing to read.")
    return z, np.stack([index for _, index in columns], axis=1)


def halves(n: int, seed: int) -> tuple[Ints, Ints]:
    """Two thirds of n rows to fit on, and the others to score on."""
    order = np.random.default_rng(seed).permutation(n)
    cut = round(n * TRAIN_SHARE)
    return order[:cut], order[cut:]


class Alike:
    """Draws rows that share a factor's value, of values (N,) numbered from 0."""

    def __init__(self, values: Ints) -> None:
        self.values = values
        self.order = np.argsort(values, kind="stable")
        self.counts = np.bincount(values)
        self.starts = np.cumsum(self.counts) - self.counts

    def draw(self, rows: Ints, rng: np.random.Generator) -> Ints:
        """For each of the rows, of any shape, another one with the same value."""
        values = self.values[rows]
        offset = (rng.random(values.shape) * self.counts[values]).astype(np.int64)
        return self.order[self.starts[values] + offset]


def gap(scores: Floats) -> Floats:
    """The best of D scores (D, K) less the second best, for each factor: (K,)."""
    if len(scores) == 1:
        return scores[0]
    second, best = np.sort(scores, axis=0)[-2:]
    return best - second


def label_correlations(factors: ArrayLike) -> NDArray[np.float64]:
    """How the factors (N, K), such as attributes, depend on one another: correlations (K, K)."""
    return np.corrcoef(np.asarray(factors, np.float64), rowvar=False)
