"""Claims on simulated models with a known answer, the long table, outcomes, and the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hublatent.errors import DataError
from hublatent.evaluation import outcomes, table
from hublatent.evaluation.claims import (
    CLAIMS,
    Evidence,
    examine,
    examine_claim,
    letters,
    of_pair,
    overall,
)
from hublatent.evaluation.report import read_summary, write_report
from tests.benchmarks.claims_power import names_one, truth_of
from tests.made_up_evidence import N_FACES, simulate

TIE = {"btcvae": {"accuracy": 0.8}, "vae": {"accuracy": 0.8}}


def verdict_of(key: str, evidence) -> str:
    return examine_claim(evidence, key).verdict


def test_the_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = simulate(TIE).table
    table.save(written, tmp_path / "table.csv.gz")
    read = table.load(tmp_path / "table.csv.gz")
    assert len(read) == len(written) and list(read.columns) == list(table.COLUMNS)
    assert np.allclose(read["value"], written["value"], rtol=1e-3)
    assert read["strength"].isna().sum() == written["strength"].isna().sum()
    (tmp_path / "table.csv.gz").write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        table.load(tmp_path / "table.csv.gz")


def test_onsets_are_interpolated() -> None:
    strengths, p = np.array([0.0, 1.0, 3.0]), np.tile([0.1, 0.3, 0.7], (3, 1))
    wanted = np.array([0.5, 0.9, 0.05])
    found = outcomes.onset(strengths, p >= wanted[:, None], p, wanted)
    assert found.tolist() == pytest.approx([2.0, np.inf, 0.0])
    assert outcomes.breaks(strengths, -p, -0.5).tolist() == pytest.approx([2.0] * 3)
    assert outcomes.at(strengths, p, found)[[0, 2]].tolist() == pytest.approx([0.5, 0.1])


def test_outcomes_follow_from_the_two_onsets() -> None:
    there, broken = np.array([2, np.inf, 5, np.inf]), np.array([4, np.inf, 3, 3])
    assert list(outcomes.outcome(there, broken)) == [
        "strong", "no effect", "decohered", "decohered"
    ]  # fmt: skip


def test_a_model_that_breaks_early_decoheres() -> None:
    evidence = simulate({"btcvae": {"breaks": 8.0}, "vae": {"breaks": 0.5}})
    shares = {
        model: outcomes.summary(evidence.strips[evidence.strips["model"] == model])
        for model in ("btcvae", "vae")
    }
    assert shares["btcvae"]["strong"] == 1 and shares["vae"]["decohered"] == 1
    assert shares["btcvae"]["n"] == 2 * 3 * N_FACES
    assert verdict_of("1c", evidence).startswith("supported")  # stronger, and leaks as much


def test_a_tie_is_equivalent_and_a_difference_is_seen() -> None:
    assert verdict_of("1a", simulate(TIE)) == "equivalent, this checkpoint only"
    better = simulate({"btcvae": {"accuracy": 0.85}, "vae": {"accuracy": 0.8}})
    assert verdict_of("1a", better) == "supported, this checkpoint only"
    trained = simulate({"btcvae": {"accuracy": 0.85, "spread": 0.003},
                        "vae": {"accuracy": 0.8, "spread": 0.003}}, n_trainings=3)  # fmt: skip
    assert verdict_of("1a", trained) == "supported"


def test_better_in_one_quantity_and_equivalent_in_the_other_is_better() -> None:
    assert of_pair(["better", "equivalent"]) == "better"
    assert of_pair(["better", "worse"]) == "worse" and of_pair(["better", "open"]) == "open"
    assert of_pair(["equivalent", "equivalent, this checkpoint only"]).startswith("equivalent, ")


@pytest.mark.parametrize("key", CLAIMS)
def test_each_claim_names_what_is_there_and_nothing_else(key: str) -> None:
    """tests/benchmarks/claims_power.py counts how often, over many draws."""
    assert not names_one(key, simulate(truth_of(key, changed=False), 3 if key == "2b" else 1))
    assert names_one(key, simulate(truth_of(key, changed=True), 3 if key == "2b" else 1))


def test_a_leak_is_seen() -> None:
    leaking = simulate({"btcvae": {"leak": 0.06}, "vae": {"leak": 0.02}})
    assert verdict_of("1b", leaking) == "contradicted, this checkpoint only"


def test_a_hole_is_seen() -> None:
    models = {"stylegan2": {"hole": 0.5}, "vae": {}}
    assert verdict_of("3a", simulate(models)) == "supported, this checkpoint only"
    assert verdict_of("3a", simulate({"stylegan2": {}, "vae": {}})).startswith("equivalent")
    assert verdict_of("3a", simulate(models, n_trainings=3)) == "supported"


def test_one_code_for_all_layers_is_edited_and_put_beside_one_for_each() -> None:
    leaks = {"stylegan2": 0.02, "stylegan2 in W": 0.06, "vae": 0.02}
    both = simulate({name: {"leak": leak} for name, leak in leaks.items()})
    in_w, read = both.table["model"] == "stylegan2 in W", both.table["reading"] != "target"
    known = both.models["model"] != "stylegan2 in W"
    evidence = Evidence(both.table[~(in_w & both.table["strength"].isna() & read)],
                        both.models[known])  # fmt: skip
    assert evidence.editors == list(evidence.scores) == ["stylegan2", "vae"]
    assert verdict_of("6", evidence) == "supported, this checkpoint only"
    assert evidence.reading_difference("vae", "stylegan2").estimate.value == pytest.approx(
        0, abs=0.1
    )


def test_total_correlation_is_compared_at_equal_rate() -> None:
    plain = {f"vae-{kl}": {"kl": kl, "accuracy": 0.7 + 0.05 * np.log10(kl)} for kl in (10, 100)}
    even = {"btcvae": {"kl": 30.0, "accuracy": 0.7 + 0.05 * np.log10(30),
                       "objective": "beta-tcvae"}}  # fmt: skip
    assert verdict_of("2b", simulate({**plain, **even}, n_trainings=3)) == "equivalent"


def test_what_was_not_measured_is_said() -> None:
    found = {f.key: f.verdict for f in examine(simulate({"vae": {}}))}
    assert set(found) == set(CLAIMS)
    assert found["1a"] == found["3a"] == "not measured"


@pytest.mark.parametrize(
    ("verdicts", "expected", "claim"),
    [
        (["better", "better"], "better", "supported"),
        (["better", "better"], "worse", "contradicted"),
        (["better", "worse"], "better", "contradicted"),
        (["worse", "open"], "worse", "open"),
        (["better", "equivalent"], "better", "open"),
        (["equivalent", "equivalent, this checkpoint only"], "better",
         "equivalent, this checkpoint only"),
    ],
)  # fmt: skip
def test_a_claim_is_contradicted_by_one_contrast_and_supported_by_all(
    verdicts: list[str], expected: str, claim: str
) -> None:
    assert overall(verdicts, expected) == claim


def test_letters_join_what_is_not_told_apart() -> None:
    apart = {("a", "c"), ("a", "d"), ("b", "d")}
    shown = letters(["a", "b", "c", "d"], lambda x, y: (x, y) in apart)
    assert shown == {"a": "a", "b": "ab", "c": "bc", "d": "c"}
    assert letters(["a"], lambda x, y: True) == {"a": "a"}


def test_a_report_is_one_small_page_and_names_are_text(tmp_path: Path) -> None:
    evidence = simulate({"btcvae-<b>": {"accuracy": 0.85}, "vae": {}})
    written = write_report(evidence, tmp_path, "python -m hublatent compare", "judge")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<b>" not in page and "&lt;b&gt;" in page and len(page) < 5e6
    assert page.count("data:image/png") == 2 and len(written.answer) <= 5
    assert read_summary(tmp_path) == written
    assert read_summary(tmp_path / "none") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 0}', '{"version": 1}'])
def test_a_damaged_summary_is_not_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError):
        read_summary(tmp_path)
