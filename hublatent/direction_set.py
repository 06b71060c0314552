"""DirectionSet: the directions of one model, and the one safetensors file that holds them.

Tensors are named <attribute>.<method>.vector and .styles; the rest is one JSON document in the
metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hublatent.direction import (
    ORIGIN_KINDS,
    Direction,
    LayerRange,
    Origin,
    OriginKind,
    check_fits_shape,
    html_table,
)
from hublatent.errors import DirectionError, find_name, shorten, unknown_name
from hublatent.hub import DIRECTIONS_NAME, snapshot
from hublatent.hub.publisher import publisher
from hublatent.stats import Estimate
from hublatent.storage import TensorFormat

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
MAX_TEXT = 1000
MAX_NUMBER = 1e30
UNKNOWN = "unknown"  # the architecture and fingerprint of directions of no known model


@dataclass(frozen=True, eq=False, repr=False)
class DirectionSet:
    """Directions of one model, and the one file that holds them.

    `set["Eyeglasses", "joint"]` is the direction of the set's default origin: found in encoded
    images, else in samples, else in projected images. One of another origin is
    `set.get("Eyeglasses", "joint", origin="projected")` or `set["Eyeglasses", "joint-projected"]`.

    Attributes:
        directions: the directions, each attribute, method and kind of origin once.
        architecture: of the model they belong to.
        space: of its latents.
        fingerprint: of the model.
        override: the fingerprint of another model that the user insisted to use them with.
        licence: the terms they come under, in a sentence, where their author stated any.
        defaults: attribute -> the method that edits it best and a range of layers, such as "0-2",
            or "" for those it was found on; measured by `hublatent choose-defaults`.
    """

    directions: tuple[Direction, ...]
    architecture: str
    space: str
    fingerprint: str
    override: str | None = None
    licence: str | None = None
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
        kind = direction.origin.kind if direction.origin else None
        return _qualified(direction.method, kind, self.default_origin)

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
        for what, ours, theirs in (
            ("architecture", self.architecture, model.architecture),
            ("latent space", self.space, model.space),
        ):
            if ours != theirs:
                raise DirectionError(
                    f"These directions are for the {what} {ours!r}; the model's is {theirs!r}."
                )
        for direction in self:
            check_fits_shape(direction, model)
        if not any(map(model.matches, filter(None, (self.fingerprint, self.override)))):
            raise DirectionError(
                f"These directions were found on the {self.architecture} with the fingerprint "
                f"{self.fingerprint[:12]}; this model's is {model.fingerprint()[:12]}, so its "
                "latents mean something else. Load the model they belong to, or pass override=True."
            )

    def with_sigma(self, model: LatentModel) -> DirectionSet:
        """The same set, in which every direction has a sigma; a missing one is the model's."""
        known = (d if d.sigma is not None else d.with_sigma(model) for d in self)
        return replace(self, directions=tuple(known))

    def save(self, path: str | Path) -> None:
        """Write the set as one safetensors file, atomically."""
        document = {key: getattr(self, key) for key in _TEXTS}
        tensors = {}
        for direction in self:
            tensors[f"{self._name_of(direction)}.vector"] = direction.vector
            if direction.styles is not None:
                tensors[f"{self._name_of(direction)}.styles"] = direction.styles
        if self.defaults:
            document["defaults"] = {name: list(default) for name, default in self.defaults.items()}
        document["directions"] = [_to_json(direction) for direction in self]
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
        except DirectionError as error:
            raise DirectionError(f"{path}: {error}") from error
        if model is None:
            return directions
        if model.matches(directions.fingerprint):  # a file of version 1 has another way to hash
            directions = replace(directions, fingerprint=model.fingerprint())
        elif override:
            directions = replace(directions, override=model.fingerprint())
        directions.check_fits(model)
        return directions.with_sigma(model)

    @classmethod
    def from_pretrained(
        cls,
        repo: str | Path,
        model: LatentModel | None = None,
        revision: str | None = None,
        *,
        override: bool = False,
        **hub_options: Any,
    ) -> DirectionSet:
        """Read a set from a model's folder, or from the Hub; see `load`.

        `revision` is a branch, tag or commit; hub_options are token, cache_dir, local_files_only
        and max_bytes.
        """
        limited = {"max_bytes": MAX_DOWNLOAD_BYTES, **hub_options}
        where = snapshot(repo, revision=revision, files=(DIRECTIONS_NAME,), **limited)
        return cls.load(where.folder / DIRECTIONS_NAME, model, override=override)

    def push_to_hub(
        self,
        repo: str,
        *,
        model: LatentModel | None = None,
        base_model: str | None = None,
        **options: Any,
    ) -> str:
        """Publish the set alone, without its model, under a card that is made for it.

        A repository that holds a model keeps its own card: there the direction file alone is sent.

        Args:
            repo: the Hub id; made where it does not exist.
            model: draws the card's picture; without it there is none.
            base_model: the model's Hub id, for the card.
            options: private, revision, create_pr, token, message of `hublatent.publish.publish`.

        Returns:
            The commit's URL.
        """
        return publisher().push_directions(
            self, repo, model=model, base_model=base_model, **options
        )


