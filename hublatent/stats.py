"""Honest numbers: folds, balanced sets and bootstraps that respect identities.

A person's photographs resemble one another, so they never stand on both sides of a split, and a
bootstrap draws persons, not photographs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hublatent.errors import DataError

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

MIN_POSITIVES = 20
N_BOOTSTRAP = 1000
_CHUNK = 100


@dataclass(frozen=True)
class Estimate:
    """A measured figure with its 95% interval."""

    value: float
    low: float
    high: float


def identity_folds(identities: Ints, n_folds: int = 5, seed: int = 0) -> Ints:
    """Deal identities (N,) into folds, 0 to n_folds - 1 for each example (N,).

    The same data and seed give every model the same folds.
    """
    people, index = np.unique(identities, return_inverse=True)
    if len(people) < n_folds:
        raise DataError(f"{n_folds} folds need as many identities; the data have {len(people)}.")
    order = np.random.default_rng(seed).permutation(len(people))
    return (order % n_folds)[index]


def balanced_indices(labels: Bools, seed: int = 0, most: int | None = None) -> Ints:
    """Draw as many positives as negatives: all of the rarer kind, a sample of the other.

    Of each kind `most` at most, where that is given.

    Returns:
        Sorted indices into the labels (N,).

    Raises:
        DataError: one kind has fewer than 20 examples.
    """
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    n = min(len(positive), len(negative), most or len(labels))
    if n < MIN_POSITIVES:
        raise DataError(
            f"{len(positive)} examples have the attribute and {len(negative)} lack it; "
            f"a direction needs at least {MIN_POSITIVES} of each."
        )
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(kind, n, replace=False) for kind in (positive, negative)]
    return np.sort(np.concatenate(chosen))


def logistic_curve(coordinate: Floats, labels: Bools) -> tuple[float, float]:
    """Fit P = sigmoid(gain * (c - threshold)) on held-out coordinates of a balanced set.

    Returns:
        The threshold, in units of the coordinate (n,), and the gain, per unit of it.
    """
    from sklearn.linear_model import LogisticRegression

    # The fit works on standardised coordinates, since solvers dislike very small or large ones.
    mean, spread = coordinate.mean(), coordinate.std()
    fit = LogisticRegression(C=1e6).fit(((coordinate - mean) / spread)[:, None], labels)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    return float(mean - spread * intercept / slope), float(slope / spread)


def midpoint(coordinate: Floats, labels: Bools) -> float:
    """Half-way between the class means: the decision at equal priors."""
    return float(coordinate[labels].mean() + coordinate[~labels].mean()) / 2


def bootstrap_weights(
    identities: NDArray[Any], n_resamples: int = N_BOOTSTRAP, seed: int = 0
) -> Iterator[NDArray[np.float32]]:
    """How often each example (N,) is drawn when identities are drawn with replacement.

    Yields:
        Weights (R, N), some resamples at a time; the same seed makes two models' paired.
    """
    people, index = np.unique(identities, return_inverse=True)
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, _CHUNK):
        n = min(_CHUNK, n_resamples - start)
        counts = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=n)
        yield counts[:, index].astype(np.float32)  # (R, N)


def interval(values: Floats, point: float, level: float = 0.95) -> Estimate:
    """A point estimate with the percentile interval of its bootstrap values."""
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return Estimate(float(point), float(low), float(high))


def weighted_auroc(weights: Floats, labels: Bools, ranking: Floats) -> Floats:
    """P(a positive ranks above a negative) + P(tie) / 2, under each row of weights (R, N): (R,)."""
    order = np.argsort(ranking, kind="stable")
    _, starts = np.unique(ranking[order], return_index=True)
    positive = np.add.reduceat((weights * labels)[:, order].astype(np.float64), starts, axis=1)
    negative = np.add.reduceat((weights * ~labels)[:, order].astype(np.float64), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2  # half of the ties count
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


# The smallest differences of interest, fixed before any comparison.
MARGINS = {"accuracy": 0.02, "leakage": 0.01, "share": 0.10}
MIN_TRAININGS = 3
LEVEL = 0.95
ONE_CHECKPOINT = "this checkpoint only"


@dataclass(frozen=True)
class Difference:
    """A difference with its 95% interval, and the p value of there being none."""

    estimate: Estimate
    p: float  # two-sided; adjusted by `holm` where it belongs to a family
    n_trainings: int = 1  # of the rarer side


def weighted_means(weights: Floats, values: Floats) -> Floats:
    """Means of values (N,) or columns (N, K) under each row of weights (R, N); NaN is left out."""
    known = np.isfinite(values)
    total = weights.astype(np.float32) @ np.where(known, values, 0.0).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / (weights.astype(np.float32) @ known.astype(np.float32))  # (R,) or (R, K)


def paired_bootstrap(
    differences: Floats, people: NDArray[Any], seed: int = 0, *, columns_vary: bool = False
) -> Difference:
    """Mean difference of two models on the same examples, by a bootstrap over people.

    Args:
        differences: (N,), or (N, K) whose columns' means are averaged: a column for each attribute,
            or for each draw of folds and negatives. NaN where an example has no value.
        people: (N,), who is on each example.
        seed: of the bootstrap.
        columns_vary: whether the columns are a sample too, which is then drawn anew as well.
    """
    columns = differences[:, None] if differences.ndim == 1 else differences
    columns = columns[:, np.isfinite(columns).any(axis=0)]
    if not columns.size:
        raise DataError("There is nothing to compare: no example has a value in both models.")
    return from_draws(*bootstrap_means(columns, people, seed), seed, columns_vary=columns_vary)


def bootstrap_means(values: Floats, people: NDArray[Any], seed: int = 0) -> tuple[Floats, Floats]:
    """Means (K,) of columns (N, K), and the same (R, K) with people drawn anew; NaN is left out."""
    once = weighted_means(np.ones((1, len(values))), values)[0]
    drawn = [weighted_means(weights, values) for weights in bootstrap_weights(people, seed=seed)]
    return once, np.concatenate(drawn)


def from_draws(
    point: Floats, drawn: Floats, seed: int = 0, *, columns_vary: bool = False
) -> Difference:
    """The mean over columns (K,) of a difference, from its bootstrap draws (R, K).

    Its p value is the normal one of the draws' spread: counting draws beyond zero cannot go below
    2 / (R + 1), which Holm's correction would lift above any level in a large family.
    """
    if columns_vary:
        picked = np.random.default_rng(seed).integers(0, drawn.shape[1], drawn.shape)
        drawn = np.take_along_axis(drawn, picked, axis=1)
    values = np.nanmean(drawn, axis=1)  # (R,)
    mean, spread = float(np.nanmean(point)), float(np.nanstd(values, ddof=1))
    p = math.erfc(abs(mean) / spread / math.sqrt(2)) if spread else float(mean == 0)
    return Difference(interval(values, mean), p)


def welch_difference(first: Floats, second: Floats) -> Difference:
    """Mean of some trainings' estimates (n,) minus that of others' (m,), by Welch's t (Welch 1947).

    A percentile bootstrap of three trainings would be far too narrow.
    """
    from scipy.stats import ttest_ind

    return _by_t(partial(ttest_ind, equal_var=False), first, second)


def mean_difference(values: Floats) -> Difference:
    """Mean of (n,) with Student's t interval: attributes or trainings as a random sample."""
    from scipy.stats import ttest_1samp

    return _by_t(partial(ttest_1samp, popmean=0), values)


