"""DirectionSet: the directions of one model, and the one safetensors file that holds them.

Tensors are named <attribute>.<method>.vector and .styles; the rest is one JSON document in the
metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel
from torch import Tensor

from hublatent.direction import ORIGIN_KINDS, Direction, LayerRange, Origin, OriginKind, html_table
from hublatent.errors import DirectionError, find_name, shorten, unknown_name
from hublatent.hub import DIRECTIONS_NAME, snapshot
from hublatent.hub.publisher import publisher
from hublatent.stats import Estimate
from hublatent.storage import Count, Number, Size, TensorFormat, Text, checked

if TYPE_CHECKING:
    from hublatent.model import LatentModel

DIRECTIONS = TensorFormat(
    "hublatent-directions",
    version=2,
    noun="hublatent directions",
    error=DirectionError,
    hint="Bring other formats in with: python -m hublatent import-directions",
)
DEFAULT_METHOD = "joint"
MAX_DOWNLOAD_BYTES = 256 << 20
UNKNOWN = "unknown"  # the architecture and fingerprint of directions of no known model


@dataclass(frozen=True, eq=False, repr=False)
class DirectionSet:
    """Directions of one model, and the one file that holds them.

    `set["Eyeglasses", "joint"]` is the direction of the set's default origin: found in encoded
    images, else in samples, else in projected images. One of another origin is
    `set.get("Eyeglasses", "joint", origin="projected")` or `set["Eyeglasses", "joint-projected"]`.

    `defaults` tell the method that edits an attribute best and a range of layers, such as "0-2", or
    "" for those it was found on; `hublatent choose-defaults` measures them.
    """

    directions: tuple[Direction, ...]  # each attribute, method and kind of origin once
    architecture: str  # of the model they belong to
    space: str  # of its latents
    fingerprint: str  # of the model
    override: str | None = None  # fingerprint of another model that the user insisted to use
    licence: str | None = None  # their terms, in a sentence, where their author stated any
    defaults: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [self._name_of(direction) for direction in self]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DirectionError(f"A set holds each direction once; twice: {', '.join(twice)}.")
        for attribute, (method, layers) in self.defaults.items():
            if f"{attribute}.{method}" not in names:
                raise DirectionError(f"the default of {shorten(attribute)} is not in the set.")
            if layers:
                LayerRange.parse(layers)

    @classmethod
    def of(cls, model: LatentModel, directions: Iterable[Direction]) -> DirectionSet:
        """Gather directions that were found on a model."""
        result = cls(tuple(directions), model.architecture, model.space, model.fingerprint())
        result.check_fits(model)
        return result

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes, in the file's order."""
        return tuple(self._by_name)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the file's order; of another than the default origin, "svm-projected"."""
        return tuple(dict.fromkeys(self.method_of(direction) for direction in self))

    @cached_property
    def default_origin(self) -> OriginKind | None:
        """The kind of origin that is meant where none is named; None where none is known."""
        return _default_kind(direction.origin for direction in self)

    def method_of(self, direction: Direction) -> str:
        """A direction's method, with its origin if that is not the default one: "svm-projected"."""
        return _qualified(direction.method, _kind_of(direction), self.default_origin)

    def _name_of(self, direction: Direction) -> str:
        return f"{direction.attribute}.{self.method_of(direction)}"

    @cached_property
    def _by_name(self) -> dict[str, dict[str, Direction]]:
        found: dict[str, dict[str, Direction]] = {}
        for direction in self:
            found.setdefault(direction.attribute, {})[self.method_of(direction)] = direction
        return found

    def __len__(self) -> int:
        return len(self.directions)

    def __iter__(self) -> Iterator[Direction]:
        return iter(self.directions)

    def __contains__(self, key: object) -> bool:
        try:
            return bool(self[key])  # type: ignore[index]
        except DirectionError:
            return False

    def __getitem__(self, key: tuple[str, str]) -> Direction:
        """The direction of an (attribute, method)."""
        if not isinstance(key, tuple) or len(key) != 2:
            raise DirectionError(f"Ask for set[attribute, method], not set[{key!r}].")
        return self.get(*key)

    def get(self, attribute: str, method: str, origin: OriginKind | None = None) -> Direction:
        """The direction of an attribute, in any case; "glasses" is understood as Eyeglasses."""
        name = self._find(attribute)
        plain, _, kind = method.rpartition("-")
        if kind in ORIGIN_KINDS and origin is None:
            method, origin = plain, kind
        wanted = _qualified(method, origin, self.default_origin)
        of_attribute = self._by_name[name]
        if wanted not in of_attribute:
            raise DirectionError(unknown_name(f"method for {name}", wanted, of_attribute))
        return of_attribute[wanted]

    @classmethod
    def open(cls, source: str | Path, model: LatentModel | None = None) -> DirectionSet:
        """The directions of a file, or of a folder or Hub id: `load`, or else `from_pretrained`."""
        if Path(source).is_file():
            return cls.load(source, model)
        return cls.from_pretrained(str(source), model)

    def default(self, attribute: str) -> Direction:
        """The direction that is meant where no method is named.

        That which was measured to edit best, on its layers (see `defaults`); else the attribute's
        only one, else "joint". A DirectionError says that there is none.
        """
        name = self._find(attribute)
        only = next(iter(self._by_name[name])) if len(self._by_name[name]) == 1 else DEFAULT_METHOD
        method, layers = self.defaults.get(name, (only, ""))
        direction = self[name, method]
        return LayerRange.parse(layers).of(direction) if layers else direction

    def _find(self, attribute: str) -> str:
        name = find_name(attribute, self.attributes)
        if name is None:
            raise DirectionError(unknown_name("attribute", attribute, self.attributes))
        return name

    def __repr__(self) -> str:
        shown = ", ".join(self.attributes[:5])
        more = len(self.attributes) - 5
        return (
            f"DirectionSet of {len(self)} directions for {self.architecture}, space "
            f"{self.space}, fingerprint {self.fingerprint[:12]}\n"
            f"  methods: {', '.join(self.methods)}\n"
            f"  attributes: {shown}{f' and {more} more' if more > 0 else ''}"
        )

    def _repr_html_(self) -> str:
        def accuracy(direction: Direction | None) -> str:
            score = direction.scores.get("accuracy") if direction else None
            return f"{score.value:.3f}" if score else "" if direction is None else "-"

        rows = [
            [name, *(accuracy(found.get(method)) for method in self.methods)]
            for name, found in self._by_name.items()
        ]
        return html_table(("accuracy", *self.methods), rows)

    def check_fits(self, model: LatentModel) -> None:
        """Refuse a model of another architecture, space, shape or fingerprint; says which."""
        for what, name in (("architecture", "architecture"), ("latent space", "space")):
            ours, theirs = getattr(self, name), getattr(model, name)
            if ours != theirs:
                raise DirectionError(
                    f"These directions are for the {what} {ours!r}; the model's is {theirs!r}."
                )
        for direction in self:
            direction.check_fits(model)
        if not any(map(model.matches, filter(None, (self.fingerprint, self.override)))):
            raise DirectionError(
                f"These directions were found on the {self.architecture} with the fingerprint "
                f"{self.fingerprint[:12]}; this model's is {model.fingerprint()[:12]}, so its "
                "latents mean something else. Load the model they belong to, or pass override=True."
            )

    def of_model(self, model: LatentModel, *, override: bool = False) -> DirectionSet:
        """The same set for its model, which gives a missing sigma; see `load`."""
        fitting = self
        if model.matches(self.fingerprint):  # a file of version 1 has another way to hash
            fitting = replace(self, fingerprint=model.fingerprint())
        elif override:
            fitting = replace(self, override=model.fingerprint())
        fitting.check_fits(model)
        return fitting.with_sigma(model)

    def with_sigma(self, model: LatentModel) -> DirectionSet:
        """The same set, in which every direction has a sigma; a missing one is the model's."""
        known = (d if d.sigma is not None else d.with_sigma(model) for d in self)
        return replace(self, directions=tuple(known))

    def with_directions(self, directions: Iterable[Direction]) -> DirectionSet:
        """The same set with other directions, and the defaults that are still among them.

        A direction of another origin can change which origin is the set's default one, and with it
        the names of all methods: "svm" of samples becomes "svm-sampled" beside one of images.
        """
        together = tuple(directions)
        meant = _default_kind(direction.origin for direction in together)
        names = {_identity(d): _qualified(d.method, _kind_of(d), meant) for d in together}
        defaults = {}
        for attribute, (method, layers) in self.defaults.items():
            identity = _identity(self[attribute, method])
            if identity in names:
                defaults[attribute] = (names[identity], layers)
        return replace(self, directions=together, defaults=defaults)

    def save(self, path: str | Path) -> None:
        """Write the set as one safetensors file, atomically."""
        texts = ("architecture", "space", "fingerprint", "override", "licence")
        document: dict[str, Any] = {key: getattr(self, key) for key in texts}
        if self.defaults:
            document["defaults"] = dict(self.defaults)
        document["directions"] = [_to_json(direction) for direction in self]
        tensors = {}
        for direction in self:
            tensors[f"{self._name_of(direction)}.vector"] = direction.vector
            if direction.styles is not None:
                tensors[f"{self._name_of(direction)}.styles"] = direction.styles
        DIRECTIONS.write(path, tensors, document)

    @classmethod
    def load(
        cls, path: str | Path, model: LatentModel | None = None, *, override: bool = False
    ) -> DirectionSet:
        """Read a set from its file.

        Args:
            path: the safetensors file.
            model: that the directions were found on; it fills a missing sigma.
            override: use them with a model of the same architecture, space and shape but another
                fingerprint all the same; the set records it.

        Raises:
            DirectionError: the file is missing or damaged, or belongs to another model.
        """
        document, tensors = DIRECTIONS.read(path)
        try:
            directions = _from_document(document, tensors)
        except ValueError as error:
            raise DirectionError(f"{path}: {error}") from error
        return directions if model is None else directions.of_model(model, override=override)

    @classmethod
    def from_pretrained(
        cls, repo: str | Path, model: LatentModel | None = None, revision: str | None = None, *,
        override: bool = False, **hub_options: Any,
    ) -> DirectionSet:  # fmt: skip
        """Read a set from a model's folder, or from the Hub; see `load`.

        `revision` is a branch, tag or commit; hub_options are token, cache_dir, local_files_only
        and max_bytes.
        """
        if Path(repo).is_file():
            raise DirectionError(
                f"{repo} is a file; expected a folder or a Hub id. DirectionSet.load reads a file."
            )
        limited = {"max_bytes": MAX_DOWNLOAD_BYTES, **hub_options}
        where = snapshot(repo, revision=revision, files=(DIRECTIONS_NAME,), **limited)
        return cls.load(where.folder / DIRECTIONS_NAME, model, override=override)

    def push_to_hub(
        self, repo: str, *, model: LatentModel | None = None, base_model: str | None = None,
        **options: Any,
    ) -> str:  # fmt: skip
        """Publish the set alone under a card that is made for it; returns the commit's URL.

        A repository that holds a model keeps its own card: there the direction file alone is sent.

        Args:
            repo: the Hub id; made where it does not exist.
            model: draws the card's picture; without it there is none.
            base_model: the model's Hub id, for the card.
            options: private, revision, create_pr, token, message of `hublatent.publish.publish`.
        """
        return publisher().push_directions(
            self, repo, model=model, base_model=base_model, **options
        )


