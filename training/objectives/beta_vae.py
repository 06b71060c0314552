"""beta-VAE (Higgins et al. 2017), and with beta = 1 the evidence lower bound."""

from __future__ import annotations

from torch import Tensor

from training.objectives.elbo import kl_divergence
from training.objectives.objective import Batch, Posterior, VariationalObjective


class BetaVAEObjective(VariationalObjective):
    """Reconstruction + beta * KL."""

    def combine(
        self, reconstruction: Tensor, posterior: Posterior, batch: Batch
    ) -> dict[str, Tensor]:
        kl = kl_divergence(posterior.mean, posterior.log_variance)
        return beta_vae(reconstruction, kl, self.recipe.beta)


def beta_vae(reconstruction: Tensor, kl: Tensor, beta: float) -> dict[str, Tensor]:
    """beta-VAE (Higgins 2017, eq. 4): reconstruction + beta * KL.

    Args:
        reconstruction: -E log p(x|z), a scalar in nats.
        kl: a scalar in nats.
        beta: weight of the KL divergence.

    Returns:
        loss, reconstruction, kl.
    """
    return {"loss": reconstruction + beta * kl, "reconstruction": reconstruction, "kl": kl}
