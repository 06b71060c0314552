"""How the latent moves when one attribute changes and the others do not."""

from __future__ import annotations

import numpy as np

from hublatent.discovery.methods.problem import Fits, Population, Problem, without_each
from hublatent.stats import Floats


def joint(problem: Problem) -> Fits:
    """The attribute's coefficient in the least-squares regression of latents on all attributes."""
    return Fits(problem.population.once(coefficients)[:, problem.data.column(problem.attribute)])


def coefficients(population: Population) -> Floats:
    """(F + 1, K, D): solve min_B sum |z - (1, labels) B|^2 without each fold, then on everybody."""
    data, n_folds = population.data, population.n_folds
    n_terms, width = 1 + len(data.attributes), data.pooled_latents.shape[1]
    # The intercept takes up any origin; near the latents, their large common part rounds nothing.
    origin = data.pooled_latents[0].astype(np.float64)
    gram = np.zeros((n_folds, n_terms, n_terms))
    moments = np.zeros((n_folds, n_terms, width))
    for indices, latents in data.blocks(np.arange(len(data.latents))):
        design = np.column_stack([np.ones(len(indices)), data.labels[indices]])
        for fold in range(n_folds):
            members = population.folds[indices] == fold
            gram[fold] += design[members].T @ design[members]
            moments[fold] += design[members].T @ (latents[members].astype(np.float64) - origin)
    # The pseudo-inverse gives attributes that nobody shows, or two that are one, a finite answer.
    return (np.linalg.pinv(without_each(gram), hermitian=True) @ without_each(moments))[:, 1:]