_NONE = type(None)
_NUMBER = (float, int, _NONE)
_COUNT = (int, _NONE)
_Types = dict[str, tuple[type, ...]]
# What a document says beside its directions; what it says of each of them; of each one's origin.
_TEXTS: _Types = {
    "architecture": (str,), "space": (str,), "fingerprint": (str,), "override": (str, _NONE),
    "licence": (str, _NONE),
}  # fmt: skip
_FIELDS: _Types = {
    "attribute": (str,), "method": (str,), "origin": (dict, _NONE), "sigma": _NUMBER,
    "threshold": _NUMBER, "gain": _NUMBER, "n_positive": _COUNT, "n_negative": _COUNT,
    "preprocessing": (str, _NONE), "layers": (list, _NONE), "scores": (dict,),
    "conditioned_on": (list,), "surviving_norm": (float, int),
}  # fmt: skip
_ORIGIN: _Types = {
    "kind": (str,), "dataset": (str,), "digest": (str, _NONE), "n": _COUNT,
}  # fmt: skip
_NEVER_NEGATIVE = ("sigma", "n_positive", "n_negative", "surviving_norm", "n")


def _default_kind(origins: Iterable[Origin | None]) -> OriginKind | None:
    kinds = {origin.kind for origin in origins if origin}
    return next((kind for kind in ORIGIN_KINDS if kind in kinds), None)


def _qualified(method: str, kind: OriginKind | None, default: OriginKind | None) -> str:
    return method if kind in (None, default) else f"{method}-{kind}"


def _to_json(direction: Direction) -> dict[str, Any]:
    values = {key: getattr(direction, key) for key in _FIELDS}
    values["origin"] = asdict(direction.origin) if direction.origin else None
    values["scores"] = {k: [s.value, s.low, s.high] for k, s in direction.scores.items()}
    return values


def _from_document(document: Mapping[str, Any], tensors: dict[str, Tensor]) -> DirectionSet:
    """A set from what its file says, every part of which is checked."""
    items = document.get("directions")
    if not isinstance(items, list):
        raise DirectionError("its directions are not a list.")
    if document["version"] == 1:
        items = [_from_version_1(item) for item in items]
    texts = _checked({key: document.get(key) for key in _TEXTS}, _TEXTS, "a set")
    entries = [_checked(item, _FIELDS, "a direction") for item in items]
    for entry in entries:
        if entry["origin"] is not None:
            entry["origin"] = Origin(**_checked(entry["origin"], _ORIGIN, "an origin"))
    default = _default_kind(entry["origin"] for entry in entries)
    found = []
    for entry in entries:
        kind = entry["origin"].kind if entry["origin"] else None
        name = f"{entry['attribute']}.{_qualified(entry['method'], kind, default)}"
        vector = tensors.pop(f"{name}.vector", None)
        if vector is None:
            raise DirectionError(f"its tensors and its list disagree about {shorten(name)}.")
        found.append(_direction(entry, vector, tensors.pop(f"{name}.styles", None)))
    if tensors:
        raise DirectionError(f"its tensors and its list disagree about {shorten(min(tensors))}.")
    defaults = _defaults(document.get("defaults", {}))
    return DirectionSet(tuple(found), defaults=defaults, **texts)


