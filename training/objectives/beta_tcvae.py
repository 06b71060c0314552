"""beta-TCVAE: the KL divergence in three parts (Chen et al. 2018, arXiv:1802.04942)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hublatent.errors import DataError, unknown_name
from hublatent.evaluation.rate import decompose_kl, kl_divergence
from training.objectives.objective import (
    Batch,
    Posterior,
    Terms,
    VariationalObjective,
    sample_posterior,
)

ESTIMATORS = ("mss", "mws")


class BetaTCVAEObjective(VariationalObjective):
    """Reconstruction + alpha * MI + beta * TC + gamma * dwKL (eq. 4)."""

    def penalty(self, posterior: Posterior, batch: Batch) -> tuple[Tensor, Terms]:
        recipe, z = self.recipe, posterior.z
        weights = importance_weights(len(z), self.n_examples, recipe.estimator, z.device)
        terms = decompose_kl(z, posterior.mean, posterior.log_variance, weights)
        information, correlation, dimension_wise = terms
        kl = information + correlation + dimension_wise
        weighted = recipe.alpha * information + recipe.beta * correlation
        return weighted + recipe.gamma * dimension_wise, {"kl": kl, **terms._asdict()}


class PenalisedTCObjective(VariationalObjective):
    """Reconstruction + KL + (beta - 1) * TC: KL in closed form, TC from a latent drawn anew.

    Its expected value is that of BetaTCVAEObjective with alpha = gamma = 1; it is how the paper's
    code computes it.
    """

    def penalty(self, posterior: Posterior, batch: Batch) -> tuple[Tensor, Terms]:
        _, mean, log_variance = posterior
        z = sample_posterior(mean, log_variance, batch.draws)
        weights = importance_weights(len(z), self.n_examples, self.recipe.estimator, z.device)
        kl = kl_divergence(mean, log_variance)
        correlation = decompose_kl(z, mean, log_variance, weights).total_correlation
        weighted = (self.recipe.beta - 1) * correlation
        return kl + weighted, {"kl": kl, "total_correlation": correlation}


@lru_cache(maxsize=8)  # the same ones in every step
def importance_weights(
    batch_size: int, n_examples: int, estimator: str = "mss", device: torch.device | None = None
) -> Tensor:
    """W: how much posterior j of a batch counts in the estimate of q(z_i) = sum_j W_ij q(z_i|x_j).

    Chen 2018, arXiv:1802.04942. "mws", eq. 5: 1 / (N M) everywhere. "mss", appendix C.2, with
    M = B - 1: 1/N for example i itself, (N - M) / (N M) for one other and 1/M for the rest, so
    that each row sums to 1.

    Args:
        batch_size: B.
        n_examples: N, size of the training set.
        estimator: "mss" (minibatch stratified) or "mws" (minibatch weighted).
        device: of the result (B, B).
    """
    if not 1 <= batch_size <= n_examples:
        raise DataError(
            f"A batch of {batch_size} from {n_examples} examples; expected 1 to {n_examples}."
        )
    if estimator == "mws":
        return torch.full((batch_size, batch_size), 1 / (n_examples * batch_size), device=device)
    if estimator != "mss":
        raise DataError(unknown_name("estimator", estimator, ESTIMATORS))
    if batch_size == 1:
        return torch.ones(1, 1, device=device)
    others = batch_size - 1
    weights = torch.full((batch_size, batch_size), 1 / others, device=device)
    rows = torch.arange(batch_size, device=device)
    weights[rows, rows] = 1 / n_examples
    weights[rows, (rows + 1) % batch_size] = (n_examples - others) / (n_examples * others)
    return weights
