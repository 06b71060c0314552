"""StyleGAN2's objective: adversarial losses, lazy regularisers, weight averaging."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.models.stylegan2 import StyleGAN2, mix_styles

PATH_LENGTH_DECAY = 0.01  # of the running mean, per regularisation step (arXiv:1912.04958, app. B)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss -log sigmoid(D(fake)) (Goodfellow et al. 2014), a scalar."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """-log(1 - sigmoid(D(fake))) - log sigmoid(D(real)) (Goodfellow et al. 2014), a scalar."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def r1_penalty(real: Tensor, real_logits: Tensor) -> Tensor:
    """R1 without its factor gamma / 2: E |grad_x D(x)|^2 (Mescheder et al. 2018, eq. 9), a scalar.

    `real` (B, C, H, W) requires grad; the square is summed over its pixels.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(images: Tensor, latents: Tensor, noise: Tensor) -> Tensor:
    """|J_w^T y| for random images y (arXiv:1912.04958, section 3.2, eq. 4).

    Args:
        images: (B, C, H, W), synthesised from the latents.
        latents: (B, L, D), requires grad; the squares are summed over D and averaged over L.
        noise: (B, C, H, W), from N(0, I).
    """
    scale = 1 / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * noise).sum() * scale, latents, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the average of the weights: average = keep * average + (1 - keep) * model."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)


def average_keep(images_seen: int, batch_size: int, half_life: float, ramp_up: float) -> float:
    """How much of the average survives one step, in [0, 1) (arXiv:1912.04958, appendix B).

    Its half-life, in images, is early on the share `ramp_up` of the images seen.
    """
    length = min(half_life, images_seen * ramp_up)
    return 0.0 if length <= 0 else 0.5 ** (batch_size / length)


def falling(n_left: int, falls_over: int) -> float:
    """The share of a rate when so many images are left: 1, and linearly to 0 over the last ones."""
    return min(1.0, max(0, n_left) / falls_over) if falls_over else 1.0


def lazy_ratio(regularise_every: int) -> float:
    """What a regularisation every few steps, or never, makes of Adam's numbers (appendix B)."""
    return regularise_every / (regularise_every + 1) if regularise_every else 1.0


def lazy_adam(
    parameters: list[nn.Parameter], learning_rate: float, regularise_every: int
) -> torch.optim.Adam:
    """Adam (0, 0.99), corrected for a regularisation every few steps, or never (appendix B)."""
    ratio = lazy_ratio(regularise_every)
    # One batched update for all tensors: hundreds of small ones would cost more than their work.
    return torch.optim.Adam(
        parameters, lr=learning_rate * ratio, betas=(0.0, 0.99**ratio), eps=1e-8, foreach=True
    )


def perturbed(latents: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise to W+ codes (B, L, D): the paper's remedy for holes in the latent space.

    Its standard deviation is in standard deviations of W over the batch.
    """
    if amount == 0:
        return latents
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    spread = latents.detach().std(dim=0, keepdim=True)  # (1, L, D)
    return latents + amount * spread * noise


def draw_latents(model: StyleGAN2, n: int, mixing: float, generator: torch.Generator) -> Tensor:
    """Draw W+ codes (n, L, D) for training, of which a share has two styles, crossing over at a
    random layer (Karras et al. 2019, 3.1); gradients flow into the mapping network.
    """
    device = model.const.device
    z = torch.randn(2 * n, model.z_dim, generator=generator).to(device)
    n_layers = model.latent_shape[0]
    crossover = torch.randint(1, n_layers, (n,), generator=generator)
    mixed = torch.rand(n, generator=generator) < mixing
    first, second = model.mapping(z).chunk(2)  # (n, L, D) each
    return mix_styles(first, second, torch.where(mixed, crossover, n_layers).to(device))
