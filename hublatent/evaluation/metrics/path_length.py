"""Perceptual path length (Karras et al. 2019, arXiv:1812.04948, eq. 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hublatent.errors import HublatentError

PERCENTILES = (0.01, 0.99)


@torch.inference_mode()
def path_length(
    decode: Callable[[Tensor], Tensor],
    first: Tensor,
    second: Tensor,
    embed: Callable[[Tensor], Tensor],
    epsilon: float = 1e-3,
    ends: bool = False,
    seed: int = 0,
    batch: int = 64,
) -> dict[str, float]:
    """How fast images change, to the eye of a network, along straight lines between latents.

    mean of d(decode(lerp(z_1, z_2, t)), decode(lerp(z_1, z_2, t + eps))) / eps ** 2, without the
    lowest and the highest hundredth

    Not comparable between networks, resolutions or spaces: name them beside it.

    Args:
        decode: latents (B, *latent_shape) -> images (B, C, H, W).
        first: (N, *latent_shape), samples.
        second: (N, *latent_shape), others.
        embed: images -> (B, F), whose squared Euclidean distances are perceptual distances. In
            float32 an epsilon of 1e-4 leaves mostly rounding errors of it; the default does not.
        epsilon: length of the step, in shares of the line.
        ends: measure at t = 0 instead of at t uniform in [0, 1].
        seed: of t.
        batch: images decoded at once.

    Returns:
        "path-length".
    """
    if first.shape != second.shape or len(first) < 2:
        raise HublatentError(
            f"samples of shapes {tuple(first.shape)} and {tuple(second.shape)}; expected two of "
            "the same shape, of at least 2 latents."
        )
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(len(first), generator=generator) * (0 if ends else 1)
    t = t.to(first).reshape(-1, *[1] * (first.ndim - 1))
    here, there = first.lerp(second, t), first.lerp(second, t + epsilon)
    distances = [
        (embed(decode(a)) - embed(decode(b))).square().sum(dim=1)  # (B,)
        for a, b in zip(here.split(batch), there.split(batch), strict=True)
    ]
    speeds = torch.cat(distances).double() / epsilon**2
    low, high = torch.quantile(speeds, speeds.new_tensor(PERCENTILES))
    return {"path-length": float(speeds[(speeds >= low) & (speeds <= high)].mean())}
