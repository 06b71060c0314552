"""How well the chosen models are read and edited: what the tab "Scores" shows.

Reading comes from the direction file of any model, editing from a comparison that was made before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hublatent.demo.shelf import OpenModel
from hublatent.evaluation.report import (
    FIGURES,
    NONE,
    Summary,
    figure_of,
    interval,
    read_summary,
)
from hublatent.stats import Estimate

READING_COLUMNS = ("model", "direction", "accuracy", "AUROC", "examples")
COMMAND = "python -m hublatent compare MODEL... --data DATA --out model_cards/comparison"


def find_comparison(folder: Path) -> Summary | None:
    """The comparison that a folder holds; None where none was made.

    Raises:
        DataError: it is damaged, or of another version.
    """
    return read_summary(folder)


def reading_rows(opened: Sequence[OpenModel], attribute: str) -> list[list[str]]:
    """How well each direction of an attribute tells it on people it was not fitted on.

    Args:
        opened: the models.
        attribute: of the directions.

    Returns:
        Rows of READING_COLUMNS, with 95% intervals; those of an unknown attribute are missing.
    """
    return [
        [
            model.name,
            model.directions.method_of(direction),
            _cell(direction.scores.get("accuracy")),
            _cell(direction.scores.get("auroc")),
            NONE if direction.n_positive is None else f"{direction.n_positive:,}",
        ]
        for model in opened
        if model.directions is not None
        for direction in model.directions
        if direction.attribute == attribute
    ]


def editing_rows(comparison: Summary | None, attribute: str) -> list[list[str]]:
    """Rows of EDITING_COLUMNS, strongest first; none of an attribute not compared."""
    rows = comparison.editing.get(attribute, ()) if comparison else ()
    return [list(row) for row in rows[1:]]


def claim_rows(comparison: Summary | None) -> list[list[str]]:
    """The paper's claims and their verdicts."""
    return [list(claim[:2]) for claim in comparison.claims] if comparison else []


def figures(folder: Path | None) -> list[tuple[str, bytes]]:
    """The figures (title, PNG) of the comparison, as it wrote them."""
    found = {FIGURES[name]: figure_of(folder, name) for name in FIGURES} if folder else {}
    return [(title, png) for title, png in found.items() if png is not None]


def note(comparison: Summary | None, attribute: str) -> str:
    """What a reader of the tables has to know, as Markdown."""
    if comparison is None:
        return f"No comparison of edits is here. It is made by `{COMMAND}`."
    told = " ".join(comparison.answer)
    if attribute not in comparison.editing:
        compared = ", ".join(comparison.editing)
        return f"{told}\n\nEdits of {attribute} were not compared; of {compared} they were."
    return (
        f"{told}\n\nStrong: the face shows the attribute before it breaks; onset: the strength "
        "where it appears; leakage: what else changes there. Models that are not listed were not "
        "compared."
    )


def _cell(score: Estimate | None) -> str:
    return NONE if score is None else interval(score)
