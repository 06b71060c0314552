"""Direction and DirectionSet: immutable values, and the safetensors file that holds them.

The coordinate of a latent z along a direction v, and an edit by `strength` (see editing.py):

    c(z) = <z, v> / <v, v>            edit(z, v, strength) = z + strength * sigma * v

so an edit raises c by strength * sigma, where sigma is the standard deviation of c over the
latents of real images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hublatent.errors import DirectionError, unknown_name
from hublatent.files import atomic_path

if TYPE_CHECKING:
    from hublatent.model import LatentModel

FORMAT = "hublatent-directions"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 16 << 20
# Below this share of its norm, what is left of a direction is mostly rounding and noise.
MIN_SURVIVING_NORM = 0.1
# Beyond this condition number two held directions are the same one for every practical purpose.
MAX_CONDITION = 1e4


@dataclass(frozen=True)
class Score:
    """A measured figure with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Direction:
    """A semantic direction in the latent space of one model.

    Attributes:
        attribute: what it changes, such as "Eyeglasses".
        method: how it was found, such as "svm".
        vector: (*latent_shape), float32, pointing to presence; rows it does not touch are zero.
        sigma: standard deviation of the coordinate over real latents; None where unknown.
        threshold: the coordinate at which P(attribute) = 1/2 at equal priors; None where unknown.
        gain: slope of the logistic curve, per unit of the coordinate; None where unknown.
        layers: the layers it touches; None for a latent without layers.
        n_positive: how many examples with the attribute it was found from.
        n_negative: how many without.
        dataset: name and digest of the data it was found on.
        preprocessing: how images were cropped and resized.
        scores: name -> Score, from held-out identities.
        conditioned_on: names of the directions that were held while this one was formed.
        surviving_norm: the share of the norm that conditioning left; 1 without conditioning.
    """

    attribute: str
    method: str
    vector: Tensor
    sigma: float | None = None
    threshold: float | None = None
    gain: float | None = None
    layers: tuple[int, ...] | None = None
    n_positive: int | None = None
    n_negative: int | None = None
    dataset: str | None = None
    preprocessing: str | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    conditioned_on: tuple[str, ...] = ()
    surviving_norm: float = 1.0

    def __post_init__(self) -> None:
        vector = self.vector.detach().to(device="cpu", dtype=torch.float32, copy=True)
        for part in (self.attribute, self.method):
            _check_name_part(part)
        if vector.ndim not in (1, 2) or not vector.numel():
            raise DirectionError(
                f"{self.name}: a vector has shape (D,) or (L, D), not {tuple(vector.shape)}."
            )
        if not bool(torch.isfinite(vector).all()):
            raise DirectionError(f"{self.name}: the vector holds NaN or infinite values.")
        if not bool(vector.any()):
            raise DirectionError(f"{self.name}: the vector is zero, so it points nowhere.")
        if vector.ndim == 2:
            touched = tuple(int(i) for i in vector.any(dim=1).nonzero().flatten())
            object.__setattr__(self, "layers", touched)
        object.__setattr__(self, "vector", vector)

    @property
    def name(self) -> str:
        """Attribute and method, such as "Eyeglasses.svm"."""
        return f"{self.attribute}.{self.method}"

    @property
    def squared_norm(self) -> float:
        """<v, v>."""
        return float(self.vector.double().square().sum())

    def coordinate(self, latents: Tensor) -> Tensor:
        """c(z) = <z, v> / <v, v>.

        Args:
            latents: (B, *latent_shape).

        Returns:
            (B,), on the latents' device and in their dtype.
        """
        self.check_shape(latents)
        vector = self.vector.to(latents)
        return (latents * vector).flatten(1).sum(1) / vector.square().sum()  # (B,)

    def check_shape(self, latents: Tensor) -> None:
        """Refuse latents that are not (B, *shape of the vector)."""
        if latents.shape[1:] != self.vector.shape or latents.ndim != self.vector.ndim + 1:
            raise DirectionError(
                f"{self.name} is for latents of shape (B, {_shape(self.vector)}); "
                f"given: {tuple(latents.shape)}."
            )

    def measured_on(self, model: LatentModel) -> Direction:
        """The same direction with its sigma for a model.

        With u the sum of v's rows (the layers of real latents share one code),
        sigma = sqrt(u' Cov u) / <v, v>.

        Args:
            model: gives the covariance of real latents.

        Raises:
            DirectionError: the vector does not fit the model.
        """
        _check_fits_shape(self, model)
        covariance = model.latent_covariance.double().cpu()
        row = self.vector.double().reshape(-1, self.vector.shape[-1]).sum(dim=0)
        sigma = math.sqrt(max(float(row @ covariance @ row), 0.0)) / self.squared_norm
        return replace(self, sigma=sigma)

    def unit(self) -> Direction:
        """The direction scaled to norm 1; it points the same way, and has no sigma of its own."""
        return self * (1 / math.sqrt(self.squared_norm))

    def orthogonal_to(self, *held: Direction) -> Direction:
        """Take out what moves other attributes' readings (Shen et al. 2020, arXiv:1907.10786).

        Editing along v moves the coordinate along a filter b by <v, b> / <b, b>. Taking out v's
        component in the span of the held filters, on the layers that v touches, makes it zero.

        Args:
            held: the filters of the attributes to hold; an attribute's `svm` direction reads it.

        Returns:
            A direction that names what it holds and the share of its norm that survived.

        Raises:
            DirectionError: shapes differ, the held filters are nearly dependent, or almost nothing
                of the direction would be left.
        """
        if not held:
            return self
        for other in held:
            if other.vector.shape != self.vector.shape:
                raise DirectionError(
                    f"{self.name} has shape ({_shape(self.vector)}), "
                    f"{other.name} has ({_shape(other.vector)}); hold directions of one model."
                )
        touched = _touched(self.vector)
        filters = torch.stack([(other.vector.double() * touched).flatten() for other in held])
        norms = filters.norm(dim=1, keepdim=True)
        apart = [other.name for other, norm in zip(held, norms, strict=True) if norm == 0]
        if apart:
            raise DirectionError(f"{self.name} shares no layer with {', '.join(apart)}.")
        filters = filters / norms
        names = ", ".join(other.name for other in held)
        condition = float(torch.linalg.cond(filters @ filters.T))
        if not condition < MAX_CONDITION:
            raise DirectionError(
                f"The directions to hold are nearly the same one ({names}: condition number "
                f"{condition:.0f}); hold fewer of them."
            )
        vector = self.vector.double().flatten()
        weights = torch.linalg.solve(filters @ filters.T, filters @ vector)
        rest = vector - filters.T @ weights
        surviving = float(rest.norm() / vector.norm())
        if surviving < MIN_SURVIVING_NORM:
            raise DirectionError(
                f"Only {surviving:.1%} of {self.name} would be left after holding {names}; "
                "they are nearly the same direction. Hold fewer of them."
            )
        return self._derived(
            rest.reshape(self.vector.shape).float(),
            conditioned_on=(*self.conditioned_on, *(other.name for other in held)),
            surviving_norm=self.surviving_norm * surviving,
        )

    def __add__(self, other: Direction) -> Direction:
        if other.vector.shape != self.vector.shape:
            raise DirectionError(
                f"{self.name} ({_shape(self.vector)}) and {other.name} ({_shape(other.vector)}) "
                "have different shapes and cannot be added."
            )
        attribute = self.attribute
        if other.attribute != attribute:
            attribute = f"{self.attribute}+{other.attribute}"
        return self._derived(self.vector + other.vector, attribute=attribute)

    def __neg__(self) -> Direction:
        return self * -1.0

    def __sub__(self, other: Direction) -> Direction:
        return self + -other

    def __mul__(self, factor: float) -> Direction:
        return self._derived(self.vector * factor)

    __rmul__ = __mul__

    def _derived(self, vector: Tensor, **changes: Any) -> Direction:
        """A new direction from this one; what was measured on the old vector is absent."""
        return replace(
            self, vector=vector, sigma=None, threshold=None, gain=None, scores={}, **changes
        )


