"""beta-VAE with a controlled capacity (Burgess et al. 2018, arXiv:1804.03599)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.objectives.elbo import kl_divergence
from training.objectives.objective import Batch, Posterior, VariationalObjective


class CapacityVAEObjective(VariationalObjective):
    """Reconstruction + weight * |KL - C|, C rising with the images seen."""

    def combine(
        self, reconstruction: Tensor, posterior: Posterior, batch: Batch
    ) -> dict[str, Tensor]:
        recipe = self.recipe
        kl = kl_divergence(posterior.mean, posterior.log_variance)
        capacity = capacity_at(batch.images_seen, recipe.capacity_images, recipe.capacity)
        return capacity_vae(reconstruction, kl, capacity, recipe.capacity_weight)


def capacity_at(step: int, n_steps: int, maximum: float) -> float:
    """The capacity C, rising linearly from 0 to `maximum` (Burgess 2018, arXiv:1804.03599, 5.2).

    Args:
        step: steps done.
        n_steps: steps after which the maximum is reached.
        maximum: C_max, in nats.

    Returns:
        C, in nats.
    """
    return maximum * min(1.0, step / max(1, n_steps))


def capacity_vae(
    reconstruction: Tensor, kl: Tensor, capacity: float, gamma: float = 1000.0
) -> dict[str, Tensor]:
    """beta-VAE with controlled capacity (Burgess 2018, eq. 8): reconstruction + gamma * |KL - C|.

    Args:
        reconstruction: -E log p(x|z), a scalar in nats.
        kl: the batch's KL, a scalar in nats; the absolute value is of the batch's distance.
        capacity: C, in nats, as from `capacity_at`.
        gamma: weight of the distance.

    Returns:
        loss, reconstruction, kl, capacity.
    """
    return {
        "loss": reconstruction + gamma * (kl - capacity).abs(),
        "reconstruction": reconstruction,
        "kl": kl,
        "capacity": torch.as_tensor(float(capacity)),
    }