def _by_t(test: Callable[..., Any], *groups: Floats) -> Difference:
    """The first group's mean, less the second's, by a test of scipy."""
    n = min(map(len, groups))
    if n < 2:
        raise DataError(f"A group of {n} has no spread; an interval needs at least two trainings.")
    point = float(groups[0].mean() - sum(group.mean() for group in groups[1:]))
    if max(map(np.ptp, groups)) < 1e-12:  # constant, but for the last digits
        return Difference(Estimate(point, point, point), float(point == 0), n)
    with warnings.catch_warnings():  # of one group that is constant, which is no harm
        warnings.simplefilter("ignore", RuntimeWarning)
        found = test(*groups)
    low, high = found.confidence_interval(LEVEL)
    return Difference(Estimate(point, float(low), float(high)), float(found.pvalue), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for the number of contrasts in their family (Holm 1979)."""
    order, given = np.argsort(p_values), np.array(p_values, float)
    weighed = (len(order) - np.arange(len(order))) * given[order]
    given[order] = np.minimum(np.maximum.accumulate(weighed), 1)
    return list(map(float, given))


def verdict(difference: Difference, margin: float, larger_is_better: bool = True) -> str:
    """What a difference says: "better", "worse", "equivalent" or "open".

    An interval inside the margin is equivalent, even where it excludes zero. With fewer than three
    trainings of a model it holds for "this checkpoint only", which is then said.

    Args:
        difference: first minus second model; its p adjusted for its family.
        margin: the smallest difference of interest, one of MARGINS.
        larger_is_better: whether the measured quantity is.
    """
    estimate = difference.estimate
    if max(abs(estimate.low), abs(estimate.high)) < margin:
        found = "equivalent"
    elif difference.p < 1 - LEVEL and (estimate.low > 0 or estimate.high < 0):
        found = "better" if (estimate.value > 0) == larger_is_better else "worse"
    else:
        found = "open"
    return found if difference.n_trainings >= MIN_TRAININGS else f"{found}, {ONE_CHECKPOINT}"
