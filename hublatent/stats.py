"""Honest numbers: folds, balanced sets and bootstraps that respect identities.

A person's photographs resemble one another, so they never stand on both sides of a split, and a
bootstrap draws persons, not photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

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
    """Deal identities into folds; the same data and seed give every model the same folds.

    Args:
        identities: (N,).
        n_folds: how many folds.
        seed: of the shuffle.

    Returns:
        (N,), the fold of each example, 0 to n_folds - 1.
    """
    people, index = np.unique(identities, return_inverse=True)
    if len(people) < n_folds:
        raise DataError(f"{n_folds} folds need as many identities; the data have {len(people)}.")
    order = np.random.default_rng(seed).permutation(len(people))
    return (order % n_folds)[index]


def balanced_indices(labels: Bools, seed: int = 0) -> Ints:
    """Draw as many positives as negatives: all of the rarer kind, a sample of the other.

    Args:
        labels: (N,).
        seed: of the draw.

    Returns:
        Sorted indices into `labels`.

    Raises:
        DataError: one kind has fewer than 20 examples.
    """
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    n = min(len(positive), len(negative))
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

    Args:
        coordinate: (n,).
        labels: (n,), as many of each kind.

    Returns:
        The threshold, in units of c, and the gain, per unit of c.
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
    identities: Ints, n_resamples: int = N_BOOTSTRAP, seed: int = 0
) -> Iterator[NDArray[np.float32]]:
    """How often each example is drawn when identities are drawn with replacement.

    Args:
        identities: (N,).
        n_resamples: how many resamples.
        seed: of the draws; the same one makes two models' resamples paired.

    Yields:
        Weights (R, N), some resamples at a time.
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


def classification_scores(
    labels: Bools, predicted: Bools, ranking: Floats, identities: Ints, seed: int = 0
) -> dict[str, Estimate]:
    """Accuracy, precision, recall, F1 (the paper's Table 1) and AUROC, with 95% intervals.

    Args:
        labels: (N,), the truth.
        predicted: (N,), the decisions.
        ranking: (N,), larger where the attribute is more likely.
        identities: (N,); the bootstrap draws these.
        seed: of the bootstrap.

    Returns:
        Name -> Estimate.
    """
    once = np.ones((1, len(labels)), np.float32)
    point = _all_scores(once, labels, predicted, ranking)
    drawn: dict[str, list[Floats]] = {name: [] for name in point}
    for weights in bootstrap_weights(identities, seed=seed):
        for name, values in _all_scores(weights, labels, predicted, ranking).items():
            drawn[name].append(values)
    return {n: interval(np.concatenate(v), float(point[n][0])) for n, v in drawn.items()}


def _all_scores(
    weights: NDArray[np.float32], labels: Bools, predicted: Bools, ranking: Floats
) -> Mapping[str, Floats]:
    """Each score under each row of weights (R, N): name -> (R,)."""
    hits = weights @ np.stack(
        [labels & predicted, ~labels & predicted, labels & ~predicted, ~labels & ~predicted], axis=1
    ).astype(np.float32)  # (R, 4)
    true_positive, false_positive, false_negative, true_negative = hits.astype(np.float64).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": (true_positive + true_negative) / hits.sum(axis=1),
            "precision": true_positive / (true_positive + false_positive),
            "recall": true_positive / (true_positive + false_negative),
            "f1": 2 * true_positive / (2 * true_positive + false_positive + false_negative),
            "auroc": weighted_auroc(weights, labels, ranking),
        }


def weighted_auroc(weights: Floats, labels: Bools, ranking: Floats) -> Floats:
    """P(a positive ranks above a negative) + P(tie) / 2, under each row of weights.

    Args:
        weights: (R, N).
        labels: (N,).
        ranking: (N,).

    Returns:
        (R,).
    """
    order = np.argsort(ranking, kind="stable")
    _, starts = np.unique(ranking[order], return_index=True)
    positive = np.add.reduceat((weights * labels)[:, order].astype(np.float64), starts, axis=1)
    negative = np.add.reduceat((weights * ~labels)[:, order].astype(np.float64), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2  # half of the ties count
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


def paired_difference(
    statistic: Callable[[NDArray[np.float32]], Floats], identities: Ints, seed: int = 0
) -> Estimate:
    """A difference between two models on the same images, with its paired bootstrap interval.

    Args:
        statistic: weights (R, N) -> differences (R,).
        identities: (N,).
        seed: of the bootstrap.

    Returns:
        The difference; the interval excludes 0 where the two models differ.
    """
    point = float(statistic(np.ones((1, len(identities)), np.float32))[0])
    drawn = [statistic(weights) for weights in bootstrap_weights(identities, seed=seed)]
    return interval(np.concatenate(drawn), point)
