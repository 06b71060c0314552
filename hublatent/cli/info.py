"""hublatent info: what a model's folder or repository holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hublatent.cli.options import Model, Revision, describe

if TYPE_CHECKING:
    from hublatent.direction import Direction


def info(model: Model, revision: Revision = None, all: bool = False) -> None:
    """Show what a model is, its fingerprint, and which directions it has.

    Args:
        model: a folder or a Hub id, of a generative model or of a classifier.
        revision: branch, tag or commit on the Hub.
        all: show every direction with its scores, or every attribute of a classifier.
    """
    from hublatent.checkpoint import read_config
    from hublatent.direction_set import DirectionSet
    from hublatent.hub import DIRECTIONS_NAME, MODEL_FILES, snapshot
    from hublatent.models import load
    from hublatent.perception.classifier import AttributeClassifier

    where = snapshot(model, revision=revision, files=MODEL_FILES, optional=(DIRECTIONS_NAME,))
    if read_config(where.folder)["architecture"] == AttributeClassifier.architecture:
        classifier = AttributeClassifier.from_snapshot(where)
        names = classifier.attribute_names
        print(f"{model} reads {len(names)} attributes in pictures; it draws none.")
        describe(classifier)
        print("\n  ".join(("attributes:", *names)) if all else f"attributes: {_some(names)}")
        return
    loaded = load(model, revision=where.commit)
    describe(loaded)
    path = where.folder / DIRECTIONS_NAME
    directions = DirectionSet.load(path, loaded) if path.is_file() else None
    print(f"directions: {len(directions) if directions else 'none'}")
    if directions is not None and all:
        for direction in directions:
            print(f"  {_line(direction)}")
    elif directions is not None:
        print(f"attributes: {_some(directions.attributes)}")
        print(f"methods: {', '.join(directions.methods)}\nEvery direction and its scores: --all")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more (--all)" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _line(direction: Direction) -> str:
    """A direction's name, its sigma and its scores."""
    parts = [direction.name]
    if direction.sigma is not None:
        parts.append(f"sigma {direction.sigma:.3g}")
    if direction.layers is not None:
        parts.append(f"layers {', '.join(map(str, direction.layers))}")
    parts += [f"{k} {s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for k, s in direction.scores.items()]
    return "; ".join(parts)
