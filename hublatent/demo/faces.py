"""Face: a picture to edit, and its latents in a model: drawn, encoded, stored or projected."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from hublatent.demo.shelf import LOCAL, Limits, ModelShelf, OpenModel
from hublatent.demo.stored_codes import write_stored_codes
from hublatent.errors import HublatentError
from hublatent.images import face_crop, open_image, to_pil, to_tensor
from hublatent.model import LatentModel

MAX_SEED = 2**31 - 1
SAMPLE_SEEDS = tuple(range(8))

Progress = Callable[[int, int], None]


class NotProjectedError(HublatentError):
    """A face's latents in a model without an encoder have not been looked for yet."""


@dataclass(frozen=True, eq=False)
class Face:
    """A picture to edit.

    Attributes:
        key: identifies it: the weights and seed that drew it, or its pixels.
        picture: square, RGB.
        source: name of the model that drew it; "" for an upload.
        seed: that it was drawn from.
        latents: (1, *latent_shape) of the model that drew it.
    """

    key: str
    picture: Image.Image
    source: str = ""
    seed: int = 0
    latents: Tensor | None = None


def uploaded_face(content: bytes, limits: Limits = LOCAL) -> Face:
    """A face from the bytes of a picture file, cut to the square that models see.

    Raises:
        ImageError: it is no readable picture, or too large.
    """
    opened = open_image(content, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
    picture = face_crop(opened)
    side = limits.face_side
    if picture.width > side:
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
        key = f"{source.fingerprint[:16]}#{seed}"
        return Face(key, picture.convert("RGB"), source.name, seed, latents)

    return source.memory.get(("drawn", seed), draw)


@torch.inference_mode()
def latents_of(opened: OpenModel, face: Face) -> Tensor:
    """A face's latents in a model: its own, encoded, stored, or found by `project_face`.

    Returns:
        (1, *latent_shape).

    Raises:
        NotProjectedError: `project_face` has to look for them first, which takes a while.
        HublatentError: looking for them failed.
    """
    if face.source == opened.name and face.latents is not None:
        return face.latents
    model = opened.model
    if model.has_encoder:
        return opened.memory.get(
            ("latents", face.key), lambda: model.encode(images_of(model, face))
        )
    if face.key in opened.stored_codes:
        return opened.stored_codes[face.key].to(model.latent_mean).unsqueeze(0)
    found = opened.projections.find(face.key)
    if found is None:
        raise NotProjectedError(f"{opened.name} has yet to find this face in its latent space.")
    if isinstance(found, HublatentError):
        raise found
    return found  # type: ignore[no-any-return, unused-ignore]


def project_face(
    shelf: ModelShelf, opened: OpenModel, face: Face, progress: Progress | None = None
) -> None:
    """Find a face in a model without an encoder, so that `latents_of` knows it, or why it failed.

    Args:
        shelf: gives the classifier whose features compare the pictures.
        opened: the model.
        face: the face; one that is known already is not looked for again.
        progress: called with the steps done and the steps in all.
    """
    with shelf.projecting:
        try:
            latents_of(opened, face)
        except NotProjectedError:
            try:
                found: Tensor | HublatentError = _project(shelf, opened.model, face, progress)
            except HublatentError as error:
                found = error
            opened.projections.put(face.key, found)
        except HublatentError:
            return  # it failed before, and would fail again


def _project(
    shelf: ModelShelf, model: LatentModel, face: Face, progress: Progress | None
) -> Tensor:
    classifier = shelf.classifier()
    from hublatent.inversion.projection import project

    images = images_of(model, face)
    result = project(model, images, classifier=classifier, perceptual="features", progress=progress)
    return result.latents.detach().to(model.latent_mean)


def images_of(model: LatentModel, face: Face) -> Tensor:
    """(1, C, H, W): the face as a model sees it."""
    images = to_tensor([face.picture], model.image_size).to(model.latent_mean.device)
    if model.channels == 3:
        return images
    if model.channels == 1:
        return images.mean(dim=1, keepdim=True)
    raise HublatentError(f"The model draws {model.channels} channels; faces have 1 or 3.")


def store_sample_codes(
    shelf: ModelShelf, names: Sequence[str], progress: Callable[[str], None]
) -> list[Path]:
    """Find every model's sample faces in the models without an encoder, and store their codes.

    Args:
        shelf: the models, in local folders.
        names: which of them.
        progress: called with a line of text per face.

    Returns:
        The files written.

    Raises:
        HublatentError: a face cannot be projected; what was stored before stays.
    """
    written = []
    models = [shelf.open(name) for name in names]
    for opened in models:
        if opened.model.has_encoder:
            continue
        codes = {}
        for source in models:
            for seed in SAMPLE_SEEDS if source is not opened else ():
                face = drawn_face(source, seed)
                project_face(shelf, opened, face)
                codes[face.key] = latents_of(opened, face)[0]
                progress(f"{opened.name}: seed {seed} of {source.name}")
        folder = Path(shelf.catalogue[opened.name]).expanduser()
        written.append(write_stored_codes(folder, opened.fingerprint, codes))
    return written
