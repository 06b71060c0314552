"""StyleGAN3's generator, t and r (Karras et al. 2021, arXiv:2106.12423), fast without a GPU.

Feature maps stand for continuous signals: each has a sampling rate, a cutoff frequency and a
transition band, and a nonlinearity is applied at a higher rate, between two low-pass filters.
Activations are modulated instead of weights, and filters visit only the samples that count: an
up-sampling is a transposed convolution, a down-sampling a convolution with a stride.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import CheckpointError
from hublatent.models.layers import (
    GAIN,
    SLOPE,
    EqualLinear,
    check_images,
    check_size,
    chunk_size,
    per_channel,
)
from hublatent.models.style_generator import StyleGenerator

OUTPUT_SCALE = 0.25  # the network draws images in [-4, 4]
FILTER_SIZE = 6  # taps of a filter for each sample at the lower of its two rates
OVERSAMPLING = 2  # rate at which the nonlinearity is applied, relative to the maps'
CLAMP = 256.0  # bounds activations


class StyleGAN3(StyleGenerator):
    """The alias-free generator; its latents (L, D) lie in W+, L = synthesis_layers + 2.

    The first row turns and shifts the whole image, the last one colours it. The defaults are those
    of configuration T; R has kernel_size 1, radial filters, and twice the channels (channel_base
    65536, channel_max 1024). Weights have NVIDIA's names.

    Args:
        image_size to mapping_lr_multiplier: as in StyleGenerator.
        synthesis_layers: layers between the input and the way to RGB.
        critical_layers: how many of them, at the end, let frequencies up to the limit pass.
        channel_base: channels times twice the cutoff frequency of the feature maps.
        channel_max: channels never exceed this.
        first_cutoff, first_stopband: of the first layer, in cycles along the image's width.
        last_stopband_rel: the last layer's stopband, relative to its cutoff.
        margin_size: samples around the image's area, at either side.
        kernel_size: of the convolutions.
        radial_filters: whether filters are the same in all directions.
    """

    architecture = "stylegan3"
    default_layers = (1, 2, 3, 4)

    def __init__(
        self, image_size: int = 256, channels: int = 3, latent_dim: int = 512, z_dim: int = 512,
        mapping_layers: int = 2, mapping_lr_multiplier: float = 0.01, synthesis_layers: int = 14,
        critical_layers: int = 2, channel_base: int = 32768, channel_max: int = 512,
        first_cutoff: float = 2.0, first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3, margin_size: int = 10, kernel_size: int = 3,
        radial_filters: bool = False,
    ) -> None:  # fmt: skip
        check_images(image_size, channels)
        check_number("synthesis_layers", synthesis_layers, 4, 32)
        if not isinstance(radial_filters, bool):
            raise CheckpointError(f"radial_filters = {radial_filters!r}; expected true or false.")
        super().__init__(
            image_size, channels, latent_dim, z_dim, mapping_layers, mapping_lr_multiplier,
            n_layers=synthesis_layers + 2,
        )  # fmt: skip
        self.synthesis_layers = synthesis_layers
        last = synthesis_layers - 1
        self.critical_layers = check_number("critical_layers", critical_layers, 1, last)
        self.channel_base = check_number("channel_base", channel_base, 1, 2**20)
        self.channel_max = check_number("channel_max", channel_max, 1, 4096)
        self.first_cutoff = check_number("first_cutoff", first_cutoff, 0.5, image_size / 2, float)
        self.first_stopband = check_number(
            "first_stopband", first_stopband, first_cutoff, image_size, float
        )
        self.last_stopband_rel = check_number("last_stopband_rel", last_stopband_rel, 1, 4, float)
        self.margin_size = check_number("margin_size", margin_size, 0, 64)
        self.kernel_size = check_number("kernel_size", kernel_size, 1, 3)
        self.radial_filters = radial_filters
        bands = self._bands()
        largest = max(band.channels * band.size**2 for band in bands)
        n_weights = sum(kernel_size**2 * a.channels * b.channels for a, b in pairwise(bands))
        what = f"{channel_base = }, {channel_max = }"
        check_size(largest, n_weights, what)
        self._chunk_size = chunk_size(4 * largest)
        self.synthesis = nn.ModuleDict({"input": SynthesisInput(bands[0], latent_dim)})
        for i, (before, after) in enumerate(zip([bands[0], *bands[:-2]], bands[:-1], strict=True)):
            radial = radial_filters and i < synthesis_layers - critical_layers
            layer = SynthesisLayer(before, after, latent_dim, kernel_size, radial)
            self.synthesis[_name(i, after)] = layer
        to_rgb = ToRGB(bands[-2].channels, channels, latent_dim)
        self.synthesis[_name(synthesis_layers, bands[-1])] = to_rgb

    def _bands(self) -> list[Band]:
        """The bands of all layers and of the way to RGB (Karras et al. 2021, appendix F.1).

        Cutoff and stopband grow geometrically until the critical layers. The first is the input's.
        """
        n_layers, last_cutoff = self.synthesis_layers, self.image_size / 2
        last_stopband = last_cutoff * self.last_stopband_rel
        bands = []
        for i in range(n_layers + 1):
            exponent = min(i / (n_layers - self.critical_layers), 1)
            cutoff = self.first_cutoff * (last_cutoff / self.first_cutoff) ** exponent
            stopband = self.first_stopband * (last_stopband / self.first_stopband) ** exponent
            rate = 2 ** math.ceil(math.log2(min(2 * stopband, self.image_size)))
            channels = round(min(self.channel_base / 2 / cutoff, self.channel_max))
            size = rate + 2 * self.margin_size
            size = self.image_size if i >= n_layers - 1 else size
            channels = self.channels if i == n_layers else channels
            bands.append(Band(channels, size, rate, cutoff, max(stopband, rate / 2) - cutoff))
        return bands

    def _affines(self) -> list[EqualLinear]:
        return [layer.affine for layer in self.synthesis.values()]  # type: ignore[misc]

    def _draw(self, latents: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        first, *layers = self.synthesis.values()
        x = first(latents[:, 0])  # (B, C0, H0, H0)
        for i, layer in enumerate(layers):
            x = layer(x, latents[:, i + 1])  # (B, C, H, H)
        return x * OUTPUT_SCALE  # (B, C, image_size, image_size)


def _name(i: int, band: Band) -> str:
    return f"L{i}_{band.size}_{band.channels}"


@dataclass(frozen=True)
class Band:
    """The signals in a layer's output (Karras et al. 2021, section 3.2 and appendix F.1)."""

    channels: int
    size: int  # height and width of the feature map, the margin included
    rate: int  # samples along the width of the image
    cutoff: float  # the highest frequency, in cycles along the width of the image
    half_width: float  # half the width of the filters' transition band


