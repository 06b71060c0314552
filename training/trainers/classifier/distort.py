"""How photographs are varied for a classifier: flips, shifts, scales, blur, noise and colours.

A flip, a scale, a shift and a Gaussian blur each act on rows and columns separately, so all of them
together are two small matrix products per image: Y = R X C^T. On a CPU that is faster than warping.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Distortion:
    """How strongly photographs are varied."""

    shift: float = 0.06  # largest displacement, as a share of the side
    scale: float = 0.1  # largest change of size; 0.1 draws factors from 1 / 1.1 to 1.1
    blur: float = 0.03  # largest standard deviation of the blur, as a share of the side
    blur_share: float = 0.2  # share of the images that are blurred
    noise: float = 0.0  # largest standard deviation of noise, in units of images in [-1, 1]
    brightness: float = 0.2  # largest brightness added, in the same units
    contrast: float = 0.3  # largest factor of the contrast, and of the saturation, minus 1


def distort(images: Tensor, distortion: Distortion, generator: torch.Generator) -> Tensor:
    """Vary photographs (B, C, H, H) at random; half of them are mirrored.

    Colours may leave [-1, 1] a little. All draws come from the CPU.
    """
    n, _, size, _ = images.shape

    def uniform(high: float) -> Tensor:
        return high * (2 * torch.rand(n, generator=generator) - 1)

    factor = (1 + distortion.scale) ** uniform(1.0)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    blurred = torch.rand(n, generator=generator) < distortion.blur_share
    sigma = uniform(distortion.blur).abs() * blurred * size
    rows = resampling(size, factor, uniform(distortion.shift), sigma)  # (B, H, H)
    columns = resampling(size, factor * mirror, uniform(distortion.shift), sigma)
    images = _apply(images, rows, columns)
    images = _recolour(images, uniform(1.0), uniform(1.0), uniform(1.0), distortion)
    if distortion.noise:
        # Half of the images stay clean.
        strength = uniform(distortion.noise).clamp(min=0)[:, None, None, None]
        images = images + strength * torch.randn(images.shape, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images (B, C, H, H) by a Gaussian of standard deviation sigma, in pixels."""
    n, _, size, _ = images.shape
    matrix = resampling(size, torch.ones(n), torch.zeros(n), torch.full((n,), sigma))
    return _apply(images, matrix, matrix)


def resampling(size: int, factor: Tensor, shift: Tensor, sigma: Tensor) -> Tensor:
    """Matrices (B, H, H) that resample one axis of images, by linear interpolation, then blur it.

    Rows sum to 1; what lies beyond the border is the border's pixel.

    Args:
        size: the axis' length H, in pixels.
        factor: (B,), enlargement; negative ones mirror.
        shift: (B,), displacement as a share of the side.
        sigma: (B,), standard deviation of the blur, in pixels; 0 for none.
    """
    position = torch.arange(size, dtype=torch.float32)
    centred = position - (size - 1) / 2
    source = (centred - shift[:, None] * size) / factor[:, None] + (size - 1) / 2  # (B, H)
    source = source.clamp(0, size - 1)
    linear = (1 - (source[:, :, None] - position).abs()).clamp(min=0)  # (B, H, H)
    square = (position[:, None] - position).square()
    # Below a tenth of a pixel the Gaussian is the identity.
    gaussian = torch.softmax(-square / (2 * sigma.clamp(min=0.1).square())[:, None, None], dim=2)
    return gaussian @ linear  # (B, H, H)


def _apply(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return rows[:, None] @ images.contiguous() @ columns[:, None].transpose(2, 3)  # (B, C, H, H)


def _recolour(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, strength: Distortion
) -> Tensor:
    """Contrast about each image's mean, saturation about each pixel's grey, then brightness."""

    def factors(draws: Tensor) -> Tensor:
        return ((1 + strength.contrast) ** draws)[:, None, None, None]

    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    grey = images.mean(dim=1, keepdim=True)
    coloured = grey + (images - grey) * factors(saturation)
    added = (strength.brightness * brightness)[:, None, None, None]
    return mean + (coloured - mean) * factors(contrast) + added
