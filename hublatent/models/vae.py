"""Autoencoder, VAE, beta-VAE, beta-TCVAE and FactorVAE over one convolutional network.

They differ in the objective they were trained with (training/objectives), not in the network, so a
comparison of equal sizes compares the objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import CheckpointError, unknown_name
from hublatent.model import LatentModel, check_image_arguments

# Keeps exp(log_variance) finite in half precision; a trained posterior stays well inside.
LOG_VARIANCE_RANGE = (-12.0, 8.0)


@dataclass(frozen=True)
class Blocks:
    """What a network is made of, beyond its widths."""

    kernel_size: int = 4  # or 3, of the layers that halve and double the sides
    batch_norm: bool = True  # whether it follows each of them
    bias: bool = False  # of the layers that batch_norm follows; without it all have one
    slope: float = 0.2  # of the leaky ReLU
    after_linear: bool = True  # whether the decoder's first layer is followed by it too
    last_convolution: bool = False  # whether one more draws the image from its last map
    output: type[nn.Module] | None = None  # what brings the image into its range, if anything
    reads_pixels: bool = False  # the encoder is given pixels in [0, 1], not images in [-1, 1]

    def down(self, n_in: int, n_out: int) -> nn.Sequential:
        bias = self.bias or not self.batch_norm
        layer = nn.Conv2d(n_in, n_out, self.kernel_size, 2, 1, bias=bias)
        return nn.Sequential(layer, *self._after(n_out))

    def up(self, n_in: int, n_out: int) -> nn.Sequential:
        layer = self._doubling(n_in, n_out, self.bias or not self.batch_norm)
        return nn.Sequential(layer, *self._after(n_out))

    def last(self, width: int, channels: int) -> list[nn.Module]:
        output = [] if self.output is None else [self.output()]
        if self.last_convolution:
            return [self.up(width, width), nn.Conv2d(width, channels, 3, 1, 1), *output]
        return [self._doubling(width, channels, True), *output]

    def _after(self, n_out: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(n_out)] if self.batch_norm else []
        return [*norm, nn.LeakyReLU(self.slope, inplace=True)]

    def _doubling(self, n_in: int, n_out: int, bias: bool) -> nn.ConvTranspose2d:
        size = self.kernel_size
        return nn.ConvTranspose2d(n_in, n_out, size, 2, 1, size % 2, bias=bias)


class ToPixels(nn.Module):
    """Images in [-1, 1] as pixels in [0, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return (images + 1) / 2


class PixelSigmoid(nn.Sigmoid):
    """A sigmoid for pixels in [0, 1], given as an image in [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) - 1


# Kernels of four pixels, two apart: every pixel is touched equally often (no checkerboard),
# and the grid has no preferred side, so mirror images can be read and drawn by mirrored kernels.
# "plain" and "vanilla" are the networks of the paper's code, see training/recipes.py.
BLOCKS = {
    "standard": Blocks(),
    "plain": Blocks(batch_norm=False, slope=0.0, output=PixelSigmoid, reads_pixels=True),
    "vanilla": Blocks(3, True, True, 0.01, False, last_convolution=True, output=nn.Tanh),
}


class ConvolutionalModel(LatentModel):
    """An encoder and a decoder of convolutions, which VAEs and autoencoders share.

    Stage i of the encoder halves the image's sides and has min(width * 2**i, max_width) channels;
    the decoder mirrors it.

    Args:
        image_size: height and width, in pixels; divisible by 2**n_stages.
        latent_dim: D, width of the latent.
        width: channels of the first stage.
        max_width: channels never exceed this.
        n_stages: number of downsampling stages.
        blocks: a key of BLOCKS.
    """

    numbers_per_dimension = 1  # that the encoder gives for each latent dimension

    def __init__(
        self, image_size: int = 64, channels: int = 3, latent_dim: int = 128, width: int = 32,
        max_width: int = 128, n_stages: int = 4, blocks: str = "standard",
    ) -> None:  # fmt: skip
        check_image_arguments(image_size, channels)
        check_number("latent_dim", latent_dim, 1, 4096)
        super().__init__(image_size, channels, (latent_dim,))
        self.width = check_number("width", width, 1, 1024)
        self.max_width = check_number("max_width", max_width, 1, 1024)
        self.n_stages = check_number("n_stages", n_stages, 1, 8)
        self.blocks = blocks
        if blocks not in BLOCKS:
            raise CheckpointError(unknown_name("blocks", str(blocks), BLOCKS))
        if image_size % 2**n_stages:
            raise CheckpointError(f"image_size = {image_size} is not divisible by 2**{n_stages}.")
        made_of = BLOCKS[blocks]
        widths = [min(width * 2**i, max_width) for i in range(n_stages)]
        side = image_size // 2**n_stages
        self.encoder = nn.Sequential(
            *([ToPixels()] if made_of.reads_pixels else []),
            *(made_of.down(a, b) for a, b in pairwise([channels, *widths])),  # (B, ., side, side)
            nn.Flatten(),
            nn.Linear(widths[-1] * side**2, self.numbers_per_dimension * latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, widths[-1] * side**2),
            nn.Unflatten(1, (widths[-1], side, side)),
            *([nn.LeakyReLU(made_of.slope, inplace=True)] if made_of.after_linear else []),
            *(made_of.up(a, b) for a, b in pairwise(widths[::-1])),  # (B, width, H/2, W/2)
            *made_of.last(width, channels),  # (B, C, H, W)
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


class Autoencoder(ConvolutionalModel):
    """Convolutional autoencoder, as edited by Slot et al. 2021 (Neural Comput. & Appl. 33:1079).

    Nothing but the reconstruction shapes its latents: it has no prior.
    """

    architecture = "autoencoder"


class VAE(ConvolutionalModel):
    """Variational auto-encoder (Kingma & Welling 2013, arXiv:1312.6114)."""

    architecture = "vae"
    numbers_per_dimension = 2  # mean and log variance
    standard_prior: ClassVar[bool] = True  # p(z) is N(0, I), so that the KL from it is the rate

    def encode_distribution(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, (B, D) each, of q(z|x) of images (B, C, H, W) in [-1, 1]."""
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


class FactorVAE(VAE):
    """FactorVAE (Kim & Mnih 2018, arXiv:1802.05983): the total correlation is weighted.

    Its discriminator belongs to training (training/objectives/factorvae.py), not to the model.
    """

    architecture = "factorvae"
