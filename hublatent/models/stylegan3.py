"""StyleGAN3's generator, t and r (Karras et al. 2021, arXiv:2106.12423), in pure PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import CheckpointError
from hublatent.models.layers import EqualLinear, check_size
from hublatent.models.style_generator import StyleGenerator
from hublatent.models.stylegan3_layers import Band, SynthesisInput, SynthesisLayer, ToRGB

OUTPUT_SCALE = 0.25  # the network draws images in [-4, 4]


class StyleGAN3(StyleGenerator):
    """The alias-free generator; its latents (L, D) lie in W+, L = synthesis_layers + 2.

    The first row turns and shifts the whole image, the last one colours it. The defaults are those
    of configuration T; R has kernel_size 1, radial filters, and twice the channels (channel_base
    65536, channel_max 1024). Weights have NVIDIA's names.

    Args:
        image_size: height and width in pixels, a power of two from 16 to 1024.
        channels: image channels.
        latent_dim: D, width of a layer's latent.
        z_dim: width of the mapping network's input.
        mapping_layers: depth of the mapping network.
        mapping_lr_multiplier: learning rate of the mapping network relative to the rest.
        synthesis_layers: layers between the input and the way to RGB.
        critical_layers: how many of them, at the end, let frequencies up to the limit pass.
        channel_base: channels times twice the cutoff frequency of the feature maps.
        channel_max: channels never exceed this.
        first_cutoff: the first layer's cutoff frequency, in cycles along the image's width.
        first_stopband: the first layer's stopband frequency.
        last_stopband_rel: the last layer's stopband, relative to its cutoff.
        margin_size: samples around the image's area, at either side.
        kernel_size: of the convolutions; 3 in configuration T, 1 in R.
        radial_filters: whether filters are the same in all directions, as in configuration R.
    """

    architecture = "stylegan3"
    default_layers = (1, 2, 3, 4)

    def __init__(
        self,
        image_size: int = 256,
        channels: int = 3,
        latent_dim: int = 512,
        z_dim: int = 512,
        mapping_layers: int = 2,
        mapping_lr_multiplier: float = 0.01,
        synthesis_layers: int = 14,
        critical_layers: int = 2,
        channel_base: int = 32768,
        channel_max: int = 512,
        first_cutoff: float = 2.0,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        kernel_size: int = 3,
        radial_filters: bool = False,
    ) -> None:
        _check(image_size, channels, first_cutoff, first_stopband, last_stopband_rel)
        check_number("synthesis_layers", synthesis_layers, 4, 32)
        check_number("critical_layers", critical_layers, 1, synthesis_layers - 1)
        check_number("channel_base", channel_base, 1, 2**20)
        check_number("channel_max", channel_max, 1, 4096)
        check_number("margin_size", margin_size, 0, 64)
        check_number("kernel_size", kernel_size, 1, 3)
        if not isinstance(radial_filters, bool):
            raise CheckpointError(f"radial_filters = {radial_filters!r}; expected true or false.")
        bands = layer_bands(
            image_size, channels, synthesis_layers, critical_layers, channel_base, channel_max,
            first_cutoff, first_stopband, last_stopband_rel, margin_size,
        )  # fmt: skip
        largest = max(band.channels * band.size**2 for band in bands)
        n_weights = sum(kernel_size**2 * a.channels * b.channels for a, b in pairwise(bands))
        check_size(
            largest, n_weights, f"channel_base = {channel_base} and channel_max = {channel_max}"
        )
        super().__init__(
            image_size, channels, synthesis_layers + 2, 4 * largest,
            latent_dim, z_dim, mapping_layers, mapping_lr_multiplier,
        )  # fmt: skip
        self.synthesis_layers = synthesis_layers
        self.critical_layers = critical_layers
        self.channel_base = channel_base
        self.channel_max = channel_max
        self.first_cutoff = first_cutoff
        self.first_stopband = first_stopband
        self.last_stopband_rel = last_stopband_rel
        self.margin_size = margin_size
        self.kernel_size = kernel_size
        self.radial_filters = radial_filters
        self.synthesis = nn.ModuleDict({"input": SynthesisInput(bands[0], latent_dim)})
        for i, (before, after) in enumerate(zip([bands[0], *bands[:-2]], bands[:-1], strict=True)):
            radial = radial_filters and i < synthesis_layers - critical_layers
            self.synthesis[_name(i, after)] = SynthesisLayer(
                before, after, latent_dim, kernel_size, radial
            )
        self.synthesis[_name(synthesis_layers, bands[-1])] = ToRGB(
            bands[-2].channels, channels, latent_dim
        )

    def _affines(self) -> list[EqualLinear]:
        return [layer.affine for layer in self.synthesis.values()]  # type: ignore[misc]

    def _draw(self, latents: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        first, *layers = self.synthesis.values()
        x = first(latents[:, 0])  # (B, C0, H0, H0)
        for i, layer in enumerate(layers):
            x = layer(x, latents[:, i + 1])  # (B, C, H, H)
        return x * OUTPUT_SCALE  # (B, C, image_size, image_size)


def layer_bands(
    image_size: int,
    channels: int,
    n_layers: int,
    n_critical: int,
    channel_base: int,
    channel_max: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband_rel: float,
    margin_size: int,
) -> list[Band]:
    """The bands of all layers and of the way to RGB (Karras et al. 2021, appendix F.1).

    Cutoff and stopband grow geometrically from layer to layer, until the last n_critical ones.

    Args:
        image_size, channels: of the images.
        n_layers: layers between the input, whose band is that of the first, and the way to RGB.
        n_critical, channel_base, channel_max, first_cutoff, first_stopband, last_stopband_rel,
            margin_size: as in StyleGAN3.

    Returns:
        n_layers + 1 bands.
    """
    last_cutoff = image_size / 2
    last_stopband = last_cutoff * last_stopband_rel
    bands = []
    for i in range(n_layers + 1):
        exponent = min(i / (n_layers - n_critical), 1)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** exponent
        stopband = first_stopband * (last_stopband / first_stopband) ** exponent
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, image_size)))
        bands.append(
            Band(
                channels if i == n_layers else round(min(channel_base / 2 / cutoff, channel_max)),
                image_size if i >= n_layers - 1 else rate + 2 * margin_size,
                rate,
                cutoff,
                max(stopband, rate / 2) - cutoff,
            )
        )
    return bands


def _name(i: int, band: Band) -> str:
    return f"L{i}_{band.size}_{band.channels}"


def _check(
    image_size: int, channels: int, first_cutoff: float, first_stopband: float, last: float
) -> None:
    """Refuse images and frequencies that no filters fit."""
    check_number("image_size", image_size, 16, 1024)
    check_number("channels", channels, 1, 4)
    if image_size & (image_size - 1):
        raise CheckpointError(
            f"image_size = {image_size}; expected a power of two from 16 to 1024."
        )
    check_number("first_cutoff", first_cutoff, 0.5, image_size / 2, float)
    check_number("first_stopband", first_stopband, first_cutoff, image_size, float)
    check_number("last_stopband_rel", last, 1, 4, float)
