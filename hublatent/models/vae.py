"""Variational auto-encoders: VAE, beta-VAE and beta-TCVAE over one convolutional network.

The three differ in the objective they were trained with (training/objectives.py), not in the
network, so a comparison of equal sizes compares the objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import CheckpointError
from hublatent.model import LatentModel, check_image_arguments

# Keeps exp(log_variance) finite in half precision; a trained posterior stays well inside.
LOG_VARIANCE_RANGE = (-12.0, 8.0)


class ConvolutionalModel(LatentModel):
    """An encoder and a decoder of convolutions, which VAEs and autoencoders share.

    Stage i of the encoder halves the image's sides and has min(width * 2**i, max_width) channels;
    the decoder mirrors it.

    Args:
        image_size: height and width, in pixels; divisible by 2**n_stages.
        channels: image channels.
        latent_dim: D, width of the latent.
        width: channels of the first stage.
        max_width: channels never exceed this.
        n_stages: number of downsampling stages.
    """

    numbers_per_dimension = 1  # that the encoder gives for each latent dimension

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 128,
        width: int = 32,
        max_width: int = 128,
        n_stages: int = 4,
    ) -> None:
        check_image_arguments(image_size, channels)
        check_number("latent_dim", latent_dim, 1, 4096)
        check_number("width", width, 1, 1024)
        check_number("max_width", max_width, 1, 1024)
        check_number("n_stages", n_stages, 1, 8)
        if image_size % 2**n_stages:
            raise CheckpointError(
                f"image_size = {image_size} is not divisible by 2**{n_stages}; "
                "expected n_stages halvings to come out even."
            )
        super().__init__(image_size, channels, (latent_dim,))
        self.latent_dim = latent_dim
        self.width = width
        self.max_width = max_width
        self.n_stages = n_stages
        widths = [min(width * 2**i, max_width) for i in range(n_stages)]
        side = image_size // 2**n_stages
        n_encoded = self.numbers_per_dimension * latent_dim
        self.encoder = nn.Sequential(
            *(_down(a, b) for a, b in pairwise([channels, *widths])),  # (B, widths[-1], side, side)
            nn.Flatten(),
            nn.Linear(widths[-1] * side**2, n_encoded),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, widths[-1] * side**2),
            nn.Unflatten(1, (widths[-1], side, side)),
            nn.LeakyReLU(0.2, inplace=True),
            *(_up(a, b) for a, b in pairwise(widths[::-1])),  # (B, width, H/2, W/2)
            nn.ConvTranspose2d(width, channels, 4, 2, 1),  # (B, C, H, W)
        )

    def encode(self, images: Tensor) -> Tensor:
        """The latents (B, D) of images (B, C, H, W) in [-1, 1]."""
        self.check_images(images)
        return self.encoder(images).float()

    def first_affine(self, layers: Sequence[int] | None = None) -> Tensor:
        """The weights (N, D) of the decoder's first layer."""
        return self.decoder[0].weight  # type: ignore[return-value]

    def decode_unclamped(self, latents: Tensor) -> Tensor:
        """The decoder's output (B, C, H, W) before it is clamped to [-1, 1]; for training."""
        return self.decoder(latents).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of latents (B, D)."""
        self.check_latents(latents)
        return self.decode_unclamped(latents).clamp(-1, 1)


class VAE(ConvolutionalModel):
    """Variational auto-encoder (Kingma & Welling 2013, arXiv:1312.6114)."""

    architecture = "vae"
    numbers_per_dimension = 2  # mean and log variance

    def encode_distribution(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior q(z|x) of images.

        Args:
            images: (B, C, H, W), in [-1, 1].

        Returns:
            Its mean and its log variance, each (B, D), in float32.
        """
        mean, log_variance = self.encoder(images).float().chunk(2, dim=1)  # (B, D) each
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def encode(self, images: Tensor) -> Tensor:
        """The posterior mean (B, D) of images (B, C, H, W) in [-1, 1]."""
        self.check_images(images)
        return self.encode_distribution(images)[0]


class BetaVAE(VAE):
    """beta-VAE (Higgins et al. 2017): the KL divergence is weighted by beta > 1."""

    architecture = "betavae"


class BetaTCVAE(VAE):
    """beta-TCVAE (Chen et al. 2018, arXiv:1802.04942): only the total correlation is weighted."""

    architecture = "btcvae"


# Kernels of four pixels, two apart: every pixel is touched equally often (no checkerboard),
# and the grid has no preferred side, so mirror images can be read and drawn by mirrored kernels.
def _down(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 4, 2, 1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.LeakyReLU(0.2, inplace=True),
    )


def _up(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(n_in, n_out, 4, 2, 1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.LeakyReLU(0.2, inplace=True),
    )
