"""The safetensors file of a DirectionSet: tensors and one JSON document, read strictly.

Tensors are named <attribute>.<method>.vector; the rest is one JSON document in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hublatent.direction import Direction, Score
from hublatent.errors import DirectionError, HublatentError
from hublatent.files import atomic_path
from hublatent.safe_files import naming, open_safetensors, parse_json, save_safetensors, shorten

FORMAT = "hublatent-directions"
FORMAT_VERSION = 1
MAX_TEXT = 1000
# What is said of all directions of a file; the last two are absent from most.
TEXTS = ("architecture", "space", "fingerprint", "override", "licence")


def write(path: Path, texts: Mapping[str, str | None], directions: Iterable[Direction]) -> None:
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


def read(path: Path) -> tuple[dict[str, str | None], tuple[Direction, ...]]:
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
        scores[name] = Score(*map(float, numbers))
    for name in entry["conditioned_on"]:
        _check_text("a name in conditioned_on", name, path)
    values = {k: v for k, v in entry.items() if k not in ("scores", "conditioned_on", "layers")}
    held = tuple(entry["conditioned_on"])
    direction = Direction(vector=vector, scores=scores, conditioned_on=held, **values)
    layers = entry["layers"]
    if direction.layers != (None if layers is None else tuple(layers)):
        raise DirectionError(f"{path}: {direction.name} touches other layers than it says.")
    return direction
