"""DirectionSet: the directions of one model, and the one safetensors file that holds them.

Tensors are named <attribute>.<method>.vector; the rest is one JSON document in the metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublatent.direction import Direction, check_fits_shape
from hublatent.errors import DirectionError, unknown_name

if TYPE_CHECKING:
    from hublatent.model import LatentModel

import json
from collections.abc import Mapping

from torch import Tensor

from hublatent.errors import HublatentError
from hublatent.stats import Estimate
from hublatent.storage import (
    atomic_path,
    naming,
    open_safetensors,
    parse_json,
    save_safetensors,
    shorten,
)

MAX_DOWNLOAD_BYTES = 256 << 20
UNKNOWN = "unknown"  # the architecture and fingerprint of directions of no known model


@dataclass(frozen=True, eq=False)
class DirectionSet:
    """Directions of one model, and the one file that holds them.

    Attributes:
        directions: the directions, each name once.
        architecture: of the model they belong to.
        space: of its latents.
        fingerprint: of its weights.
        override: the fingerprint of another model that the user insisted to use them with.
        licence: the terms they come under, in a sentence, where their author stated any.
    """

    directions: tuple[Direction, ...]
    architecture: str
    space: str
    fingerprint: str
    override: str | None = None
    licence: str | None = None

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
            check_fits_shape(direction, model)
        fingerprint = model.fingerprint()
        if fingerprint not in (self.fingerprint, self.override):
            raise DirectionError(
                f"These directions were found on the {self.architecture} with the fingerprint "
                f"{self.fingerprint[:12]}; this model's is {fingerprint[:12]}, so its latents mean "
                "something else. Load the model they belong to, or pass override=True."
            )

    def save(self, path: str | Path) -> None:
        """Write the set as one safetensors file, atomically.

        Raises:
            OSError: the disk is full, or may not be written; an earlier file is as it was.
        """
        texts = {key: getattr(self, key) for key in TEXTS}
        write_directions(Path(path), texts, self.directions)

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
        texts, found = read_directions(Path(path))
        directions = cls(found, **texts)  # type: ignore[arg-type]
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
            hub_options: token, cache_dir, local_files_only, max_bytes.
        """
        from hublatent.hub import DIRECTIONS_NAME, snapshot

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
            model: the model they belong to; draws the card's picture. Without it there is none.
            base_model: the model's Hub id, for the card.
            options: private, revision, create_pr, token, message of `hublatent.hub.publish`.

        Returns:
            The commit's URL.

        Raises:
            HubError: the Hub refused, or an id is none.
            DirectionError: the directions belong to another model.
        """
        import tempfile

        from hublatent.checkpoint import CONFIG_NAME
        from hublatent.hub.download import DIRECTIONS_NAME, PUBLISHED_FILES
        from hublatent.publish.commits import publish, repo_has_file
        from hublatent.publish.directions_card import write_directions_folder

        beside_model = repo_has_file(
            CONFIG_NAME, repo, options.get("revision"), options.get("token")
        )
        files = (DIRECTIONS_NAME,) if beside_model else PUBLISHED_FILES
        with tempfile.TemporaryDirectory() as folder:
            write_directions_folder(folder, self, repo, model=model, base_model=base_model)
            return publish(folder, repo, files=files, **options)


FORMAT = "hublatent-directions"
FORMAT_VERSION = 1
MAX_TEXT = 1000
# What is said of all directions of a file; the last two are absent from most.
TEXTS = ("architecture", "space", "fingerprint", "override", "licence")


def write_directions(
    path: Path, texts: Mapping[str, str | None], directions: Iterable[Direction]
) -> None:
    """Write a direction file, atomically.

    Args:
        path: the safetensors file.
        texts: those of TEXTS.
        directions: the directions.

    Raises:
        OSError: the disk is full, or may not be written; an earlier file is as it was.
    """
    chosen = list(directions)
    head = {"format": FORMAT, "version": FORMAT_VERSION}
    document = {**head, **texts, "directions": [_to_json(direction) for direction in chosen]}
    tensors = {f"{direction.name}.vector": direction.vector for direction in chosen}
    with atomic_path(path) as temporary, naming(path):
        save_safetensors(tensors, temporary, {FORMAT: json.dumps(document)})


def read_directions(path: Path) -> tuple[dict[str, str | None], tuple[Direction, ...]]:
    """Read a direction file strictly.

    Args:
        path: the safetensors file.

    Returns:
        The texts of TEXTS, and the directions.

    Raises:
        DirectionError: the file is missing or damaged, or says what cannot be.
    """
    if not path.is_file():
        raise DirectionError(f"{path} does not exist; expected a directions.safetensors file.")
    try:
        return open_safetensors(path, lambda file: _read_open(file, path))
    except HublatentError:
        raise
    except (ValueError, OSError) as error:
        raise DirectionError(f"{path} is not a readable safetensors file: {error}.") from error


def _read_open(file: Any, path: Path) -> tuple[dict[str, str | None], tuple[Direction, ...]]:
    document = _parse_document(file.metadata() or {}, path)
    entries = [_entry(item, path) for item in _list(document, "directions", path)]
    names = [f"{e['attribute']}.{e['method']}.vector" for e in entries]
    if sorted(names) != sorted(file.keys()):
        raise DirectionError(f"{path}: its tensors and its list of directions disagree.")
    for name in names:
        dtype = file.get_slice(name).get_dtype()
        if dtype != "F32":
            raise DirectionError(f"{path}: {shorten(name)} has the type {dtype}; expected F32.")
    directions = tuple(
        _from_json(entry, file.get_tensor(name), path)
        for entry, name in zip(entries, names, strict=True)
    )
    texts = {key: document.get(key) for key in TEXTS}
    for key, text in texts.items():
        if text is not None or key in ("architecture", "space", "fingerprint"):
            _check_text(key, text, path)
    return texts, directions


def _check_text(key: str, value: Any, path: Path) -> None:
    """Texts go to terminals, cards and the app: no control characters, no half characters."""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise DirectionError(
            f"{path}: {key} = {shorten(value)} is not a text of at most {MAX_TEXT} printable "
            "characters."
        )


def _parse_document(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    text = metadata.get(FORMAT)
    if text is None:
        raise DirectionError(
            f"{path} is a safetensors file, but not one of hublatent directions. Bring other "
            "formats in with: python -m hublatent import-directions"
        )
    try:
        document = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise DirectionError(f"{path}: its metadata is not JSON: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DirectionError(f"{path}: its metadata is not a {FORMAT} document.")
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise DirectionError(
            f"{path} has version {shorten(version)}; this hublatent reads 1 to {FORMAT_VERSION}. "
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


_LOWEST = {"sigma": 0.0, "n_positive": 0.0, "n_negative": 0.0, "surviving_norm": 0.0}
MAX_NUMBER = 1e30


def _entry(item: Any, path: Path) -> dict[str, Any]:
    """Check one direction's JSON, field by field."""
    if not isinstance(item, dict) or set(item) != set(_FIELD_TYPES):
        raise DirectionError(f"{path}: a direction has exactly {', '.join(_FIELD_TYPES)}.")
    for key, types in _FIELD_TYPES.items():
        value = item[key]
        if not isinstance(value, types) or isinstance(value, bool):
            raise DirectionError(f"{path}: {key} = {shorten(value)} has the wrong type.")
        if isinstance(value, str):
            _check_text(key, value, path)
        elif isinstance(value, (int, float)):
            low = _LOWEST.get(key, -MAX_NUMBER)
            if not low <= value <= MAX_NUMBER:  # NaN too
                raise DirectionError(
                    f"{path}: {key} = {shorten(value)} is not finite, or below {low:g}."
                )
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
        _check_text("a score's name", name, path)
        numbers = triple if isinstance(triple, list) else []
        if len(numbers) != 3 or not all(
            type(x) in (int, float) and abs(x) <= MAX_NUMBER for x in numbers
        ):
            raise DirectionError(
                f"{path}: the score {shorten(name)} is not [value, low, high], all finite."
            )
        scores[name] = Estimate(*map(float, numbers))
    for name in entry["conditioned_on"]:
        _check_text("a name in conditioned_on", name, path)
    values = {k: v for k, v in entry.items() if k not in ("scores", "conditioned_on", "layers")}
    held = tuple(entry["conditioned_on"])
    direction = Direction(vector=vector, scores=scores, conditioned_on=held, **values)
    layers = entry["layers"]
    if direction.layers != (None if layers is None else tuple(layers)):
        raise DirectionError(f"{path}: {direction.name} touches other layers than it says.")
    return direction
