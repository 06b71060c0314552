"""How well the chosen models are read and edited: what the tab "Scores" shows.

Reading comes from the direction file of any model, editing from a comparison that was made before.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from hublatent.demo.names import human_name
from hublatent.demo.shelf import OpenModel
from hublatent.demo.webpage import plot_html, table_html
from hublatent.evaluation import report
from hublatent.evaluation.report import EDITING_COLUMNS, NONE, Summary
from hublatent.stats import Estimate

READING_COLUMNS = ("model", "direction", "accuracy", "AUROC", "examples")
LEVELS = {"supported": "good", "equivalent": "fair", "contradicted": "bad"}  # of verdicts
COMMAND = "python -m hublatent compare MODEL... --data DATA --out model_cards/comparison"


def reading_rows(opened: Sequence[OpenModel], attribute: str) -> list[list[str]]:
    """Rows of READING_COLUMNS, with 95% intervals, on people that no direction was fitted on."""

    def cell(score: Estimate | None) -> str:
        return NONE if score is None else report.interval(score)

    return [
        [
            model.name,
            model.directions.method_of(direction),
            cell(direction.scores.get("accuracy")),
            cell(direction.scores.get("auroc")),
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


def figures(folder: Path | None) -> list[tuple[str, bytes]]:
    """The figures (title, PNG) of the comparison, as it wrote them."""
    names = report.FIGURES if folder else {}
    found = [(title, report.figure_of(folder, name)) for name, title in names.items() if folder]
    return [(title, png) for title, png in found if png is not None]


def scores_html(
    comparison: Summary | None, folder: Path | None, opened: Sequence[OpenModel], attribute: str,
    method: str,
) -> str:  # fmt: skip
    """The page: the verdict, one plot, the claims; then tables of the models on show.

    Args:
        comparison: of edits; None where none was made.
        folder: with its figures.
        opened: the models on show.
        attribute: whose figures are shown.
        method: of the directions whose figures are shown; those of the others are folded.
    """
    names, name = {model.name for model in opened}, human_name(attribute).lower()
    editing = [row for row in editing_rows(comparison, attribute) if row[0] in names]
    reading = reading_rows(opened, attribute)
    plots = [plot_html(*figure) for figure in figures(folder)] if comparison else []
    tables = [
        (f"Editing: {name}, from the comparison", EDITING_COLUMNS, editing),
        (f"Reading: {name}, from the direction files", READING_COLUMNS, reading),
    ]
    shown = "".join(
        table_html(title, columns, [row for row in rows if row[1] == method])
        for title, columns, rows in tables
    )
    return (
        f'<div class="hl-scores"><div>{note(comparison, attribute)}{"".join(plots[:1])}</div>'
        f"<div>{_claims_html(comparison)}</div></div>"
        f'<div class="hl-tables">{shown}</div>'
        f"{_folded('All methods', ''.join(table_html(*table) for table in tables))}"
        f"{_folded('More plots', ''.join(plots[1:]))}"
    )


def note(comparison: Summary | None, attribute: str) -> str:
    """What was found, and what a reader of the tables has to know, as HTML."""
    if comparison is None:
        return (
            "<p>No comparison of edits is here. It is made by</p>"
            f"<pre>{escape(COMMAND)}</pre><p>Below is how well directions read.</p>"
        )
    first, *rest = comparison.answer
    told = "".join(f"<li>{escape(sentence)}</li>" for sentence in rest)
    text = "Strong: the face shows the attribute before it breaks; onset: the strength where it " \
        "appears; leakage: what else changes there."  # fmt: skip
    if attribute not in comparison.editing:
        compared = ", ".join(human_name(name).lower() for name in comparison.editing)
        text = (
            f"Edits of {human_name(attribute).lower()} were not compared; of {compared} they were."
        )
    return f"<h3>{escape(first)}</h3><ul>{told}</ul><p>{escape(text)}</p>"


def _claims_html(comparison: Summary | None) -> str:
    """The paper's claims, each with its verdict."""
    items = "".join(
        f'<li><i class="hl-dot" data-level="{LEVELS.get(verdict.partition(",")[0], "none")}"></i>'
        f"<span>{escape(claim)}<small>{escape(verdict)}</small></span></li>"
        for claim, verdict, *_ in (comparison.claims if comparison else ())
    )
    return f'<h3>The paper\'s claims</h3><ul class="hl-claims">{items}</ul>' if items else ""


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>" if content else ""
