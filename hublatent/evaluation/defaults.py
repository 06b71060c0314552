"""Which method, on which layers, edits an attribute best in one model: its defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from hublatent.direction import Direction, LayerRange, offered_ranges
from hublatent.direction_set import DEFAULT_METHOD, DirectionSet
from hublatent.errors import DataError
from hublatent.evaluation import outcomes
from hublatent.evaluation.edits import edit_rows, faces_without
from hublatent.evaluation.judges import Judges
from hublatent.evaluation.subjects import Subject
from hublatent.storage import write_text

AS_GOOD = 0.1  # shares of strong edits that are no nearer are told apart
COLUMNS = ("strong", "decohered", "onset", "logit_leakage", "identity")
Key = tuple[str, str]  # method and layers; "" for those that a direction was found on


def choose_defaults(
    subject: Subject, judges: Judges, attributes: Sequence[str], methods: Sequence[str] = (),
    n_faces: int = 40, seed: int = 0, finished: Path | None = None,
) -> tuple[DirectionSet, pd.DataFrame]:  # fmt: skip
    """Choose on validation people, and tell on test people what the choice is worth.

    Of the stored methods (or some of them), each on the layers it was found on, on each third of
    the layers and on all, the one is chosen whose edits are most often strong (the attribute is
    there before the face breaks); among those within 0.1 of it, the one that leaks least, by the
    judge's logits.

    A file `finished` keeps what is known of each attribute: a call that was killed goes on from it.

    Returns:
        The directions with their defaults, and a row for each candidate: attribute, partition
        ("validation"; the chosen one and "joint" also "test"), method, layers, COLUMNS.
    """
    if subject.stored is None:
        raise DataError(f"{subject.folder} holds no directions to choose from.")
    stored = [[d.name, d.layers, d.squared_norm, d.sigma] for d in subject.stored]
    call = [*subject.key, judges.name, stored, methods, n_faces, seed]
    known: dict[str, Any] = {}
    if finished is not None and finished.is_file():
        known = json.loads(finished.read_text(encoding="utf-8"))
    rows, chosen = [], {}
    for attribute in tqdm(attributes, desc="choose", unit="attribute"):
        key = json.dumps([*call, attribute])
        if key not in known:
            known[key] = _choose(subject, judges, attribute, methods, n_faces, seed)
            if finished is not None:
                write_text(finished, json.dumps(known) + "\n")
        best, found = known[key]
        chosen[attribute] = tuple(best)
        rows += found
    defaults = {**subject.stored.defaults, **chosen}
    return replace(subject.stored, defaults=defaults), pd.DataFrame(rows)


def _choose(
    subject: Subject, judges: Judges, attribute: str, methods: Sequence[str], n_faces: int,
    seed: int,
) -> tuple[Key, list[dict[str, Any]]]:  # fmt: skip
    """The best method and layers for an attribute, and the rows of all that were tried."""
    assert subject.stored is not None, "looked at before"
    candidates = dict(_candidates(subject, subject.stored, attribute, methods))
    if not candidates:
        raise DataError(f"Of {attribute} no direction of {', '.join(methods)} is stored.")
    found = _scores(subject, judges, attribute, candidates, "validation", n_faces, seed)
    strong = max(row["strong"] for row in found.values())
    good = {key: row for key, row in found.items() if row["strong"] >= strong - AS_GOOD}
    best = min(good, key=lambda key: (good[key]["logit_leakage"], -good[key]["strong"]))
    told = {k: candidates[k] for k in (best, (DEFAULT_METHOD, "")) if k in candidates}
    test = _scores(subject, judges, attribute, told, "test", n_faces, seed)
    rows = [
        {"attribute": attribute, "partition": partition, "method": method,
         "layers": layers or "as found", **row}
        for partition, part in (("validation", found), ("test", test))
        for (method, layers), row in part.items()
    ]  # fmt: skip
    return best, rows


def _candidates(
    subject: Subject, stored: DirectionSet, attribute: str, methods: Sequence[str]
) -> Iterator[tuple[Key, Direction]]:
    """(method, layers) and the direction."""
    shape = subject.model.latent_shape
    ranges = offered_ranges(shape[0]) if len(shape) == 2 else ()
    for direction in stored:
        method = stored.method_of(direction)
        if direction.attribute != attribute or (methods and method not in methods):
            continue
        seen = {direction.layers}
        yield (method, ""), direction.with_sigma(subject.model)
        for layers in ranges:
            moved = LayerRange.parse(layers).of(direction)
            if moved.layers not in seen:
                seen.add(moved.layers)
                yield (method, layers), moved.with_sigma(subject.model)


def _scores(
    subject: Subject, judges: Judges, attribute: str, candidates: dict[Key, Direction],
    partition: str, n_faces: int, seed: int,
) -> dict[Key, dict[str, float]]:  # fmt: skip
    """What the edits of each candidate achieve on the people of a partition."""
    faces = faces_without(subject, judges, attribute, n_faces, seed, partition)
    # The table tells candidates apart by their method alone.
    named = [replace(d, method=f"{i}") for i, d in enumerate(candidates.values())]
    table = edit_rows(subject, judges, attribute, named, *faces)
    strips = outcomes.edits(table.assign(model=subject.name, training=subject.training))
    found = {}
    for i, key in enumerate(candidates):
        summary = outcomes.summary(strips[strips["method"] == f"{i}"])
        found[key] = {name: summary[name] for name in COLUMNS}
    return found
