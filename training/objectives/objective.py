"""What an objective is: the terms that a step of training minimises, from one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hublatent.models.vae import VAE
from training.objectives.elbo import (
    calibrated_reconstruction,
    gaussian_reconstruction,
    pixel_mse,
    sample_posterior,
)
from training.recipes import VAERecipe

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
