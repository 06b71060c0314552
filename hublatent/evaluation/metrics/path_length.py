"""Perceptual path length (Karras et al. 2019, arXiv:1812.04948, eq. 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hublatent.errors import HublatentError

PERCENTILES = (0.01, 0.99)
BATCH = 64


@torch.inference_mode()
def path_length(
    decode: Callable[[Tensor], Tensor],
    first: Tensor,
    second: Tensor,
    embed: Callable[[Tensor], Tensor],
    epsilon: float = 1e-3,
    seed: int = 0,
) -> dict[str, float]:
    """How fast images change, to the eye of a network, along straight lines between latents.

    mean of d(decode(lerp(z_1, z_2, t)), decode(lerp(z_1, z_2, t + eps))) / eps ** 2, without the
    lowest and the highest hundredth; t is uniform in [0, 1]

    Not comparable between networks, resolutions or spaces: name them beside it.

    Args:
        first, second: (N, *latent_shape), samples that lines go between.
        embed: images -> (B, F), whose squared Euclidean distances are perceptual distances. In
            float32 an epsilon of 1e-4 leaves mostly rounding errors of it; the default does not.
    """
    if first.shape != second.shape or len(first) < 2:
        raise HublatentError(
            f"samples of shapes {tuple(first.shape)} and {tuple(second.shape)}; expected two of "
            "the same shape, of at least 2 latents."
        )
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(len(first), generator=generator)
    t = t.to(first).reshape(-1, *[1] * (first.ndim - 1))
    here, there = first.lerp(second, t), first.lerp(second, t + epsilon)
    distances = [
        (embed(decode(a)) - embed(decode(b))).square().sum(dim=1)  # (B,)
        for a, b in zip(here.split(BATCH), there.split(BATCH), strict=True)
    ]
    speeds = torch.cat(distances).double() / epsilon**2
    low, high = torch.quantile(speeds, speeds.new_tensor(PERCENTILES))
    return {"path-length": float(speeds[(speeds >= low) & (speeds <= high)].mean())}
