"""Directions that need no labels: principal components (GANSpace) and a factorisation (SeFa)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hublatent.discovery.methods.problem import Fits, Problem, without_each
from hublatent.errors import HublatentError
from hublatent.stats import Floats

if TYPE_CHECKING:
    from hublatent.model import LatentModel

N_CANDIDATES = 80  # GANSpace's number of components


def principal_components(model: LatentModel) -> Tensor:
    """The eigenvectors of the model's latent covariance (GANSpace, Härkönen et al. 2020).

    The covariance lies in the checkpoint, so nothing is sampled.

    Returns:
        (D, D), unit rows, the largest variance first.
    """
    return torch.linalg.eigh(model.latent_covariance.double().cpu())[1].T.flip(0)


@torch.no_grad()
def weight_factors(model: LatentModel) -> Tensor:
    """Directions that the first weights amplify most (SeFa, Shen & Zhou 2021, arXiv:2007.06600).

    The eigenvectors of A' A, A the weights that first act on a latent, each row of norm 1.

    Returns:
        (D, D), unit rows, the largest eigenvalue first.

    Raises:
        HublatentError: the model names no such weights.
    """
    weights = model.first_affine().double().cpu()  # (N, D)
    weights = weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return torch.linalg.eigh(weights.T @ weights)[1].T.flip(0)


def components(problem: Problem) -> Fits:
    """The principal component along which the attribute's two classes differ most."""
    return _nearest(problem, principal_components)


def factorisation(problem: Problem) -> Fits:
    """The factor of the first weights along which the attribute's two classes differ most."""
    return _nearest(problem, weight_factors)


def _nearest(problem: Problem, find: Callable[[LatentModel], Tensor]) -> Fits:
    """Choose, without each fold, the candidate with the largest |difference| / deviation."""
    if problem.model is None:
        raise HublatentError("This method reads its directions from the model; pass model=.")
    rows = find(problem.model).numpy()[:N_CANDIDATES]  # (K, D)
    # For each fold and class: how many, the sum and the sum of squares of the coordinates.
    sums = np.zeros((problem.n_folds, 2, 3, len(rows)))
    for latents, labels, folds in problem.blocks():
        coordinates = latents.astype(np.float64) @ rows.T  # (b, K)
        for fold in range(problem.n_folds):
            for kind in (0, 1):
                own = coordinates[(folds == fold) & (labels == bool(kind))]
                sums[fold, kind] += [
                    np.full(len(rows), len(own)),
                    own.sum(0),
                    np.square(own).sum(0),
                ]
    return Fits(np.stack([_largest(part, rows) for part in without_each(sums)]))


def _largest(sums: Floats, rows: Floats) -> Floats:
    """The row (D,) whose classes' (2, 3, K) sums differ most, pointing to presence."""
    means = sums[:, 1] / sums[:, 0]  # (2, K)
    variances = (sums[:, 2] / sums[:, 0] - np.square(means)).mean(axis=0)
    effects = (means[1] - means[0]) / np.sqrt(np.maximum(variances, 1e-30))
    chosen = int(np.abs(effects).argmax())
    return np.asarray(np.sign(effects[chosen]) * rows[chosen])
