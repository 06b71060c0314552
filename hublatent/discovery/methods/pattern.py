"""How the latent moves when an attribute changes."""

from __future__ import annotations

import numpy as np

from hublatent.discovery.methods.means import moments
from hublatent.discovery.methods.problem import Fits, Problem, without_each
from hublatent.discovery.methods.svm import svm


def pattern(problem: Problem) -> Fits:
    """Covariance of the balanced set times the svm filter (Haufe et al. 2014, eq. 6)."""
    filters = problem.once(svm).rows  # (F + 1, D)
    n_fits, n_folds = len(filters), problem.n_folds
    products = np.zeros((n_folds, *filters.shape))  # of each fold, the sum of z <z, filter>
    for latents, _, folds in problem.blocks():
        block = latents.astype(np.float64)
        member = folds == np.arange(n_folds)[:, None]  # (F, b)
        weights = member[:, None] * (block @ filters.T).T  # (F, F + 1, b)
        products += (weights.reshape(-1, len(block)) @ block).reshape(products.shape)
    totals = problem.once(moments)
    counts, sums = (without_each(x.sum(axis=1)) for x in (totals.counts, totals.sums))
    mean = sums / counts
    own = without_each(products)[range(n_fits), range(n_fits)]  # (F + 1, D)
    centred = own - counts * mean * (mean * filters).sum(axis=1, keepdims=True)
    return Fits(centred / (counts - 1))
