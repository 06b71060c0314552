"""What generators share; and the StyleGANs: a mapping network to W+, and an encoder from images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import CheckpointError, HublatentError
from hublatent.hub import Snapshot
from hublatent.model import LatentModel
from hublatent.models.layers import GAIN, SLOPE, EqualLinear, pixel_norm

HIDDEN_WIDTH = 256  # of the layer between the last feature map and the latents
LAST_SIDE = 4  # height and width of that feature map
Noise = Literal["const", "random", "none"]
Model = TypeVar("Model", bound="StyleGenerator")


class Generator(LatentModel):
    """A generator: it draws so few images at a time that they stay in the processor's cache."""

    _chunk_size: int

    def synthesize(
        self, latents: Tensor, noise: Noise | Sequence[Tensor] = "const",
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Draw the unclamped images (B, C, H, W), float32, with gradients.

        Args:
            noise: "const" takes the model's own noise maps, "random" draws new ones per image with
                `generator`, "none" leaves noise out; or one map per layer, (H, W) or (B, 1, H, W).
        """
        self.check_latents(latents)
        maps = self._noise_maps_for(noise, len(latents), generator)
        return self._in_pieces(self._draw, latents, maps)

    def _draw(self, latents: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        """The unclamped images of latents, with the noise of each layer that takes some."""
        raise NotImplementedError

    def _in_pieces(
        self, draw: Callable[[Tensor, Sequence[Tensor | None]], Tensor], latents: Tensor,
        noise: Sequence[Tensor | None],
    ) -> Tensor:  # fmt: skip
        """Draw (B, C, H, W), without gradients a few at a time."""
        if torch.is_grad_enabled():
            return draw(latents, noise)
        n = self._chunk_size
        pieces = [slice(start, start + n) for start in range(0, max(len(latents), 1), n)]
        parts = [draw(latents[rows], [_rows_of(m, rows) for m in noise]) for rows in pieces]
        return torch.cat(parts)  # (B, C, H, W)

    def decode(self, latents: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of latents, with constant noise."""
        return self.synthesize(latents).clamp(-1, 1)

    def _noise_maps_for(
        self, noise: Noise | Sequence[Tensor], n: int, generator: torch.Generator | None
    ) -> list[Tensor | None]:
        constant = self.noise_maps()
        if not isinstance(noise, str):
            shapes, wanted = ([tuple(m.shape) for m in maps] for maps in (noise, constant))
            if [shape[-2:] for shape in shapes] != wanted or any(
                len(shape) not in (2, 4) or shape[1:-2] not in ((), (1,)) for shape in shapes
            ):
                raise HublatentError(
                    f"synthesize got noise maps of the shapes {shapes}; expected (H, W) or "
                    f"(B, 1, H, W) with the heights and widths {wanted}."
                )
            return list(noise)
        if noise == "none":
            return [None] * len(constant)
        if noise == "const":
            return list(constant)
        if noise == "random":
            device = self.latent_mean.device
            source = device if generator is None else generator.device
            return [
                torch.randn(n, 1, *m.shape, generator=generator, device=source).to(device)
                for m in constant
            ]
        raise HublatentError(
            f"synthesize got noise {noise!r}; expected 'const', 'random', 'none' or a list of maps."
        )


class StyleGenerator(Generator):
    """A generator whose latents (L, D), in W+, hold one row for each layer.

    Args:
        image_size: height and width in pixels, a power of two from 16 to 1024.
        latent_dim: D, width of a layer's latent.
        z_dim, mapping_layers: width of the mapping network's input, and its depth.
        mapping_lr_multiplier: learning rate of the mapping network relative to the rest.
        n_layers: L, number of rows that the synthesis takes; follows from the architecture.
    """

    space = "w+"
    auxiliary = ("encoder",)  # of tensors and arguments; see LatentModel
    encoder: StyleEncoder | None  # trained after the generator, and only for it
    encoder_of: str = ""  # the fingerprint of the generator that it was trained for
    # The mapping network's sqrt(2) per layer: of its activations, as in StyleGAN2 and 3, or of its
    # weights, as in StyleGAN, where this is 1.
    activation_gain: ClassVar[float] = GAIN

    def __init__(
        self, image_size: int, channels: int, latent_dim: int, z_dim: int, mapping_layers: int,
        mapping_lr_multiplier: float, n_layers: int,
    ) -> None:  # fmt: skip
        check_number("latent_dim", latent_dim, 1, 4096)
        super().__init__(image_size, channels, (n_layers, latent_dim))
        self.z_dim = check_number("z_dim", z_dim, 1, 4096)
        self.mapping_layers = check_number("mapping_layers", mapping_layers, 1, 32)
        self.mapping_lr_multiplier = check_number(
            "mapping_lr_multiplier", mapping_lr_multiplier, 1e-6, 100, float
        )
        self.encoder = None
        gain = GAIN / self.activation_gain
        self.mapping_network = nn.ModuleList(
            EqualLinear(n_in, latent_dim, lr_multiplier=mapping_lr_multiplier, gain=gain)
            for n_in in [z_dim] + [latent_dim] * (mapping_layers - 1)
        )

    @property
    def has_encoder(self) -> bool:
        return self.encoder is not None

    @classmethod
    def from_snapshot(cls: type[Model], where: Snapshot, device: str | None = None) -> Model:
        """Load a generator, and its encoder, which has to be its own, from files that are here."""
        model = super().from_snapshot(where, device)
        if model.encoder is not None and not model.matches(model.encoder_of):
            raise CheckpointError(
                f"{where.source} holds an encoder of another generator ({model.encoder_of[:12]}; "
                f"this one is {model.fingerprint()[:12]}). Train one for it: python "
                f"training/train_encoder.py --model {where.source}"
            )
        return model

    def add_encoder(self, width: int, fingerprint: str) -> None:
        """Give the generator, of this fingerprint, a fresh encoder of some width; 0 for none."""
        self.encoder_width, self.encoder_of = width, fingerprint
        if width:
            self.encoder = StyleEncoder(self.image_size, self.channels, self.latent_shape, width)

    def encode(self, images: Tensor) -> Tensor:
        """Read W+ latents (B, L, D) of images (B, C, H, W) in [-1, 1], with an encoder."""
        if self.encoder is None:
            return super().encode(images)
        self.check_images(images)
        return self.latent_mean + self.latent_spread() * self.encoder(images)

    def latent_spread(self) -> Tensor:
        """The root mean variance of the latents, a scalar: the unit of lengths in W."""
        return self.latent_covariance.diagonal().mean().sqrt()

    def mapping(self, z: Tensor, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Map Gaussian inputs z (B, z_dim) to W+ latents (B, L, D), alike in all layers.

        Args:
            truncation: psi; w is pulled towards latent_mean, fully at 0 and not at all at 1.
            cutoff: truncate only the first so many layers; None truncates all.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            shape = tuple(z.shape)
            raise HublatentError(f"mapping got z of shape {shape}; expected (B, {self.z_dim}).")
        x = pixel_norm(z.float())
        for layer in self.mapping_network:
            x = F.leaky_relu(layer(x), SLOPE) * self.activation_gain  # (B, D)
        w = x.unsqueeze(1).repeat(1, self.latent_shape[0], 1)  # (B, L, D)
        if truncation == 1:
            return w
        truncated = self.latent_mean.lerp(w[:, :cutoff], truncation)
        return truncated if cutoff is None else torch.cat([truncated, w[:, cutoff:]], dim=1)

    def sample_latents(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw n latents (n, L, D) through the mapping network, z on the CPU from `generator`."""
        z = torch.randn(n, self.z_dim, generator=generator)
        with torch.no_grad():
            return self.mapping(z.to(self.latent_mean.device))

    @torch.no_grad()
    def measure_latents(self, n: int = 10_000, seed: int = 0, keep_mean: bool = False) -> None:
        """Fix the latent statistics from n samples of W; every layer shares them.

        `keep_mean` keeps latent_mean, such as a foreign checkpoint's own average.
        """
        mean = self.latent_mean.clone()
        generator = torch.Generator().manual_seed(seed)
        batches = torch.arange(n).split(1000)
        samples = [self.sample_latents(len(b), generator=generator)[:, 0] for b in batches]
        self.set_latent_statistics(torch.cat(samples))
        if keep_mean:
            self.latent_mean.copy_(mean)

    def first_affine(self, layers: Sequence[int] | None = None) -> Tensor:
        """The weights (N, D) by which some layers, by default the usual ones, make their styles."""
        affines = self._affines()
        chosen = self.default_layers if layers is None else layers
        return torch.cat([affines[layer].weight for layer in chosen])  # (N, D)

    def _affines(self) -> list[EqualLinear]:
        """The affine layer that reads each row of a latent; of several, a convolution's."""
        raise NotImplementedError


def _rows_of(noise: Tensor | None, rows: slice) -> Tensor | None:
    """The noise of some images; a map that all images share stays as it is."""
    if noise is None or noise.ndim == 2 or len(noise) == 1:
        return noise
    return noise[rows]


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
