"""StyleGAN's generator (Karras et al. 2019, arXiv:1812.04948) in pure PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.models.layers import (
    GAIN,
    SLOPE,
    EqualLinear,
    ToRGB,
    channels_by_height,
    chunk_size,
    conv_after_doubling,
    largest_map,
    per_channel,
    start,
)
from hublatent.models.style_generator import StyleGenerator


class StyleGAN(StyleGenerator):
    """StyleGAN's generator with adaptive instance normalisation; its latents (L, D) lie in W+.

    Feature maps of height r have min(channel_base // r, channel_max) channels.

    Args:
        image_size to mapping_lr_multiplier: as in StyleGenerator.
        channel_base: channels times height of the feature maps; twice NVIDIA's fmap_base.
        channel_max: channels never exceed this.
    """

    architecture = "stylegan"
    default_layers = (0, 1, 2)
    activation_gain = 1.0

    def __init__(
        self, image_size: int = 1024, channels: int = 3, latent_dim: int = 512, z_dim: int = 512,
        mapping_layers: int = 8, mapping_lr_multiplier: float = 0.01, channel_base: int = 16384,
        channel_max: int = 512,
    ) -> None:  # fmt: skip
        widths = channels_by_height(image_size, channels, channel_base, channel_max)
        super().__init__(
            image_size, channels, latent_dim, z_dim, mapping_layers, mapping_lr_multiplier,
            n_layers=2 * len(widths),
        )  # fmt: skip
        self._chunk_size = chunk_size(largest_map(widths))
        self.channel_base, self.channel_max = channel_base, channel_max
        self.const = nn.Parameter(torch.ones(1, widths[4], 4, 4))
        self.layers = nn.ModuleList()
        for height, width in widths.items():
            n_in = widths.get(height // 2, 0)
            self.layers.append(StyledLayer(n_in, width, height, latent_dim, up=True))
            self.layers.append(StyledLayer(width, width, height, latent_dim))
        self.to_rgb = ToRGB(widths[image_size], channels)

    def noise_maps(self) -> list[Tensor]:
        """The constant noise maps, (H, W) each, one for every layer."""
        return [layer.noise_const[0, 0] for layer in self._layers()]

    def _affines(self) -> list[EqualLinear]:
        return [layer.affine for layer in self._layers()]

    def _layers(self) -> list[StyledLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _draw(self, latents: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        x = start(self.const, len(latents))  # (B, C0, 4, 4)
        for i, layer in enumerate(self._layers()):
            x = layer(x, latents[:, i], noise[i])  # (B, C, 2H, 2W) or (B, C, H, W)
        return self.to_rgb(x)  # (B, channels, image_size, image_size)


class StyledLayer(nn.Module):
    """Convolution, noise, bias, leaky ReLU and adaptive instance normalisation.

    The equalised learning rate's gain is not applied to the weight but divided out of what is
    added after it: leaky ReLU is positively homogeneous, and the normalisation takes out the scale.
    The first layer has n_in = 0, and no convolution; with `up` the output is twice as high.
    """

    noise_const: Tensor

    def __init__(
        self, n_in: int, n_out: int, height: int, latent_dim: int, up: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 3, 3)) if n_in else None
        self.gain = GAIN / math.sqrt(9 * n_in) if n_in else 1.0
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.noise_strength = nn.Parameter(torch.zeros(n_out))
        self.register_buffer("noise_const", torch.randn(1, 1, height, height))
        self.affine = EqualLinear(latent_dim, 2 * n_out)
        self.up = up

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Maps (B, n_in, H, W), maybe overwritten -> (B, n_out, H, W), twice as high with `up`."""
        if self.weight is not None:
            if self.up:
                x = blur(conv_after_doubling(x, self.weight))  # (B, n_out, 2H, 2W)
            else:
                x = F.conv2d(x, self.weight, padding=1)  # (B, n_out, H, W)
        if noise is not None:
            strength = (self.noise_strength / self.gain)[:, None, None]
            x = x.addcmul_(noise.to(x.dtype), strength.to(x.dtype))
        bias = (self.bias / self.gain)[:, None, None]
        x = F.leaky_relu_(x.add_(bias.to(x.dtype)), SLOPE)
        return adaptive_instance_norm(x, self.affine(w), eps=1e-8 / self.gain**2)


def adaptive_instance_norm(x: Tensor, style: Tensor, eps: float) -> Tensor:
    """AdaIN (Karras et al. 2019, eq. 1): (1 + y_s) (x - mean) / deviation + y_b in each channel.

    The style (B, 2 C) holds y_s and then y_b; eps is added to the variance.
    """
    factor, shift = style.chunk(2, dim=1)  # (B, C) each
    variance, mean = torch.var_mean(x.float(), dim=(2, 3), correction=0)  # (B, C)
    factor = (1 + factor) * (variance + eps).rsqrt()
    shift = shift - mean * factor
    if torch.is_grad_enabled():
        return torch.addcmul(per_channel(shift, x), x, per_channel(factor, x))
    return x.mul_(per_channel(factor, x)).add_(per_channel(shift, x))


def blur(x: Tensor) -> Tensor:
    """Filter with [1, 2, 1] in both axes, zero outside: (B, C, H, W) -> (B, C, H, W)."""
    taps = x.new_tensor([1.0, 2.0, 1.0])
    kernel = torch.outer(taps, taps) / 16
    return F.conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
