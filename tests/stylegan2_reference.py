"""StyleGAN2's synthesis in its usual formulation: slow, plain, and written apart from ours.

A modulated weight for every sample and one grouped convolution over the batch (Karras et al. 2020,
section 2.2), up-sampling by zero insertion, padding and filtering (upfirdn), bias and activation
with its gain after each layer. It reads a StyleGAN2's weights and calls none of its code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def synthesize(model: Any, latents: Tensor, noise: str = "const") -> Tensor:
    """Draw images (B, C, H, W), unclamped, of codes (B, L, D) with noise "const" or "none"."""
    weights = dict(model.state_dict())
    clamp = model.conv_clamp or math.inf
    x = weights["const"].repeat(len(latents), 1, 1, 1)
    image = None
    layer = 0
    height = 4
    while height <= model.image_size:
        for name in ("conv0", "conv1"):
            prefix = f"blocks.{height}.{name}."
            if prefix + "weight" not in weights:
                continue
            part = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
            x = _styled_conv(x, latents[:, layer], part, noise, up=name == "conv0")
            x = x.clamp(-clamp, clamp)
            layer += 1
        prefix = f"blocks.{height}.to_rgb."
        part = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        rgb = _to_rgb(x, latents[:, layer], part).clamp(-clamp, clamp)
        image = rgb if image is None else upfirdn(image, up=2, pad=(2, 1), gain=4) + rgb
        height *= 2
    return image


def upfirdn(x: Tensor, up: int = 1, pad: tuple[int, int] = (0, 0), gain: float = 1) -> Tensor:
    """Insert zeros, pad, filter with [1, 3, 3, 1] (x) [1, 3, 3, 1] / 64."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height, 1, width, 1)
    x = F.pad(x, [0, up - 1, 0, 0, 0, up - 1])
    x = x.reshape(batch, channels, height * up, width * up)
    x = F.pad(x, [*pad, *pad])
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) * (gain / 64)
    return F.conv2d(x, kernel.repeat(channels, 1, 1, 1), groups=channels)


def _styled_conv(x: Tensor, w: Tensor, part: dict[str, Tensor], noise: str, up: bool) -> Tensor:
    style = _affine(w, part)
    x = _modulated_conv(x, part["weight"], style, demodulate=True, up=up)
    if noise == "const":
        x = x + part["noise_const"] * part["noise_strength"]
    x = x + part["bias"][None, :, None, None]
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _to_rgb(x: Tensor, w: Tensor, part: dict[str, Tensor]) -> Tensor:
    style = _affine(w, part) / math.sqrt(x.shape[1])
    x = _modulated_conv(x, part["weight"], style, demodulate=False, up=False)
    return x + part["bias"][None, :, None, None]


def _affine(w: Tensor, part: dict[str, Tensor]) -> Tensor:
    return w @ part["affine.weight"].T / math.sqrt(w.shape[1]) + part["affine.bias"]


def _modulated_conv(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool) -> Tensor:
    batch, n_in, height, width = x.shape
    n_out, _, kernel, _ = weight.shape
    own = weight[None] * style[:, None, :, None, None]  # (B, O, I, k, k)
    if demodulate:
        own = own * (own.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, batch * n_in, height, width)
    if up:
        own = own.transpose(1, 2).reshape(batch * n_in, n_out, kernel, kernel)
        x = F.conv_transpose2d(x, own, stride=2, groups=batch)
        x = upfirdn(x, pad=(1, 1), gain=4)
        return x.reshape(batch, n_out, *x.shape[2:])
    own = own.reshape(batch * n_out, n_in, kernel, kernel)
    x = F.conv2d(x, own, padding=kernel // 2, groups=batch)
    return x.reshape(batch, n_out, *x.shape[2:])
