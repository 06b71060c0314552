"""Difference of the two class means, and the sums it rests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hublatent.discovery.methods.problem import Fits, Problem, without_each
from hublatent.stats import Floats


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the balanced examples of each fold (F) and kind (without, with).

    Attributes:
        counts: (F, 2, 1).
        sums: (F, 2, D), of the latents.
        squares: (F, 2, D), of their squares.
    """

    counts: Floats
    sums: Floats
    squares: Floats


def moments(problem: Problem) -> Moments:
    """Go over the balanced set once."""
    n_cells, width = 2 * problem.n_folds, problem.data.pooled_latents.shape[1]
    counts, sums, squares = (np.zeros((n_cells, n)) for n in (1, width, width))
    for latents, labels, folds in problem.blocks():
        member = (2 * folds + labels == np.arange(n_cells)[:, None]).astype(np.float64)  # (2F, b)
        block = latents.astype(np.float64)
        counts += member.sum(axis=1, keepdims=True)
        sums += member @ block
        squares += member @ (block * block)
    shape = (problem.n_folds, 2, -1)
    return Moments(counts.reshape(shape), sums.reshape(shape), squares.reshape(shape))


def mean_difference(problem: Problem) -> Fits:
    """Mean of the positives minus mean of the negatives."""
    totals = problem.once(moments)
    means = without_each(totals.sums) / without_each(totals.counts)  # (F + 1, 2, D)
    return Fits(means[:, 1] - means[:, 0])
