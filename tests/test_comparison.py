"""The measures of a comparison, held to closed forms and slow plain versions."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from hublatent.comparison import controls, editability, judge, outcomes, results, separability
from hublatent.comparison.latents import Faces
from hublatent.direction import Direction
from hublatent.discovery import LabelledLatents, discover
from hublatent.discovery.methods import FROM_LABELS
from hublatent.errors import DataError
from hublatent.stats import Estimate
from tests.comparison_helpers import (
    BRIGHT_SIGMA,
    GAIN,
    N_PIXELS,
    THRESHOLD,
    known_judge,
    linear_model,
)
from tests.tiny_models import tiny_vae

ONE = Estimate(1.0, 0.5, 1.5)


def bright_direction(sign: float = 1.0) -> Direction:
    vector = sign * torch.eye(4)[0]
    return Direction("Bright", "svm", vector, threshold=2.0, gain=1.0).with_sigma(linear_model())


def dim_faces(n: int = 40) -> Faces:
    """Faces below the judge's threshold, whose brightness stays far from black and white."""
    rng = np.random.default_rng(1)
    latents = rng.normal(0, 0.5, (n, 4)).astype(np.float32)
    latents[:, 0] = rng.uniform(-3, 2, n)
    return Faces(latents, np.arange(n) // 2, tuple(map(str, range(n))))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def brightness(faces: Faces, strength: np.ndarray) -> np.ndarray:
    """Mean pixel of the edited pictures: (n, S)."""
    return (faces.latents[:, :1] + BRIGHT_SIGMA * strength) / np.sqrt(N_PIXELS)


@pytest.fixture(scope="module")
def strips() -> tuple[editability.Strips, Faces]:
    faces = dim_faces()
    measured = editability.measure(
        linear_model(), known_judge(), faces, bright_direction(), 0, support=None
    )
    return measured, faces


def test_one_pass_reads_what_the_judge_says():
    classifier, images = known_judge(), torch.rand(5, 3, 16, 16) * 2 - 1
    with torch.inference_mode():
        reading = judge.read(classifier, images)
        assert torch.equal(reading.logits, classifier(images))
        assert torch.equal(reading.features, classifier.features(images))
        for ours, theirs in zip(reading.maps, classifier.feature_maps(images), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4)
        again = judge.read(classifier, images)
    assert len(again.maps) == len(reading.maps)  # no hook was left behind


def test_distance_is_the_root_of_mean_squares_of_unit_vectors():
    right = torch.zeros(1, 2, 2, 2)
    right[:, 0] = 1
    up = right.flip(1)
    assert torch.allclose(judge.distance([right], [up]), torch.tensor([2.0]).sqrt())
    # Equal in one of two stages: half of the mean square.
    assert torch.allclose(judge.distance([right, up], [up, up]), torch.tensor([1.0]))
    assert float(judge.distance([up], [up])) == 0


def test_realism_equals_the_slow_plain_version():
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(30, 3, generator=generator)
    pictures = torch.randn(7, 3, generator=generator) * 2
    radii = [sorted(float((a - b).norm()) for b in reference)[3] for a in reference]
    kept = [i for i in range(30) if radii[i] <= sorted(radii)[14]]
    expected = [max(radii[i] / float((p - reference[i]).norm()) for i in kept) for p in pictures]
    assert judge.Support.of(reference).realism(pictures).tolist() == pytest.approx(expected, 1e-4)


def test_edits_of_a_linear_model_have_the_effect_that_algebra_gives(strips):
    measured, faces = strips
    b = brightness(faces, measured.strengths)
    assert np.abs(b).max() < 0.8  # so that nothing is clamped
    expected = GAIN * (b - THRESHOLD)
    assert np.abs(measured.logits - expected).max() < 0.01
    assert np.abs(measured.target(0) - sigmoid(expected)).max() < 0.003


def test_unedited_faces_have_changed_in_nothing(strips):
    measured, _ = strips
    zero = measured.zero
    assert measured.strengths[zero] == 0
    assert measured.distance[:, zero] == pytest.approx(0)
    assert measured.similarity[:, zero] == pytest.approx(1)
    assert not measured.changes()[:, zero].any()


def test_greenness_does_not_leak_when_brightness_is_edited(strips):
    measured, _ = strips
    assert editability.leakage(measured, 0).max() < 1e-4
    green = editability.leakage(measured, 1)
    assert np.allclose(green, np.abs(measured.changes()[:, :, 0]))


def test_steps_along_the_strip_are_no_shorter_than_the_way(strips):
    measured, _ = strips
    zero = measured.zero
    path = measured.steps[:, zero:].sum(axis=1)
    assert (path >= measured.distance[:, -1] - 1e-5).all()


def test_equal_effect_is_where_four_fifths_have_the_attribute(strips):
    measured, faces = strips
    found = editability.equal_effect(measured, 0, editability.Resamples(faces.identities, 0))
    share = (measured.target(0) > 0.5).mean(axis=0)[measured.zero :]
    grid = measured.strengths[measured.zero :]
    i = int(np.argmax(share >= 0.8))
    expected = grid[i - 1] + (0.8 - share[i - 1]) / (share[i] - share[i - 1])
    assert grid[i] - grid[i - 1] == 1
    assert found.strength.value == pytest.approx(expected)
    assert found.strength.low <= found.strength.value <= found.strength.high
    cost = np.interp(expected, grid, measured.distance.mean(axis=0)[measured.zero :])
    assert found.distance.value == pytest.approx(cost)
    assert found.realism is None


def test_equal_effect_that_is_not_reached_is_absent(strips):
    measured, faces = strips
    resamples = editability.Resamples(faces.identities, 0)
    away = replace(measured, probabilities=np.minimum(measured.probabilities, 0.4))
    assert editability.equal_effect(away, 0, resamples) == results.EqualEffect()


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.0, 0.4, 1.0), 1 + 2 / 3),
        ((0.9, 1.0, 1.0), 0.0),
        ((0.0, 0.8, 0.2), 1.0),  # the first crossing counts
        ((0.0, 0.5, 0.79), float("inf")),
    ],
)
def test_crossing(shares, expected):
    grid = np.array([0.0, 1.0, 2.0])
    assert editability.crossing(grid, np.array(shares)) == pytest.approx(expected)


