"""hublatent info: what a model's folder or repository holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hublatent.cli.options import Model, Revision, describe

if TYPE_CHECKING:
    from hublatent.direction import Direction
    from hublatent.direction_set import DirectionSet


def info(model: Model, revision: Revision = None, all: bool = False) -> None:
    """Show what a model is, its fingerprint, and which directions it has.

    Args:
        model: a folder or a Hub id, of a generative model or of a classifier.
        revision: branch, tag or commit on the Hub.
        all: show every direction with its scores.
    """
    from hublatent.checkpoint import read_config
    from hublatent.direction_set import DirectionSet
    from hublatent.hub import DIRECTIONS_NAME, MODEL_FILES, snapshot
    from hublatent.models import load
    from hublatent.perception.classifier import AttributeClassifier

    where = snapshot(model, revision=revision, files=MODEL_FILES, optional=(DIRECTIONS_NAME,))
    if read_config(where.folder)["architecture"] == AttributeClassifier.architecture:
        classifier = AttributeClassifier.from_snapshot(where)
        n_attributes = len(classifier.attribute_names)
        print(f"{model} reads {n_attributes} attributes in pictures; it draws none.")
        describe(classifier)
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
        _summarise(directions)


def _summarise(directions: DirectionSet) -> None:
    names = ", ".join(directions.attributes[:6])
    more = f" and {len(directions.attributes) - 6} more" if len(directions.attributes) > 6 else ""
    print(f"attributes: {names}{more}\nmethods: {', '.join(directions.methods)}")
    print("Every direction and its scores: --all")


def _line(direction: Direction) -> str:
    """A direction's name, its sigma and its scores."""
    parts = [direction.name]
    if direction.sigma is not None:
        parts.append(f"sigma {direction.sigma:.3g}")
    if direction.layers is not None:
        parts.append(f"layers {', '.join(map(str, direction.layers))}")
    parts += [f"{k} {s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for k, s in direction.scores.items()]
    return "; ".join(parts)
