"""Sprites: independent factors, each doing what it says, and a set that trainings can read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hublatent.data import load_dataset, sprites
from hublatent.errors import DataError


def drawn(**factors: int) -> np.ndarray:
    """One sprite, (64, 64) in [0, 1]; factors that are not given are 0."""
    row = [factors.get(name, 0) for name in sprites.FACTORS]
    return sprites.render(np.array([row]))[0] / 255


def centre(image: np.ndarray) -> tuple[float, float]:
    """The mean x and y of the white, in pixels from the left upper corner."""
    ticks = np.arange(sprites.SIDE) + 0.5
    x, y = image.sum(axis=0) @ ticks, image.sum(axis=1) @ ticks
    return x / image.sum(), y / image.sum()


def test_places_are_whole_pixels_around_the_middle() -> None:
    first, last = centre(drawn()), centre(drawn(x=31, y=31))
    assert first == pytest.approx((16.5, 16.5)) and last == pytest.approx((47.5, 47.5))
    moved = drawn(shape=2, orientation=7, x=9, y=3)
    assert np.array_equal(np.roll(drawn(shape=2, orientation=7), (3, 9), axis=(0, 1)), moved)


def test_areas_are_those_of_the_shapes_and_scales() -> None:
    # Half diagonal, half axes: 16 pixels at the largest scale.
    assert drawn(scale=5).sum() == pytest.approx(2 * 16**2, rel=0.02)
    assert drawn(shape=1, scale=5).sum() == pytest.approx(np.pi / 2 * 16**2, rel=0.02)
    for shape in range(3):
        small, large = drawn(shape=shape).sum(), drawn(shape=shape, scale=5).sum()
        assert small == pytest.approx(large / 4, rel=0.05)
        assert drawn(shape=shape, orientation=7).sum() == pytest.approx(small, rel=0.05)


def test_orientations_turn_by_a_fortieth() -> None:
    for quarter in range(4):
        turned = drawn(shape=2, scale=3, orientation=10 * quarter, x=15, y=15)
        upright = drawn(shape=2, scale=3, x=15, y=15)[:63, :63]  # the sprite at its middle
        assert np.abs(np.rot90(upright, quarter) - turned[:63, :63]).mean() < 1e-3
    assert not np.array_equal(drawn(shape=2), drawn(shape=2, orientation=1))


def test_no_sprite_is_cut() -> None:
    framed = sprites._drawings()[:, -1]
    assert not framed[..., 30, :].any() and not framed[..., :, 30].any()
    assert not framed[..., 64, :].any() and not framed[..., :, 64].any()
    for shape in range(3):
        sums = [drawn(shape=shape, scale=5, orientation=i).sum() for i in range(40)]
        assert np.ptp(sums) < 0.03 * np.mean(sums)


def test_factors_are_drawn_evenly_and_once() -> None:
    factors = sprites.draw_factors(20_000)
    assert len(np.unique(factors, axis=0)) == len(factors)
    for column, n in zip(factors.T, sprites.FACTORS.values(), strict=True):
        assert np.bincount(column, minlength=n) == pytest.approx(len(factors) / n, rel=0.25)
    assert sprites.N_SPRITES == 737_280


@pytest.mark.parametrize("factors", [[[0, 0, 0, 0]], [[0, 0, 0, 0, 32]], [[-1, 0, 0, 0, 0]]])
def test_bad_factors_are_refused(factors: list[list[int]]) -> None:
    with pytest.raises(DataError, match="expected"):
        sprites.render(np.array(factors))
    with pytest.raises(DataError, match="737,280"):
        sprites.draw_factors(800_000)


def test_the_subset_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprites, "N_SUBSET", 100)
    data = load_dataset("sprites", 64, cache=tmp_path, progress=False)
    assert [len(data.indices(p)) for p in ("train", "validation", "test")] == [80, 10, 10]
    factors = np.array([[int(value) for value in name.split("-")] for name in data.names])
    assert np.array_equal(data.images[..., 1], sprites.render(factors))
    assert data.name == "sprites" and data.labels.shape == (100, 0)
