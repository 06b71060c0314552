"""beta-VAE (Higgins et al. 2017), and with beta = 1 the evidence lower bound."""

from __future__ import annotations

from torch import Tensor

from hublatent.evaluation.rate import kl_divergence
from training.objectives.objective import Batch, Posterior, Terms, VariationalObjective


class BetaVAEObjective(VariationalObjective):
    """Reconstruction + beta * KL (Higgins 2017, eq. 4)."""

    def penalty(self, posterior: Posterior, batch: Batch) -> tuple[Tensor, Terms]:
        kl = kl_divergence(posterior.mean, posterior.log_variance)
        return self.recipe.beta * kl, {"kl": kl}
