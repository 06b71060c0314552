"""How the latent moves when an attribute changes."""

from __future__ import annotations

import numpy as np

from hublatent.discovery.methods.problem import Fits, Problem, without_each
from hublatent.discovery.methods.svm import svm


def pattern(problem: Problem) -> Fits:
    """Covariance of the balanced set times the svm filter (Haufe et al. 2014, eq. 6)."""
    filters = problem.once(svm).rows  # (F + 1, D)
    n_folds, width = problem.n_folds, filters.shape[1]
    counts, sums = np.zeros((n_folds, 1)), np.zeros((n_folds, width))
    products = np.zeros((n_folds, len(filters), width))  # sum of z <z, filter>
    for latents, _, folds in problem.blocks():
        block = latents.astype(np.float64)
        readings = block @ filters.T  # (b, F + 1)
        for fold in range(n_folds):
            members = folds == fold
            counts[fold] += members.sum()
            sums[fold] += block[members].sum(axis=0)
            products[fold] += readings[members].T @ block[members]
    n, mean = without_each(counts), without_each(sums) / without_each(counts)
    own = without_each(products)[range(len(filters)), range(len(filters))]  # (F + 1, D)
    return Fits((own - n * mean * (mean * filters).sum(axis=1, keepdims=True)) / (n - 1))
