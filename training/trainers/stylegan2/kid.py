"""Kernel inception distance on the features of any network (Binkowski et al. 2018, 1801.01401)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from sklearn.metrics.pairwise import polynomial_kernel
from torch import Tensor

from hublatent.errors import HublatentError
from training.trainers import loop

BATCH = 100  # images per pass of a network that only looks


class FeatureNetwork(Protocol):
    """A network that describes images by features, such as AttributeClassifier."""

    def features(self, images: Tensor) -> Tensor:
        """Features (B, d) of images (B, C, H, W) in [-1, 1]."""


class KernelDistance:
    """Kernel inception distance of a trainer's averaged generator to validation images.

    Its `floor` is that of as many training images; no generator is expected below.
    """

    def __init__(self, network: FeatureNetwork, trainer: Any, n_samples: int) -> None:
        self.network = network
        self.trainer = trainer
        self.n_samples = n_samples
        dataset, device = trainer.dataset, trainer.device
        real = loop.batches(dataset, dataset.indices("validation"), device, BATCH)
        self.validation = self._features(real)
        draws = torch.Generator().manual_seed(0)
        some = torch.randperm(len(trainer.indices), generator=draws)[:n_samples].numpy()
        training = self._features(loop.batches(dataset, trainer.indices[some], device, BATCH))
        self.floor = squared_mmd(training, self.validation)
        print(
            f"KID floor {self.floor:.5f}: {len(training)} training images against "
            f"{len(self.validation)} validation images"
        )

    def measure(self) -> float:
        """The distance of the averaged generator's samples, always of the same seed."""
        model = self.trainer.average
        draws = torch.Generator().manual_seed(self.trainer.recipe.seed + 1)
        latents = model.sample_latents(self.n_samples, generator=draws)
        samples = (model.decode(part) for part in latents.split(BATCH))
        return squared_mmd(self._features(samples), self.validation)

    @torch.no_grad()
    def _features(self, batches: Iterable[Tensor]) -> Tensor:
        """Of batches of images: (N, d), on the CPU."""
        return torch.cat([self.network.features(images).float().cpu() for images in batches])


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy, cubic polynomial kernel.

    The kernel is k(a, b) = (a . b / d + 1)^3 (section 4), the estimator leaves out the diagonals
    (eq. 4). Being unbiased it may be negative, and is comparable between sample counts.

    It is 0 in expectation where both features, (N, d) and (M, d), come from one distribution.
    """
    if min(len(x), len(y)) < 2:
        raise HublatentError(f"KID got {len(x)} and {len(y)} images; expected at least 2 of each.")
    within = 0.0
    for features in (x.double(), y.double()):
        kernel = polynomial_kernel(features)  # of degree 3, with gamma 1 / d and constant 1
        n = len(kernel)
        within += (kernel.sum() - kernel.trace()) / (n * (n - 1))
    return float(within - 2 * polynomial_kernel(x.double(), y.double()).mean())
