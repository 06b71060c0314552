"""ImageFeatures: a frozen ImageNet network, which has seen no label of any face."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hublatent.errors import HublatentError
from hublatent.hub import HubModel

# Of each stage: blocks, kernel, stride, expansion, channels (EfficientNet-lite0, which is
# EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946, table 1) with ReLU6 and no excitation).
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
FEATURE_STAGES = (1, 2, 4, 6)  # the last stage at each of the strides 4, 8, 16 and 32
FEATURE_CHANNELS = tuple(STAGES[i][-1] for i in FEATURE_STAGES)
# Keeps the gradient finite where all channels are 0.
EPSILON = 1e-8


class ImageFeatures(nn.Module, HubModel):
    """EfficientNet-lite0 without its head; batch normalisation is folded into the convolutions."""

    architecture = "image-features"

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        n_in = STEM_CHANNELS
        for n_blocks, kernel, stride, expansion, n_out in STAGES:
            more = (Block(n_out, n_out, kernel, 1, expansion) for _ in range(n_blocks - 1))
            first = Block(n_in, n_out, kernel, stride, expansion)
            self.stages.append(nn.Sequential(first, *more))
            n_in = n_out
        self.requires_grad_(False)

    def forward(self, images: Tensor, n_maps: int = len(FEATURE_STAGES)) -> list[Tensor]:
        """Features of four resolutions, or of the first few of them.

        Args:
            images: (B, 3, H, W), in [-1, 1]; H and W are multiples of 32. Faces of 64 pixels are
                better enlarged to 128 first (`enlarged`).

        Returns:
            (B, 24, H/4, W/4), (B, 40, H/8, W/8), (B, 112, H/16, W/16) and (B, 320, H/32, W/32).
        """
        if images.ndim != 4 or images.shape[1] != 3 or any(n % 32 for n in images.shape[2:]):
            raise HublatentError(
                f"ImageFeatures got images of shape {tuple(images.shape)}; expected (B, 3, H, W) "
                "with H and W multiples of 32."
            )
        x = (images * 127.5 + 0.5) / 128  # (pixel - 127) / 128 of pixels from 0 to 255
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)))  # (B, 32, H/2, W/2)
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in FEATURE_STAGES:
                features.append(x)
            if len(features) == n_maps:
                break
        return features

    def feature_maps(self, images: Tensor, size: int = 128) -> list[Tensor]:
        """Features whose vector of channels has length 1 at each position, as in LPIPS.

        The mean squared difference of two images' maps is a perceptual distance (Zhang et al. 2018,
        arXiv:1801.03924, eq. 1, with equal weights). Images smaller than `size` are enlarged.
        """
        return [unit_vectors(maps) for maps in self(enlarged(images, size))]


class Block(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018, arXiv:1801.04381): expand, filter, project."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        n_mid = n_in * expansion
        self.expand = SameConv(n_in, n_mid, 1) if expansion > 1 else None
        self.filter = SameConv(n_mid, n_mid, kernel, stride, groups=n_mid)
        self.project = SameConv(n_mid, n_out, 1)
        self.is_residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        mid = x if self.expand is None else F.relu6(self.expand(x))  # (B, n_mid, H, W)
        mid = F.relu6(self.filter(mid))  # (B, n_mid, H/stride, W/stride)
        out = self.project(mid)  # (B, n_out, H/stride, W/stride)
        return x + out if self.is_residual else out


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME", on whose side an odd row of zeros lies last."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(n_in, n_out, kernel, stride, groups=groups)
        total = kernel - stride  # of rows of zeros, where the stride divides the height
        self.margins = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.margins) if any(self.margins) else x)


def enlarged(images: Tensor, size: int = 128) -> Tensor:
    """Images (B, C, size, size), bilinearly; images as large or larger stay as they are."""
    if images.shape[-1] >= size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)


def check_square(model: nn.Module, images: Tensor, channels: int = 3) -> None:
    """Refuse images that a network of aligned faces cannot see."""
    if images.ndim != 4 or images.shape[1] != channels or images.shape[2] != images.shape[3]:
        raise HublatentError(
            f"{type(model).__name__} got images of shape {tuple(images.shape)}; expected "
            f"(B, {channels}, H, H). hublatent.images.prepare cuts a picture's square."
        )


def unit_vectors(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) whose vector of channels has length 1 at each position, in float32."""
    maps = maps.float()
    return maps * (maps.square().sum(dim=1, keepdim=True) + EPSILON).rsqrt()
