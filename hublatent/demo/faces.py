"""Face: a picture to edit, and its latents in a model: drawn, encoded, stored or projected."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from hublatent.demo.shelf import LOCAL, STORED_LATENTS_NAME, Limits, ModelShelf, OpenModel
from hublatent.errors import HublatentError, ImageError
from hublatent.images import face_crop, open_image, to_pil, to_tensor
from hublatent.model import LatentModel
from hublatent.perception.faces import CELEBA_POINTS, FaceDetector
from hublatent.perception.faces import Face as FoundFace
from hublatent.storage import atomic_path

MAX_SEED = 2**31 - 1
SAMPLE_SEEDS = tuple(range(8))

Progress = Callable[[int, int], None]
Watch = Callable[[Image.Image], None]
WATCHED = 10  # every so many steps of a projection its picture is drawn
DECODED_PIXELS = 2**17  # that are decoded at once: large pictures one after the other


class NotProjectedError(HublatentError):
    """A face's latents in a model without an encoder have not been looked for yet."""


class StoppedError(HublatentError):
    """Whoever asked no longer waits for it, or it took longer than a visitor may ask for."""


def time_limit(seconds: float) -> Progress:
    """Progress that ends what takes longer than so many seconds from now, with a sentence."""
    end = time.monotonic() + seconds

    def check(done: int, total: int) -> None:
        if time.monotonic() > end:
            raise StoppedError(f"This took more than {seconds:.0f} s and was stopped.")

    return check


@dataclass(frozen=True, eq=False)
class Face:
    """A picture to edit."""

    key: str  # identifies it: the weights and seed that drew it, or its pixels
    picture: Image.Image  # square, RGB
    source: str = ""  # name of the model that drew it; "" for an upload
    seed: int = 0
    latents: Tensor | None = None  # (1, *latent_shape) of the model that drew it


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture that somebody brought, and where in it the face lies."""

    picture: Image.Image  # RGB, no larger than is shown
    crop: FoundFace | None  # the face that was found or placed
    detector: FaceDetector | None  # cuts it out; None leaves the picture's centre

    @classmethod
    def open(
        cls, file: str | Path | bytes, limits: Limits = LOCAL, detector: FaceDetector | None = None
    ) -> Photo:
        """Read a picture file, or what it holds, and look for a face."""
        opened = open_image(file, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
        opened.thumbnail((limits.photo_side, limits.photo_side), Image.Resampling.LANCZOS)
        try:
            found = detector.find(opened) if detector else None
        except ImageError:
            found = None
        return cls(opened, found, detector)

    @property
    def square(self) -> tuple[complex, complex]:
        """The square that is cut out: its first corner and its upper edge, x + iy in pixels."""
        if self.crop is None:
            side = min(self.picture.size)
            left, top = (self.picture.width - side) / 2, (self.picture.height - side) / 2
            return complex(left, top), complex(side)
        source, target = (points @ [1, 1j] for points in (CELEBA_POINTS, self.crop.points))
        edge, corner = np.polyfit(source, target, 1)
        return complex(corner), complex(edge)

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The corners of the square, in pixels."""
        corner, edge = self.square
        return [(z.real, z.imag) for z in (corner + edge * at for at in (0, 1, 1 + 1j, 1j))]

    def adjusted(self, right: float, down: float, size: float, turn: float) -> Photo:
        """The same photo with its square moved; without a found face it begins at the centre.

        Args:
            right: to the right, in shares of the square's side.
            down: downwards, likewise.
            size: how much larger, as a factor.
            turn: clockwise, in degrees.
        """
        corner, edge = self.square
        centre = corner + edge * complex(0.5 + right, 0.5 + down)
        edge *= size * np.exp(1j * math.radians(turn))
        points = centre + edge * (CELEBA_POINTS @ [1, 1j] - (0.5 + 0.5j))
        box = self.crop.box if self.crop else (0.0, 0.0, 0.0, 0.0)
        placed = FoundFace(box, np.stack([points.real, points.imag], axis=1), 1.0)
        return replace(self, crop=placed)

    def face(self, limits: Limits = LOCAL) -> Face:
        """The face, cut out as CelebA's are; without a found one the picture's centre."""
        if self.detector is None or self.crop is None:
            picture = face_crop(self.picture)
            side = min(limits.face_side, picture.width)
        else:
            side = min(limits.face_side, max(64, round(abs(self.square[1]))))
            picture = self.detector.align(self.picture, side, self.crop)
        if picture.width != side:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        return Face("upload-" + hashlib.sha256(picture.tobytes()).hexdigest(), picture)


@torch.inference_mode()
def drawn_face(source: OpenModel, seed: int) -> Face:
    """The face that a model draws from a seed; the same on every device, up to rounding."""
    if not 0 <= seed <= MAX_SEED:
        raise HublatentError(f"Seed {seed}; expected a whole number from 0 to {MAX_SEED}.")

    def draw() -> Face:
        generator = torch.Generator().manual_seed(seed)
        latents = source.model.sample_latents(1, generator=generator)
        (picture,) = to_pil(source.model.decode(latents))
        return Face(source.face_key(seed), picture.convert("RGB"), source.name, seed, latents)

    return source.memory.get(("drawn", seed), draw)


