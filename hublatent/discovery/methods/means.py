"""How the latents' mean changes with an attribute: mean-difference, joint and supervised-pca."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hublatent.discovery.methods.problem import Fits, Population, Problem, once, without_each
from hublatent.stats import Floats


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the balanced examples of each fold (F) and kind (without, with)."""

    counts: Floats  # (F, 2, 1)
    sums: Floats  # (F, 2, D), of the latents
    squares: Floats  # (F, 2, D), of their squares


@once
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
    return Moments(*(x.reshape(problem.n_folds, 2, -1) for x in (counts, sums, squares)))


def mean_difference(problem: Problem) -> Fits:
    """Mean of the positives minus mean of the negatives."""
    totals = moments(problem)
    means = without_each(totals.sums) / without_each(totals.counts)  # (F + 1, 2, D)
    return Fits(means[:, 1] - means[:, 0])


def joint(problem: Problem) -> Fits:
    """How the latent moves when the attribute changes and the others do not.

    Its coefficient in the least-squares regression of the latents on all attributes.
    """
    return Fits(coefficients(problem.population)[:, problem.data.column(problem.attribute)])


@once
def coefficients(population: Population) -> Floats:
    """(F + 1, K, D): solve min_B sum |z - (1, labels) B|^2 without each fold, then on everybody."""
    data, n_folds = population.data, population.n_folds
    n_terms, width = 1 + len(data.attributes), data.pooled_latents.shape[1]
    # The intercept takes up any origin; near the latents, their large common part rounds nothing.
    origin = data.pooled_latents[0].astype(np.float64)
    gram, moved = (np.zeros((n_folds, n_terms, n)) for n in (n_terms, width))
    for indices, latents in data.blocks(np.arange(len(data.latents))):
        design = np.column_stack([np.ones(len(indices)), data.labels[indices]])
        for fold in range(n_folds):
            own = population.folds[indices] == fold
            gram[fold] += design[own].T @ design[own]
            moved[fold] += design[own].T @ (latents[own].astype(np.float64) - origin)
    # The pseudo-inverse gives attributes that nobody shows, or two that are one, a finite answer.
    return (np.linalg.pinv(without_each(gram), hermitian=True) @ without_each(moved))[:, 1:]


def supervised_pca(problem: Problem) -> Fits:
    """Covariance of the latents with the quantity behind the attribute, over all images.

    The one supervised principal component (Barshan et al. 2011) under a measured quantity, as Slot
    et al. 2021 edit faces; of a label, where no quantity is known, the difference of class means.
    """
    data, folds, n_folds = problem.data, problem.population.folds, problem.n_folds
    target = problem.label.astype(np.float64)
    if data.targets is not None:
        target = np.asarray(data.targets[:, data.column(problem.attribute)], np.float64)
    counts, totals = np.zeros((2, n_folds, 1))
    sums, products = np.zeros((2, n_folds, data.pooled_latents.shape[1]))
    for indices, latents in data.blocks(np.arange(len(target))):
        for fold in range(n_folds):
            own = folds[indices] == fold
            y, z = target[indices[own]], latents[own].astype(np.float64)
            counts[fold] += len(y)
            totals[fold] += y.sum()
            sums[fold] += z.sum(axis=0)
            products[fold] += y @ z
    n = without_each(counts)
    return Fits((without_each(products) - without_each(totals) / n * without_each(sums)) / n)
