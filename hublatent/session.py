"""One face, one edit, several models: what the app shows, without the app.

ModelShelf    opens models by name and keeps the latest few
Face          a picture that somebody brought or that a model drew
EditRequest   which models, attribute, method and strength; also a link's query string
compare_edits a row of pictures and numbers per model
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import torch
from PIL import Image
from torch import Tensor

from hublatent import models
from hublatent.checkpoint import CONFIG_NAME, WEIGHTS_NAME
from hublatent.direction import Direction, DirectionSet
from hublatent.discovery import DEFAULT_METHOD
from hublatent.editing import edit, probability, to_raw, traverse
from hublatent.errors import DirectionError, HubError, HublatentError
from hublatent.hub import DIRECTIONS_NAME
from hublatent.images import face_crop, open_image, to_pil, to_tensor
from hublatent.model import LatentModel

MAX_STRENGTH = 6.0
STRIP_STRENGTHS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
MAX_OPEN_MODELS = 8
MAX_ROWS = 8
MAX_FACE_SIDE = 1024
MAX_SEED = 2**31 - 1
HOLDING_METHOD = "svm"  # the filter, which reads an attribute
DEFAULT_ATTRIBUTE = "Eyeglasses"
# Owner and name, and nothing that could be a path of this machine.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

Value = TypeVar("Value")


class Cache:
    """The latest results under their keys; safe for several threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is missing; two threads may make it twice."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]  # type: ignore[no-any-return, unused-ignore]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self.capacity:
                self._values.popitem(last=False)
        return value


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A loaded model with its directions, and what it has lately been asked.

    Attributes:
        name: what the app calls it.
        model: the model.
        directions: its directions; None where it has none.
        problem: why it has none.
    """

    name: str
    model: LatentModel
    directions: DirectionSet | None
    problem: str = ""
    memory: Cache = field(default_factory=lambda: Cache(128))

    def find(self, attribute: str, method: str, held: tuple[str, ...] = ()) -> Direction:
        """The direction of an attribute, with the readings of others held where asked for."""
        if self.directions is None:
            raise DirectionError(self.problem)
        direction = self.directions[attribute, method]
        if attribute in held:
            raise DirectionError(f"{attribute} cannot be held still while it is being edited.")
        filters = [self.directions[name, HOLDING_METHOD] for name in held]
        direction = direction.orthogonal_to(*filters)
        return direction if direction.sigma is not None else direction.measured_on(self.model)


class ModelShelf:
    """Opens models by name, one thread at a time each, and keeps the latest in memory.

    Args:
        catalogue: name -> folder or Hub id, chosen by whoever runs the app.
        device: where models run; None takes a GPU where there is one.
    """

    def __init__(self, catalogue: Mapping[str, str], device: str | None = None) -> None:
        self.catalogue = dict(catalogue)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._open: OrderedDict[str, OpenModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The models on offer."""
        return tuple(self.catalogue)

    def open(self, name: str) -> OpenModel:
        """A model of the catalogue, or one of the Hub by its id; never another local folder.

        Raises:
            HublatentError: it is neither, or cannot be loaded.
        """
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                return self._open[name]
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:  # another visitor may be loading the same model: wait for it
            with self._lock:
                if name in self._open:
                    return self._open[name]
            try:
                opened = self._load(name)
                with self._lock:
                    self._open[name] = opened
                    while len(self._open) > MAX_OPEN_MODELS:
                        self._open.popitem(last=False)
            finally:
                with self._lock:
                    self._loading.pop(name, None)
            return opened

    def _load(self, name: str) -> OpenModel:
        source = self.catalogue.get(name)
        # A visitor's Hub id is read as a stranger would read it, without the host's token.
        token = None if source is not None else False
        if source is None:
            source = _checked_hub_id(name, self.names)
        model = models.load(source, device=self.device, token=token)
        try:
            directions = DirectionSet.from_pretrained(source, model, model.commit, token=token)
        except (DirectionError, HubError) as error:
            has_file = (Path(source) / DIRECTIONS_NAME).is_file() or model.commit is not None
            missing = f"{name} has no {DIRECTIONS_NAME}; make one with training/find_directions.py."
            return OpenModel(name, model, None, str(error) if has_file else missing)
        return OpenModel(name, model, directions)


def find_models(folder: Path) -> dict[str, str]:
    """The latent models in the subfolders of a folder.

    Args:
        folder: such as model_cards/; it may be missing.

    Returns:
        Name -> folder, by name.
    """
    if not folder.is_dir():
        return {}
    return {path.name: str(path) for path in sorted(folder.iterdir()) if _is_latent_model(path)}


def _is_latent_model(folder: Path) -> bool:
    if not (folder / WEIGHTS_NAME).is_file():
        return False
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("architecture") in models.ARCHITECTURES


def _checked_hub_id(name: str, offered: Sequence[str]) -> str:
    # hublatent.load() lets an existing folder win: no visitor may name one of this machine.
    if not _HUB_ID.fullmatch(name) or ".." in name or Path(name).exists():
        raise HubError(
            f"{name!r} is no model of this app and no Hub id such as 'user/model'. "
            f"Available: {', '.join(offered) or 'none'}."
        )
    return name


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

    def to_query(self) -> str:
        """The request as a link's query string."""
        values = {
            "models": self.models,
            "attribute": (self.attribute,),
            "method": (self.method,),
            "hold": self.held,
            "strength": (f"{self.strength:g}",),
            "face": (self.source,),
            "seed": (str(self.seed),),
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


def offered_attributes(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """The attributes that any of the models has a direction for."""
    sets = [o.directions for o in opened if o.directions is not None]
    return tuple(dict.fromkeys(name for s in sets for name in s.attributes))


def offered_methods(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """The methods that any of the models has directions of; the default first."""
    sets = [o.directions for o in opened if o.directions is not None]
    names = dict.fromkeys(name for s in sets for name in s.methods)
    return tuple(sorted(names, key=lambda name: name != DEFAULT_METHOD))