class SynthesisInput(nn.Module):
    """The first map: waves of fixed frequencies, which the latent turns and shifts."""

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, band: Band, latent_dim: int) -> None:
        super().__init__()
        self.band = band
        n = band.channels
        self.weight = nn.Parameter(torch.randn(n, n))
        self.affine = EqualLinear(latent_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias[0] = 1  # the image as it is: the cosine of an angle of 0
        freqs = torch.randn(n, 2)
        radii = freqs.norm(dim=1, keepdim=True)
        # Uniform in the disc of frequencies up to the cutoff.
        self.register_buffer("freqs", freqs / radii * (-radii.square() / 4).exp() * band.cutoff)
        self.register_buffer("phases", torch.rand(n) - 0.5)
        self.register_buffer("transform", torch.eye(3))  # the user's own, after the latent's

    def forward(self, w: Tensor) -> Tensor:
        """Latents (B, D) -> (B, channels, size, size)."""
        # A rounded phase would shift a wave, so this stays in float32 where convolutions do not.
        with torch.autocast(w.device.type, enabled=False):
            return self._waves(w.float())

    def _waves(self, w: Tensor) -> Tensor:
        transforms = self._transforms(w)  # (B, 3, 3)
        phases = self.phases + (self.freqs @ transforms[:, :2, 2:]).squeeze(2)  # (B, n)
        freqs = self.freqs @ transforms[:, :2, :2]  # (B, n, 2)
        size, rate, cutoff = self.band.size, self.band.rate, self.band.cutoff
        # Waves that a transform takes beyond the band fade out.
        amplitudes = (1 - (freqs.norm(dim=2) - cutoff) / (rate / 2 - cutoff)).clamp(0, 1)  # (B, n)
        # The centres of the samples, in widths of the image.
        axis = (torch.arange(size, device=w.device) + 0.5 - size / 2) / rate
        along_x = freqs[:, None, None, :, 0] * axis[:, None]  # (B, 1, size, n)
        along_y = freqs[:, None, None, :, 1] * axis[:, None, None]  # (B, size, 1, n)
        waves = (2 * math.pi * (along_x + along_y + phases[:, None, None])).sin()
        waves = waves * amplitudes[:, None, None]  # (B, size, size, n)
        x = waves @ (self.weight / math.sqrt(len(self.weight))).T
        return x.permute(0, 3, 1, 2)  # (B, n, size, size)

    def _transforms(self, w: Tensor) -> Tensor:
        """(B, 3, 3): a rotation and a translation chosen by the latent, then `transform`."""
        t = self.affine(w)  # (B, 4): cosine, sine, shift along x and y
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cosine, sine, x, y = t.unbind(dim=1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rotation = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1)
        shift = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1)
        return rotation.unflatten(1, (3, 3)) @ shift.unflatten(1, (3, 3)) @ self.transform


