"""The likelihoods of the evidence lower bound; its other part is in hublatent/evaluation/rate.py.

Every term is in nats, summed over pixels or latents and averaged over the batch. Images come in
[-1, 1]; each likelihood is stated for pixels in [0, 1], so the map (x + 1) / 2 happens inside it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from hublatent.evaluation.rate import LOG_2PI

# The variance of rounding to 8 bits: no decoder can honestly claim a smaller error.
MIN_MSE = 1 / 255**2 / 12


# Likelihoods: -E log p(x|z) in nats per image, a scalar that is negative where the density is above
# 1; of images (B, C, H, W) with D_x = C * H * W pixels, and the decoder's means, unclamped.


def gaussian_reconstruction(decoded: Tensor, images: Tensor, sigma: float = 1.0) -> Tensor:
    """Negative log density of a Gaussian with one fixed standard deviation.

    0.5 * sum (x - x')^2 / sigma^2 + D_x / 2 * log(2 pi sigma^2): the second part is a constant,
    kept so that likelihoods of different sigma compare. `sigma` is of a pixel in [0, 1].
    """
    n_pixels = images[0].numel()
    squares = n_pixels * pixel_mse(decoded, images)  # sum over pixels, mean over the batch
    return 0.5 * squares / sigma**2 + 0.5 * n_pixels * (LOG_2PI + 2 * math.log(sigma))


def calibrated_reconstruction(decoded: Tensor, images: Tensor) -> Tensor:
    """Gaussian likelihood with sigma at its optimum (sigma-VAE; Rybkin 2021, arXiv:2006.13202, 4).

    The optimal sigma^2 is the MSE over the batch's pixels; inserted into the Gaussian it leaves
    D_x / 2 * log(MSE), plus the constant D_x / 2 * (log(2 pi) + 1), which is kept: the value
    equals gaussian_reconstruction with sigma = sqrt(MSE).
    """
    mse = pixel_mse(decoded, images).clamp_min(MIN_MSE)
    return 0.5 * images[0].numel() * (mse.log() + LOG_2PI + 1)


def pixel_mse(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean squared error for pixels in [0, 1], of two batches in [-1, 1]; a scalar."""
    # Both are twice as far apart as their pixels.
    return functional.mse_loss(decoded.float(), images.float()) / 4


def sample_posterior(
    mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw z = mean + sigma * noise (B, D), differentiable in both (Kingma & Welling 2013, eq. 10).

    The generator lies on the CPU, where a seed gives every device the same noise, or on theirs.
    """
    device = mean.device if generator is None else generator.device
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=device)
    return mean + (0.5 * log_variance).exp() * noise.to(mean.device)
