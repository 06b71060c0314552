"""Others' directions: formats.py reads their files, this fits them to a model here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hublatent.direction import Direction
from hublatent.direction_set import UNKNOWN, DirectionSet
from hublatent.errors import DirectionError
from hublatent.interop.formats import ForeignDirection, read_foreign
from hublatent.interop.stylespace import import_channels, read_channels
from hublatent.model import LatentModel

# What a space is called in an error: InterFaceGAN's readers know these names.
_SPACES = {"z": "Z, the generator's input", "w": "W", "w+": "W+"}


@dataclass(frozen=True, eq=False)
class Imported:
    """Directions as one set, and a line per file: what it was taken for, what it lacked."""

    directions: DirectionSet
    report: tuple[str, ...]


def import_directions(
    paths: Iterable[str | Path], attribute: str | None = None, model: LatentModel | None = None, *,
    layers: Sequence[int] | None = None, space: str | None = None, licence: str | None = None,
) -> Imported:  # fmt: skip
    """Import every direction of several files, lists of StyleSpace channels among them, as one set.

    Args:
        attribute: what they change; their methods tell them apart. None calls each after its file,
            or after the name that it has in its file.
        model: the model they are for, on the user's word; without one the set belongs to none.
        layers, space: see `to_direction`.
        licence: the terms their author gave, in a sentence; goes with the set, and on its card.

    Raises:
        DirectionError: a file is damaged or does not fit the model; names the file.
    """
    directions: list[Direction] = []
    report, spaces = [], set()
    for path in map(Path, paths):
        try:
            channels = read_channels(path)
            if channels is None:
                found = read_foreign(path)
                new = _directions(found, attribute, model, layers, space)
                line, its_space = _describe(found, space, model), space or found[0].space or UNKNOWN
            else:
                new, line = import_channels(channels, attribute or _clean(path.stem), model)
                its_space = "w+"
        except DirectionError as error:
            text = str(error)
            raise DirectionError(text if str(path) in text else f"{path}: {text}") from error
        directions += [_unlike(direction, directions) for direction in new]
        spaces.add(its_space)
        report.append(f"{path.name}: {line}")
    if not directions:
        raise DirectionError("No file was given to import.")
    if model is not None:
        found_set = replace(DirectionSet.of(model, directions), licence=licence)
        return Imported(found_set, tuple(report))
    if len(spaces) > 1:
        raise DirectionError(
            f"The files are of different spaces ({', '.join(sorted(spaces))}); import them apart, "
            "or name the model they are for."
        )
    unbound = DirectionSet(tuple(directions), UNKNOWN, spaces.pop(), UNKNOWN, licence=licence)
    return Imported(unbound, tuple(report))


def to_direction(
    foreign: ForeignDirection, attribute: str | None = None, model: LatentModel | None = None, *,
    layers: Sequence[int] | None = None, space: str | None = None, method: str | None = None,
) -> Direction:  # fmt: skip
    """Make a Direction of a foreign one; its norm is kept.

    A single row goes onto `layers`, else onto the layers that its author moves, else onto all. Rows
    per layer are kept; on other layers than `layers`, or than those its author moves, they become
    zero. A row (1, L * D) is taken for the rows of all layers. Threshold and gain stay absent;
    sigma is measured on the model.

    Args:
        attribute: what it changes, such as "Age"; None takes the name of the file, or in it.
        model: the model it is for, on the user's word; None leaves layers and sigma open.
        space: "z", "w" or "w+", where the file's own word is wrong or missing.
        method: the direction's method; None takes the format's name.

    Raises:
        DirectionError: space, width or layers do not fit the model, or nothing says which space.
    """
    rows = torch.from_numpy(np.array(foreign.vector))  # (1, D) or (L, D)
    vector = rows[0] if len(rows) == 1 else rows
    if model is not None:
        if _is_flat(foreign, model):
            rows = rows.reshape(model.latent_shape)
            foreign = replace(foreign, space=foreign.space or "w+")
        vector = _fit(rows, foreign, model, layers)
        _check_space(foreign, space or foreign.space, model)
    direction = Direction(
        attribute or _clean(foreign.name), method or foreign.source_format, vector,
        conditioned_on=foreign.conditioned_on,
    )  # fmt: skip
    return direction if model is None else direction.with_sigma(model)


def _directions(
    found: Sequence[ForeignDirection], attribute: str | None, model: LatentModel | None,
    layers: Sequence[int] | None, space: str | None,
) -> list[Direction]:  # fmt: skip
    """The directions of one file; those of one attribute, or of none, have numbered methods."""
    is_numbered = len(found) > 1 and (attribute is not None or found[0].is_component)
    return [
        to_direction(
            one, attribute, model, layers=layers, space=space,
            method=f"{one.source_format}-{i}" if is_numbered else None,
        )
        for i, one in enumerate(found)
    ]  # fmt: skip


def _describe(
    found: Sequence[ForeignDirection], space: str | None, model: LatentModel | None
) -> str:
    first = found[0]
    count = f"{len(found)} directions" if len(found) > 1 else "a direction"
    shape = " and ".join(dict.fromkeys("x".join(map(str, one.vector.shape)) for one in found))
    known = set() if space is None else {"space"}
    if model is not None and _is_flat(first, model):
        shape += f", read as {'x'.join(map(str, model.latent_shape))}"
        space, known = space or "w+", {"space", "layers"}
    where = _SPACES.get(space or first.space or "", "an unstated space")
    layers = f", layers {' '.join(map(str, first.layers))}" if first.layers else ""
    lacks = ", ".join(name for name in first.missing if name not in known)
    return f"{count} in {where} ({first.source_format}, {shape}{layers}); the file lacks: {lacks}"


def _clean(text: str) -> str:
    """A file's name, or a name in it, as an attribute's."""
    kept = "".join("-" if c in "./\\" else c for c in text if c.isprintable())
    return kept[:100] or "direction"


def _unlike(direction: Direction, others: list[Direction]) -> Direction:
    """The direction under a method that no other one has: the second gets "-2"."""
    taken, method, n = {other.name for other in others}, direction.method, 1
    while direction.name in taken:
        n += 1
        direction = replace(direction, method=f"{method}-{n}")
    return direction


def _check_space(foreign: ForeignDirection, space: str | None, model: LatentModel) -> None:
    theirs = f"The latents of {type(model).__name__} are in {_SPACES[model.space]}"
    if space is None:
        raise DirectionError(
            f"{foreign.name}: neither the file nor its format says in which latent space it is; "
            f"state it with --space z, w or w+ (in Python space=), as its author says. {theirs}."
        )
    if space not in _SPACES:
        raise DirectionError(f"Unknown space {space!r}; expected one of {', '.join(_SPACES)}.")
    if (space == "z") != (model.space == "z"):
        raise DirectionError(
            f"{foreign.name} is a direction in {_SPACES[space]}; {theirs[0].lower()}{theirs[1:]}, "
            "where it means nothing. If its name misleads, state its space with --space."
        )


def _is_flat(foreign: ForeignDirection, model: LatentModel) -> bool:
    """Whether a single row holds the rows of all the model's layers, one after another."""
    shape = model.latent_shape
    return len(shape) == 2 and shape[0] > 1 and foreign.vector.shape == (1, math.prod(shape))


def _fit(
    rows: Tensor, foreign: ForeignDirection, model: LatentModel, layers: Sequence[int] | None
) -> Tensor:
    """Rows (1, D) or (L, D) as a vector of the model's latent_shape."""
    n, width = rows.shape
    shape, name = model.latent_shape, type(model).__name__
    n_layers = shape[0] if len(shape) == 2 else 1
    if width != shape[-1] or n not in (1, n_layers):
        raise DirectionError(
            f"{foreign.name} has the shape {tuple(rows.shape)}; the latents of {name} have {shape}."
        )
    if len(shape) == 1:
        if layers is not None:
            raise DirectionError(f"The latents of {name} have no layers to choose.")
        return rows[0]
    chosen = list(foreign.layers or range(n_layers)) if layers is None else list(layers)
    if not chosen or not all(0 <= layer < n_layers for layer in chosen):
        raise DirectionError(
            f"{foreign.name} moves the layers {chosen}; {name} has the layers 0 to {n_layers - 1}, "
            f"its latents the shape {shape}."
        )
    vector = torch.zeros(shape)
    vector[chosen] = rows.expand(shape)[chosen]
    return vector  # (L, D)