class _Entry(BaseModel, extra="forbid"):
    """What a file says of a direction beside its tensors."""

    attribute: Text
    method: Text
    origin: Origin | None
    sigma: Size | None
    threshold: Number | None
    gain: Number | None
    n_positive: Count | None
    n_negative: Count | None
    preprocessing: Text | None
    layers: tuple[int, ...] | None
    scores: dict[Text, tuple[Number, Number, Number]]
    conditioned_on: tuple[Text, ...]
    surviving_norm: Size


class _Document(BaseModel):
    """What a file says; `format` and `version` beside."""

    architecture: Text
    space: Text
    fingerprint: Text
    override: Text | None = None
    licence: Text | None = None
    defaults: dict[Text, tuple[Text, Text]] = {}
    directions: list[_Entry]


def _default_kind(origins: Iterable[Origin | None]) -> OriginKind | None:
    kinds = {origin.kind for origin in origins if origin}
    return next((kind for kind in ORIGIN_KINDS if kind in kinds), None)


def _kind_of(direction: Direction) -> OriginKind | None:
    return direction.origin.kind if direction.origin else None


def _identity(direction: Direction) -> tuple[str, OriginKind | None]:
    return direction.name, _kind_of(direction)


def _qualified(method: str, kind: OriginKind | None, default: OriginKind | None) -> str:
    return method if kind in (None, default) else f"{method}-{kind}"


