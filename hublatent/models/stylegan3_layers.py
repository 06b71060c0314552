"""The layers of StyleGAN3 (Karras et al. 2021, arXiv:2106.12423), arranged for speed without a GPU.

Feature maps stand for continuous signals: each has a sampling rate, a cutoff frequency and a
transition band, and a nonlinearity is applied at a higher rate, between two low-pass filters.
Activations are modulated instead of weights, and filters visit only the samples that count: an
up-sampling is a transposed convolution, a down-sampling a convolution with a stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.models.layers import GAIN, SLOPE, EqualLinear, per_channel

FILTER_SIZE = 6  # taps of a filter for each sample at the lower of its two rates
OVERSAMPLING = 2  # rate at which the nonlinearity is applied, relative to the maps'
CLAMP = 256.0  # bounds activations


@dataclass(frozen=True)
class Band:
    """The signals in a layer's output (Karras et al. 2021, section 3.2 and appendix F.1).

    Attributes:
        channels: of the feature map.
        size: height and width of the feature map, the margin included.
        rate: samples along the width of the image.
        cutoff: highest frequency, in cycles along the width of the image.
        half_width: half the width of the filters' transition band.
    """

    channels: int
    size: int
    rate: int
    cutoff: float
    half_width: float


class SynthesisInput(nn.Module):
    """The first map: waves of fixed frequencies, which the latent turns and shifts.

    Args:
        band: of the map.
        latent_dim: width of a layer's latent.
    """

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
        """Codes (B, D) -> (B, channels, size, size)."""
        # A rounded phase would shift a wave, so this stays in float32 where convolutions do not.
        with torch.autocast(w.device.type, enabled=False):
            return self._waves(w.float())

    def _waves(self, w: Tensor) -> Tensor:
        transforms = self._transforms(w)  # (B, 3, 3)
        phases = self.phases + (self.freqs @ transforms[:, :2, 2:]).squeeze(2)  # (B, n)
        freqs = self.freqs @ transforms[:, :2, :2]  # (B, n, 2)
        # Waves that a transform takes beyond the band fade out.
        excess = freqs.norm(dim=2) - self.band.cutoff
        amplitudes = (1 - excess / (self.band.rate / 2 - self.band.cutoff)).clamp(0, 1)  # (B, n)
        size = self.band.size
        # The centres of the samples, in widths of the image.
        axis = (torch.arange(size, device=w.device) + 0.5 - size / 2) / self.band.rate
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
    """Modulated convolution, bias, and a leaky ReLU between two low-pass filters.

    Args:
        before: the band of the input.
        after: the band of the output.
        latent_dim: width of a layer's latent.
        kernel_size: of the convolution.
        radial: whether the filter after the nonlinearity is the same in all directions, as it has
            to be for equivariance to rotation.
    """

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
        self.register_buffer(
            "down_filter", low_pass(self.down, after.cutoff, after.half_width, rate, radial)
        )
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
    """Modulated 1x1 convolution to image channels, without demodulation or filters.

    Args:
        n_in: channels of the input.
        channels: image channels.
        latent_dim: width of a layer's latent.
    """

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
        cutoff: in cycles along the width of the image.
        half_width: half the transition band.
        rate: the higher sampling rate.
        radial: whether it is the same in all directions, and then not separable.

    Returns:
        (taps,), or (taps, taps) where radial; its sum is 1.
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
