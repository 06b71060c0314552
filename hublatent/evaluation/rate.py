"""What a model's latents cost: its rate in nats, and the parts of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hublatent.data import FaceDataset
    from hublatent.model import LatentModel
    from hublatent.stats import Ints

BATCH = 64
ACTIVE_VARIANCE = 0.01
MAX_IMAGES = 2_000  # every image is compared with every other, in every dimension
ELEMENTS = 2**20  # densities at once: larger arrays would be fetched from the system each time
LOG_2PI = math.log(2 * math.pi)


class KLTerms(NamedTuple):
    """The three parts of the KL divergence (Chen 2018, arXiv:1802.04942, eq. 2), in nats."""

    mutual_information: Tensor  # I(z; x)
    total_correlation: Tensor  # KL(q(z) || prod_d q(z_d))
    dimension_wise_kl: Tensor  # sum over d of KL(q(z_d) || p(z_d))


@torch.no_grad()
def rate_and_distortion(
    model: LatentModel, dataset: FaceDataset, indices: Ints, seed: int = 0
) -> dict[str, float | int]:
    """What a model with an encoder gives for some images, at least one, and at which price.

    Returns:
        mse (pixels in [0, 1]); active_dimensions. Of a model with the prior N(0, I) also kl, the
        parts of KLTerms (nats), and n_decomposed, the number of images behind these.
    """
    has_prior = getattr(model, "standard_prior", False)
    encode: Any = model.encode_distribution if has_prior else lambda images: (model.encode(images),)
    error, posteriors = 0.0, []
    for start in range(0, len(indices), BATCH):
        images = dataset.batch(indices[start:][:BATCH]).to(model.latent_mean)
        posteriors.append(encode(images))  # the mean comes first
        decoded = model.decode(posteriors[-1][0])
        error += float(((decoded - images) / 2).square().mean(dim=(1, 2, 3)).sum())
    mean = torch.cat([posterior[0] for posterior in posteriors])
    found = {"mse": error / len(indices), "active_dimensions": active_dimensions(mean)}
    if not has_prior:
        return found
    log_variance = torch.cat([posterior[1] for posterior in posteriors])
    return {
        **found, "kl": float(kl_divergence(mean, log_variance)),
        **decomposed_kl(mean, log_variance, seed), "n_decomposed": min(len(mean), MAX_IMAGES),
    }  # fmt: skip


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) (Kingma & Welling 2013, appendix B), a scalar in nats.

    Args:
        mean: (B, D), of the posteriors; summed over dimensions, averaged over the batch.
        log_variance: (B, D).
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(dim=0).sum()


def active_dimensions(mean: Tensor) -> int:
    """How many posterior means vary by more than 0.01 (Burda 2016, arXiv:1509.00519, section 2)."""
    return int((mean.var(dim=0, correction=0) > ACTIVE_VARIANCE).sum())


@torch.no_grad()
def decomposed_kl(mean: Tensor, log_variance: Tensor, seed: int = 0) -> dict[str, float]:
    """The parts of the KL divergence, each of KLTerms, over all given images.

    The aggregate posterior q(z) is that of these images, so the mutual information is at most
    log N; of more than 2,000 images the first ones are taken. The posteriors' mean and log_variance
    are (N, D); a seed draws a latent from each.
    """
    mean, log_variance = mean[:MAX_IMAGES].double(), log_variance[:MAX_IMAGES].double()
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed)).to(mean)
    z = mean + noise * (log_variance / 2).exp()
    n, width = mean.shape
    weights, sums = mean.new_full((1, n), 1 / n), mean.new_zeros(3)
    for rows in torch.arange(n).split(max(1, ELEMENTS // (n * width))):
        terms = decompose_kl(z[rows], mean, log_variance, weights, first=int(rows[0]))
        sums += len(rows) * torch.stack(terms)
    return dict(zip(KLTerms._fields, (sums / n).tolist(), strict=True))


def decompose_kl(
    z: Tensor, mean: Tensor, log_variance: Tensor, weights: Tensor, first: int = 0
) -> KLTerms:
    """Estimate mutual information, total correlation and dimension-wise KL (Chen 2018, eq. 2).

    log W enters the joint density once and each marginal once. The three terms always sum to the
    same value, the mean of log q(z|x) - log p(z), whatever the weights.

    Args:
        z: (B, D), z_i drawn from posterior first + i.
        mean: (M, D), of the posteriors.
        log_variance: (M, D).
        weights: (B, M), or anything that broadcasts to it: how much each posterior counts in the
            estimate of q(z_i); 1/M with all examples as posteriors is exact.
        first: where the posteriors of z begin.

    Returns:
        The terms, averaged over the batch.
    """
    log_density = pairwise_log_density(z, mean, log_variance)  # (D, B, M)
    log_weights = weights.log()
    log_joint = log_density.sum(dim=0)  # (B, M), log q(z_i | x_j)
    own = log_joint.diagonal(first)  # (B,), log q(z_i | x_i)
    joint = _log_sum_exp(log_weights + log_joint)  # (B,), log q(z_i)
    marginals = _log_sum_exp(log_weights + log_density).sum(dim=0)  # (B,), sum_d log q(z_i,d)
    prior = -0.5 * (z.square() + LOG_2PI).sum(dim=1)  # (B,), log p(z_i)
    return KLTerms((own - joint).mean(), (joint - marginals).mean(), (marginals - prior).mean())


def pairwise_log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log q(z_i,d | x_j): each sample (B, D) under each posterior (M, D); (D, B, M)."""
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


def _log_sum_exp(values: Tensor) -> Tensor:
    """log sum exp over the last dimension, 5 times as fast as torch.logsumexp here.

    exp of numbers that underflow takes 20 times as long as of others, so they are cut at 60 nats
    below the largest, where they change no digit; and one exp serves both passes.
    """
    largest = values.detach().amax(dim=-1, keepdim=True)
    return (values - largest).clamp_min(-60).exp_().sum(dim=-1).log() + largest.squeeze(-1)