def test_rank_correlations_are_spearmans():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=9), rng.normal(size=(4, 9)).round(0)
    expected = [spearmanr(x, row).statistic for row in y]
    assert editability.rank_correlations(x, y) == pytest.approx(expected)
    assert editability.rank_correlations(x, np.ones((1, 9)))[0] == 0


def test_a_row_of_edits_states_what_was_measured(strips):
    measured, faces = strips
    band = results.NullBand("m", "Bright", "test", 2, 1, 1, (-8.0, 0.0, 8.0), (0.1, 0.0, 0.1))
    row = editability.summarise(
        measured, faces, known_judge(), band, None, bright_direction(),
        kind="test", model="m", found="here", note="", seed=0,
    )  # fmt: skip
    change = measured.changes()[:, :, 0].mean(axis=0)
    assert [s.value for s in row.target] == pytest.approx(change.tolist(), abs=1e-6)
    assert row.share[-1] == 1 and row.above_null
    assert row.monotonicity.value == pytest.approx(1)
    assert row.outcomes is None and row.realism is None
    assert set(row.leakage_by_attribute) == {"Green"}
    wide = replace(band, band=(1.0, 1.0, 1.0))
    assert not editability.summarise(
        measured, faces, known_judge(), wide, None, bright_direction(),
        kind="test", model="m", found="here", note="", seed=0,
    ).above_null  # fmt: skip


def test_outcomes_look_at_the_first_picture_that_shows_the_attribute():
    target = np.array([[0.1, 0.6, 0.9], [0.1, 0.2, 0.3], [0.2, 0.7, 0.1], [0.6, 0.9, 0.9]])
    realism = np.array([[1.0, 1.0, 0.1], [0.1, 0.1, 0.1], [1.0, 0.2, 1.0], [0.5, 0.2, 0.2]])
    found = outcomes.classify(target, realism, threshold=0.5)
    assert found == ["strong", "no effect", "decohered", "strong"]
    counts = outcomes.count(found, 8.0)
    assert (counts.strong, counts.no_effect, counts.decohered) == (2, 1, 1)
    assert counts.by_face == "snds"


