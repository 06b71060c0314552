"""Objectives of the VAE family: pure functions of named terms, in nats.

Every term is summed over pixels or latents and averaged over the batch. Images come in [-1, 1];
each likelihood is stated for pixels in [0, 1], so the map (x + 1) / 2 happens inside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hublatent.errors import DataError, unknown_name

ESTIMATORS = ("mss", "mws")
LOG_2PI = math.log(2 * math.pi)
# The variance of rounding to 8 bits: no decoder can honestly claim a smaller error.
MIN_MSE = 1 / 255**2 / 12


# Likelihoods: -E log p(x|z), with D_x = C * H * W pixels.


def bernoulli_reconstruction(logits: Tensor, images: Tensor) -> Tensor:
    """Sum of the pixels' binary cross-entropies (Kingma & Welling 2013, arXiv:1312.6114, C.1).

    Args:
        logits: (B, C, H, W), the decoder's log odds of each pixel in [0, 1].
        images: (B, C, H, W), in [-1, 1].

    Returns:
        Nats per image, a scalar.
    """
    total = functional.binary_cross_entropy_with_logits(logits, to_pixels(images), reduction="sum")
    return total / len(images)


def gaussian_reconstruction(decoded: Tensor, images: Tensor, sigma: float = 1.0) -> Tensor:
    """Negative log density of a Gaussian with one fixed standard deviation.

    0.5 * sum (x - x')^2 / sigma^2 + D_x / 2 * log(2 pi sigma^2): the second part is a constant,
    kept so that likelihoods of different sigma compare.

    Args:
        decoded: (B, C, H, W), the decoder's mean, in the units of images, unclamped.
        images: (B, C, H, W), in [-1, 1].
        sigma: standard deviation of a pixel in [0, 1].

    Returns:
        Nats per image, a scalar; negative where the density is above 1.
    """
    n_pixels = images[0].numel()
    squares = n_pixels * pixel_mse(decoded, images)  # sum over pixels, mean over the batch
    return 0.5 * squares / sigma**2 + 0.5 * n_pixels * (LOG_2PI + 2 * math.log(sigma))


def calibrated_reconstruction(decoded: Tensor, images: Tensor) -> Tensor:
    """Gaussian likelihood with sigma at its optimum (sigma-VAE; Rybkin 2021, arXiv:2006.13202, 4).

    The optimal sigma^2 is the MSE over the batch's pixels; inserted into the Gaussian it leaves
    D_x / 2 * log(MSE), plus the constant D_x / 2 * (log(2 pi) + 1), which is kept: the value
    equals gaussian_reconstruction with sigma = sqrt(MSE).

    Args:
        decoded: (B, C, H, W), the decoder's mean, in the units of images, unclamped.
        images: (B, C, H, W), in [-1, 1].

    Returns:
        Nats per image, a scalar; negative where the density is above 1.
    """
    mse = pixel_mse(decoded, images).clamp_min(MIN_MSE)
    return 0.5 * images[0].numel() * (mse.log() + LOG_2PI + 1)


def to_pixels(images: Tensor) -> Tensor:
    """Map images in [-1, 1] to pixels in [0, 1]."""
    return (images + 1) / 2


def pixel_mse(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean squared error for pixels in [0, 1], of two batches in [-1, 1]; a scalar."""
    # Both are twice as far apart as their pixels.
    return functional.mse_loss(decoded.float(), images.float()) / 4


LIKELIHOODS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "bernoulli": bernoulli_reconstruction,
        "gaussian": gaussian_reconstruction,
        "calibrated-gaussian": calibrated_reconstruction,
    }
)


# Regularisers.


def kl_per_dimension(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) of each latent dimension (Kingma & Welling 2013, appendix B).

    Args:
        mean: (B, D), of the posterior.
        log_variance: (B, D), of the posterior.

    Returns:
        (D,), averaged over the batch; its sum is the KL divergence.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(dim=0)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)), summed over dimensions, averaged over the batch; a scalar."""
    return kl_per_dimension(mean, log_variance).sum()


def sample_posterior(
    mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw z = mean + sigma * noise, differentiable in both (Kingma & Welling 2013, eq. 10).

    Args:
        mean: (B, D).
        log_variance: (B, D).
        generator: a CPU generator, so that a seed gives the same noise on every device.

    Returns:
        (B, D).
    """
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
    return mean + (0.5 * log_variance).exp() * noise


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


class KLTerms(NamedTuple):
    """The three parts of the KL divergence (Chen 2018, arXiv:1802.04942, eq. 2), scalars in nats.

    Attributes:
        mutual_information: index-code mutual information I(z; x).
        total_correlation: KL(q(z) || prod_d q(z_d)).
        dimension_wise_kl: sum over d of KL(q(z_d) || p(z_d)).
    """

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor


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
        device: where to put it.

    Returns:
        (B, B).
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
    """log q(z_i,d | x_j): each sample under each posterior, by dimension.

    Args:
        z: (B, D).
        mean: (M, D).
        log_variance: (M, D).

    Returns:
        (D, B, M).
    """
    # -0.5 * ((z - m)^2 / v + log v + log 2 pi), multiplied out into one product of matrices by
    # dimension: (z^2, z, 1) . (-0.5 / v, m / v, -0.5 * (m^2 / v + log v + log 2 pi)).
    precision = (-log_variance).exp()
    constant = mean.square() * precision + log_variance + LOG_2PI
    samples = torch.stack((z.square(), z, torch.ones_like(z)), dim=2)  # (B, D, 3)
    posteriors = torch.stack((-0.5 * precision, mean * precision, -0.5 * constant))  # (3, M, D)
    # Large terms nearly cancel here: an autocast to bf16 around this would leave noise.
    with torch.autocast(z.device.type, enabled=False):
        return samples.transpose(0, 1) @ posteriors.permute(2, 0, 1)  # (D, B, M)


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


# Objectives: named terms; "loss" is what training minimises.


def elbo(reconstruction: Tensor, kl: Tensor) -> dict[str, Tensor]:
    """Negative evidence lower bound (Kingma & Welling 2013, eq. 3): reconstruction + KL.

    Args:
        reconstruction: -E log p(x|z), a scalar in nats.
        kl: a scalar in nats.

    Returns:
        loss, reconstruction, kl.
    """
    return beta_vae(reconstruction, kl, 1.0)


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


def beta_tcvae(
    reconstruction: Tensor,
    kl_terms: KLTerms,
    beta: float,
    alpha: float = 1.0,
    gamma: float = 1.0,
) -> dict[str, Tensor]:
    """beta-TCVAE (Chen 2018, eq. 4): reconstruction + alpha * MI + beta * TC + gamma * dwKL.

    Args:
        reconstruction: -E log p(x|z), a scalar in nats.
        kl_terms: as from `decompose_kl`.
        beta: weight of the total correlation.
        alpha: weight of the mutual information.
        gamma: weight of the dimension-wise KL.

    Returns:
        loss, reconstruction, kl (the sum of the three terms), mutual_information,
        total_correlation, dimension_wise_kl.
    """
    information, correlation, dimension_wise = kl_terms
    weighted = alpha * information + beta * correlation + gamma * dimension_wise
    return {
        "loss": reconstruction + weighted,
        "reconstruction": reconstruction,
        "kl": information + correlation + dimension_wise,
        **kl_terms._asdict(),
    }
