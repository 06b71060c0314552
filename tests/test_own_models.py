"""Models of one's own: an architecture defined here, and somebody's pair of functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hublatent
from hublatent import DirectionSet, edit
from hublatent.discovery import LabelledLatents, discover
from hublatent.errors import HublatentError
from hublatent.model import LatentModel
from hublatent.models import ARCHITECTURES

SIZE = 8
N_PIXELS = 3 * SIZE * SIZE


class Rotation(LatentModel):
    """Rotates the pixels of small pictures: a linear model of four lines."""

    architecture = "rotation"

    def __init__(self, image_size: int = SIZE, channels: int = 3, seed: int = 0) -> None:
        super().__init__(image_size, channels, (channels * image_size**2,))
        self.seed = seed
        noise = torch.randn(self.latent_shape * 2, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("matrix", torch.linalg.qr(noise)[0])

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        return images.flatten(1) @ self.matrix

    def decode(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        shape = (self.channels, self.image_size, self.image_size)
        return (latents @ self.matrix.T).unflatten(1, shape).clamp(-1, 1)


@pytest.fixture()
def registered() -> Iterator[type[Rotation]]:
    yield hublatent.register(Rotation)
    del ARCHITECTURES["rotation"]


def pictures(n: int = 400) -> tuple[Tensor, np.ndarray]:
    """Grey noise, half of it brighter; and which half."""
    images = torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - 0.8
    bright = np.arange(n) % 2 == 0
    images[torch.from_numpy(bright)] += 0.5
    return images, bright


def bright_direction(model: LatentModel) -> DirectionSet:
    images, bright = pictures()
    latents = model.encode(images).detach().numpy()
    data = LabelledLatents(latents, bright[:, None], ("Bright",), np.arange(len(latents)))
    return DirectionSet.of(model, [discover(data, "Bright", "mean-difference", model=model)])


def test_an_architecture_of_ones_own_goes_all_the_way(
    registered: type[Rotation], tmp_path: Path
) -> None:
    built = registered(seed=3)
    built.set_latent_statistics(built.encode(pictures()[0]))
    built.save_pretrained(tmp_path)
    bright_direction(built).save(tmp_path / "directions.safetensors")

    model = hublatent.load(tmp_path)
    assert isinstance(model, Rotation) and model.seed == 3
    assert model.fingerprint() == built.fingerprint()
    directions = DirectionSet.from_pretrained(tmp_path, model)
    latents = model.sample_latents(4, generator=torch.Generator().manual_seed(0))
    moved = model.decode(edit(latents, directions["bright", "mean-difference"], 2.0))
    assert bool((moved.mean(dim=(1, 2, 3)) > model.decode(latents).mean(dim=(1, 2, 3))).all())


def test_what_cannot_be_registered_is_refused(registered: type[Rotation]) -> None:
    assert hublatent.register(Rotation) is Rotation  # a cell that is run again
    with pytest.raises(HublatentError, match="subclass of"):
        hublatent.register(nn.Linear)  # type: ignore[type-var]

    class Other(Rotation):
        pass

    with pytest.raises(HublatentError, match="is Rotation's"):
        hublatent.register(Other)

    class Loose(Rotation):
        architecture = "loose"

        def __init__(self, **options: int) -> None:
            super().__init__(**options)

    with pytest.raises(HublatentError, match="name every argument"):
        hublatent.register(Loose)


def wrapped(network: nn.Module, images: Tensor, shape: tuple[int, ...] = (3, 4, 16)) -> LatentModel:
    matrix = next(iter(network.parameters()))
    return hublatent.wrap(
        lambda x: (x.flatten(1) @ matrix).unflatten(1, shape),
        lambda z: (z.flatten(1) @ matrix.T).unflatten(1, (3, SIZE, SIZE)),
        shape,
        images,
        module=network,
    )


def rotation_network(seed: int = 0) -> nn.Linear:
    network = nn.Linear(N_PIXELS, N_PIXELS, bias=False)
    with torch.no_grad():
        network.weight.copy_(Rotation(seed=seed).matrix)
    return network


def test_a_pair_of_functions_is_a_model(tmp_path: Path) -> None:
    images, _ = pictures()
    model = wrapped(rotation_network(), images)
    assert model.latent_shape == (N_PIXELS,)
    latents = model.encode(images)
    torch.testing.assert_close(model.latent_mean, latents.mean(dim=0))
    torch.testing.assert_close(model.decode(latents), images, atol=1e-5, rtol=0)
    bright_direction(model).save(tmp_path / "d.safetensors")
    again = wrapped(rotation_network(), images)
    assert len(DirectionSet.load(tmp_path / "d.safetensors", again)) == 1
    with pytest.raises(HublatentError, match="fingerprint"):
        DirectionSet.load(tmp_path / "d.safetensors", wrapped(rotation_network(1), images))


def test_a_wrapped_model_says_what_does_not_fit() -> None:
    images, _ = pictures(8)
    with pytest.raises(HublatentError, match="images of shape"):
        wrapped(rotation_network(), images[:1])
    with pytest.raises(HublatentError, match="1 to 4096"):
        wrapped(rotation_network(), images, shape=(5000,))
    with pytest.raises(HublatentError, match="encode gave latents of shape"):
        hublatent.wrap(lambda x: x.flatten(1), lambda z: z, (7,), images)
    with pytest.raises(HublatentError, match="library's to save"):
        wrapped(rotation_network(), images).save_pretrained("nowhere")


def test_samples_are_the_same_for_a_seed() -> None:
    model = wrapped(rotation_network(), pictures(50)[0])
    assert model.sample(3).shape == (3, 3, SIZE, SIZE)
    assert torch.equal(model.sample(3, seed=1), model.sample(3, seed=1))
    assert not torch.equal(model.sample(3, seed=1), model.sample(3, seed=2))
