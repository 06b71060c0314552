"""StyleEncoder: reads W+ latents from images, for a generator trained without an encoder."""

from __future__ import annotations

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.models.layers import SLOPE

HIDDEN_WIDTH = 256  # of the layer between the last feature map and the latents
LAST_SIDE = 4  # height and width of that feature map


class StyleEncoder(nn.Module):
    """Images (B, C, H, H) -> offsets (B, L, D) from the mean latent, in units of its spread.

    One network reads all latents at once, as in pSp (Richardson et al. 2021, arXiv:2008.00951) and
    e4e (Tov et al. 2021, arXiv:2102.02766), at a hundredth of their size. Stage i halves the image
    and has min(width * 2**i, 4 * width) channels.
    """

    def __init__(
        self, image_size: int, channels: int, latent_shape: tuple[int, ...], width: int
    ) -> None:
        super().__init__()
        n_stages = int(math.log2(image_size // LAST_SIDE))
        widths = [min(width * 2**i, 4 * width) for i in range(n_stages)]
        self.stages = nn.Sequential(*(_Stage(a, b) for a, b in pairwise([channels, *widths])))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * LAST_SIDE**2, HIDDEN_WIDTH),
            nn.LeakyReLU(SLOPE),
            nn.Linear(HIDDEN_WIDTH, math.prod(latent_shape)),
            nn.Unflatten(1, latent_shape),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.stages(images)  # (B, width', 4, 4)
        return self.head(x).float()  # (B, L, D)


class _Stage(nn.Module):
    """Halve the image, then one residual convolution."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(n_in, n_out, 4, 2, 1, bias=False)
        self.halve_norm = nn.BatchNorm2d(n_out)
        self.conv = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.conv_norm = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.halve_norm(self.halve(x)), SLOPE)  # (B, n_out, H/2, W/2)
        return F.leaky_relu(x + self.conv_norm(self.conv(x)), SLOPE)
