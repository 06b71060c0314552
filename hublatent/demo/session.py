"""One face, one edit, several models: what the app shows, without the app.

EditRequest   which models, attribute, method and strength; also a link's query string
compare_edits a row of pictures and numbers per model
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import torch
from PIL import Image
from torch import Tensor

from hublatent.demo.faces import (
    Face,
    NotProjectedError,
    Progress,
    drawn_face,
    images_of,
    latents_of,
    project_face,
)
from hublatent.demo.shelf import ModelShelf, OpenModel
from hublatent.direction import Direction, LayerRange
from hublatent.discovery import DEFAULT_METHOD
from hublatent.editing import edit, probability, to_raw, traverse
from hublatent.errors import HublatentError
from hublatent.figures import difference_map, fit
from hublatent.images import to_pil
from hublatent.model import LatentModel

MAX_STRENGTH = 6.0
STRIP_STRENGTHS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
MAX_ROWS = 8
DEFAULT_ATTRIBUTE = "Eyeglasses"
AS_FOUND = "as found"  # the layers that a direction has of itself
# Pictures are kept no wider than they are shown, whatever size a model draws.
SHOWN_SIDE, FRAME_SIDE = 512, 128
# Pixels that are decoded at once: large pictures one after the other.
DECODED_PIXELS = 2**17


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
        layers: which layers to move, in models whose latents have some; None leaves that to the
            direction.
    """

    models: tuple[str, ...] = ()
    attribute: str = DEFAULT_ATTRIBUTE
    method: str = DEFAULT_METHOD
    held: tuple[str, ...] = ()
    strength: float = 3.0
    source: str = ""
    seed: int = 1
    layers: LayerRange | None = None

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
        layers: str | None = None,
    ) -> EditRequest:
        """What a page's controls say; an empty one is None."""
        names, still = tuple(models or ()), tuple(held or ())
        moved = _layer_range(layers)
        return cls(names, attribute or "", method or "", still, float(strength), layers=moved)

    def seen(self, face: Face) -> EditRequest:
        """The request as a link to the view of a face."""
        return replace(self, source=face.source, seed=face.seed)

    def to_query(self) -> str:
        """The request as a link's query string."""
        values = {
            "models": self.models,
            "attribute": (self.attribute,),
            "method": (self.method,),
            "hold": self.held,
            "layers": (str(self.layers),) if self.layers else (),
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
        if "layers" in query:
            changes["layers"] = _layer_range(query["layers"])
        if "strength" in query:
            changes["strength"] = _number("strength", query["strength"])
        if "seed" in query:
            changes["seed"] = int(_number("seed", query["seed"]))
        return replace(default, **changes)


def _layer_range(text: str | None) -> LayerRange | None:
    return None if not text or text == AS_FOUND else LayerRange.parse(text)


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
        projected: whether its latents were found by projection, not by an encoder.
        frames: the edits at STRIP_STRENGTHS.
    """

    original: Image.Image
    reconstruction: Image.Image
    error: float | None
    projected: bool
    frames: tuple[Image.Image, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """One model's answer.

    Attributes:
        name: of the model.
        key: of what does not depend on the strength: the same key, the same `still`.
        problem: why there is no edit; "" if there is one.
        pending: whether the face has first to be projected into the model.
        still: what does not depend on the strength.
        edited: the edited picture.
        difference: edited minus reconstruction, in colours.
        change: mean of its size, pixels in [0, 1].
        raw: the coefficient of the direction's vector, the paper's alpha.
        before: P(attribute) of the unedited latent; None where the direction lacks it.
        after: P(attribute) of the edited latent, the target probability.
    """

    name: str
    key: str = ""
    problem: str = ""
    pending: bool = False
    still: Still | None = None
    edited: Image.Image | None = None
    difference: Image.Image | None = None
    change: float = 0.0
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
            pending = isinstance(error, NotProjectedError)
            rows.append(Row(name, problem=shelf.tell(error), pending=pending))
    return rows


def ready_models(shelf: ModelShelf, face: Face, names: Sequence[str]) -> tuple[str, ...]:
    """Those of several models that can show a face at once."""
    ready = []
    for opened in shelf.open_all(names):
        with suppress(HublatentError):
            latents_of(opened, face)
            ready.append(opened.name)
    return tuple(ready)


def first_request(shelf: ModelShelf, n_models: int) -> EditRequest:
    """What to show before anything was chosen: models that can edit one face at once.

    A model without an encoder draws the face where there is one: it could not edit another's at
    once, while the others encode its.

    Args:
        shelf: the models on offer.
        n_models: show at most so many.
    """
    opened = shelf.open_all(shelf.names)
    if not opened:
        return EditRequest(models=shelf.names[:n_models])
    source = min(opened, key=lambda o: o.model.has_encoder)
    ready = ready_models(shelf, drawn_face(source, 0), shelf.names)
    return EditRequest(models=ready[:n_models], source=source.name)


def project_missing(
    shelf: ModelShelf, face: Face, request: EditRequest, progress: Progress | None = None
) -> None:
    """Find a face in those of the models that do not know it yet, which takes a while.

    Args:
        shelf: where the models come from.
        face: what to find.
        request: names the models.
        progress: called with the steps done and the steps in all, for each model anew.
    """
    known = ready_models(shelf, face, request.models)
    for opened in shelf.open_all([name for name in request.models if name not in known]):
        project_face(shelf, opened, face, progress)


def _edited_row(opened: OpenModel, face: Face, request: EditRequest) -> Row:
    wanted = (request.attribute, request.method, request.held, request.layers)
    direction = opened.memory.get(("direction", *wanted), lambda: opened.find(*wanted))
    latents = latents_of(opened, face)
    still, unedited = opened.memory.get(
        ("still", face.key, *wanted), lambda: _still(opened, face, latents, direction)
    )
    moved = edit(latents, direction, request.strength)
    images = opened.model.decode(moved)
    (edited,) = to_pil(images)
    change = float((images - unedited).abs().mean()) / 2
    (difference,) = difference_map(images, unedited)
    before = after = None
    # What holding leaves of a direction has no curve of its own; the attribute is read as without.
    reader = opened.find(request.attribute, request.method)
    known = reader.threshold is not None and reader.gain is not None
    if known and reader.layers == direction.layers:  # other layers would not move the reading
        before, after = (float(probability(z, reader)) for z in (latents, moved))
    raw = float(to_raw(latents, direction, request.strength))
    key = f"{opened.name} {opened.fingerprint[:16]} {face.key} {wanted}"
    return Row(opened.name, key, "", False, still, edited, difference, change, raw, before, after)


def _still(
    opened: OpenModel, face: Face, latents: Tensor, direction: Direction
) -> tuple[Still, Tensor]:
    """The still part of a row, and the unedited images (1, C, H, W)."""
    model = opened.model
    images = images_of(model, face)
    unedited = model.decode(latents)
    own = face.source == opened.name
    error = None if own else float(((images - unedited) / 2).square().mean())
    steps = traverse(latents, direction, torch.tensor(STRIP_STRENGTHS))[0]  # (S, *latent_shape)
    frames = [fit(frame, 1, FRAME_SIDE) for frame in _decode(model, steps)]
    original, redrawn = (fit(to_pil(x)[0], 1, SHOWN_SIDE) for x in (images, unedited))
    projected = not own and not model.has_encoder
    return Still(original, redrawn, error, projected, tuple(frames)), unedited


def _decode(model: LatentModel, latents: Tensor) -> list[Image.Image]:
    """Pictures of latents, few at a time where they are large."""
    n = max(1, DECODED_PIXELS // model.image_size**2)
    return [picture for part in latents.split(n) for picture in to_pil(model.decode(part))]