def sample_faces(source: OpenModel) -> list[Face]:
    """The faces of a model that are offered first."""
    return [drawn_face(source, seed) for seed in SAMPLE_SEEDS]


@torch.inference_mode()
def latents_of(opened: OpenModel, face: Face, refined: bool = True) -> Tensor:
    """A face's latents (1, *latent_shape) in a model: its own, stored, encoded or projected.

    Of an encoder's estimate those `refined` by projection, where they are known; without, all faces
    are read alike.

    Raises:
        NotProjectedError: `project_missing` has to look for them first, which takes a while.
        HublatentError: looking for them failed.
    """
    if face.latents is not None and opened.drew(face.key):
        return face.latents
    model = opened.model
    if face.key in opened.stored_latents:  # found by projection, which comes closer
        return opened.stored_latents[face.key].to(model.latent_mean).unsqueeze(0)
    found = opened.projections.find(face.key)
    if model.has_encoder and not (refined and isinstance(found, Tensor)):
        return opened.memory.get(
            ("latents", face.key), lambda: model.encode(images_of(model, face))
        )
    if found is None:
        raise NotProjectedError(f"{opened.name} has yet to find this face in its latent space.")
    if isinstance(found, HublatentError):
        raise found
    return found  # type: ignore[no-any-return, unused-ignore]


def is_pending(opened: OpenModel, face: Face) -> bool:
    """Whether a face has yet to be looked for in a model; where that failed, it would again."""
    try:
        latents_of(opened, face)
    except NotProjectedError:
        return True
    except HublatentError:
        pass
    return False


def is_estimate(opened: OpenModel, face: Face) -> bool:
    """Whether a face's latents are an encoder's estimate, which nobody has yet refined."""
    known = opened.drew(face.key) or face.key in opened.stored_latents
    tried = opened.projections.find(face.key) is not None
    return opened.model.encoder_estimates and not known and not tried


def project_missing(
    shelf: ModelShelf, face: Face, names: Sequence[str], progress: Progress | None = None,
    watch: Watch | None = None,
) -> None:  # fmt: skip
    """Find a face in those of the models that do not know it; `latents_of` then does, or why not.

    Encoders' estimates are refined. One projection goes on at a time. `progress` gets the steps
    done and those in all, for each model anew; `watch` now and then what is found so far.
    """
    from hublatent.inversion.optimiser import REFINING_STEPS, DescentSettings
    from hublatent.inversion.projection import project

    step = itertools.count()

    @torch.no_grad()
    def show(model: LatentModel, latents: Tensor) -> None:
        if watch and next(step) % WATCHED == 0:
            watch(to_pil(model.decode(latents))[0].convert("RGB"))

    for opened in shelf.open_all(names):
        model = opened.model
        with shelf.projecting:
            refines = is_estimate(opened, face)
            if not refines and not is_pending(opened, face):
                continue
            try:
                images, watched = images_of(model, face), partial(show, model)
                found = project(
                    model, images, progress=progress, watch=watched,
                    n_steps=REFINING_STEPS if refines else DescentSettings.n_steps,
                )  # fmt: skip
                opened.projections.put(face.key, found.latents.detach().to(model.latent_mean))
            except StoppedError:
                raise
            except HublatentError as error:
                opened.projections.put(face.key, error)


def decode_in_parts(model: LatentModel, latents: Tensor) -> Iterator[Tensor]:
    """Images (n, C, H, W) of latents (B, *latent_shape), few at a time where they are large."""
    for part in latents.split(max(1, DECODED_PIXELS // model.image_size**2)):
        yield model.decode(part)


def images_of(model: LatentModel, face: Face) -> Tensor:
    """(1, C, H, W): the face as a model sees it."""
    images = to_tensor([face.picture], model.image_size, model.channels)
    return images.to(model.latent_mean.device)


def store_sample_latents(
    shelf: ModelShelf, names: Sequence[str], progress: Callable[[str], None]
) -> list[Path]:
    """Find every model's sample faces in those without an encoder; returns the files of latents.

    `progress` is called with a line of text per face.
    """
    written = []
    models = [shelf.open(name) for name in names]
    for opened in [model for model in models if not model.model.has_encoder]:
        found = {}
        for source in [model for model in models if model is not opened]:
            for face in sample_faces(source):
                project_missing(shelf, face, [opened.name])
                found[face.key] = latents_of(opened, face)[0].detach().cpu().contiguous()
                progress(f"{opened.name}: seed {face.seed} of {source.name}")
        path = Path(shelf.catalogue[opened.name]).expanduser() / STORED_LATENTS_NAME
        with atomic_path(path) as temporary:
            save_file(found, temporary, metadata={"fingerprint": opened.fingerprint})
        written.append(path)
    return written