def _to_json(direction: Direction) -> dict[str, Any]:
    values = {key: getattr(direction, key) for key in _Entry.model_fields}
    values["origin"] = direction.origin and asdict(direction.origin)
    values["scores"] = {name: astuple(score) for name, score in direction.scores.items()}
    return values


def _from_document(document: dict[str, Any], tensors: dict[str, Tensor]) -> DirectionSet:
    """A set from what its file says, every part of which is checked."""
    if document["version"] == 1 and isinstance(document.get("directions"), list):
        document["directions"] = [_from_version_1(item) for item in document["directions"]]
    told = checked(_Document, document)
    default = _default_kind(entry.origin for entry in told.directions)
    found = []
    for entry in told.directions:
        kind = entry.origin.kind if entry.origin else None
        name = f"{entry.attribute}.{_qualified(entry.method, kind, default)}"
        if f"{name}.vector" not in tensors:
            raise ValueError(f"its tensors and its list disagree about {shorten(name)}.")
        vector, styles = tensors.pop(f"{name}.vector"), tensors.pop(f"{name}.styles", None)
        for tensor in (vector, styles):
            if tensor is not None and tensor.dtype != torch.float32:
                raise ValueError(f"{shorten(name)} is of {tensor.dtype}; expected float32.")
        scores = {key: Estimate(*triple) for key, triple in entry.scores.items()}
        values = {**dict(entry), "scores": scores, "layers": None}
        found.append(Direction(vector=vector, styles=styles, **values))
        if found[-1].layers != entry.layers:
            raise ValueError(f"{shorten(name)} touches other layers than it says.")
    if tensors:
        raise ValueError(f"its tensors and its list disagree about {shorten(min(tensors))}.")
    return DirectionSet(**{**dict(told), "directions": tuple(found)})


