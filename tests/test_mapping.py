"""Maps between latent spaces: closed forms, and directions carried the right way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity, normalize

import hublatent
from hublatent import LatentMap
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.errors import DataError, DirectionError, HublatentError
from hublatent.mapping import SharedImages, carry_to, load_maps
from hublatent.mapping.fitting import procrustes, ridge
from hublatent.mapping.latent_map import MAPS
from hublatent.models import Eigenfaces
from tests.hub_standin import ClientState
from tests.tiny_models import random_directions, tiny_eigenfaces, tiny_stylegan2, tiny_vae

SIZE = 16


def linear_model(seed: int, width: int) -> Eigenfaces:
    """A model whose latents are coordinates in a basis of its own."""
    model = Eigenfaces(SIZE, latent_dim=width)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(3 * SIZE**2, width, generator=generator))[0].T
    model.components.copy_(basis)
    return model.eval()


@pytest.fixture(scope="module")
def pair() -> tuple[Eigenfaces, Eigenfaces, torch.Tensor]:
    """Two models that span the same images, each in its own basis, and images of that span."""
    source, target = linear_model(0, 6), linear_model(0, 6)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    target.components.copy_(turn.T @ source.components)
    generator = torch.Generator().manual_seed(2)
    codes = torch.randn(400, 6, generator=generator) * torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    images = source.decode(codes)
    return source, target, images


@pytest.fixture(scope="module")
def fitted(pair: tuple[Eigenfaces, Eigenfaces, torch.Tensor]) -> LatentMap:
    return LatentMap.fit(*pair)


def test_a_change_of_basis_is_found_and_undone(pair, fitted):
    source, target, images = pair
    assert fitted.forward.scores["r2"].value > 0.999
    assert fitted.backward.scores["r2"].value > 0.999
    assert fitted.forward.scores["procrustes r2"].value > 0.999
    assert fitted.forward.scores["mapped"].value < 1e-4
    assert fitted.forward.scores["mean face"].value > 1e-3
    z = source.encode(images[:5])
    torch.testing.assert_close(fitted.apply(z), target.encode(images[:5]), atol=2e-2, rtol=0)
    torch.testing.assert_close(fitted.reversed().apply(fitted.apply(z)), z, atol=2e-2, rtol=0)
    assert max(fitted.forward.curve) == 320  # a fifth of the people gives scores alone


def test_ridge_without_a_penalty_is_least_squares_and_noise_asks_for_one():
    rng = np.random.default_rng(0)
    x, people = rng.normal(size=(300, 5)) * [1, 2, 3, 0.1, 10], np.arange(300)
    truth = rng.normal(size=(5, 3))
    matrix, penalty = ridge(x, x @ truth, people)
    np.testing.assert_allclose(matrix, truth, atol=1e-4)
    assert penalty <= 1e-5
    assert ridge(x[:20], rng.normal(size=(20, 3)), people[:20])[1] >= 1


def test_procrustes_finds_a_rotation_and_its_scale():
    rng = np.random.default_rng(0)
    x, turn = rng.normal(size=(100, 4)), np.linalg.qr(rng.normal(size=(4, 4)))[0]
    np.testing.assert_allclose(procrustes(x, 3 * x @ turn + 7), 3 * turn, atol=1e-9)


def test_patterns_go_forward_and_filters_backward():
    # Target latents are source latents times A: a displacement v becomes v A, a reading u' z of
    # the source is (A^-1 u)' of the target.
    source, target = linear_model(0, 4), linear_model(1, 4)
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(4, 4, generator=generator) + 2 * torch.eye(4)
    x = torch.randn(500, 4, generator=generator)
    images = torch.zeros(500, 3, SIZE, SIZE)
    shown = SharedImages.of(images, (source, target))
    shown.latents[source.fingerprint()] = x.double().numpy()
    shown.latents[target.fingerprint()] = (x @ a).double().numpy()
    found = LatentMap.fit(source, target, shown)
    vector = torch.randn(4, generator=generator)
    pushed = found.carry(Direction("Smiling", "joint", vector)).vector
    pulled = found.carry(Direction("Smiling", "svm", vector)).vector
    torch.testing.assert_close(pushed, normalize(vector @ a, dim=0), atol=1e-3, rtol=0)
    wanted = torch.linalg.solve(a, vector)
    torch.testing.assert_close(pulled, normalize(wanted, dim=0), atol=1e-3, rtol=0)
    reading = (x @ a) @ wanted
    torch.testing.assert_close(reading, x @ vector, atol=1e-3, rtol=0)
    as_pattern = found.carry(Direction("Smiling", "svm", vector), "pattern").vector
    torch.testing.assert_close(as_pattern, pushed)


def test_a_set_is_carried_either_way(pair, fitted):
    source, target, _ = pair
    there = fitted.carry_all(DirectionSet.of(source, [Direction("Age", "joint", torch.ones(6))]))
    there.check_fits(target)
    back = fitted.carry_all(there)  # of the target: carried back
    back.check_fits(source)
    assert cosine_similarity(back["Age", "joint-carried"].vector, torch.ones(6), dim=0) > 0.999


def test_a_direction_of_unknown_kind_is_refused_until_it_is_said(fitted):
    direction = Direction("Age", "interfacegan", torch.ones(6))
    with pytest.raises(DirectionError, match='kind="filter"'):
        fitted.carry(direction)
    assert fitted.carry(direction, "filter").name == "Age.interfacegan-carried"
    again = fitted.reversed().carry(fitted.carry(Direction("Age", "joint", torch.ones(6))))
    assert again.name == "Age.joint-carried"
    assert cosine_similarity(again.vector, torch.ones(6), dim=0) > 0.999


def test_wrong_shapes_and_models_are_named(pair, fitted):
    source, target, images = pair
    with pytest.raises(DirectionError, match="shape"):
        fitted.carry(Direction("Age", "joint", torch.ones(7)))
    with pytest.raises(DataError, match="latents have"):
        fitted.apply(torch.zeros(2, 7))
    with pytest.raises(DirectionError, match="this map is from"):
        fitted.carry_all(random_directions(tiny_eigenfaces(SIZE)))
    with pytest.raises(DirectionError, match="There is no map"):
        carry_to(Direction("Age", "joint", torch.ones(6)), source, tiny_vae(), [fitted])
    with pytest.raises(DataError, match="at least 50 images"):
        LatentMap.fit(source, target, images[:20])


def test_samples_serve_where_there_are_no_images_and_no_encoder():
    vae, stylegan = tiny_vae(), tiny_stylegan2()
    found = LatentMap.fit(vae, stylegan, 120)
    assert found.origin.kind == "sampled" and "120 samples of stylegan2 (" in repr(found)
    carried = found.carry(random_directions(vae)["Smiling", "joint"]).with_sigma(stylegan)
    assert carried.layers == stylegan.default_layers and carried.sigma > 0
    torch.testing.assert_close(carried.vector[0].norm(), torch.tensor(1.0))
    images = stylegan.decode(found.apply(vae.sample_latents(2)))
    assert images.shape == (2, 3, 32, 32)
    back = found.reversed().carry(carried)
    assert back.vector.shape == (8,)
    with pytest.raises(HublatentError, match="no encoder"):
        LatentMap.fit(vae, stylegan, torch.zeros(60, 3, 32, 32))


def test_images_are_given_to_each_model_in_its_size_and_channels():
    small, large = tiny_eigenfaces(16), tiny_vae(size=32)
    grey = Eigenfaces(8, channels=1, latent_dim=3).eval()
    images = torch.rand(60, 3, 32, 32) * 2 - 1
    shown = SharedImages.of(images, (small, large))
    assert shown.read(small).shape == (60, 6) and shown.read(large).shape == (60, 8)
    assert shown.shown_to(grey, np.arange(2)).shape == (2, 1, 8, 8)


def test_a_file_says_whose_it_is_and_comes_back_as_it_was(tmp_path: Path, fitted, pair):
    source, target, _ = pair
    fitted.save(tmp_path / "a--b.safetensors")
    (back,) = load_maps(tmp_path)
    assert torch.equal(back.forward.matrix, fitted.forward.matrix)
    assert back.forward.scores == dict(fitted.forward.scores)
    assert back.forward.curve == dict(fitted.forward.curve)
    assert (back.source, back.target, back.origin) == (fitted.source, fitted.target, fitted.origin)
    direction = Direction("Age", "joint", torch.ones(6))
    there = carry_to(direction, source, target, [back])
    home = carry_to(there, target, source, [back])  # the same map, the other way
    assert cosine_similarity(home.vector, direction.vector, dim=0) > 0.999
    assert carry_to(direction, source, source, []) is direction


@pytest.mark.parametrize("name", ["forward", "source_mean"])
def test_a_damaged_file_is_refused(tmp_path: Path, fitted, name):
    path = tmp_path / "map.safetensors"
    fitted.save(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    sound = tensors[name]
    unfit = (torch.full_like(sound, torch.nan), sound.half(), sound.to(torch.float8_e4m3fn))
    for value in (torch.zeros(3), *unfit):
        save_file({**tensors, name: value}, path, metadata)
        with pytest.raises(DataError, match=name):
            LatentMap.load(path)
    del tensors[name]
    save_file(tensors, path, metadata)
    with pytest.raises(DataError, match="damaged"):
        LatentMap.load(path)


@pytest.mark.parametrize(
    "told", [{"layers": [0]}, {"latent_shape": [2**40, 6]}, {"latent_shape": [2, 6], "layers": [2]}]
)
def test_a_space_that_no_model_has_is_refused(tmp_path: Path, fitted, told):
    path = tmp_path / "map.safetensors"
    fitted.save(path)
    document, tensors = MAPS.read(path)
    MAPS.write(path, tensors, {**document, "source": {**document["source"], **told}})
    with pytest.raises(DataError, match="its description is damaged: 'source' is"):
        LatentMap.load(path)


def test_a_map_goes_to_the_hub_and_comes_back(client: ClientState, fitted):
    fitted.push_to_hub("user/a-to-b")
    back = hublatent.LatentMap.from_pretrained("user/a-to-b")
    assert back.source == fitted.source
