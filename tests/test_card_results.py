"""Results measured later go into a card's head and body, and replace those of an earlier call."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from hublatent.errors import HublatentError
from hublatent.publish import check_card
from hublatent.publish.results import CardResult, update_results

CARD = """---
license: other
license_name: some-terms
tags: [hublatent, faces]
own_key: kept
widget:
- text: Samples.
  output:
    url: samples.png
model-index:
- name: vae-tiny
  results:
  - task:
      type: unconditional-image-generation
      name: Reconstruction
    dataset:
      name: CelebA
      type: celeba
      split: test
    metrics:
    - type: mse
      value: 0.0125
      name: MSE
---

# vae-tiny

A model with a | and a <b>tag</b>.

## Intended use and limits

For research.
"""
RESULTS = [
    CardResult("Editing", "Eyeglasses.joint", "strong edits, share", 0.625, (0.5, 0.75)),
    CardResult("Editing", "Eyeglasses.joint", "leakage, mean change of P", 0.0731, (0.06, 0.09)),
    CardResult("Realism", "", "kernel distance", 12.5),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "vae-tiny"
    path.mkdir()
    (path / "README.md").write_text(CARD, encoding="utf-8")
    return path


def text_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_results_go_into_head_and_body(folder: Path) -> None:
    assert update_results(folder, RESULTS, note="Judged by nobody.") == folder / "README.md"
    check_card(folder / "README.md")
    card = ModelCard(text_of(folder))
    values = {r.metric_name: r.metric_value for r in card.data.eval_results}
    assert values == {
        "MSE": 0.0125,
        "Eyeglasses.joint strong edits, share": 0.625,
        "Eyeglasses.joint leakage, mean change of P": 0.0731,
        "kernel distance": 12.5,
    }
    name, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "vae-tiny" and len(results) == 4
    assert {r.metric_type for r in results} == {"mse", "strong_edits", "leakage", "kernel_distance"}
    row = "| Editing | Eyeglasses.joint | strong edits, share | 0.625 (0.500-0.750) |"
    assert row in card.text and "| Realism | the model | kernel distance | 12.5 |" in card.text
    assert "Judged by nobody." in card.text
    assert card.text.index("Realism") < card.text.index("## Intended use and limits")


def test_all_else_stays(folder: Path) -> None:
    update_results(folder, RESULTS)
    card, before = ModelCard(text_of(folder)), ModelCard(CARD)
    assert card.data.own_key == "kept" and card.data.widget == before.data.widget
    assert card.data.license_name == "some-terms" and card.data.tags == ["hublatent", "faces"]
    for line in before.text.splitlines():
        assert line in card.text
    update_results(folder, [])
    gone = ModelCard(text_of(folder))
    assert gone.text.split() == before.text.split()
    assert gone.data.to_dict() == before.data.to_dict()


def test_a_later_call_replaces_an_earlier_one(folder: Path) -> None:
    update_results(folder, RESULTS)
    once = text_of(folder)
    update_results(folder, RESULTS)
    assert text_of(folder) == once
    update_results(folder, [CardResult("Editing", "Male.svm", "strong edits, share", 0.5)])
    text = text_of(folder)
    assert "Eyeglasses" not in text and "Realism" not in text and "Male.svm" in text
    assert {r.metric_name for r in ModelCard(text).data.eval_results} == {
        "MSE", "Male.svm strong edits, share",
    }  # fmt: skip


def test_a_card_without_a_head_entry_or_last_section(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Bare\n")
    update_results(folder, RESULTS)
    card = ModelCard(text_of(folder))
    assert card.data.model_name == "vae-tiny" and len(card.data.eval_results) == 3
    assert card.text.strip().startswith("# Bare")
    check_card(folder / "README.md")


@pytest.mark.parametrize(
    "bad",
    [
        CardResult("Editing", "Male", "x", math.nan),
        CardResult("Editing", "Male", "x", math.inf),
        CardResult("Editing", "Male", "x", 0.5, (0.1, math.nan)),
        CardResult("Editing", "Male", "x", None),  # type: ignore[arg-type]
    ],
)
def test_figures_that_are_none_change_nothing(bad: CardResult, folder: Path) -> None:
    with pytest.raises(HublatentError, match="Editing: Male x"):
        update_results(folder, [*RESULTS, bad])
    assert text_of(folder) == CARD and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("torn", ["begin", "end", "twice"])
def test_torn_comments_change_nothing(torn: str, folder: Path) -> None:
    update_results(folder, RESULTS)
    whole = text_of(folder)
    lines = whole.splitlines(keepends=True)
    comments = [line for line in lines if line.startswith("<!--")]
    if torn == "twice":
        broken = whole + "".join(comments)
    else:
        broken = whole.replace(comments[0 if torn == "begin" else 1], "")
    (folder / "README.md").write_text(broken)
    with pytest.raises(HublatentError, match="expected one pair"):
        update_results(folder, RESULTS)
    assert text_of(folder) == broken


def test_what_is_no_card_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HublatentError, match="holds no README"):
        update_results(tmp_path / "nothing", RESULTS)
    for broken in ("---\nlicense: [\n---\n", "---\nmodel-index: 3\n---\n"):
        (folder / "README.md").write_text(broken)
        with pytest.raises(HublatentError, match="does not parse"):
            update_results(folder, RESULTS)
        assert text_of(folder) == broken


def test_texts_keep_within_their_cell(folder: Path) -> None:
    update_results(folder, [CardResult("a | b\nc", "<script>", "m", 1.0)])
    assert "| a \\| b c | &lt;script> | m | 1 |" in text_of(folder)
