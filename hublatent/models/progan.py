"""ProGAN's generator (Karras et al. 2018, arXiv:1710.10196) in pure PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.models.layers import (
    GAIN,
    SLOPE,
    ToRGB,
    channels_by_height,
    chunk_size,
    conv_after_doubling,
    largest_map,
    pixel_norm,
)
from hublatent.models.style_generator import Generator


class ProGAN(Generator):
    """ProGAN's generator at its full size; its latents are z (D,), drawn from N(0, I).

    The network reads only the direction of z, not its length: latents lie on a sphere, and an edit
    turns them. Feature maps of height r have min(channel_base // r, channel_max) channels.

    Args:
        image_size: height and width in pixels, a power of two from 16 to 1024.
        channels: image channels.
        latent_dim: D.
        channel_base: channels times height of the feature maps; twice NVIDIA's fmap_base.
        channel_max: channels never exceed this.
    """

    architecture = "progan"
    has_encoder = False

    def __init__(
        self, image_size: int = 1024, channels: int = 3, latent_dim: int = 512,
        channel_base: int = 16384, channel_max: int = 512,
    ) -> None:  # fmt: skip
        check_number("latent_dim", latent_dim, 1, 4096)
        widths = channels_by_height(image_size, channels, channel_base, channel_max)
        super().__init__(image_size, channels, (latent_dim,))
        self.channel_base, self.channel_max = channel_base, channel_max
        self._chunk_size = chunk_size(largest_map(widths))
        self.layers = nn.ModuleList()
        for height, width in widths.items():
            if height == 4:
                self.layers.append(NormalizedConv(latent_dim, width, kernel_size=4))
            else:
                self.layers.append(NormalizedConv(widths[height // 2], width, up=True))
            self.layers.append(NormalizedConv(width, width))
        self.to_rgb = ToRGB(widths[image_size], channels)

    def first_affine(self, layers: Sequence[int] | None = None) -> Tensor:
        """The weights (16 C, D) that spread z over the smallest map."""
        return self.layers[0].weight.permute(0, 2, 3, 1).flatten(0, 2)  # type: ignore[operator]

    def _draw(self, latents: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        x = pixel_norm(latents)[:, :, None, None]  # (B, D, 1, 1)
        for layer in self.layers:
            x = layer(x)  # (B, C, 2H, 2W) or (B, C, H, W)
        return self.to_rgb(x)  # (B, channels, image_size, image_size)


class NormalizedConv(nn.Module):
    """Convolution with equalised learning rate, bias, leaky ReLU and pixel normalisation.

    The first layer, of kernel_size 4, spreads one pixel over a map of 4x4.
    """

    def __init__(self, n_in: int, n_out: int, kernel_size: int = 3, up: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.gain = GAIN / math.sqrt(kernel_size**2 * n_in)
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, n_in, H, W) -> (B, n_out, H, W), twice as high with `up`, 4x4 from one pixel."""
        weight = self.weight * self.gain
        if self.up:
            x = conv_after_doubling(x, weight)  # (B, n_out, 2H, 2W)
        else:
            x = F.conv2d(x, weight, padding=1 if weight.shape[-1] == 3 else 3)
        return pixel_norm(F.leaky_relu_(x.add_(self.bias.to(x.dtype)[:, None, None]), SLOPE))
