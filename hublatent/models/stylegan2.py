"""StyleGAN2's generator (Karras et al. 2020, arXiv:1912.04958) in pure PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import HublatentError
from hublatent.model import LatentModel
from hublatent.models.stylegan2_layers import (
    GAIN,
    SLOPE,
    EqualLinear,
    SynthesisBlock,
    channels_by_height,
)

Noise = Literal["const", "random", "none"]
CHUNK_ELEMENTS = 2**22  # numbers in the largest feature map of the images drawn together


class StyleGAN2(LatentModel):
    """StyleGAN2's generator with skip-RGB synthesis; its latents are W+ codes (L, D).

    Feature maps of height r have max(channel_min, min(channel_base // r, channel_max)) channels;
    with channel_min = 1 this is NVIDIA's rule.

    Args:
        image_size: height and width in pixels, a power of two from 16 to 1024.
        channels: image channels.
        latent_dim: D, width of a style code.
        z_dim: width of the mapping network's input.
        mapping_layers: depth of the mapping network.
        mapping_lr_multiplier: learning rate of the mapping network relative to the rest.
        channel_base: channels times height of the feature maps.
        channel_max: channels never exceed this.
        channel_min: channels never fall below this.
        conv_clamp: activations are clamped to +-conv_clamp; 0 leaves them free.
    """

    architecture = "stylegan2"
    space = "w+"
    has_encoder = False
    default_layers = (0, 1, 2)

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 256,
        z_dim: int = 256,
        mapping_layers: int = 4,
        mapping_lr_multiplier: float = 0.01,
        channel_base: int = 2048,
        channel_max: int = 256,
        channel_min: int = 48,
        conv_clamp: float = 0.0,
    ) -> None:
        check_number("latent_dim", latent_dim, 1, 4096)
        check_number("z_dim", z_dim, 1, 4096)
        check_number("mapping_layers", mapping_layers, 1, 32)
        check_number("mapping_lr_multiplier", mapping_lr_multiplier, 1e-6, 100, float)
        check_number("conv_clamp", conv_clamp, 0, 1e9, float)
        widths = channels_by_height(image_size, channels, channel_base, channel_max, channel_min)
        n_layers = 2 * len(widths)
        super().__init__(image_size, channels, (n_layers, latent_dim))
        self.latent_dim = latent_dim
        self.z_dim = z_dim
        self.mapping_layers = mapping_layers
        self.mapping_lr_multiplier = mapping_lr_multiplier
        self.channel_base = channel_base
        self.channel_max = channel_max
        self.channel_min = channel_min
        self.conv_clamp = conv_clamp
        # Without gradients few enough images at a time to stay in the processor's cache.
        largest_map = max(width * height**2 for height, width in widths.items())
        self._chunk_size = max(CHUNK_ELEMENTS // largest_map, 1)
        inputs = [z_dim] + [latent_dim] * (mapping_layers - 1)
        self.mapping_network = nn.ModuleList(
            EqualLinear(n, latent_dim, lr_multiplier=mapping_lr_multiplier) for n in inputs
        )
        self.const = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.blocks = nn.ModuleDict(
            {
                str(height): SynthesisBlock(
                    widths.get(height // 2, 0), width, height, latent_dim, channels, conv_clamp
                )
                for height, width in widths.items()
            }
        )

    def mapping(self, z: Tensor, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Map Gaussian inputs to W and repeat them for every layer (Karras et al. 2019).

        Args:
            z: (B, z_dim), from N(0, I).
            truncation: psi; w is pulled towards latent_mean, fully at 0 and not at all at 1.
            cutoff: truncate only the first so many layers; None truncates all.

        Returns:
            W+ codes (B, L, D).

        Raises:
            HublatentError: z has another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise HublatentError(
                f"mapping got z of shape {tuple(z.shape)}; expected (B, {self.z_dim})."
            )
        x = z.float() * (z.float().square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping_network:
            x = F.leaky_relu(layer(x), SLOPE) * GAIN  # (B, D)
        w = x.unsqueeze(1).repeat(1, self.latent_shape[0], 1)  # (B, L, D)
        if truncation == 1:
            return w
        truncated = self.latent_mean.lerp(w[:, :cutoff], truncation)
        return truncated if cutoff is None else torch.cat([truncated, w[:, cutoff:]], dim=1)

    def sample_latents(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw n W+ codes (n, L, D) through the mapping network, z on the CPU from `generator`."""
        z = torch.randn(n, self.z_dim, generator=generator)
        with torch.no_grad():
            return self.mapping(z.to(self.latent_mean.device))

    def synthesize(
        self,
        latents: Tensor,
        noise: Noise | Sequence[Tensor] = "const",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw images without clamping them, with gradients; for training and projection.

        Args:
            latents: (B, L, D).
            noise: "const" takes the model's own noise maps, "random" draws new ones per image,
                "none" leaves noise out; or one map per layer, shaped as in `noise_maps`.
            generator: draws the random noise.

        Returns:
            Images (B, C, H, W), float32, unbounded.
        """
        self.check_latents(latents)
        maps = self._noise_maps_for(noise, len(latents), generator)
        if torch.is_grad_enabled():
            return self._draw(latents, maps)
        parts = []
        for start in range(0, max(len(latents), 1), self._chunk_size):
            rows = slice(start, start + self._chunk_size)
            parts.append(self._draw(latents[rows], [_rows_of(m, rows) for m in maps]))
        return torch.cat(parts)  # (B, C, H, W)

    def _draw(self, latents: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        # A copy in any case: without gradients the layers work in place.
        x = self.const.expand(len(latents), -1, -1, -1)
        x = x.clone(memory_format=torch.channels_last)  # (B, C0, 4, 4)
        scale = torch.ones_like(x[:, :, 0, 0])  # (B, C0)
        image = None
        for i, block in enumerate(self._blocks()):
            first = max(2 * i - 1, 0)  # a ToRGB shares its code with the next block's first layer
            rows = slice(first, 2 * i + 2)
            x, scale, image = block(x, scale, image, latents[:, rows], noise[first : 2 * i + 1])
        assert image is not None, "every size has a block"
        return image  # (B, C, H, W)

    def decode(self, latents: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of W+ codes (B, L, D), with constant noise."""
        return self.synthesize(latents).clamp(-1, 1)

    @torch.no_grad()
    def measure_latents(self, n: int = 10_000, seed: int = 0, keep_mean: bool = False) -> None:
        """Fix the latent statistics from samples of W; every layer shares them.

        Args:
            n: number of samples.
            seed: of the samples.
            keep_mean: keep latent_mean, such as a foreign checkpoint's own average.
        """
        mean = self.latent_mean.clone()
        generator = torch.Generator().manual_seed(seed)
        batches = torch.arange(n).split(1000)
        samples = [self.sample_latents(len(b), generator=generator)[:, 0] for b in batches]
        self.set_latent_statistics(torch.cat(samples))
        if keep_mean:
            self.latent_mean.copy_(mean)

    def noise_maps(self) -> list[Tensor]:
        """The constant noise maps, (H, W) each; the last L-th code has none."""
        return [conv.noise_const for block in self._blocks() for conv in block.convs()]

    def _blocks(self) -> list[SynthesisBlock]:
        return list(self.blocks.values())  # type: ignore[arg-type]

    def _noise_maps_for(
        self, noise: Noise | Sequence[Tensor], n: int, generator: torch.Generator | None
    ) -> list[Tensor | None]:
        constant = self.noise_maps()
        if not isinstance(noise, str):
            _check_noise_maps(noise, constant)
            return list(noise)
        if noise == "none":
            return [None] * len(constant)
        if noise == "const":
            return list(constant)
        if noise == "random":
            device = self.const.device
            source = device if generator is None else generator.device
            return [
                torch.randn(n, 1, *m.shape, generator=generator, device=source).to(device)
                for m in constant
            ]
        raise HublatentError(
            f"synthesize got noise {noise!r}; expected 'const', 'random', 'none' or a list of maps."
        )


def _rows_of(noise: Tensor | None, rows: slice) -> Tensor | None:
    """The noise of some images; a map that all images share stays as it is."""
    if noise is None or noise.ndim == 2 or len(noise) == 1:
        return noise
    return noise[rows]


def _check_noise_maps(given: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    shapes = [tuple(m.shape) for m in given]
    wanted = [tuple(m.shape) for m in expected]
    if [shape[-2:] for shape in shapes] != wanted or any(
        len(shape) not in (2, 4) or shape[1:-2] not in ((), (1,)) for shape in shapes
    ):
        raise HublatentError(
            f"synthesize got noise maps of the shapes {shapes}; expected (H, W) or (B, 1, H, W) "
            f"with the heights and widths {wanted}."
        )


def mix_styles(first: Tensor, second: Tensor, crossover: int | Tensor) -> Tensor:
    """Take the coarse layers of one code and the fine layers of another (Karras et al. 2019, 3.1).

    Args:
        first: (B, L, D), for the layers before the crossover.
        second: (B, L, D), for the layers from the crossover on.
        crossover: layer number, or one for each code (B,).

    Returns:
        Codes (B, L, D).
    """
    layers = torch.arange(first.shape[1], device=first.device)
    crossover = torch.as_tensor(crossover, device=first.device).reshape(-1, 1)
    return torch.where((layers < crossover).unsqueeze(2), first, second)