@dataclass(frozen=True, eq=False)
class DirectionSet:
    """Directions of one model, and the one file that holds them.

    Attributes:
        directions: the directions, each name once.
        architecture: of the model they belong to.
        space: of its latents.
        fingerprint: of its weights.
        override: the fingerprint of another model that the user insisted to use them with.
    """

    directions: tuple[Direction, ...]
    architecture: str
    space: str
    fingerprint: str
    override: str | None = None

    def __post_init__(self) -> None:
        names = [direction.name for direction in self.directions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DirectionError(f"A set holds each direction once; twice: {', '.join(twice)}.")

    @classmethod
    def of(cls, model: LatentModel, directions: Iterable[Direction]) -> DirectionSet:
        """Gather directions that were found on a model."""
        result = cls(tuple(directions), model.architecture, model.space, model.fingerprint())
        result.check_fits(model)
        return result

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes, in the file's order."""
        return tuple(dict.fromkeys(direction.attribute for direction in self))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the file's order."""
        return tuple(dict.fromkeys(direction.method for direction in self))

    def __len__(self) -> int:
        return len(self.directions)

    def __iter__(self) -> Iterator[Direction]:
        return iter(self.directions)

    def __contains__(self, key: object) -> bool:
        return any((d.attribute, d.method) == key for d in self)

    def __getitem__(self, key: tuple[str, str]) -> Direction:
        """The direction of an (attribute, method)."""
        if not isinstance(key, tuple) or len(key) != 2:
            raise DirectionError(f"Ask for set[attribute, method], not set[{key!r}].")
        attribute, method = key
        of_attribute = {d.method: d for d in self if d.attribute == attribute}
        if not of_attribute:
            raise DirectionError(unknown_name("attribute", attribute, self.attributes))
        if method not in of_attribute:
            raise DirectionError(unknown_name(f"method for {attribute}", method, of_attribute))
        return of_attribute[method]

    def check_fits(self, model: LatentModel) -> None:
        """Refuse a model that these directions were not found on.

        Raises:
            DirectionError: architecture, space, shape or fingerprint differ; says which.
        """
        for what, ours, theirs in (
            ("architecture", self.architecture, model.architecture),
            ("latent space", self.space, model.space),
        ):
            if ours != theirs:
                raise DirectionError(
                    f"These directions are for the {what} {ours!r}; the model's is {theirs!r}."
                )
        for direction in self:
            _check_fits_shape(direction, model)
        fingerprint = model.fingerprint()
        if fingerprint not in (self.fingerprint, self.override):
            raise DirectionError(
                f"These directions were found on the {self.architecture} with the fingerprint "
                f"{self.fingerprint[:12]}; this model's is {fingerprint[:12]}, so its latents mean "
                "something else. Load the model they belong to, or pass override=True."
            )

    def save(self, path: str | Path) -> None:
        """Write the set as one safetensors file, atomically."""
        document = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "architecture": self.architecture,
            "space": self.space,
            "fingerprint": self.fingerprint,
            "override": self.override,
            "directions": [_to_json(direction) for direction in self],
        }
        tensors = {f"{direction.name}.vector": direction.vector for direction in self}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={FORMAT: json.dumps(document)})

    @classmethod
    def load(
        cls, path: str | Path, model: LatentModel | None = None, *, override: bool = False
    ) -> DirectionSet:
        """Read a set from its file.

        Args:
            path: the safetensors file.
            model: if given, the directions must have been found on it.
            override: use them with a model of the same architecture, space and shape but other
                weights all the same; the set records it.

        Returns:
            The set.

        Raises:
            DirectionError: the file is missing or damaged, or belongs to another model.
        """
        directions = _read(Path(path))
        if model is not None:
            if override and model.fingerprint() != directions.fingerprint:
                directions = replace(directions, override=model.fingerprint())
            directions.check_fits(model)
        return directions

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
        """Read a set from a model's folder, or from the Hub.

        Args:
            repo: a folder or a Hub id.
            model: if given, the directions must have been found on it.
            revision: branch, tag or commit on the Hub.
            override: see `load`.
            hub_options: token, cache_dir, local_files_only.
        """
        from hublatent.hub import DIRECTIONS_NAME, snapshot

        where = snapshot(repo, revision=revision, files=(DIRECTIONS_NAME,), **hub_options)
        return cls.load(where.folder / DIRECTIONS_NAME, model, override=override)

    def push_to_hub(self, repo: str, **options: Any) -> str:
        """Publish the set alone, without its model; returns the commit's URL.

        Args:
            repo: the Hub id; made where it does not exist.
            options: private, revision, create_pr, token, message of `hublatent.hub.publish`.
        """
        import tempfile

        from hublatent.hub import DIRECTIONS_NAME, publish

        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / DIRECTIONS_NAME)
            return publish(folder, repo, **options)


