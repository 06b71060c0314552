"""FaceDetector and FaceIdentity against the networks that their weights come from, and geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hublatent.errors import HublatentError, ImageError
from hublatent.images import prepare, to_float
from hublatent.perception.faces import Face, FaceDetector, FaceIdentity
from tests.conftest import PROJECT

# From facenet-pytorch 2.6.0: the probability, the box's and the points' offsets on a ramp.
GOLDEN = {
    "proposal": (12, 0.0013044283, [0.0232, -0.07628, 0.0336, 0.12172], []),
    "refinement": (24, 0.0005941424, [-0.1249, -0.23929, 0.1753, 0.40593], []),
    "output": (
        48,
        0.0001415264,
        [-0.03936, -0.07498, -0.01494, 0.11669],
        [0.36302, 0.69261, 0.51656, 0.3464, 0.58524, 0.26076, 0.29352, 0.50456, 0.73579, 0.77025],
    ),
}


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.from_pretrained(PROJECT / "model_cards" / "face-detector")


@pytest.fixture(scope="module")
def identity() -> FaceIdentity:
    return FaceIdentity.from_pretrained(PROJECT / "model_cards" / "face-identity")


@pytest.fixture(scope="module")
def photographs(celeba: Path) -> list[Image.Image]:
    """Eight people, aligned as in CelebA."""
    files = sorted((celeba / "img_align_celeba").iterdir())[:80:10]
    return [Image.open(file).convert("RGB").resize((178, 218)) for file in files]


@pytest.mark.parametrize("network", GOLDEN)
def test_each_network_is_the_one_it_comes_from(detector: FaceDetector, network: str) -> None:
    side, probability, box, points = GOLDEN[network]
    ramp = torch.linspace(-1, 1, 3 * 48 * 48).reshape(1, 3, 48, 48)[:, :, :side, :side]
    found = getattr(detector, network)(ramp).flatten()
    assert found[0].sigmoid().item() == pytest.approx(probability, rel=1e-4)
    torch.testing.assert_close(found[1:], torch.tensor([*box, *points]), rtol=0, atol=2e-5)


def test_a_turned_and_scaled_photograph_is_aligned_as_celeba_did(
    detector: FaceDetector, photographs: list[Image.Image]
) -> None:
    differences, unaligned = [], []
    for photograph in photographs:
        turned = photograph.resize((267, 327)).rotate(20, Image.Resampling.BICUBIC, expand=True)
        expected = prepare(photograph, 64).astype(float)
        differences.append(np.abs(np.asarray(detector.align(turned, 64)) - expected).mean())
        unaligned.append(np.abs(prepare(turned, 64) - expected).mean())
    assert np.median(differences) < 0.5 * np.median(unaligned)


def test_a_face_given_by_hand_decides_the_crop(detector: FaceDetector) -> None:
    from hublatent.perception.faces import CELEBA_POINTS

    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    face = Face((0, 0, 0, 0), CELEBA_POINTS * 100 + [60, 40], 1.0)
    cut = np.asarray(detector.align(Image.fromarray(ramp.copy()), 100, face))
    np.testing.assert_allclose(cut[50, 2:-2, 0], np.arange(62, 158), atol=1)


def test_what_lies_beyond_the_edge_repeats_it(detector: FaceDetector) -> None:
    from hublatent.perception.faces import CELEBA_POINTS

    white = Image.new("RGB", (40, 40), "white")
    cut = detector.align(white, 32, Face((0, 0, 0, 0), CELEBA_POINTS * 80 - 20, 1.0))
    assert cut.size == (32, 32)
    assert np.asarray(cut).min() == 255


def test_a_picture_without_a_face_is_refused(detector: FaceDetector) -> None:
    with pytest.raises(ImageError, match="No face was found"):
        detector.find(Image.new("RGB", (120, 90), "grey"))


def test_faces_are_more_surely_faces_than_faces_upside_down(
    detector: FaceDetector, photographs: list[Image.Image]
) -> None:
    images = to_float(torch.from_numpy(np.stack([prepare(p, 64) for p in photographs])))
    upright, reversed_ = detector.confidence(images), detector.confidence(images.flip(2))
    assert (upright > reversed_ + 3).float().mean() >= 0.75
    larger = torch.nn.functional.interpolate(images, 128, mode="bicubic")
    assert (detector.confidence(larger) - upright).abs().median() < 1.5


def test_pictures_of_one_person_are_nearer(identity: FaceIdentity, celeba: Path) -> None:
    people: dict[str, list[str]] = {}
    for line in (celeba / "identity_CelebA.txt").read_text().splitlines():
        name, person = line.split()
        people.setdefault(person, []).append(name)
    pairs = [names[:2] for names in people.values() if len(names) >= 4][:12]
    folder = celeba / "img_align_celeba"
    images = np.stack([prepare(Image.open(folder / name), 64) for pair in pairs for name in pair])
    with torch.inference_mode():
        rows = identity.embed(to_float(torch.from_numpy(images))).reshape(-1, 2, 128)
    same = (rows[:, 0] - rows[:, 1]).norm(dim=1)
    strangers = (rows[:, 0] - rows[:, 1].roll(1, 0)).norm(dim=1)
    assert same.mean() < 0.58 < 0.65 < strangers.mean()


def test_an_embedding_is_of_its_own_image_alone(identity: FaceIdentity) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        together, alone = identity.embed(images), identity.embed(images[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 3, 64, 32), (3, 64, 64)])
def test_images_of_another_shape_are_refused(
    detector: FaceDetector, identity: FaceIdentity, shape: tuple[int, ...]
) -> None:
    for judge in (detector.confidence, identity.embed):
        with pytest.raises(HublatentError, match="expected"):
            judge(torch.zeros(shape))
