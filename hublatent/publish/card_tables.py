"""The tables of a card, and which directions it shows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.publish.cells import check_number, code, interval_cell, table, text
from hublatent.stats import Estimate

if TYPE_CHECKING:
    from hublatent.publish.card import CardInput

HEADLINE_ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
EXAMPLE_METHODS = ("joint", "pattern", "svm")  # the one that edits best first
SCORES = ("accuracy", "precision", "recall", "f1", "auroc")
BASELINE_METHOD = "svm"
MEASURED_HEADING = "### Changes of measured quantities"


def of_headline(directions: DirectionSet | None) -> list[Direction]:
    """The directions of the headline attributes; the first three where there are none."""
    wanted = [d for name in HEADLINE_ATTRIBUTES for d in directions or () if d.attribute == name]
    return wanted or list(directions or ())[:3]


def best_of_each(directions: Iterable[Direction]) -> list[Direction]:
    """One direction of each attribute: of the method that edits best, if it is there."""
    rank = {method: i for i, method in enumerate(EXAMPLE_METHODS)}
    best: dict[str, Direction] = {}
    for direction in directions:
        known = best.setdefault(direction.attribute, direction)
        if rank.get(direction.method, len(rank)) < rank.get(known.method, len(rank)):
            best[direction.attribute] = direction
    return list(best.values())


def score_table(given: CardInput) -> Markup:
    """The headline attributes' directions, then each baseline's; of directions alone, all."""
    directions = given.directions
    if directions is None:
        return Markup("")
    wanted = of_headline(directions) if given.kind == "model" else directions
    scored = [direction for direction in wanted if direction.scores]
    rows: list[list[Any]] = []
    for attribute in dict.fromkeys(direction.attribute for direction in scored):
        shown = [(code(directions.method_of(d)), d) for d in scored if d.attribute == attribute]
        for name, baseline in given.baselines.items():
            if (attribute, BASELINE_METHOD) in baseline:
                label = Markup(f"{text(name)} {code(BASELINE_METHOD)}")
                shown.append((label, baseline[attribute, BASELINE_METHOD]))
        rows += [[attribute, label, *_score_cells(direction)] for label, direction in shown]
    head = ("attribute", "direction", "accuracy", "precision", "recall", "F1", "AUROC")
    return table(head, rows)


def _score_cells(direction: Direction) -> list[str]:
    return [interval_cell(f"{direction.name} {s}", direction.scores.get(s)) for s in SCORES]


def attribute_table(given: CardInput) -> Markup:
    """The accuracy of every attribute's directions, one column per method."""
    directions = given.directions
    if directions is None or given.kind != "model":
        return Markup("")
    order = {name: i for i, name in enumerate(HEADLINE_ATTRIBUTES)}
    rows = []
    for attribute in sorted(directions.attributes, key=lambda a: order.get(a, len(order))):
        ours = {directions.method_of(d): d for d in directions if d.attribute == attribute}
        # Only the joint regression uses more than the balanced set.
        n = next((d.n_positive for d in ours.values() if d.method != "joint"), None)
        share = given.shares.get(attribute)
        share_cell = "-" if share is None else f"{check_number(f'share of {attribute}', share):.1%}"
        cells = (_score_cells(ours[m])[0] if m in ours else "-" for m in directions.methods)
        rows.append([attribute, share_cell, "-" if n is None else f"{n:,}", *cells])
    return table(("attribute", "share", "examples", *directions.methods), rows)


def direction_table(directions: DirectionSet | None) -> Markup:
    """What directions were found from."""
    head = ("direction", "sigma", "layers", "examples", "found in", "held")
    return table(head, map(_direction_row, directions or ()))


def _direction_row(direction: Direction) -> list[Any]:
    counts = (direction.n_positive, direction.n_negative)
    sigma, layers = direction.sigma, direction.layers
    return [
        code(direction.name),
        "-" if sigma is None else f"{check_number(f'{direction.name} sigma', sigma):.4g}",
        "-" if layers is None else " ".join(map(str, layers)),
        "-" if None in counts else f"{counts[0]:,} / {counts[1]:,}",
        str(direction.origin or "-"),
        ", ".join(direction.conditioned_on) or "-",
    ]


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


def classifier_table(given: CardInput) -> Markup:
    """How well a classifier reads each attribute, and their mean."""
    test = given.results.get("test") or {}
    read = [(name, f"{s['n_positive']:,}", s) for name, s in test.get("attributes", {}).items()]
    if "mean" in test:
        read.append((Markup("**mean**"), "", test["mean"]))
    rows = []
    for name, n_positive, scores in read:
        found = {s: Estimate(**scores[s]) if scores.get(s) else None for s in ("auroc", "ece")}
        cells = (interval_cell(f"{name} {score}", estimate) for score, estimate in found.items())
        rows.append([name, n_positive, *cells])
    return table(("attribute", "positives", "AUROC", "calibration error"), rows)
