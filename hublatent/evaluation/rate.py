"""What a model's latents cost: its rate in nats, and the parts of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ACTIVE_VARIANCE = 0.01
MAX_IMAGES = 2_000  # every image is compared with every other, in every dimension
ELEMENTS = 2**23


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) of each image, (N,), in nats.

    Kingma and Welling 2014 (arXiv:1312.6114), appendix B.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2


def active_dimensions(mean: Tensor) -> int:
    """How many posterior means vary by more than 0.01 (Burda 2016, arXiv:1509.00519, section 2)."""
    return int((mean.var(dim=0, correction=0) > ACTIVE_VARIANCE).sum())


def decomposed_kl(mean: Tensor, log_variance: Tensor, seed: int = 0) -> dict[str, float]:
    """The parts of the KL divergence (Chen 2018, arXiv:1802.04942, eq. 2), in nats.

    The aggregate posterior q(z) is that of the given images, so the mutual information is at most
    log N; of more than 2,000 images the first ones are taken.

    Args:
        mean, log_variance: (N, D), of the posteriors.
        seed: of the latent that is drawn from each of them.

    Returns:
        mutual_information, total_correlation and dimension_wise_kl.
    """
    mean, log_variance = mean[:MAX_IMAGES].double(), log_variance[:MAX_IMAGES].double()
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed)).to(mean)
    z = mean + noise * (log_variance / 2).exp()
    n, width = mean.shape
    sums = torch.zeros(3, dtype=torch.float64)
    for i in torch.arange(n).split(max(1, ELEMENTS // (n * width))):
        log_q = _log_density(z[i, None], mean, log_variance)  # (B, N, D)
        conditional = _log_density(z[i], mean[i], log_variance[i]).sum(dim=1)
        joint = log_q.sum(dim=2).logsumexp(dim=1) - math.log(n)
        marginals = (log_q.logsumexp(dim=1) - math.log(n)).sum(dim=1)
        prior = _log_density(z[i], torch.zeros(()), torch.zeros(())).sum(dim=1)
        parts = conditional - joint, joint - marginals, marginals - prior
        sums += torch.stack([part.sum().cpu() for part in parts])
    names = ("mutual_information", "total_correlation", "dimension_wise_kl")
    return dict(zip(names, (sums / n).tolist(), strict=True))


def _log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log of the normal density, elementwise."""
    return -((z - mean).square() / log_variance.exp() + log_variance + math.log(2 * math.pi)) / 2
