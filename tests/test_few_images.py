"""A direction from a few images: where it points, and whether its score can be believed."""

from __future__ import annotations

import pytest
import torch

from hublatent.discovery.few_images import at_chance, discover_from_few
from hublatent.errors import DataError
from hublatent.model import LatentModel
from hublatent.models.vae import VAE
from tests.tiny_models import tiny_stylegan2, tiny_vae


@pytest.fixture(scope="module")
def model() -> LatentModel:
    return tiny_vae()


def heaps(model: LatentModel, n: int, shift: float, seed: int = 0) -> list[torch.Tensor]:
    """Two heaps of n of the model's own latents, the first moved along dimension 2."""
    latents = model.sample_latents(2 * n, generator=torch.Generator().manual_seed(seed))
    latents[:n, ..., 2] += shift
    return [latents[:n], latents[n:]]


def test_it_points_to_what_differs_and_says_so(model: LatentModel) -> None:
    found = discover_from_few("Hat", *heaps(model, 20, 6.0), model=model)
    vector, accuracy = found.vector, found.scores["accuracy"]
    assert vector[2] > 0.95 and vector.norm() == pytest.approx(1.0)
    assert accuracy.value > 0.95 and not at_chance(accuracy)
    assert found.sigma == pytest.approx(1.0, rel=0.1)


def test_heaps_that_do_not_differ_are_called_chance(model: LatentModel) -> None:
    found = [discover_from_few("x", *heaps(model, 10, 0.0, s), model=model) for s in range(40)]
    scores = [direction.scores["accuracy"] for direction in found]
    assert sum(map(at_chance, scores)) >= 37
    assert sum(score.value for score in scores) / 40 == pytest.approx(0.5, abs=0.08)


def test_noise_in_many_dimensions_scores_a_half() -> None:
    wide = VAE(32, latent_dim=512, width=8, max_width=8, n_stages=3).eval()
    found = [discover_from_few("x", *heaps(wide, 6, 0.0, s), model=wide) for s in range(40)]
    mean = sum(direction.scores["accuracy"].value for direction in found) / 40
    # Left out without a partner, an image of noise lies farther from the mean of its own heap.
    assert mean == pytest.approx(0.5, abs=0.06)


def test_layers_and_mistakes(model: LatentModel) -> None:
    gan = tiny_stylegan2()
    latents = gan.sample_latents(12)
    found = discover_from_few("Hat", latents[:6] + 1, latents[6:], model=gan)
    assert found.layers == gan.default_layers
    few = model.sample_latents(4)
    with pytest.raises(DataError, match="1 images"):
        discover_from_few("Hat", few[:1], few[1:], model=model)
    with pytest.raises(DataError, match="same"):
        discover_from_few("Hat", few, few, model=model)