def _defaults(value: Any) -> dict[str, tuple[str, str]]:
    if not isinstance(value, dict) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in value.values()
    ):
        raise DirectionError("its defaults are not [method, layers] of attributes.")
    for texts in (value, *value.values()):
        for text in texts:
            _check_text("a default", text)
    return {name: (method, layers) for name, (method, layers) in value.items()}


def _direction(entry: Mapping[str, Any], vector: Tensor, styles: Tensor | None) -> Direction:
    for tensor in (vector, styles):
        if tensor is not None and tensor.dtype != torch.float32:
            raise DirectionError(
                f"a tensor of {shorten(entry['attribute'])} has the type {tensor.dtype}; expected "
                "float32."
            )
    scores = {
        _check_text("a score's name", name): _estimate(name, triple)
        for name, triple in entry["scores"].items()
    }
    held = tuple(_check_text("a held name", name) for name in entry["conditioned_on"])
    own = {"scores": scores, "conditioned_on": held, "layers": None}
    direction = Direction(vector=vector, styles=styles, **{**entry, **own})
    layers = entry["layers"]
    if direction.layers != (None if layers is None else tuple(layers)):
        raise DirectionError(f"{direction.name} touches other layers than it says.")
    return direction


def _estimate(name: str, triple: Any) -> Estimate:
    numbers = triple if isinstance(triple, list) else []
    finite = [float(x) for x in numbers if type(x) in (int, float) and abs(x) <= MAX_NUMBER]
    if len(numbers) != 3 or len(finite) != 3:
        raise DirectionError(f"the score {shorten(name)} is not [value, low, high], all finite.")
    return Estimate(*finite)


def _checked(item: Any, types: _Types, noun: str) -> dict[str, Any]:
    """Check a JSON object, field by field."""
    if not isinstance(item, dict) or set(item) != set(types):
        raise DirectionError(f"{noun} has exactly {', '.join(types)}.")
    for key, value in item.items():
        if not isinstance(value, types[key]) or isinstance(value, bool):
            raise DirectionError(f"{key} = {shorten(value)} has the wrong type.")
        if isinstance(value, str):
            _check_text(key, value)
        elif isinstance(value, (int, float)):
            low = 0.0 if key in _NEVER_NEGATIVE else -MAX_NUMBER
            if not low <= value <= MAX_NUMBER:  # NaN too
                raise DirectionError(f"{key} = {shorten(value)} is not finite, or below {low:g}.")
    return item


def _check_text(key: str, value: Any) -> str:
    """Texts go to terminals, cards and the app: no control characters, no half characters."""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise DirectionError(
            f"{key} = {shorten(value)} is not a text of at most {MAX_TEXT} printable characters."
        )
    return value


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
    sentence = item.pop("dataset")
    item["origin"] = None if sentence is None else _origin_of(sentence)
    method = item.get("method")
    if isinstance(method, str) and item["origin"] and item["origin"]["kind"] == "projected":
        item["method"] = method.removesuffix("-projected")
    return item


def _origin_of(sentence: Any) -> dict[str, Any]:
    _check_text("dataset", sentence)
    for kind, pattern in _SENTENCES:
        if match := re.fullmatch(pattern, sentence):
            found: dict[str, Any] = {"digest": None, "n": None, **match.groupdict()}
            number = None if found["n"] is None else int(found["n"])
            return {**found, "kind": kind, "n": number}
    raise DirectionError(f"dataset = {shorten(sentence)} says nothing.")
