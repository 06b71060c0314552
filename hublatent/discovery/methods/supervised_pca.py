"""Directions of a quantity (Slot et al. 2021); measured.py says what edits by a change obtain.

Supervised principal components (Barshan et al. 2011) of latents under a measured quantity, such as
brightness, pose or the shape of the face: with one quantity and a linear kernel there is one
component, the covariance of the latents with it. For a label that is the difference of class means.
"""

from __future__ import annotations

import numpy as np

from hublatent.discovery.methods.problem import Fits, Problem, without_each


def supervised_pca(problem: Problem) -> Fits:
    """Covariance of the latents with the attribute's quantity, over all images."""
    data, target = problem.data, problem.target
    width = data.pooled_latents.shape[1]
    counts, totals = np.zeros((problem.n_folds, 1)), np.zeros((problem.n_folds, 1))
    sums, products = np.zeros((2, problem.n_folds, width))
    for indices, latents in data.blocks(np.arange(len(target))):
        for fold in range(problem.n_folds):
            own = problem.population.folds[indices] == fold
            y, z = target[indices[own]], latents[own].astype(np.float64)
            counts[fold] += len(y)
            totals[fold] += y.sum()
            sums[fold] += z.sum(axis=0)
            products[fold] += y @ z
    n, total = without_each(counts), without_each(totals)
    return Fits((without_each(products) - total / n * without_each(sums)) / n)
