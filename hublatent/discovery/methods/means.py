"""Difference of the two class means."""

from __future__ import annotations

import numpy as np

from hublatent.discovery.methods.problem import Fits, Problem, without_each


def mean_difference(problem: Problem) -> Fits:
    """Mean of the positives minus mean of the negatives."""
    width = problem.data.pooled_latents.shape[1]
    sums = np.zeros((problem.n_folds, 2, width))
    counts = np.zeros((problem.n_folds, 2, 1))
    for latents, labels, folds in problem.blocks():
        for fold in range(problem.n_folds):
            for kind in (0, 1):
                members = (folds == fold) & (labels == bool(kind))
                sums[fold, kind] += latents[members].sum(axis=0, dtype=np.float64)
                counts[fold, kind] += members.sum()
    negative, positive = np.moveaxis(without_each(sums) / without_each(counts), 1, 0)
    return Fits(positive - negative)
