"""Which directions a card shows, and its section on measured quantities."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.publish.cells import interval_cell, table

HEADLINE_ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
EXAMPLE_METHODS = ("joint", "pattern", "svm")  # the one that edits best first
MEASURED_HEADING = "### Changes of measured quantities"


def of_headline(directions: DirectionSet | None) -> list[Direction]:
    """The directions of the headline attributes; the first three where there are none."""
    wanted = [d for name in HEADLINE_ATTRIBUTES for d in directions or () if d.attribute == name]
    return wanted or list(directions or ())[:3]


def best_of_each(directions: Iterable[Direction]) -> list[Direction]:
    """One direction of each attribute: found in encoded images, of the method that edits best, if
    there is one.
    """
    rank = {method: i for i, method in enumerate(EXAMPLE_METHODS)}

    def order(direction: Direction) -> tuple[bool, int]:
        elsewhere = direction.origin is not None and direction.origin.kind != "encoded"
        return elsewhere, rank.get(direction.method, len(rank))

    best: dict[str, Direction] = {}
    for direction in directions:
        known = best.setdefault(direction.attribute, direction)
        best[direction.attribute] = min(known, direction, key=order)
    return list(best.values())


def measured_section(directions: DirectionSet | None) -> str:
    """How exactly requested changes of measured quantities come out; "" where nobody measured."""
    scores = ("effect", "R2 of changes")
    rows = [
        [direction.attribute, *(interval_cell(name, direction.scores[name]) for name in scores)]
        for direction in directions or ()
        if "R2 of changes" in direction.scores
    ]
    if not rows:
        return ""
    return (
        f"{MEASURED_HEADING}\n\nEffect: how many of its standard deviations one sigma along "
        "`supervised-pca` changes the quantity, so a change c takes the strength c / effect. R²: "
        "of the changes obtained against those requested, one and two deviations up and down, on "
        "test people (`python -m hublatent find-measured`).\n\n"
        + str(table(("quantity", "effect", "R²"), rows))  # Markup would escape the card
    )


def with_measured(card: str, directions: DirectionSet) -> str:
    """A model's card whose section on measured quantities is made anew, after its directions."""
    plain = re.sub(rf"{MEASURED_HEADING}\n.*?(?=^##? )", "", card, flags=re.S | re.M)
    start = plain.find("\n## Directions\n")
    end = plain.find("\n## ", start + 1) + 1
    if start < 0 or not end:
        return card
    return plain[:end] + measured_section(directions) + plain[end:]