def _read(path: Path) -> DirectionSet:
    if not path.is_file():
        raise DirectionError(f"{path} does not exist; expected a directions.safetensors file.")
    try:
        with safe_open(path, framework="pt") as file:
            document = _parse_document(file.metadata() or {}, path)
            entries = [_entry(item, path) for item in _list(document, "directions", path)]
            names = sorted(f"{e['attribute']}.{e['method']}.vector" for e in entries)
            if names != sorted(file.keys()):
                raise DirectionError(f"{path}: its tensors and its list of directions disagree.")
            directions = tuple(
                _from_json(e, file.get_tensor(f"{e['attribute']}.{e['method']}.vector"), path)
                for e in entries
            )
    except (SafetensorError, OSError) as error:
        raise DirectionError(f"{path} is not a readable safetensors file: {error}.") from error
    texts = {key: document.get(key) for key in ("architecture", "space", "fingerprint")}
    wrong = [key for key, value in texts.items() if not isinstance(value, str)]
    override = document.get("override")
    if wrong or not (override is None or isinstance(override, str)):
        raise DirectionError(f"{path}: {', '.join(wrong) or 'override'} is not a text.")
    return DirectionSet(directions, override=override, **texts)  # type: ignore[arg-type]


def _parse_document(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    text = metadata.get(FORMAT)
    if text is None:
        raise DirectionError(
            f"{path} is a safetensors file, but not one of hublatent directions. Bring other "
            "formats in with: python -m hublatent import-directions"
        )
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DirectionError(f"{path}: its metadata is not JSON: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DirectionError(f"{path}: its metadata is not a {FORMAT} document.")
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise DirectionError(
            f"{path} has version {version!r}; this hublatent reads 1 to {FORMAT_VERSION}. "
            "For a newer one, run: pip install --upgrade hublatent"
        )
    return document


_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "attribute": (str,),
    "method": (str,),
    "sigma": (float, int, type(None)),
    "threshold": (float, int, type(None)),
    "gain": (float, int, type(None)),
    "n_positive": (int, type(None)),
    "n_negative": (int, type(None)),
    "dataset": (str, type(None)),
    "preprocessing": (str, type(None)),
    "layers": (list, type(None)),
    "scores": (dict,),
    "conditioned_on": (list,),
    "surviving_norm": (float, int),
}


def _entry(item: Any, path: Path) -> dict[str, Any]:
    """Check one direction's JSON, field by field."""
    if not isinstance(item, dict) or set(item) != set(_FIELD_TYPES):
        raise DirectionError(f"{path}: a direction has exactly {', '.join(_FIELD_TYPES)}.")
    for key, types in _FIELD_TYPES.items():
        value = item[key]
        if not isinstance(value, types) or isinstance(value, bool):
            raise DirectionError(f"{path}: {key} = {value!r} has the wrong type.")
        if isinstance(value, float) and not math.isfinite(value):
            raise DirectionError(f"{path}: {key} = {value!r} is not finite.")
    return item


def _list(document: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise DirectionError(f"{path}: {key} is not a list.")
    return value


def _to_json(direction: Direction) -> dict[str, Any]:
    values: dict[str, Any] = {key: getattr(direction, key) for key in _FIELD_TYPES}
    values["scores"] = {k: [s.value, s.low, s.high] for k, s in direction.scores.items()}
    return values


def _from_json(entry: dict[str, Any], vector: Tensor, path: Path) -> Direction:
    scores = {}
    for name, triple in entry["scores"].items():
        numbers = triple if isinstance(triple, list) else []
        if len(numbers) != 3 or not all(type(x) in (int, float) for x in numbers):
            raise DirectionError(f"{path}: the score {name} is not [value, low, high].")
        scores[name] = Score(*map(float, numbers))
    if not all(isinstance(name, str) for name in entry["conditioned_on"]):
        raise DirectionError(f"{path}: conditioned_on is not a list of names.")
    values = {k: v for k, v in entry.items() if k not in ("scores", "conditioned_on", "layers")}
    held = tuple(entry["conditioned_on"])
    direction = Direction(vector=vector, scores=scores, conditioned_on=held, **values)
    layers = entry["layers"]
    if direction.layers != (None if layers is None else tuple(layers)):
        raise DirectionError(f"{path}: {direction.name} touches other layers than it says.")
    return direction


def _check_name_part(part: str) -> None:
    # Names become tensor names and file names: no path, no control character, no second dot.
    if not part or len(part) > 200 or not part.isprintable() or set(part) & set("./\\"):
        raise DirectionError(
            f"{part!r} is no attribute or method name; expected 1 to 200 printable characters "
            "without dots and slashes."
        )


def _check_fits_shape(direction: Direction, model: LatentModel) -> None:
    if tuple(direction.vector.shape) != model.latent_shape:
        raise DirectionError(
            f"{direction.name} has shape ({_shape(direction.vector)}); "
            f"the model's latents have ({', '.join(map(str, model.latent_shape))})."
        )


def _touched(vector: Tensor) -> Tensor:
    """1 on the rows that a vector touches, 0 elsewhere; broadcasts to the vector's shape."""
    if vector.ndim == 1:
        return torch.ones(1, dtype=torch.float64)
    return vector.any(dim=1, keepdim=True).double()  # (L, 1)


def _shape(vector: Tensor) -> str:
    return ", ".join(map(str, vector.shape))
