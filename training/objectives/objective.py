"""What an objective is: the terms that a step of training minimises, from one batch.

Every term is in nats, summed over pixels or latents and averaged over the batch. Images come in
[-1, 1]; each likelihood is stated for pixels in [0, 1], so the map (x + 1) / 2 happens inside it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hublatent.evaluation.rate import LOG_2PI
from hublatent.models.vae import VAE
from training.recipes import VAERecipe

# The variance of rounding to 8 bits: no decoder can honestly claim a smaller error.
MIN_MSE = 1 / 255**2 / 12
Terms = dict[str, Tensor]  # name -> scalar


class Batch(NamedTuple):
    """What a step sees."""

    images: Tensor  # (B, C, H, W), in [-1, 1]
    labels: Tensor  # (B, K), 1 where the attribute is present, else 0
    draws: torch.Generator  # generates all that the step draws
    images_seen: int = 0  # how far the training is


class Posterior(NamedTuple):
    """The posteriors of a batch, and a latent drawn from each; all (B, D)."""

    z: Tensor
    mean: Tensor
    log_variance: Tensor


class Objective(ABC):
    """What is minimised.

    An objective may own a second network with its optimiser, which learns after the model in every
    step; both are then among its `parts`, and so in a run's state.
    """

    parts: dict[str, Any]
    optimizer: torch.optim.Optimizer | None = None

    def __init__(
        self, recipe: VAERecipe, n_examples: int, latent_dim: int, device: torch.device
    ) -> None:
        self.recipe = recipe
        self.n_examples = n_examples
        self.parts = {}

    @abstractmethod
    def terms(self, model: Any, batch: Batch) -> Terms:
        """The terms of one batch.

        Returns:
            Scalars: "loss", which the model's optimiser minimises, the objective's terms in nats,
            and "mse" for pixels in [0, 1].
        """

    def own_terms(self, model: Any, batch: Batch) -> Terms:
        """The terms of the objective's own network, on an independent second batch.

        Returns:
            Scalars: "own_loss", which the objective's optimiser minimises, and others to log.
        """
        raise NotImplementedError

    def reconstruction(self, decoded: Tensor, images: Tensor) -> Tensor:
        """-E log p(x|z) by the recipe's likelihood, in nats per image."""
        if self.recipe.likelihood == "gaussian":
            return gaussian_reconstruction(decoded, images, self.recipe.sigma)
        return calibrated_reconstruction(decoded, images)


class VariationalObjective(Objective):
    """An objective of a posterior: the reconstruction of a latent drawn from it, and a penalty."""

    def terms(self, model: VAE, batch: Batch) -> Terms:
        mean, log_variance = model.encode_distribution(batch.images)  # (B, D) each
        posterior = Posterior(sample_posterior(mean, log_variance, batch.draws), mean, log_variance)
        decoded = model.decode_unclamped(posterior.z)  # (B, C, H, W)
        reconstruction = self.reconstruction(decoded, batch.images)
        penalty, parts = self.penalty(posterior, batch)
        own = {"loss": reconstruction + penalty, "reconstruction": reconstruction}
        return {**own, **parts, "mse": pixel_mse(decoded, batch.images).detach()}

    @abstractmethod
    def penalty(self, posterior: Posterior, batch: Batch) -> tuple[Tensor, Terms]:
        """What is added to the reconstruction, and the named terms that it consists of."""


# Likelihoods: -E log p(x|z) in nats per image, a scalar that is negative where the density is above
# 1; of images (B, C, H, W) with D_x = C * H * W pixels, and the decoder's means, unclamped.


def gaussian_reconstruction(decoded: Tensor, images: Tensor, sigma: float = 1.0) -> Tensor:
    """Negative log density of a Gaussian with one fixed standard deviation, of a pixel in [0, 1].

    0.5 * sum (x - x')^2 / sigma^2 + D_x / 2 * log(2 pi sigma^2): the second part is a constant,
    kept so that likelihoods of different sigma compare.
    """
    n_pixels = images[0].numel()
    squares = n_pixels * pixel_mse(decoded, images)  # sum over pixels, mean over the batch
    return 0.5 * squares / sigma**2 + 0.5 * n_pixels * (LOG_2PI + 2 * math.log(sigma))


def calibrated_reconstruction(decoded: Tensor, images: Tensor) -> Tensor:
    """Gaussian likelihood with sigma at its optimum (sigma-VAE; Rybkin 2021, arXiv:2006.13202, 4).

    The optimal sigma^2 is the MSE over the batch's pixels; inserted into the Gaussian it leaves
    D_x / 2 * log(MSE), plus the constant D_x / 2 * (log(2 pi) + 1), which is kept.
    """
    mse = pixel_mse(decoded, images).clamp_min(MIN_MSE)
    return 0.5 * images[0].numel() * (mse.log() + LOG_2PI + 1)


def pixel_mse(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean squared error for pixels in [0, 1], of two batches in [-1, 1]; a scalar."""
    return functional.mse_loss(decoded.float(), images.float()) / 4  # twice as far apart


def sample_posterior(
    mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw z = mean + sigma * noise (B, D), differentiable in both (Kingma & Welling 2013, eq. 10).

    The generator lies on the CPU, where a seed gives every device the same noise, or on theirs.
    """
    device = mean.device if generator is None else generator.device
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=device)
    return mean + (0.5 * log_variance).exp() * noise.to(mean.device)
