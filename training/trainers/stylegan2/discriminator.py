"""StyleGAN2's residual discriminator (Karras et al. 2020, arXiv:1912.04958, figure 7c)."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from hublatent.checkpoint import load_weights
from hublatent.errors import CheckpointError
from hublatent.models.layers import GAIN, SLOPE, EqualLinear, channels_by_height
from hublatent.models.stylegan2 import blur_kernel, blurred
from hublatent.storage import atomic_path, save_safetensors

GROUP_SIZE = 4  # images whose statistics the last block compares


class Discriminator(nn.Module):
    """Images (B, C, H, W) -> logits (B, 1): large for real, small for generated ones.

    Sizes are those of StyleGAN2, which blurs feature maps before it halves them. Without that
    (`blurs` False) much more of a small image is seen.
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        channel_base: int = 2048,
        channel_max: int = 256,
        channel_min: int = 48,
        blurs: bool = True,
    ) -> None:
        super().__init__()
        self.blurs = blurs
        widths = channels_by_height(image_size, channels, channel_base, channel_max, channel_min)
        falling = sorted(widths, reverse=True)
        self.from_rgb = EqualConv(channels, widths[image_size], 1)
        self.blocks = nn.ModuleDict(
            {
                str(height): ResidualBlock(widths[height], widths[half], blurs)
                for height, half in pairwise(falling)
            }
        )
        self.last_conv = EqualConv(widths[4] + 1, widths[4], 3)
        self.last_linear = EqualLinear(widths[4] * 16, widths[4])
        self.out = EqualLinear(widths[4], 1)

    def forward(self, images: Tensor) -> Tensor:
        x = images.contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu_(self.from_rgb(x, GAIN), SLOPE)  # (B, width, H, W)
        for block in self.blocks.values():
            x = block(x)  # (B, width', H / 2, W / 2)
        # The statistics and the logit are small differences: float32, whatever came before.
        with torch.autocast(x.device.type, enabled=False):
            x = append_deviation(x.float())  # (B, width + 1, 4, 4)
            x = F.leaky_relu_(self.last_conv(x, GAIN), SLOPE)  # (B, width, 4, 4)
            x = F.leaky_relu(self.last_linear(x.flatten(1)), SLOPE) * GAIN  # (B, width)
            return self.out(x)  # (B, 1)

    def check_blurs(self, theirs: bool, where: Path) -> None:
        """Refuse, with a CheckpointError, weights that learned with a blur to do without, or the
        other way round: they fit, and mean nothing."""
        if theirs != self.blurs:
            raise CheckpointError(
                f"{where}: a discriminator that {'blurs' if theirs else 'does not blur'}; expected "
                f"the contrary. Give --{'' if theirs else 'no-'}discriminator-blurs."
            )


class ResidualBlock(nn.Module):
    """Two convolutions, the second halving the size, beside a 1x1 short cut."""

    def __init__(self, n_in: int, n_out: int, blurs: bool) -> None:
        super().__init__()
        self.blurs = blurs
        self.conv0 = EqualConv(n_in, n_in, 3)
        self.conv1 = EqualConv(n_in, n_out, 3)
        self.skip = EqualConv(n_in, n_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # Gains go into weights and biases: leaky ReLU is positively homogeneous. The sum of the
        # two branches is divided by sqrt(2), which for conv1 cancels the activation's gain.
        short = self.skip.halving(x, math.sqrt(0.5), self.blurs)  # (B, n_out, H/2, W/2)
        x = F.leaky_relu_(self.conv0(x, GAIN), SLOPE)  # (B, n_in, H, W)
        x = self.conv1.halving(x, 1.0, self.blurs)  # (B, n_out, H/2, W/2)
        return F.leaky_relu_(x, SLOPE) + short


class EqualConv(nn.Module):
    """Convolution with equalised learning rate (Karras et al. 2018, section 4.1)."""

    def __init__(self, n_in: int, n_out: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    def forward(self, x: Tensor, gain: float) -> Tensor:
        return F.conv2d(x, *self._scaled(gain), padding=self.weight.shape[2] // 2)

    def halving(self, x: Tensor, gain: float, blurs: bool) -> Tensor:
        """Blur with [1, 3, 3, 1] or not, then convolve and halve: (B, n_out, H / 2, W / 2)."""
        weight, bias = self._scaled(gain)
        kernel = weight.shape[2]
        if not blurs:
            return F.conv2d(x, weight, bias, stride=2, padding=kernel // 2)
        if x.is_cuda:  # one convolution for both, as in the generator
            return F.conv2d(x, blurred(weight), bias, stride=2, padding=kernel // 2 + 1)
        if kernel == 1:
            return F.conv2d(halve(x), weight, bias)
        return F.conv2d(blur(x, padding=2), weight, bias, stride=2)

    def _scaled(self, gain: float) -> tuple[Tensor, Tensor | None]:
        weight = self.weight * (gain / math.sqrt(self.weight[0].numel()))
        return weight, None if self.bias is None else self.bias * gain


def save_discriminator(discriminator: Discriminator, path: Path) -> None:
    """Write a discriminator's weights, atomically, and whether it blurs."""
    weights = {
        name: w.detach().cpu().contiguous() for name, w in discriminator.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_safetensors(weights, temporary, {"format": "pt", "blurs": str(discriminator.blurs)})


def load_discriminator(discriminator: Discriminator, path: Path) -> None:
    """Fill a discriminator from a file; a CheckpointError where it does not fit."""
    load_weights(discriminator, path)
    with safe_open(path, framework="pt") as file:
        # Files that do not say are of before there was a choice.
        blurs = (file.metadata() or {}).get("blurs", str(True)) == str(True)
    discriminator.check_blurs(blurs, path)


def blur(x: Tensor, padding: int) -> Tensor:
    """Filter with [1, 3, 3, 1], zero outside, depthwise."""
    return F.conv2d(x, blur_kernel(x), padding=padding, groups=x.shape[1])


def halve(x: Tensor) -> Tensor:
    """Filter with [1, 3, 3, 1] and halve the size: (B, C, H, W) -> (B, C, H / 2, W / 2).

    In float32: on CPUs the gradient of a strided depthwise bfloat16 convolution takes ten times as
    long.
    """
    with torch.autocast(x.device.type, enabled=False):
        full = x.float()
        half = F.conv2d(full, blur_kernel(full), stride=2, padding=1, groups=x.shape[1])
    return half.to(x.dtype)


def append_deviation(x: Tensor, group_size: int = GROUP_SIZE) -> Tensor:
    """Append to x (B, C, H, W) how much the images of a group differ (Karras et al. 2018, section
    3); image i belongs to the group i mod (B / group size).
    """
    batch, _, height, width = x.shape
    size = min(group_size, batch)
    groups = x.reshape(size, batch // size, -1)  # (G, B / G, C * H * W)
    deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=1)  # (B / G,)
    plane = deviation.repeat(size)[:, None, None, None].expand(-1, 1, height, width)
    return torch.cat([x, plane], dim=1)
