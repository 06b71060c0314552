"""StyleGAN2 in the layout of stylegan2-pytorch (rosinality), by way of NVIDIA's names."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hublatent.interop.networks import ForeignGenerator, Weights, size
from hublatent.interop.nvidia import check_filter, from_state_dict

ROSINALITY = "the layout of stylegan2-pytorch"


def from_rosinality(weights: Weights, mean: NDArray[Any] | None) -> ForeignGenerator:
    """A state dict of stylegan2-pytorch (rosinality), whose decoders e4e, pSp and PTI also have.

    Args:
        mean: the checkpoint's `latent_avg`, (D,) or the same row (L, D) for each layer.
    """
    for name in ("style.1.weight", "conv1.conv.weight", "to_rgb1.conv.weight"):
        size(weights, name, 0)  # named as the file would name it
    found: Weights = {}
    for name, value in weights.items():
        if name.endswith(".kernel"):
            check_filter(name, value)
        elif name != "noises.dummy":
            found[_nvidia_name(name)] = value
    for name, value in found.items():  # without axes of length 1
        if name.endswith((".weight", ".const")) and value.ndim > 2 and len(value) == 1:
            found[name] = value[0]
        elif name.endswith(".noise_const"):
            found[name] = value.reshape(value.shape[-2:])
        elif name.endswith(".noise_strength"):
            found[name] = value.reshape(())
        elif name.endswith(".torgb.bias"):
            found[name] = value.reshape(-1)
    if mean is not None and np.allclose(mean, mean.reshape(-1, mean.shape[-1])[0]):
        found["mapping.w_avg"] = mean.reshape(-1, mean.shape[-1])[0]
    return replace(from_state_dict(found), origin=ROSINALITY)


def _nvidia_name(name: str) -> str:
    """NVIDIA's name of a weight of stylegan2-pytorch; an unknown one stays as it is."""
    match = re.fullmatch(r"(conv1|to_rgb1|(?:convs|to_rgbs)\.(\d{1,2}))\.(.+)", name)
    if match is None:
        if noise := re.fullmatch(r"noises\.noise_(\d{1,2})", name):
            i = int(noise[1])
            return f"synthesis.b{4 * 2 ** ((i + 1) // 2)}.conv{(i + 1) % 2}.noise_const"
        if style := re.fullmatch(r"style\.(\d{1,2})\.(weight|bias)", name):
            return f"mapping.fc{int(style[1]) - 1}.{style[2]}"  # style.0 normalises z
        return {"input.input": "synthesis.b4.const"}.get(name, name)
    layer, number, rest = match[1], int(match[2] or 0), match[3]
    if "rgb" in layer:
        height, part = (4 if layer == "to_rgb1" else 8 * 2**number), "torgb"
    else:
        height, part = (
            (4, "conv1") if layer == "conv1" else (8 * 2 ** (number // 2), f"conv{number % 2}")
        )
    ending = {
        "conv.weight": "weight",
        "conv.modulation.weight": "affine.weight",
        "conv.modulation.bias": "affine.bias",
        "noise.weight": "noise_strength",
        "activate.bias": "bias",
        "bias": "bias",
    }.get(rest)
    return f"synthesis.b{height}.{part}.{ending}" if ending else name
