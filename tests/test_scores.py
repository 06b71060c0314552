"""The tab "Scores": tables from direction files and from a comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hublatent.comparison.results import RESULTS_NAME
from hublatent.demo.catalogue import find_models
from hublatent.demo.events import EDIT_TAB, SCORES_TAB, Callbacks
from hublatent.demo.scores import (
    EDITING_COLUMNS,
    READING_COLUMNS,
    editing_rows,
    figures,
    find_comparison,
    note,
    reading_rows,
)
from hublatent.demo.shelf import LOCAL, ModelShelf
from hublatent.demo.webpage import plot_html, table_html
from hublatent.errors import DataError
from hublatent.images import save_png
from tests.test_comparison_report import made_up


@pytest.fixture(scope="module")
def shelf(model_cards: Path) -> ModelShelf:
    return ModelShelf(find_models(model_cards), limits=LOCAL)


def test_reading_comes_from_direction_files(shelf: ModelShelf) -> None:
    opened = shelf.open_all(list(shelf.names))
    rows = reading_rows(opened, "Smiling")
    assert {row[0] for row in rows} == {m.name for m in opened if m.directions}
    assert {row[1] for row in rows} == {"svm", "joint"}
    assert all(len(row) == len(READING_COLUMNS) for row in rows)
    assert reading_rows(opened, "Unheard_Of") == []


def test_editing_comes_from_a_comparison(tmp_path: Path) -> None:
    assert find_comparison(tmp_path / "none") is None
    results = replace(made_up(), thresholds={"equal effect": 0.8})
    results.save(tmp_path)
    found = find_comparison(tmp_path)
    assert found is not None
    attribute = found.attributes[0]
    rows = editing_rows(found, attribute)
    assert {row[0].split(" ")[0] for row in rows} >= {m.name for m in found.models if m.has_encoder}
    assert all(len(row) == len(EDITING_COLUMNS) for row in rows)
    save_png(Image.new("RGB", (8, 8)), tmp_path / f"effect-{attribute}.png")
    ((title, png),) = figures(tmp_path, attribute)
    assert "data:image/png;base64,iVBOR" in plot_html(f"<{title}>", png)
    assert "<E" not in plot_html(f"<{title}>", png)
    assert found.judge.name in note(found, attribute)
    assert "not compared" in note(found, "Unheard_Of") and editing_rows(found, "Unheard_Of") == []


def test_without_a_comparison_it_says_how_one_is_made() -> None:
    assert "hublatent compare" in note(None, "Smiling")
    assert editing_rows(None, "Smiling") == [] and figures(None, "Smiling") == []


def test_a_damaged_comparison_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / RESULTS_NAME).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not JSON"):
        find_comparison(tmp_path)


def test_nothing_is_computed_for_a_tab_that_is_not_seen(shelf: ModelShelf) -> None:
    do = Callbacks(shelf)
    assert not isinstance(do.scores(EDIT_TAB, list(shelf.names), "Smiling"), tuple)
    text, tables, plots = do.scores(SCORES_TAB, list(shelf.names), "Smiling")
    assert "compare" in text and tables.count("<table>") == 1 and not plots


def test_tables_show_text_as_text() -> None:
    shown = table_html("A & B", ("x",), [["<script>"]])
    assert "A &amp; B" in shown and "&lt;script&gt;" in shown and "<script>" not in shown
    assert table_html("Empty", ("x",), []) == ""
