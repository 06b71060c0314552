"""Directions that the model offers: principal components, weight factors, its own dimensions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hublatent.discovery.methods.problem import Fits, Problem
from hublatent.errors import HublatentError, unknown_name
from hublatent.model import LatentModel

N_CANDIDATES = 80  # GANSpace's number of components


def principal_components(model: LatentModel) -> Tensor:
    """Eigenvectors of the model's latent covariance (GANSpace, Härkönen et al. 2020).

    Unit rows (D, D), the largest variance first. Nothing is sampled.
    """
    return torch.linalg.eigh(model.latent_covariance.double().cpu())[1].T.flip(0)


@torch.no_grad()
def weight_factors(model: LatentModel) -> Tensor:
    """Directions that the first weights amplify most (SeFa, Shen & Zhou 2021, arXiv:2007.06600).

    The eigenvectors of A' A, A the weights that first act on a latent, each row of norm 1: unit
    rows (D, D), the largest eigenvalue first.
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
    counts, sums, squares = problem.class_sums(rows)
    means = sums / counts  # (F + 1, 2, K)
    variances = (squares / counts - np.square(means)).mean(axis=1)  # (F + 1, K)
    effects = (means[:, 1] - means[:, 0]) / np.sqrt(np.maximum(variances, 1e-30))
    strongest = np.abs(effects).argmax(axis=1)
    signs = np.sign(effects[range(len(effects)), strongest])  # so that they point to presence
    return Fits(signs[:, None] * rows[strongest])


def axis(problem: Problem) -> Fits:
    """The dimension that the model reserves for the attribute (Li et al. 2018, LSA-VAE)."""
    axes = getattr(problem.model, "attribute_axes", None)
    if axes is None:
        raise HublatentError(
            f"The method 'axis' needs a model with a latent dimension for each attribute, such as "
            f"LSAVAE; a {type(problem.model).__name__} has none."
        )
    if problem.attribute not in axes:
        raise HublatentError(unknown_name("attribute of this model", problem.attribute, axes))
    row = np.zeros(problem.data.latents.shape[-1])
    row[axes[problem.attribute]] = 1
    return Fits(np.tile(row, (problem.n_folds + 1, 1)))
