"""The latent dimension that a model reserves for an attribute (Li et al. 2018, LSA-VAE)."""

from __future__ import annotations

import numpy as np

from hublatent.discovery.methods.problem import Fits, Problem
from hublatent.errors import HublatentError, unknown_name


def axis(problem: Problem) -> Fits:
    """The unit vector of the attribute's own dimension; nothing is fitted."""
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