class SynthesisLayer(nn.Module):
    """Modulated convolution, bias, and a leaky ReLU between two low-pass filters."""

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(
        self, before: Band, after: Band, latent_dim: int, kernel_size: int, radial: bool
    ) -> None:
        super().__init__()
        n_in, n_out = before.channels, after.channels
        self.affine = EqualLinear(latent_dim, n_in, bias_init=1)
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(n_out))
        # The mean square of the input, as training measured it.
        self.register_buffer("magnitude_ema", torch.ones(()))
        rate = max(before.rate, after.rate) * OVERSAMPLING
        self.up, self.down = rate // before.rate, rate // after.rate
        self.register_buffer("up_filter", low_pass(self.up, before.cutoff, before.half_width, rate))
        down_filter = low_pass(self.down, after.cutoff, after.half_width, rate, radial)
        self.register_buffer("down_filter", down_filter)
        # How many samples beyond the output's are cut off before the nonlinearity, at either end.
        surplus = (before.size + kernel_size - 1) * self.up - (after.size - 1) * self.down - 1
        pad = (FILTER_SIZE * (self.up + self.down) - 2 - surplus + self.up) // 2
        self.crop = FILTER_SIZE * self.up - 1 - pad

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps (B, n_in, H, H) and latents (B, D) -> (B, n_out, H', H')."""
        style = self.affine(w)  # (B, n_in)
        # Demodulation as in StyleGAN2; no scale of weights or styles is left in the output.
        energy = self.weight.square().sum(dim=(2, 3))  # (n_out, n_in)
        strength = (style.square() @ energy.T + 1e-20).rsqrt() * self.magnitude_ema.rsqrt()
        x = F.conv2d(x * per_channel(style, x), self.weight, padding=self.weight.shape[2] - 1)
        x = torch.addcmul(self.bias.to(x.dtype)[:, None, None], x, per_channel(strength, x))
        return self._filtered_leaky_relu(x)  # (B, n_out, H', H')

    def _filtered_leaky_relu(self, x: Tensor) -> Tensor:
        """Leaky ReLU at the higher rate (Karras et al. 2021, section 3.2)."""
        groups, up = x.shape[1], self.up
        rows, columns = _separable(self.up_filter * up, x)
        x = F.conv_transpose2d(x, rows, None, (up, 1), (self.crop, 0), groups=groups)
        x = F.conv_transpose2d(x, columns, None, (1, up), (0, self.crop), groups=groups)
        clamp = torch.clamp if torch.is_grad_enabled() else torch.clamp_
        x = clamp(F.leaky_relu_(x, SLOPE), -CLAMP / GAIN, CLAMP / GAIN)
        if self.down_filter.ndim == 2:
            kernel = (self.down_filter * GAIN).to(x.dtype).expand(groups, 1, -1, -1)
            return F.conv2d(x, kernel, stride=self.down, groups=groups)
        rows, columns = _separable(self.down_filter * math.sqrt(GAIN), x)
        x = F.conv2d(x, columns, stride=(1, self.down), groups=groups)
        return F.conv2d(x, rows, stride=(self.down, 1), groups=groups)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation or filters."""

    magnitude_ema: Tensor

    def __init__(self, n_in: int, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.affine = EqualLinear(latent_dim, n_in, bias_init=1)
        self.weight = nn.Parameter(torch.randn(channels, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("magnitude_ema", torch.ones(()))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps (B, n_in, H, W) and latents (B, D) -> images (B, channels, H, W), float32."""
        style = self.affine(w) * self.magnitude_ema.rsqrt() / math.sqrt(x.shape[1])  # (B, n_in)
        x = F.conv2d(x * per_channel(style, x), self.weight, self.bias)
        return x.float().clamp(-CLAMP, CLAMP)


def low_pass(
    factor: int, cutoff: float, half_width: float, rate: float, radial: bool = False
) -> Tensor:
    """A Kaiser filter for changing the sampling rate (Karras et al. 2021, appendix C.1).

    Args:
        factor: by which the rate changes; FILTER_SIZE taps for each.
        cutoff, half_width: of the transition band, in cycles along the width of the image.
        rate: the higher sampling rate.
        radial: whether it is the same in all directions, and then not separable.

    Returns:
        (taps,), or (taps, taps) if radial; the sum is 1.
    """
    from scipy import signal, special  # heavy, and needed by this architecture alone

    n_taps = FILTER_SIZE * factor
    if not radial:
        taps = signal.firwin(n_taps, cutoff, width=2 * half_width, fs=rate)
        return torch.as_tensor(taps, dtype=torch.float32)
    axis = (torch.arange(n_taps, dtype=torch.float64, device="cpu") - (n_taps - 1) / 2).numpy()
    radius = (axis[:, None] ** 2 + axis**2) ** 0.5 / rate
    # The Fourier transform of a disc is a jinc, as that of an interval is a sinc.
    ideal = special.j1(2 * math.pi * cutoff * radius) / (math.pi * radius)
    beta = signal.kaiser_beta(signal.kaiser_atten(n_taps, 4 * half_width / rate))
    window = signal.windows.kaiser(n_taps, beta)
    kernel = ideal * window * window[:, None]
    return torch.as_tensor(kernel / kernel.sum(), dtype=torch.float32)


def _separable(taps: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Depthwise kernels (C, 1, taps, 1) and (C, 1, 1, taps) for the channels of x."""
    taps = taps.to(x.dtype)
    n = x.shape[1]
    return taps[:, None].expand(n, 1, -1, 1), taps.expand(n, 1, 1, -1)
