"""Sprites: pictures drawn by code, of which five independent factors are known.

As dSprites (Matthey et al. 2017): a white square, ellipse or heart on black, of 6 sizes, 40
orientations and 32 x 32 places; 64 x 64 pixels. A place is a whole pixel, so each of the 737,280
pictures is a window of one of 720 drawings, and none has to be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from hublatent.data.listing import SQUARE_CROP, Listing
from hublatent.errors import DataError

NAME = "sprites"  # what `load_dataset` knows them by
FACTORS = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
N_SPRITES = int(np.prod(list(FACTORS.values())))
SIDE = 64
# The subset that `load_dataset` gives: drawn with seed 0, and in this order 80% train.
N_SUBSET = 62_500
SCALES = np.linspace(0.5, 1, FACTORS["scale"])
RADIUS = 16  # of the largest sprite, in pixels
SAMPLES = 4  # per pixel and axis
VERSION = 1  # raised when a picture changes

Shape = Callable[[NDArray, NDArray], NDArray[np.bool_]]
SHAPES: dict[str, Shape] = {
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.5**0.5,
    "ellipse": lambda x, y: x**2 + 4 * y**2 <= 1,
    "heart": lambda x, y: (1.44**2 * (x**2 + y**2) - 1) ** 3 <= 1.44**5 * x**2 * y**3,
}


def draw_factors(n: int, seed: int = 0) -> NDArray[np.int64]:
    """The factors (n, 5) of n different sprites, in the order of FACTORS."""
    if not 1 <= n <= N_SPRITES:
        raise DataError(f"{n:,} sprites were asked for; expected 1 to {N_SPRITES:,}.")
    rows = np.random.default_rng(seed).choice(N_SPRITES, n, replace=False)
    return np.stack(np.unravel_index(rows, tuple(FACTORS.values())), axis=1)


def render(factors: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Draw sprites of factors (N, 5), each counted from 0, in the order of FACTORS.

    They are uint8 (N, 64, 64), from 0 (black) to 255 (white).
    """
    given = np.asarray(factors)
    ranges = tuple(FACTORS.values())
    if given.ndim != 2 or given.shape[1] != len(ranges):
        raise DataError(f"factors of shape {given.shape}; expected (N, {len(ranges)}).")
    if (given < 0).any() or (given >= ranges).any():
        wanted = ", ".join(f"{name} below {n}" for name, n in FACTORS.items())
        raise DataError(f"factors from {given.min()} to {given.max()}; expected {wanted}.")
    shape, scale, orientation, x, y = given.T
    last = FACTORS["x"] - 1
    windows = sliding_window_view(_drawings(), (SIDE, SIDE), axis=(3, 4))
    return windows[shape, scale, orientation, last - y, last - x]


def read_sprites() -> Listing:
    """The subset, drawn as it is opened; a picture's name tells its factors."""
    factors = draw_factors(N_SUBSET)
    names = tuple("-".join(f"{value:02d}" for value in row) for row in factors.tolist())
    partition = np.searchsorted([0.8, 0.9], np.arange(N_SUBSET) / N_SUBSET, side="right")
    header = b"P5 %d %d 255\n" % (SIDE, SIDE)  # a PGM file's
    return Listing(
        NAME, names, attributes=(), labels=np.zeros((N_SUBSET, 0), bool),
        identities=np.arange(N_SUBSET), partition=partition.astype(np.uint8),
        open=lambda i: header + render(factors[[i]]).tobytes(),
        stamp=f"{NAME} {VERSION}", crop=SQUARE_CROP,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _drawings() -> NDArray[np.uint8]:
    """Each shape, scale and orientation, at the centre of a canvas: (3, 6, 40, 95, 95)."""
    canvas = SIDE + FACTORS["x"] - 1
    width = 2 * RADIUS + 1
    ticks = (np.arange(width * SAMPLES) + 0.5) / SAMPLES - width / 2
    y, x = -ticks[:, None], ticks[None, :]
    n = FACTORS["orientation"]
    drawn = np.zeros((len(SHAPES), len(SCALES), n, canvas, canvas), np.uint8)
    middle = slice(canvas // 2 - RADIUS, canvas // 2 + RADIUS + 1)
    for i, angle in enumerate(2 * np.pi * np.arange(n) / n):
        turned = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        for j, scale in enumerate(SCALES * RADIUS):
            for k, inside in enumerate(SHAPES.values()):
                fine = inside(turned[0] / scale, turned[1] / scale)
                share = fine.reshape(width, SAMPLES, width, SAMPLES).mean(axis=(1, 3))
                drawn[k, j, i, middle, middle] = np.round(255 * share)
    return drawn
