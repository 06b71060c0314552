"""The tab "Scores": tables from direction files and from a comparison."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from hublatent.demo.scores_tab import READING_COLUMNS, reading_rows, scores_html
from hublatent.demo.shelf import BEST_METHOD, LOCAL, ModelShelf, find_models
from hublatent.demo.webpage import html
from hublatent.evaluation.claims import CLAIMS
from hublatent.evaluation.report import read_summary, write_report
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


def test_editing_comes_from_a_comparison(shelf: ModelShelf, tmp_path: Path) -> None:
    assert read_summary(tmp_path / "none") is None
    write_report(simulate({"vae-tiny": {}, "other": {}}), tmp_path, "compare", "<judge>")
    found, opened = read_summary(tmp_path), shelf.open_all(["vae-tiny"])
    assert found is not None and len(found.claims) == len(CLAIMS)
    shown = scores_html(found, tmp_path, opened, "Smiling", "joint")
    assert escape(found.answer[0]) in shown and "<judge>" not in shown
    assert shown.count('class="hl-dot"') == len(CLAIMS) and shown.count("<img") == 2
    assert shown.count("data:image/png;base64,iVBOR") == 2
    assert "<td>vae-tiny</td>" in shown and "<td>other</td>" not in shown
    unknown = scores_html(found, tmp_path, opened, "Unheard_Of", "joint")
    assert "not compared" in unknown and "<table" not in unknown


def test_without_a_comparison_it_says_how_one_is_made(shelf: ModelShelf) -> None:
    shown = scores_html(None, None, shelf.open_all(shelf.names), "Smiling", "joint")
    assert "hublatent compare" in shown and "<img" not in shown
    assert shown.count("<table>") == 2, "of the method that is shown, and of all"


def test_the_best_of_each_model_is_shown_first(shelf: ModelShelf) -> None:
    opened = shelf.open("vae-tiny")
    assert opened.directions is not None
    best = replace(opened.directions, defaults={"Smiling": ("svm", "")})
    for directions, method in ((best, "svm"), (opened.directions, "joint")):
        told = replace(opened, directions=directions)
        shown = scores_html(None, None, [told], "Smiling", BEST_METHOD).partition("<details>")[0]
        assert f"<td>{method}</td>" in shown and shown.count("<tr>") == 2


def test_tables_show_text_as_text() -> None:
    shown = html("scores.table", "A & B", ("x",), [["<script>"]])
    assert "A &amp; B" in shown and "&lt;script&gt;" in shown and "<script>" not in shown
    assert html("scores.table", "Empty", ("x",), []) == ""
