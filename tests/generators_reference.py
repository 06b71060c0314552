"""StyleGAN, StyleGAN3 and ProGAN in their usual formulation: slow, plain, written apart from ours.

Every weight is scaled before it is used, StyleGAN3's per sample; up-sampling inserts zeros or
repeats pixels, and filters visit all samples. Each function reads a model's weights and calls none
of its code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def progan(model: Any, z: Tensor) -> Tensor:
    """Draw images (B, C, H, W), unclamped, of z (B, D)."""
    weights = dict(model.state_dict())
    x = _pixel_norm(z)[:, :, None, None]
    for i in range(len(model.layers)):
        weight, bias = weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]
        if i == 0:
            gain = math.sqrt(2) / 4 / math.sqrt(z.shape[1])
            x = F.conv2d(x, weight * gain, padding=3)
        else:
            x = F.interpolate(x, scale_factor=2.0) if i % 2 == 0 else x
            x = F.conv2d(x, weight * math.sqrt(2 / (9 * x.shape[1])), padding=1)
        x = _pixel_norm(F.leaky_relu(x + bias.reshape(1, -1, 1, 1), 0.2))
    weight = weights["to_rgb.weight"] / math.sqrt(x.shape[1])
    return F.conv2d(x, weight, weights["to_rgb.bias"])


def stylegan_mapping(model: Any, z: Tensor) -> Tensor:
    """Map z (B, z_dim) to w (B, D)."""
    weights = dict(model.state_dict())
    x = _pixel_norm(z)
    for i in range(model.mapping_layers):
        weight, bias = (weights[f"mapping_network.{i}.{kind}"] for kind in ("weight", "bias"))
        rate = model.mapping_lr_multiplier
        x = F.leaky_relu(x @ (weight * math.sqrt(2 / x.shape[1]) * rate).T + bias * rate, 0.2)
    return x


def stylegan(model: Any, latents: Tensor) -> Tensor:
    """Draw images (B, C, H, W), unclamped, of codes (B, L, D) with the constant noise."""
    weights = dict(model.state_dict())
    x = weights["const"].repeat(len(latents), 1, 1, 1)
    for i in range(latents.shape[1]):
        part = {
            k.removeprefix(f"layers.{i}."): v
            for k, v in weights.items()
            if k.startswith(f"layers.{i}.")
        }
        if i:
            x = F.interpolate(x, scale_factor=2.0) if i % 2 == 0 else x
            x = F.conv2d(x, part["weight"] * math.sqrt(2 / (9 * x.shape[1])), padding=1)
            if i % 2 == 0:
                taps = torch.tensor([1.0, 2.0, 1.0]) / 4
                kernel = torch.outer(taps, taps).repeat(x.shape[1], 1, 1, 1)
                x = F.conv2d(x, kernel, padding=1, groups=x.shape[1])
        x = x + part["noise_const"] * part["noise_strength"].reshape(1, -1, 1, 1)
        x = F.leaky_relu(x + part["bias"].reshape(1, -1, 1, 1), 0.2)
        x = x - x.mean(dim=(2, 3), keepdim=True)
        x = x / (x.square().mean(dim=(2, 3), keepdim=True) + 1e-8).sqrt()
        style = _affine(latents[:, i], part)
        scale, shift = style[:, : x.shape[1], None, None], style[:, x.shape[1] :, None, None]
        x = x * (scale + 1) + shift
    weight = weights["to_rgb.weight"] / math.sqrt(x.shape[1])
    return F.conv2d(x, weight, weights["to_rgb.bias"])


def stylegan3(model: Any, latents: Tensor) -> Tensor:
    """Draw images (B, C, H, W), unclamped, of codes (B, L, D)."""
    weights = {k.removeprefix("synthesis."): v for k, v in model.state_dict().items()}
    names = list(dict.fromkeys(k.split(".")[0] for k in weights if k.startswith("L")))
    sizes = [int(name.split("_")[1]) for name in names]
    rates = _rates(model, len(names))
    x = _waves(model, latents[:, 0], weights, sizes[0], rates[0])
    for i, name in enumerate(names):
        part = {k.removeprefix(name + "."): v for k, v in weights.items() if k.startswith(name)}
        before = max(i - 1, 0)
        last = i == len(names) - 1
        x = _modulated_conv(x, latents[:, i + 1], part, demodulate=not last)
        x = x + part["bias"].reshape(1, -1, 1, 1)
        if last:
            return x.clamp(-256, 256) / 4
        rate = 2 * max(rates[before], rates[i])
        x = _filtered(x, part, rate // rates[before], rate // rates[i], sizes[before], sizes[i])
    raise AssertionError("there is no way to RGB")


def _rates(model: Any, n: int) -> list[int]:
    first, last = model.first_stopband, model.image_size / 2 * model.last_stopband_rel
    span = model.synthesis_layers - model.critical_layers
    stops = [first * (last / first) ** min(i / span, 1) for i in range(n)]
    return [2 ** math.ceil(math.log2(min(2 * s, model.image_size))) for s in stops]


def _waves(model: Any, w: Tensor, weights: dict[str, Tensor], size: int, rate: int) -> Tensor:
    part = {k.removeprefix("input."): v for k, v in weights.items() if k.startswith("input.")}
    t = _affine(w, part)
    t = t / t[:, :2].norm(dim=1, keepdim=True)
    images = []
    for cosine, sine, dx, dy in t.tolist():
        rotation = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        shift = torch.tensor([[1, 0, -dx], [0, 1, -dy], [0, 0, 1]])
        transform = rotation @ shift @ part["transform"]
        phases = part["phases"] + part["freqs"] @ transform[:2, 2]
        freqs = part["freqs"] @ transform[:2, :2]
        cutoff = model.first_cutoff
        amplitude = (1 - (freqs.norm(dim=1) - cutoff) / (rate / 2 - cutoff)).clamp(0, 1)
        theta = torch.tensor([[[0.5 * size / rate, 0, 0], [0, 0.5 * size / rate, 0]]])
        grid = F.affine_grid(theta, [1, 1, size, size], align_corners=False)[0]
        wave = torch.sin(2 * math.pi * (grid @ freqs.T + phases)) * amplitude
        images.append(wave @ part["weight"].T / math.sqrt(len(phases)))
    return torch.stack(images).permute(0, 3, 1, 2)


def _modulated_conv(x: Tensor, w: Tensor, part: dict[str, Tensor], demodulate: bool) -> Tensor:
    batch, n_in, height, width = x.shape
    weight, style = part["weight"], _affine(w, part)
    n_out, _, kernel, _ = weight.shape
    if demodulate:
        weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        style = style * style.square().mean().rsqrt()
    else:
        style = style / math.sqrt(n_in * kernel**2)
    own = weight[None] * style[:, None, :, None, None]  # (B, O, I, k, k)
    if demodulate:
        own = own * (own.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    own = own * part["magnitude_ema"].rsqrt()
    x = F.conv2d(
        x.reshape(1, batch * n_in, height, width), own.flatten(0, 1), padding=kernel - 1,
        groups=batch,
    )  # fmt: skip
    return x.unflatten(1, (batch, n_out))[0]


def _filtered(
    x: Tensor, part: dict[str, Tensor], up: int, down: int, before: int, after: int
) -> Tensor:
    batch, channels, height, width = x.shape
    f_up, f_down = part["up_filter"], part["down_filter"]
    total = (after - 1) * down + 1 - height * up + len(f_up) + len(f_down) - 2
    low = (total + up) // 2
    x = x.reshape(batch, channels, height, 1, width, 1)
    x = F.pad(x, [0, up - 1, 0, 0, 0, up - 1]).reshape(batch, channels, height * up, width * up)
    x = F.pad(x, [low, total - low, low, total - low])
    x = _filter(x, f_up) * up**2
    x = (F.leaky_relu(x, 0.2) * math.sqrt(2)).clamp(-256, 256)
    return _filter(x, f_down)[:, :, ::down, ::down]


def _filter(x: Tensor, taps: Tensor) -> Tensor:
    n = x.shape[1]
    if taps.ndim == 2:
        return F.conv2d(x, taps.flip(0, 1).repeat(n, 1, 1, 1), groups=n)
    taps = taps.flip(0)
    x = F.conv2d(x, taps.reshape(1, 1, 1, -1).repeat(n, 1, 1, 1), groups=n)
    return F.conv2d(x, taps.reshape(1, 1, -1, 1).repeat(n, 1, 1, 1), groups=n)


def _affine(w: Tensor, part: dict[str, Tensor]) -> Tensor:
    return w @ part["affine.weight"].T / math.sqrt(w.shape[1]) + part["affine.bias"]


def _pixel_norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
