"""How results become files: JSON with rounded numbers and short intervals, and flat CSV tables."""

from __future__ import annotations

import csv
import io
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from hublatent.stats import Estimate

if TYPE_CHECKING:
    from hublatent.comparison.results import Edits, Separability

DIGITS = 6


def to_json(value: Any) -> Any:
    """A dataclass, or values of them, as JSON: a Estimate is [value, low, high], NaN is null."""
    if isinstance(value, Estimate):
        return [to_json(value.value), to_json(value.low), to_json(value.high)]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.{DIGITS}g}")
    return value


def from_json(kind: Any, value: Any) -> Any:
    """The inverse of `to_json`.

    Args:
        kind: a dataclass, or a type of one of its fields.
        value: from JSON.

    Raises:
        KeyError, TypeError, ValueError: the value is not of that kind.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Estimate:
        first, low, high = value
        return Estimate(*(math.nan if x is None else float(x) for x in (first, low, high)))
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: from_json(hints[name], item) for name, item in value.items()})
    if origin in (Union, types.UnionType):
        present = next(a for a in arguments if a is not type(None))
        return None if value is None else from_json(present, value)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(from_json(arguments[0], item) for item in value)
        return tuple(from_json(a, item) for a, item in zip(arguments, value, strict=True))
    if origin is not None:  # Mapping[str, X]
        return {key: from_json(arguments[1], item) for key, item in value.items()}
    if kind is float:
        return math.nan if value is None else float(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.60} is not of the type {kind.__name__}")
    return value


def separability_rows(rows: Sequence[Separability]) -> Iterator[dict[str, Any]]:
    """One flat row for each; learning curves are in results.json alone."""
    for row in rows:
        plain = asdict(row)
        scores = {k: v for k, v in plain.items() if isinstance(getattr(row, k), Estimate)}
        yield {
            **{k: v for k, v in plain.items() if k not in scores and k != "curve"},
            **{name: value for k in scores for name, value in _cells(k, getattr(row, k)).items()},
        }


def edit_rows(rows: Sequence[Edits]) -> Iterator[dict[str, Any]]:
    """One flat row for each strength of each."""
    for row in rows:
        for i, strength in enumerate(row.strengths):
            yield {
                "model": row.model,
                "attribute": row.attribute,
                "method": row.method,
                "faces": row.faces,
                "n": row.n,
                "strength": strength,
                "share": row.share[i],
                **_cells("target", row.target[i]),
                **_cells("leakage", row.leakage[i]),
                **_cells("distance", row.distance[i]),
                **_cells("similarity", row.similarity[i]),
                **_cells("realism", row.realism[i] if row.realism else None),
                **_cells("equal_effect_strength", row.equal_effect.strength),
                **_cells("equal_effect_leakage", row.equal_effect.leakage),
                **_cells("equal_effect_distance", row.equal_effect.distance),
                **_cells("equal_effect_similarity", row.equal_effect.similarity),
                **_cells("equal_effect_realism", row.equal_effect.realism),
                "above_null": row.above_null,
                "note": row.note,
            }


def _cells(name: str, score: Estimate | None) -> dict[str, float | None]:
    values = (None, None, None) if score is None else (score.value, score.low, score.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def csv_text(rows: Iterator[dict[str, Any]]) -> str:
    """A table with a head, numbers rounded; nothing where there are no rows."""
    text = io.StringIO()
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({k: "" if v is None else to_json(v) for k, v in row.items()})
    return text.getvalue()
