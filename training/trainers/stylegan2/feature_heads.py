"""A second discriminator: small heads on frozen features of an ImageNet network.

Vision-aided GANs (Kumari et al. 2022, arXiv:2112.09130) with the random mixing of projected GANs
(Sauer et al. 2021, arXiv:2111.01007): the features know what pictures look like before any is seen.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from hublatent.perception.features import FEATURE_CHANNELS

WIDTH = 64
SLOPE = 0.2
# Root mean square of each map over enlarged training faces; divided by it they weigh alike.
FEATURE_SCALES = (8.4, 7.7, 7.5, 2.7)


class FeatureHeads(nn.Module):
    """Features of four resolutions -> logits (B, n): large for real, small for generated images."""

    def __init__(self) -> None:
        super().__init__()
        self.channel_mixing = nn.ModuleList(_random_conv(n, WIDTH, 1) for n in FEATURE_CHANNELS)
        self.scale_mixing = nn.ModuleList(_random_conv(WIDTH, WIDTH, 3) for _ in FEATURE_CHANNELS)
        self.heads = nn.ModuleList(_head() for _ in FEATURE_CHANNELS)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Logits of every position of every head.

        Args:
            features: of ImageFeatures, (B, C, H, W) each.

        Returns:
            (B, n).
        """
        logits = [
            head(x).flatten(1) for head, x in zip(self.heads, self._mixed(features), strict=True)
        ]
        # As many positions as there are; each head counts as much as another.
        most = max(part.shape[1] for part in logits)
        return torch.cat([part.repeat(1, most // part.shape[1]) for part in logits], dim=1)

    def _mixed(self, features: list[Tensor]) -> list[Tensor]:
        """Mix the channels, then each map with the coarser ones (Sauer et al. 2021, 3.2)."""
        coarser: Tensor | None = None
        mixed = []
        for maps, scale, channels, scales in zip(
            reversed(features),
            reversed(FEATURE_SCALES),
            reversed(self.channel_mixing),
            reversed(self.scale_mixing),
            strict=True,
        ):
            x = channels(maps / scale)  # (B, 64, H, W)
            if coarser is not None:
                x = (x + F.interpolate(coarser, x.shape[2:], mode="bilinear")) * math.sqrt(0.5)
            coarser = scales(x)  # (B, 64, H, W)
            mixed.append(coarser)
        return mixed[::-1]


def heads_generator_loss(fake_logits: Tensor) -> Tensor:
    """-E D(fake), the generator's side of the hinge loss (Lim and Ye 2017), a scalar."""
    return -fake_logits.mean()


def heads_discriminator_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """E max(0, 1 + D(fake)) + E max(0, 1 - D(real)) (Lim and Ye 2017, arXiv:1705.02894)."""
    return F.relu(1 + fake_logits).mean() + F.relu(1 - real_logits).mean()


def _random_conv(n_in: int, n_out: int, kernel: int) -> nn.Conv2d:
    """A frozen convolution that keeps the variance."""
    conv = nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, bias=False)
    nn.init.normal_(conv.weight, std=1 / math.sqrt(n_in * kernel**2))
    return conv.requires_grad_(False)


def _head() -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)),
        nn.LeakyReLU(SLOPE),
        spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1)),
        nn.LeakyReLU(SLOPE),
        spectral_norm(nn.Conv2d(WIDTH, 1, 1)),
    )