# What files of version 1 said in a sentence, in the field `dataset`.
_SENTENCES: tuple[tuple[OriginKind, str], ...] = (
    ("sampled", r"(?P<n>\d+) samples of the model.*labelled by (?P<dataset>.*) (?P<digest>\w+)"),
    ("projected", r"(?P<n>\d+) projected images of (?P<dataset>.*) (?P<digest>\w+)"),
    ("encoded", r"(?P<dataset>.*) (?P<digest>[0-9a-f]{64})"),
    ("encoded", r"(?P<dataset>.*)"),
)


def _from_version_1(item: Any) -> Any:
    """An entry of a file of version 1 as version 2 has it: its sentence becomes an origin."""
    if not isinstance(item, dict) or "dataset" not in item:
        return item
    item = dict(item)
    origin = item["origin"] = item.pop("dataset")
    if isinstance(origin, str) and len(origin) <= 1000 and origin.isprintable():
        told = next(
            {"kind": kind, **match.groupdict()}
            for kind, pattern in _SENTENCES
            if (match := re.fullmatch(pattern, origin))
        )
        item["origin"] = told | {"n": int(told["n"]) if "n" in told else None}
        if told["kind"] == "projected" and isinstance(item.get("method"), str):
            item["method"] = item["method"].removesuffix("-projected")
    return item
