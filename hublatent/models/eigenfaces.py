"""Eigenfaces: principal components of the pixels, the linear baseline (Turk & Pentland 1991)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hublatent.checkpoint import check_number
from hublatent.model import LatentModel, check_image_arguments


class Eigenfaces(LatentModel):
    """Encodes and decodes like a VAE, but linearly: z = V (x - mean), x = mean + V' z.

    V holds latent_dim components.
    """

    architecture = "eigenfaces"
    mean: Tensor
    components: Tensor

    def __init__(self, image_size: int = 64, channels: int = 3, latent_dim: int = 128) -> None:
        check_image_arguments(image_size, channels)
        check_number("latent_dim", latent_dim, 1, 4096)
        super().__init__(image_size, channels, (latent_dim,))
        n_pixels = channels * image_size**2
        self.register_buffer("mean", torch.zeros(n_pixels))
        self.register_buffer("components", torch.zeros(latent_dim, n_pixels))

    def encode(self, images: Tensor) -> Tensor:
        """Project images (B, C, H, W) in [-1, 1] onto the components: (B, D)."""
        self.check_images(images)
        pixels = images.contiguous().flatten(1)  # (B, C*H*W)
        return (pixels - self.mean) @ self.components.T  # (B, D)

    def decode(self, latents: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of latents (B, D)."""
        self.check_latents(latents)
        pixels = self.mean + latents @ self.components  # (B, C*H*W)
        images = pixels.unflatten(1, (self.channels, self.image_size, self.image_size))
        return images.clamp(-1, 1)

    def first_affine(self, layers: Sequence[int] | None = None) -> Tensor:
        """The components as weights (C*H*W, D)."""
        return self.components.T
