"""What several generators are made of."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import CheckpointError

SLOPE = 0.2
GAIN = math.sqrt(2)  # keeps the variance through a leaky ReLU
# Limits against absurd configs; StyleGAN3-R at 1024 pixels has maps of 2**27.4 numbers.
MAX_MAP_ELEMENTS = 2**28  # channels * pixels of a feature map
MAX_WEIGHTS = 2**27  # of all convolutions
CHUNK_ELEMENTS = 2**22  # numbers in the largest feature map of the images drawn together


def channels_by_height(
    image_size: int, channels: int, channel_base: int, channel_max: int, channel_min: int = 1
) -> dict[int, int]:
    """The number of channels at each height from 4 to image_size, after checking the arguments."""
    check_images(image_size, channels)
    check_number("channel_base", channel_base, 1, 2**20)
    check_number("channel_max", channel_max, 1, 4096)
    check_number("channel_min", channel_min, 1, 4096)
    heights = [2**i for i in range(2, image_size.bit_length())]
    widths = {h: max(channel_min, min(channel_base // h, channel_max)) for h in heights}
    n_weights = sum(9 * width * (width + widths.get(h // 2, 0)) for h, width in widths.items())
    what = (
        f"channel_base = {channel_base}, channel_max = {channel_max}, channel_min = {channel_min}"
    )
    check_size(largest_map(widths), n_weights, what)
    return widths


def check_images(image_size: int, channels: int) -> None:
    """Refuse images that no generator here draws."""
    check_number("image_size", image_size, 16, 1024)
    check_number("channels", channels, 1, 4)
    if image_size & (image_size - 1):
        raise CheckpointError(
            f"image_size = {image_size}; expected a power of two from 16 to 1024."
        )


def largest_map(widths: dict[int, int]) -> int:
    """The numbers in the largest feature map of a generator with these channels by height."""
    return max(width * height**2 for height, width in widths.items())


def check_size(map_elements: int, n_weights: int, arguments: str) -> None:
    """Refuse a generator too large to be anyone's, before memory is allocated for it."""
    if map_elements > MAX_MAP_ELEMENTS or n_weights > MAX_WEIGHTS:
        raise CheckpointError(
            f"{arguments} make feature maps of {map_elements:,} numbers and {n_weights:,} "
            f"weights; at most {MAX_MAP_ELEMENTS:,} and {MAX_WEIGHTS:,} are accepted."
        )


def chunk_size(map_elements: int) -> int:
    """How many images to draw at a time, so that they stay in the processor's cache."""
    return max(CHUNK_ELEMENTS // map_elements, 1)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate (Karras et al. 2018, section 4.1)."""

    def __init__(
        self, n_in: int, n_out: int, bias_init: float = 0.0, lr_multiplier: float = 1.0,
        gain: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((n_out,), float(bias_init)))
        self.lr_multiplier = lr_multiplier
        self.gain = gain

    def matrix(self) -> Tensor:
        """The weights (n_out, n_in) that act on an input."""
        return self.weight * (self.gain * self.lr_multiplier / math.sqrt(self.weight.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        # A style scales a whole channel, so it stays in float32 where the convolutions do not.
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.matrix(), self.bias * self.lr_multiplier)


class ToRGB(nn.Module):
    """1x1 convolution to image channels with equalised learning rate, without styles."""

    def __init__(self, n_in: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, n_in, H, W) -> images (B, channels, H, W), float32."""
        weight = self.weight / math.sqrt(x.shape[1])
        return F.conv2d(x, weight.to(x.dtype), self.bias.to(x.dtype)).float()


def pixel_norm(x: Tensor) -> Tensor:
    """Divide by the root mean square over the channels (Karras et al. 2018, section 4.2)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def conv_after_doubling(x: Tensor, weight: Tensor) -> Tensor:
    """Repeat each pixel in a square of 2x2, then convolve: (B, I, H, W) -> (B, O, 2H, 2W).

    Both at once are one transposed convolution with stride 2, whose 4x4 kernel is made of sums of
    the 3x3 kernel's values: 4 instead of 9 multiplications for each number. A checkpoint that was
    trained with NVIDIA's fused up-sampling holds the kernels of a transposed convolution, which
    are the same mirrored in both axes.
    """
    side = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    kernel = weight.transpose(0, 1).flatten(2) @ torch.kron(side, side).T  # (I, O, 16)
    return F.conv_transpose2d(x, kernel.unflatten(2, (4, 4)), stride=2, padding=1)


def start(const: Tensor, n: int) -> Tensor:
    """A learnt first map for n images; a copy, since without gradients the layers work in place."""
    return const.expand(n, -1, -1, -1).clone(memory_format=torch.channels_last)


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Shape (B, C) values to scale the channels of x, in its type."""
    return values[:, :, None, None].to(x.dtype)
