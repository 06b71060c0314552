"""Kernel inception distance on the features of any network (Binkowski et al. 2018, 1801.01401)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from hublatent.errors import HublatentError


class FeatureNetwork(Protocol):
    """A network that describes images by features, such as AttributeClassifier."""

    def features(self, images: Tensor) -> Tensor:
        """Features (B, d) of images (B, C, H, W) in [-1, 1]."""


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy, cubic polynomial kernel.

    The kernel is k(a, b) = (a . b / d + 1)^3 (section 4), the estimator leaves out the diagonals
    (eq. 4). Being unbiased it may be negative, and is comparable between sample counts.

    Args:
        x: features (N, d).
        y: features (M, d).

    Returns:
        The estimate; 0 in expectation where both come from one distribution.
    """
    if min(len(x), len(y)) < 2:
        raise HublatentError(f"KID got {len(x)} and {len(y)} images; expected at least 2 of each.")
    x, y = x.double(), y.double()
    within_x, within_y = _kernel(x, x), _kernel(y, y)
    n, m = len(x), len(y)
    mean_x = (within_x.sum() - within_x.diagonal().sum()) / (n * (n - 1))
    mean_y = (within_y.sum() - within_y.diagonal().sum()) / (m * (m - 1))
    return float(mean_x + mean_y - 2 * _kernel(x, y).mean())


@torch.no_grad()
def features_of(network: FeatureNetwork, batches: Iterable[Tensor]) -> Tensor:
    """The features (N, d) of batches of images (B, C, H, W) in [-1, 1], on the CPU."""
    return torch.cat([network.features(images).float().cpu() for images in batches])


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3
