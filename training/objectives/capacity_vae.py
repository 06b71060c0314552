"""beta-VAE with a controlled capacity (Burgess et al. 2018, arXiv:1804.03599)."""

from __future__ import annotations

import torch
from torch import Tensor

from hublatent.evaluation.rate import kl_divergence
from training.objectives.objective import Batch, Posterior, Terms, VariationalObjective


class CapacityVAEObjective(VariationalObjective):
    """Reconstruction + weight * |KL - C| (eq. 8), C rising with the images seen (section 5.2).

    The absolute value is of the batch's KL: each image's would let none of them average out.
    """

    def penalty(self, posterior: Posterior, batch: Batch) -> tuple[Tensor, Terms]:
        recipe = self.recipe
        kl = kl_divergence(posterior.mean, posterior.log_variance)
        capacity = recipe.capacity * min(1.0, batch.images_seen / recipe.capacity_images)
        distance = (kl - capacity).abs()
        return recipe.capacity_weight * distance, {"kl": kl, "capacity": torch.tensor(capacity)}
