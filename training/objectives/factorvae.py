"""FactorVAE: total correlation by a discriminator's density ratio (Kim & Mnih 2018, 1802.05983)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hublatent.evaluation.rate import kl_divergence
from hublatent.models.vae import VAE
from training.objectives.objective import (
    Batch,
    Posterior,
    Terms,
    VariationalObjective,
    sample_posterior,
)
from training.recipes import VAERecipe

N_LAYERS = 6
SLOPE = 0.2
BETAS = (0.5, 0.9)  # of the discriminator's Adam (appendix A)


class Discriminator(nn.Sequential):
    """Latents (B, D) -> two logits (B, 2): drawn jointly, or each dimension by itself.

    Six hidden layers with leaky ReLU (appendix A), and no normalisation: it would blur the ratio
    of the two densities.
    """

    def __init__(self, latent_dim: int, width: int = 1000) -> None:
        layers: list[nn.Module] = []
        for n_in in [latent_dim] + [width] * (N_LAYERS - 1):
            layers += [nn.Linear(n_in, width), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers, nn.Linear(width, 2))


def permute_dimensions(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Permute each dimension of (B, D) by itself (algorithm 1): draws of prod_j q(z_j).

    The generator lies on the CPU or on the latents' device.
    """
    draws = torch.rand(latents.shape, generator=generator, device=generator.device)
    order = draws.argsort(dim=0)  # (B, D)
    return latents.gather(0, order.to(latents.device))


def total_correlation(logits: Tensor) -> Tensor:
    """TC = E_q(z) [log D(z) / (1 - D(z))] (eq. 3) of logits (B, 2), a scalar in nats."""
    return (logits[:, 0] - logits[:, 1]).mean()


def discriminator_loss(joint_logits: Tensor, permuted_logits: Tensor) -> Tensor:
    """Mean cross-entropy of telling the two (B, 2), classes 0 and 1, apart (algorithm 2)."""
    joint = joint_logits.log_softmax(dim=1)[:, 0].mean()
    return -0.5 * (joint + permuted_logits.log_softmax(dim=1)[:, 1].mean())


class FactorVAEObjective(VariationalObjective):
    """Reconstruction + KL + gamma * TC (eq. 2), TC estimated by the objective's discriminator."""

    def __init__(
        self, recipe: VAERecipe, n_examples: int, latent_dim: int, device: torch.device
    ) -> None:
        super().__init__(recipe, n_examples, latent_dim, device)
        self.discriminator = Discriminator(latent_dim, recipe.discriminator_width).to(device)
        rate, weights = recipe.discriminator_learning_rate, self.discriminator.parameters()
        self.optimizer = torch.optim.Adam(weights, rate, betas=BETAS, fused=True)
        self.parts = {
            "discriminator": self.discriminator,
            "discriminator_optimizer": self.optimizer,
        }
        self._latents = torch.empty(0)  # of the step's first batch, until the discriminator's turn

    def penalty(self, posterior: Posterior, batch: Batch) -> tuple[Tensor, Terms]:
        self._latents = posterior.z.detach()
        kl = kl_divergence(posterior.mean, posterior.log_variance)
        correlation = total_correlation(self._logits(posterior.z))
        weighted = self.recipe.gamma * correlation
        return kl + weighted, {"kl": kl, "total_correlation": correlation}

    def own_terms(self, model: VAE, batch: Batch) -> Terms:
        """The discriminator's loss and accuracy; no gradient reaches the encoder."""
        with torch.no_grad():
            others = sample_posterior(*model.encode_distribution(batch.images), batch.draws)
        # The first batch's logits are taken anew: the model's step has used up their graph.
        joint = self._logits(self._latents)
        permuted = self._logits(permute_dimensions(others, batch.draws))
        right = (joint[:, 0] > joint[:, 1]).sum() + (permuted[:, 0] < permuted[:, 1]).sum()
        return {
            "own_loss": discriminator_loss(joint, permuted),
            "discriminator_accuracy": right / (len(joint) + len(permuted)),
        }

    def _logits(self, latents: Tensor) -> Tensor:
        # A ratio of densities needs float32, whatever the convolutions are taken in.
        with torch.autocast(latents.device.type, enabled=False):
            return self.discriminator(latents.float())
