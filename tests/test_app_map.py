"""The map: a model's own samples in two dimensions and along a direction."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hublatent.demo.faces import drawn_face, latents_of
from hublatent.demo.map_tab import N_COLUMNS, THUMBNAIL_SIDE, Atlas, draw_atlas, histogram_html
from hublatent.demo.shelf import ModelShelf, OpenModel, find_models
from hublatent.demo.verdicts import Judges

N = 40


@pytest.fixture(scope="module")
def opened(model_cards: Path) -> OpenModel:
    return ModelShelf(find_models(model_cards), device="cpu").open("stylegan2-tiny")


@pytest.fixture(scope="module")
def atlas(opened: OpenModel) -> Atlas:
    return draw_atlas(opened, Judges(), N)


def test_a_point_is_the_face_of_its_seed(opened: OpenModel, atlas: Atlas) -> None:
    face = drawn_face(opened, 35)
    places = atlas.places("PCA")
    assert np.allclose(atlas.place("PCA", latents_of(opened, face)), places[35], atol=1e-5)
    with Image.open(io.BytesIO(atlas.sheet)) as sheet:
        left, top = 35 % N_COLUMNS * THUMBNAIL_SIDE, 35 // N_COLUMNS * THUMBNAIL_SIDE
        cell = sheet.crop((left, top, left + THUMBNAIL_SIDE, top + THUMBNAIL_SIDE))
        shown = face.picture.resize(cell.size, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(cell, float) - np.asarray(shown, float)).mean() < 6  # a JPEG


def test_the_two_dimensions_are_those_in_which_the_samples_vary_most(atlas: Atlas) -> None:
    rows = atlas.latents.double().mean(dim=1).numpy()
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    spread = np.linalg.norm(atlas.places("PCA"), axis=0)
    assert np.allclose(spread, values[:2], rtol=1e-6)


def test_the_histogram_counts_every_sample_of_both_classes(opened: OpenModel, atlas: Atlas) -> None:
    direction = opened.find("Eyeglasses", "joint")
    shares = np.linspace(0, 1, N)
    html = histogram_html(atlas, direction, shares, None)
    for style, n in (("with", N // 2), ("without", N // 2)):
        heights = [float(h) for h in re.findall(rf'"hl-{style}".*?height="([\d.]+)"', html)]
        smallest = min(height for height in heights if height)  # at most a few faces in a bar
        counts = [[height / smallest * k for height in heights] for k in (1, 2, 3)]
        assert any(sum(c) == pytest.approx(n, abs=0.2) for c in counts)
    assert direction.threshold is not None and direction.sigma is not None
    middle = float(direction.coordinate(atlas.latents).mean())
    at = (direction.threshold - middle) / direction.sigma
    assert f"threshold lies at {at:+.1f}σ" in html
