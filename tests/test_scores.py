"""The tab "Scores": tables from direction files and from a comparison."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hublatent.demo.events import EDIT_TAB, SCORES_TAB, Callbacks
from hublatent.demo.scores import (
    READING_COLUMNS,
    editing_rows,
    figures,
    note,
    reading_rows,
    scores_html,
)
from hublatent.demo.shelf import LOCAL, ModelShelf, find_models
from hublatent.demo.webpage import plot_html, table_html
from hublatent.evaluation.claims import CLAIMS
from hublatent.evaluation.report import EDITING_COLUMNS, read_summary, write_report
from tests.made_up_evidence import simulate


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
    assert read_summary(tmp_path / "none") is None
    write_report(simulate({"btcvae": {}, "vae": {}}), tmp_path, "compare", "the judge")
    found = read_summary(tmp_path)
    assert found is not None
    rows = editing_rows(found, "Smiling")
    assert {row[0] for row in rows} == set(found.models)
    assert all(len(row) == len(EDITING_COLUMNS) for row in rows)
    assert len(found.claims) == len(CLAIMS)
    shown = figures(tmp_path)
    assert len(shown) == 2 and all(png.startswith(b"\x89PNG") for _, png in shown)
    assert "data:image/png;base64,iVBOR" in plot_html("<E", shown[0][1])
    assert "<E" not in plot_html("<E", shown[0][1])
    assert "the judge" in note(found, "Smiling") and "<script" not in note(found, "<script>")
    assert "not compared" in note(found, "Unheard_Of") and editing_rows(found, "Unheard_Of") == []


def test_without_a_comparison_it_says_how_one_is_made() -> None:
    assert "hublatent compare" in note(None, "Smiling")
    assert editing_rows(None, "Smiling") == figures(None) == []


def test_nothing_is_computed_for_a_tab_that_is_not_seen(shelf: ModelShelf) -> None:
    do = Callbacks(shelf)
    asked = {"models": list(shelf.names), "attribute": "Smiling", "method": "joint"}
    assert do.scores(SimpleNamespace(tab=EDIT_TAB, **asked)) == {}
    shown = do.scores(SimpleNamespace(tab=SCORES_TAB, **asked))["scores"]
    assert "compare" in shown and "<img" not in shown
    assert shown.count("<table>") == 2, "of the method that is shown, and of all"


def test_the_page_shows_verdict_plot_claims_and_the_models_on_show(
    shelf: ModelShelf, tmp_path: Path
) -> None:
    write_report(simulate({"vae-tiny": {}, "other": {}}), tmp_path, "compare", "the judge")
    found = read_summary(tmp_path)
    opened = shelf.open_all(["vae-tiny"])
    shown = scores_html(found, tmp_path, opened, "Smiling", "joint")
    assert found is not None and found.answer[0] in shown
    assert shown.count('class="hl-dot"') == len(CLAIMS) and shown.count("<img") == 2
    assert "<td>vae-tiny</td>" in shown and "<td>other</td>" not in shown


def test_tables_show_text_as_text() -> None:
    shown = table_html("A & B", ("x",), [["<script>"]])
    assert "A &amp; B" in shown and "&lt;script&gt;" in shown and "<script>" not in shown
    assert table_html("Empty", ("x",), []) == ""
