"""One face, one edit, several models: what the app shows, without the app.

Face          a picture that somebody brought or that a model drew
EditRequest   which models, attribute, method and strength; also a link's query string
compare_edits a row of pictures and numbers per model
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import torch
from PIL import Image
from torch import Tensor

from hublatent.direction import Direction
from hublatent.discovery import DEFAULT_METHOD
from hublatent.editing import edit, probability, to_raw, traverse
from hublatent.errors import HublatentError
from hublatent.images import face_crop, open_image, to_pil, to_tensor
from hublatent.model import LatentModel
from hublatent.shelf import ModelShelf, OpenModel

MAX_STRENGTH = 6.0
STRIP_STRENGTHS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
MAX_ROWS = 8
MAX_FACE_SIDE = 1024
MAX_SEED = 2**31 - 1
DEFAULT_ATTRIBUTE = "Eyeglasses"


@dataclass(frozen=True, eq=False)
class Face:
    """A picture to edit.

    Attributes:
        key: identifies its pixels.
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


def uploaded_face(content: bytes) -> Face:
    """A face from the bytes of a picture file, cut to the square that models see.

    Raises:
        ImageError: it is no readable picture, or too large.
    """
    picture = face_crop(open_image(content))
    if picture.width > MAX_FACE_SIDE:
        picture = picture.resize((MAX_FACE_SIDE, MAX_FACE_SIDE), Image.Resampling.LANCZOS)
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
        return Face(f"{source.name}#{seed}", picture.convert("RGB"), source.name, seed, latents)

    return source.memory.get(("drawn", seed), draw)


@dataclass(frozen=True)
class EditRequest:
    """What is to be edited, how and by whom.

    Attributes:
        models: names of the models, in the order of their rows.
        attribute: what to change.
        method: how the direction was found.
        held: attributes whose readings stay where they are.
        strength: in standard deviations.
        source: the model that draws the face.
        seed: that it draws from.
    """

    models: tuple[str, ...] = ()
    attribute: str = DEFAULT_ATTRIBUTE
    method: str = DEFAULT_METHOD
    held: tuple[str, ...] = ()
    strength: float = 3.0
    source: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if not -MAX_STRENGTH <= self.strength <= MAX_STRENGTH:
            raise HublatentError(
                f"Strength {self.strength}; expected -{MAX_STRENGTH:g} to {MAX_STRENGTH:g} sigma."
            )
        if len(self.models) > MAX_ROWS:
            raise HublatentError(f"{len(self.models)} models; at most {MAX_ROWS} are compared.")

    @classmethod
    def of(
        cls,
        models: Sequence[str] | None,
        attribute: str | None,
        method: str | None,
        held: Sequence[str] | None,
        strength: float,
    ) -> EditRequest:
        """What a page's controls say; an empty one is None."""
        names, still = tuple(models or ()), tuple(held or ())
        return cls(names, attribute or "", method or "", still, float(strength))

    def to_query(self) -> str:
        """The request as a link's query string."""
        values = {
            "models": self.models,
            "attribute": (self.attribute,),
            "method": (self.method,),
            "hold": self.held,
            "strength": (f"{self.strength:g}",),
            "face": (self.source,),
            "seed": (str(self.seed),) if self.source else (),
        }
        parts = [
            f"{key}={','.join(quote(v, safe='/') for v in value)}"
            for key, value in values.items()
            if any(value)
        ]
        return "?" + "&".join(parts)

    @classmethod
    def from_query(cls, query: Mapping[str, str], default: EditRequest) -> EditRequest:
        """Read a link's decoded query string; what it leaves out is taken from `default`.

        Raises:
            HublatentError: a value is malformed or out of range.
        """
        changes: dict[str, Any] = {}
        for key, name in (("attribute", "attribute"), ("method", "method"), ("face", "source")):
            if key in query:
                changes[name] = query[key]
        for key, name in (("models", "models"), ("hold", "held")):
            if key in query:
                changes[name] = tuple(part for part in query[key].split(",") if part)
        if "strength" in query:
            changes["strength"] = _number("strength", query["strength"])
        if "seed" in query:
            changes["seed"] = int(_number("seed", query["seed"]))
        return replace(default, **changes)


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise HublatentError(f"The link's {name} is {text[:40]!r}; expected a number.")
    return value


