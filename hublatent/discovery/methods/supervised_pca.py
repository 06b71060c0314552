"""Directions of a quantity, and edits by a wanted change of it (Slot et al. 2021).

Supervised principal components (Barshan et al. 2011) of latents under a measured quantity, such as
brightness, pose or the shape of the face: with one quantity and a linear kernel there is one
component, the covariance of the latents with it. For a label that is the difference of class means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hublatent.discovery.methods.problem import Fits, Problem, without_each
from hublatent.errors import DataError
from hublatent.stats import Floats

DEGREE = 3


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


@dataclass(frozen=True, eq=False)
class TargetEdit:
    """Edits by a wanted change of a quantity (Slot et al. 2021).

    With t = <z, u> the coordinate along the component u and t = f(y) its regression on the
    quantity, a latent moves by u (f(y + change) - f(y)).

    Attributes:
        component: (D,), u, of norm 1.
        coefficients: of the polynomial f, the highest power first.
    """

    component: Floats
    coefficients: Floats

    @classmethod
    def fit(cls, latents: Floats, quantity: Floats, degree: int = DEGREE) -> TargetEdit:
        """Find the component and the regression.

        Args:
            latents: (N, D).
            quantity: (N,), measured on the images.
            degree: of the polynomial; 1 moves along a straight line at one speed.

        Raises:
            DataError: shapes disagree, or the quantity is constant or not finite.
        """
        y, z = np.asarray(quantity, np.float64), np.asarray(latents, np.float64)
        if z.ndim != 2 or y.shape != (len(z),):
            raise DataError(
                f"Latents of shape {z.shape} and quantities of shape {y.shape}; expected (N, D) "
                "and (N,)."
            )
        if not np.isfinite(y).all() or len(np.unique(y)) <= degree:
            raise DataError(
                f"The quantity takes {len(np.unique(y))} values, not all of them finite or too few "
                f"for a polynomial of degree {degree}."
            )
        component = (y - y.mean()) @ (z - z.mean(axis=0))
        component = component / np.linalg.norm(component)
        return cls(component, np.polyfit(y, z @ component, degree))

    def apply(self, latents: Tensor, quantity: Tensor, change: float | Tensor) -> Tensor:
        """Move latents so that the quantity changes.

        Args:
            latents: (B, D).
            quantity: (B,), what it is now.
            change: wanted, a number or (B,).

        Returns:
            (B, D).
        """
        now = quantity.double().cpu().numpy()
        then = now + torch.as_tensor(change).double().cpu().numpy()
        shift = np.polyval(self.coefficients, then) - np.polyval(self.coefficients, now)
        component = torch.from_numpy(self.component)
        moved = torch.from_numpy(shift)[:, None] * component  # (B, D)
        return latents + moved.to(latents)


def explained(requested: Floats, obtained: Floats) -> float:
    """R^2 of obtained against requested changes: 1 where every one is what was asked for."""
    requested, obtained = np.asarray(requested, float), np.asarray(obtained, float)
    spread = np.square(requested - requested.mean()).sum()
    return float(1 - np.square(obtained - requested).sum() / spread)
