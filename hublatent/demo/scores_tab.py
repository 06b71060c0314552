"""The tab "Scores": how well the chosen models are read and edited.

Reading comes from the direction file of any model, editing from a comparison that was made before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from hublatent.demo.names import human_name
from hublatent.demo.shelf import OpenModel
from hublatent.demo.webpage import html
from hublatent.demo.wiring import LATEST, Changes, Wiring, html_part
from hublatent.errors import DirectionError
from hublatent.evaluation import report
from hublatent.evaluation.report import EDITING_COLUMNS, NONE, Summary

READING_COLUMNS = ("model", "direction", "accuracy", "AUROC", "examples")
LEVELS = {"supported": "good", "equivalent": "fair", "contradicted": "bad"}  # of verdicts
COMMAND = "python -m hublatent compare MODEL... --data DATA --out model_cards/comparison"


def reading_rows(opened: Sequence[OpenModel], attribute: str) -> list[list[str]]:
    """Rows of READING_COLUMNS, with 95% intervals, on people that no direction was fitted on."""
    rows = []
    for model in opened:
        if model.directions is None:
            continue
        for direction in [d for d in model.directions if d.attribute == attribute]:
            scores = (direction.scores.get(name) for name in ("accuracy", "auroc"))
            told = [NONE if score is None else report.interval(score) for score in scores]
            n = NONE if direction.n_positive is None else f"{direction.n_positive:,}"
            rows.append([model.name, model.directions.method_of(direction), *told, n])
    return rows


def scores_html(
    comparison: Summary | None, folder: Path | None, opened: Sequence[OpenModel], attribute: str,
    method: str,
) -> str:  # fmt: skip
    """The verdict, one plot, the claims; then tables of the models on show, those of one method."""
    shown, figures = {}, []
    for model in opened:
        try:
            direction = model.find(attribute, method)
            shown[model.name] = model.directions.method_of(direction) if model.directions else ""
        except DirectionError:
            shown[model.name] = method
    if comparison and folder:
        found = ((title, report.figure_of(folder, name)) for name, title in report.FIGURES.items())
        figures = [(title, png) for title, png in found if png is not None]
    edited = comparison.editing.get(attribute, ())[1:] if comparison else ()
    editing = [row for row in edited if row[0] in shown]
    name, reading = human_name(attribute).lower(), reading_rows(opened, attribute)
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        (f"Editing: {name}, from the comparison", EDITING_COLUMNS, editing),
        (f"Reading: {name}, from the direction files", READING_COLUMNS, reading),
    ]
    first = [
        (title, columns, [row for row in rows if row[1] == shown[row[0]]])
        for title, columns, rows in tables
    ]
    return html("scores.page", comparison, attribute, figures, first, tables, LEVELS, COMMAND)


def build(wire: Wiring, edit_tab: gr.Tab, comparison: Summary | None, folder: Path | None) -> None:
    """Lay the tab out, and connect its events; its figures take a moment, so only if it is seen."""
    c = wire.parts
    with gr.Tab("Scores", id="scores", elem_id="scores-tab") as tab:
        c.scores, c.scores_seen = html_part("scores"), gr.State(False)

    def see(seen: bool, _: Any) -> Changes:
        return {"scores_seen": seen}

    def show(asked: Any) -> Changes:
        if not asked.scores_seen:
            return {}
        opened = wire.shelf.open_all(asked.models)
        return {"scores": scores_html(comparison, folder, opened, asked.attribute, asked.method)}

    wire.on(edit_tab.select, partial(see, False), (), ("scores_seen",))
    seen = wire.on(tab.select, partial(see, True), (), ("scores_seen",))
    asked = ("scores_seen", "models", "attribute", "method")
    for event in (seen.then, c.models.input, c.attribute.change):
        wire.on(event, show, asked, ("scores",), show_progress="full", **LATEST)