@dataclass(frozen=True, eq=False)
class Still:
    """What of a row does not depend on the strength.

    Attributes:
        original: the face as the model sees it.
        reconstruction: the model's unedited picture of it.
        error: mean squared error between them, pixels in [0, 1]; None if the model drew the face.
        frames: the edits at STRIP_STRENGTHS.
    """

    original: Image.Image
    reconstruction: Image.Image
    error: float | None
    frames: tuple[Image.Image, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """One model's answer.

    Attributes:
        name: of the model.
        problem: why there is no edit; "" if there is one.
        still: what does not depend on the strength.
        edited: the edited picture.
        raw: the coefficient of the direction's vector, the paper's alpha.
        before: P(attribute) of the unedited latent; None where the direction lacks it.
        after: P(attribute) of the edited latent, the target probability.
    """

    name: str
    problem: str = ""
    still: Still | None = None
    edited: Image.Image | None = None
    raw: float = 0.0
    before: float | None = None
    after: float | None = None


@torch.inference_mode()
def compare_edits(shelf: ModelShelf, face: Face, request: EditRequest) -> list[Row]:
    """Edit one face in several models.

    Args:
        shelf: where the models come from.
        face: what to edit.
        request: how.

    Returns:
        A row per model; one that cannot answer says why, and does not stop the others.
    """
    rows = []
    for name in request.models:
        try:
            rows.append(_edited_row(shelf.open(name), face, request))
        except HublatentError as error:
            rows.append(Row(name, problem=str(error)))
    return rows


def _edited_row(opened: OpenModel, face: Face, request: EditRequest) -> Row:
    key = (request.attribute, request.method, request.held)
    direction = opened.memory.get(("direction", *key), lambda: opened.find(*key))
    latents = _latents_of(opened, face)
    still = opened.memory.get(
        ("still", face.key, *key), lambda: _still(opened, face, latents, direction)
    )
    moved = edit(latents, direction, request.strength)
    (edited,) = to_pil(opened.model.decode(moved))
    before = after = None
    # A direction that holds others has no curve of its own; the attribute is read as without.
    reader = opened.find(request.attribute, request.method)
    if reader.threshold is not None and reader.gain is not None:
        before, after = (float(probability(z, reader)) for z in (latents, moved))
    raw = float(to_raw(latents, direction, request.strength))
    return Row(opened.name, "", still, edited, raw, before, after)


def _latents_of(opened: OpenModel, face: Face) -> Tensor:
    """(1, *latent_shape): a model's own latents of a face that it drew, else its encoding."""
    if face.source == opened.name and face.latents is not None:
        return face.latents
    if not opened.model.has_encoder:
        raise HublatentError(
            f"{opened.name} has no encoder: this face would first have to be projected into it "
            "(hublatent.project). It edits the faces that it draws itself."
        )
    return opened.memory.get(
        ("latents", face.key), lambda: opened.model.encode(_images_of(opened.model, face))
    )


def _images_of(model: LatentModel, face: Face) -> Tensor:
    """(1, C, H, W): the face as a model sees it."""
    images = to_tensor([face.picture], model.image_size).to(model.latent_mean.device)
    if model.channels == 3:
        return images
    if model.channels == 1:
        return images.mean(dim=1, keepdim=True)
    raise HublatentError(f"The model draws {model.channels} channels; faces have 1 or 3.")


def _still(opened: OpenModel, face: Face, latents: Tensor, direction: Direction) -> Still:
    model = opened.model
    images = _images_of(model, face)
    reconstruction = model.decode(latents)
    own = face.source == opened.name
    error = None if own else float(((images - reconstruction) / 2).square().mean())
    steps = traverse(latents, direction, torch.tensor(STRIP_STRENGTHS))[0]  # (S, *latent_shape)
    (original,), (redrawn,) = to_pil(images), to_pil(reconstruction)
    return Still(original, redrawn, error, tuple(to_pil(model.decode(steps))))