def test_agreement_is_cohens_kappa():
    rng = np.random.default_rng(0)
    hand = [results.OUTCOMES[i] for i in rng.integers(0, 3, 60)]
    program = [h if rng.random() < 0.7 else "strong" for h in hand]
    found = outcomes.agreement(hand, program)
    assert found.kappa.value == pytest.approx(cohen_kappa_score(hand, program), abs=1e-5)
    assert found.agreement.value == pytest.approx(np.mean(np.array(hand) == np.array(program)))
    assert found.kappa.low < found.kappa.value < found.kappa.high


def separable(n: int = 400, seed: int = 0) -> LabelledLatents:
    rng = np.random.default_rng(seed)
    labels = rng.random((n, 2)) < (0.5, 0.3)
    latents = rng.normal(size=(n, 8)) + 1.5 * labels[:, :1] * np.eye(8)[0]
    latents += labels[:, 1:] * np.eye(8)[1]
    mirrored = latents + rng.normal(0, 0.1, latents.shape)
    return LabelledLatents(
        latents.astype(np.float32), labels, ("First", "Second"), np.arange(n) // 2,
        mirrored=mirrored.astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("method", FROM_LABELS)
def test_the_table_says_what_discover_says(method):
    data, model = separable(), tiny_vae()
    row, held_out = separability.separability(data, "m", "Second", "set", method, seed=3)
    direction = discover(data, "Second", method, model=model, seed=3)
    for name, score in direction.scores.items():
        ours = getattr(row, name)
        for part in ("value", "low", "high"):
            assert getattr(ours, part) == pytest.approx(getattr(score, part), abs=0.01), name
    assert row.accuracy.value == pytest.approx(held_out.correct.mean())
    assert 0 < row.stability <= 1


def test_the_learning_curve_ends_at_the_whole_set():
    row, _ = separability.separability(separable(), "m", "First", "set", "svm", seed=0)
    sizes = [n for n, _ in row.curve]
    assert sizes == sorted(sizes) and sizes[0] == 20
    for part in ("value", "low", "high"):
        assert getattr(row.curve[-1][1], part) == pytest.approx(getattr(row.accuracy, part))
    assert row.curve[0][1].value < row.accuracy.value


def test_majority_is_right_half_of_the_time():
    row = separability.majority(separable(), "First", "set", 0)
    assert (row.accuracy.value, row.precision.value, row.recall.value) == (0.5, 0.5, 1.0)
    assert row.f1.value == pytest.approx(2 / 3)
    assert row.auroc.value == 0.5 and row.stability is None


def test_pairs_compare_on_the_same_pictures():
    rng = np.random.default_rng(0)
    good = rng.random(300) < 0.9
    bad = good & (rng.random(300) < 0.8)
    found = separability.pairs({"a": good, "b": bad, "c": good}, np.arange(300), "x", "s", 0)
    by_name = {(p.first, p.second): p.difference for p in found}
    assert by_name["a", "b"].value == pytest.approx(good.mean() - bad.mean())
    assert by_name["a", "b"].low > 0
    assert by_name["a", "c"] == Estimate(0, 0, 0)


def test_a_random_encoder_is_the_same_network_with_other_weights():
    model = tiny_vae()
    fresh, again = (separability.random_encoder(model, 3) for _ in range(2))
    assert fresh.config == model.config
    assert fresh.fingerprint() == again.fingerprint() != model.fingerprint()
    assert not fresh.training


def test_controls_stay_below_what_the_true_direction_does():
    model, faces, classifier = linear_model(), dim_faces(20), known_judge()
    rng = np.random.default_rng(0)
    labels = rng.random((200, 2)) < 0.5
    latents = rng.normal(size=(200, 4)).astype(np.float32)
    data = LabelledLatents(latents, labels, ("Bright", "Green"), np.arange(200))
    directions = [
        *controls.random_directions(model, "Bright", 0),
        *controls.shuffled_directions(data, model, "Bright", 0),
    ]
    assert all(d.vector.norm() == pytest.approx(1) and d.sigma > 0 for d in directions)
    band = controls.null_band(model, classifier, faces, directions, name="m", kind="test")
    assert (band.n_random, band.n_shuffled, band.n) == (20, 20, 20)
    assert band.band[band.strengths.index(0)] == 0
    true = editability.measure(model, classifier, faces, bright_direction(), 0, None)
    effect = true.changes()[:, -1, 0].mean()
    assert 0 < band.band[-1] <= effect


def small_comparison() -> results.Comparison:
    edits = results.Edits(
        "m", "Bright", "svm", "test", 2, "file", (-1.0, 0.0, 1.0), (ONE,) * 3, (0.0, 0.0, 1 / 3),
        (ONE,) * 3, (ONE,) * 3, (ONE,) * 3, None, ONE, ONE, results.EqualEffect(),
        {"Green": 0.25}, results.OutcomeCounts(1, 1, 0, 8.0, "sn"), True,
    )  # fmt: skip
    row = results.Separability(
        "m", "Bright", results.TRAINING, "svm", 40, ONE, ONE, ONE, ONE, ONE, None, ((20, ONE),)
    )
    return results.Comparison(
        seed=0, command="compare", data=results.Data("d", 1, 2, 3),
        judge=results.Judge("j", "f", {"Bright": ONE}, None, 0.5, 3),
        attributes=("Bright",), methods=("svm",), strengths=(-1.0, 0.0, 1.0),
        separability=(row,), paper_table=separability.PAPER_TABLE, edits=(edits,),
        holes=(results.Holes("m", 3, ((0.5, ONE),), ((2.0, ONE),)),),
        cosines=(results.Cosines("m", "svm", ("a", "b"), ((1.0, 0.5), (0.5, 1.0))),),
    )  # fmt: skip


def test_results_survive_their_file(tmp_path: Path):
    comparison = small_comparison()
    comparison.save(tmp_path)
    read = results.Comparison.load(tmp_path)
    assert read == replace(
        comparison, edits=(replace(comparison.edits[0], share=(0, 0, 0.333333)),)
    )
    read.save(tmp_path / "again")
    assert (tmp_path / "again/results.json").read_bytes() == (
        tmp_path / "results.json"
    ).read_bytes()
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["separability"][0]["accuracy"] == [1.0, 0.5, 1.5]
    assert document["edits"][0]["equal_effect"]["strength"] is None


def test_tables_are_flat(tmp_path: Path):
    small_comparison().save(tmp_path)
    with (tmp_path / "edits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["strength"] for row in rows] == ["-1.0", "0.0", "1.0"]
    assert rows[0]["leakage_high"] == "1.5" and rows[0]["realism"] == ""
    with (tmp_path / "separability.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["auroc_low"] == "0.5" and row["stability"] == "" and "curve" not in row


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "no results"),
        ('{"format": "hublatent-comparison", "version": 9}', "version 9"),
        ('{"format": "hublatent-comparison", "version": 1, "seed": "x"}', "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, complaint: str):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=complaint):
        results.Comparison.load(tmp_path)


def test_hand_labels_are_joined_with_the_programs_verdicts(tmp_path: Path):
    comparison = small_comparison()
    sheet = outcomes.draw_sheet(comparison, n=2)
    assert all(row["label"] == "" for row in sheet)
    rows = [{**row, "label": "strong"} for row in sheet]
    path = tmp_path / "sheet.csv"
    write_sheet(path, rows)
    found = outcomes.compare_with_hand_labels(path, comparison)
    assert found.n == 2 and found.agreement.value == 0.5
    write_sheet(path, [{**rows[0], "label": "stron"}])
    with pytest.raises(DataError, match="Did you mean strong"):
        outcomes.compare_with_hand_labels(path, comparison)
    write_sheet(path, [{**rows[0], "face": "7"}])
    with pytest.raises(DataError, match="line 2: no such strip"):
        outcomes.compare_with_hand_labels(path, comparison)


def write_sheet(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, outcomes.SHEET_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
