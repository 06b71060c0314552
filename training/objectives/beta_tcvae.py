"""beta-TCVAE: the KL divergence in three parts (Chen et al. 2018, arXiv:1802.04942)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from hublatent.errors import DataError, unknown_name
from training.objectives.elbo import LOG_2PI, kl_divergence, sample_posterior
from training.objectives.objective import Batch, Posterior, Terms, VariationalObjective

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


class KLTerms(NamedTuple):
    """The three parts of the KL divergence (Chen 2018, arXiv:1802.04942, eq. 2), in nats."""

    mutual_information: Tensor  # I(z; x), of latents and the index of the image
    total_correlation: Tensor  # KL(q(z) || prod_d q(z_d))
    dimension_wise_kl: Tensor  # sum over d of KL(q(z_d) || p(z_d))


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


def pairwise_log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log q(z_i,d | x_j), (D, B, M): each sample z (B, D) under each posterior (M, D)."""
    # -0.5 * ((z - m)^2 / v + log v + log 2 pi), multiplied out into one product of matrices by
    # dimension: (z^2, z, 1) . (-0.5 / v, m / v, -0.5 * (m^2 / v + log v + log 2 pi)).
    if z.device.type != "cpu":
        return difference_log_density(z, mean, log_variance)
    precision = (-log_variance).exp()
    constant = mean.square() * precision + log_variance + LOG_2PI
    samples = torch.stack((z.square(), z, torch.ones_like(z)), dim=2)  # (B, D, 3)
    posteriors = torch.stack((-0.5 * precision, mean * precision, -0.5 * constant))  # (3, M, D)
    # Large terms nearly cancel here: an autocast to bf16 around this would leave noise.
    with torch.autocast(z.device.type, enabled=False):
        return samples.transpose(0, 1) @ posteriors.permute(2, 0, 1)  # (D, B, M)


def difference_log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The same without a product of matrices, which a GPU may round to three digits."""
    squares = (z[:, None] - mean).square() * (-log_variance).exp()  # (B, M, D)
    return -0.5 * (squares + log_variance + LOG_2PI).permute(2, 0, 1)  # (D, B, M)


def decompose_kl(z: Tensor, mean: Tensor, log_variance: Tensor, weights: Tensor) -> KLTerms:
    """Estimate mutual information, total correlation and dimension-wise KL (Chen 2018, eq. 2).

    log W enters the joint density once and each marginal once. The three terms always sum to the
    same value, the mean of log q(z|x) - log p(z), whatever the weights.

    Args:
        z: (B, D), z_i drawn from posterior i.
        mean: (M, D), of M >= B posteriors, the first B of which are those of z.
        log_variance: (M, D).
        weights: (B, M), or anything that broadcasts to it, as from `importance_weights`; 1/M
            with all examples as posteriors is exact.

    Returns:
        The terms, averaged over the batch.
    """
    log_density = pairwise_log_density(z, mean, log_variance)  # (D, B, M)
    log_weights = weights.log()
    log_joint = log_density.sum(dim=0)  # (B, M), log q(z_i | x_j)
    own = log_joint.diagonal()  # (B,), log q(z_i | x_i)
    joint = _log_sum_exp(log_weights + log_joint)  # (B,), log q(z_i)
    marginals = _log_sum_exp(log_weights + log_density).sum(dim=0)  # (B,), sum_d log q(z_i,d)
    prior = -0.5 * (z.square() + LOG_2PI).sum(dim=1)  # (B,), log p(z_i)
    return KLTerms((own - joint).mean(), (joint - marginals).mean(), (marginals - prior).mean())


def _log_sum_exp(values: Tensor) -> Tensor:
    """log sum exp over the last dimension, 5 times as fast as torch.logsumexp here.

    exp of numbers that underflow takes 20 times as long as of others, so they are cut at 60 nats
    below the largest, where they change no digit; and one exp serves both passes.
    """
    largest = values.detach().amax(dim=-1, keepdim=True)
    return (values - largest).clamp_min(-60).exp().sum(dim=-1).log() + largest.squeeze(-1)
