"""Channels of StyleSpace (Wu et al. 2021, arXiv:2011.12799) as W+ directions.

A style is an affine function of a row of the W+ code, s = A w + b. The smallest change of w that
moves channel c by 1 and no other channel of that style is the c-th column of A's pseudo-inverse.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from hublatent.direction import Direction
from hublatent.errors import DirectionError
from hublatent.model import LatentModel
from hublatent.models.stylegan2 import StyleGAN2

MAX_TEXT_BYTES = 1 << 16
MAX_RESIDUAL = 0.01
MAX_CHANNELS = 256  # each takes a pseudo-inverse
Channel = tuple[int, int]


def read_channels(path: Path) -> tuple[Channel, ...] | None:
    """Read a text of StyleSpace channels: "9_409" on each line, or JSON such as [[9, 409]].

    Returns:
        Pairs (layer, channel), the layers counted with ToRGB; None where it is no such text.
    """
    if not path.is_file() or path.stat().st_size > MAX_TEXT_BYTES:
        return None
    text = path.read_bytes().decode("ascii", errors="replace")
    if not re.fullmatch(r"[\s\d,_()\[\]]+", text):
        return None
    pairs = re.findall(r"(\d{1,6})\s*[,_]\s*(\d{1,6})", text)
    return tuple((int(layer), int(channel)) for layer, channel in pairs) or None


def import_channels(
    channels: tuple[Channel, ...], attribute: str, model: LatentModel | None
) -> tuple[list[Direction], str]:
    """The channels as directions of a model, and a line that says what one sigma of each is."""
    if not isinstance(model, StyleGAN2):
        raise DirectionError(
            "it names StyleSpace channels, which only a StyleGAN2 model has; name the model they "
            "are for."
        )
    if len(channels) > MAX_CHANNELS:
        raise DirectionError(
            f"it names {len(channels):,} channels; at most {MAX_CHANNELS} are read."
        )
    found = [_style_direction(model, channel, attribute) for channel in channels]
    scales = ", ".join(
        f"{layer}_{channel} = {sigma:.3g}"
        for (layer, channel), (_, sigma) in zip(channels, found, strict=True)
    )
    line = (
        f"{len(found)} StyleSpace channels; the file lacks: threshold, gain, sigma. One standard "
        f"deviation of the channel is the raw strength: {scales}"
    )
    return [direction for direction, _ in found], line


@torch.no_grad()
def _style_direction(model: StyleGAN2, channel: Channel, attribute: str) -> tuple[Direction, float]:
    """The W+ direction that moves one style channel by 1, and the channel's standard deviation.

    Where a row of the code also feeds another style (ToRGB shares its row with the first
    convolution of the next block), that one moves too. The deviation is sqrt(a' Cov a).
    """
    styles = model.style_layers()
    layer, number = channel
    if layer >= len(styles) or number >= len(styles[layer][0].weight):
        widths = [len(affine.weight) for affine, _ in styles]
        raise DirectionError(
            f"there is no StyleSpace channel {layer}_{number}; the model's layers 0 to "
            f"{len(styles) - 1} have {widths} channels."
        )
    affine, row = styles[layer]
    matrix = affine.matrix().double().cpu()  # (n_channels, D)
    solution = torch.linalg.pinv(matrix)[:, number]  # (D,)
    wanted = torch.eye(len(matrix), dtype=torch.float64)[number]
    if float((matrix @ solution - wanted).norm()) > MAX_RESIDUAL:
        raise DirectionError(
            f"StyleSpace channel {layer}_{number} cannot be moved alone through W+: its layer has "
            f"{len(matrix)} channels and the code {matrix.shape[1]} numbers."
        )
    vector = torch.zeros(model.latent_shape)
    vector[row] = solution.float()
    direction = Direction(attribute, f"stylespace-{layer}_{number}", vector).with_sigma(model)
    a = matrix[number]
    return direction, float((a @ model.latent_covariance.double().cpu() @ a).clamp(min=0).sqrt())
