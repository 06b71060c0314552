"""Scores, folds and bootstraps against scikit-learn, plain loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from hublatent.discovery.cross_validation import HeldOut
from hublatent.errors import DataError
from hublatent.stats import (
    Difference,
    Estimate,
    balanced_indices,
    bootstrap_weights,
    holm,
    identity_folds,
    logistic_curve,
    midpoint,
    paired_bootstrap,
    verdict,
    weighted_auroc,
    welch_difference,
)

NO_ROWS = np.zeros((0, 1))


@pytest.fixture
def readings() -> tuple[np.ndarray, np.ndarray]:
    """Labels and a ranking of 300 examples; rounding makes ties."""
    rng = np.random.default_rng(4)
    labels = rng.random(300) < 0.5
    return labels, np.round(rng.normal(size=300) + labels, 1)


def test_scores_are_scikit_learns(readings):
    labels, ranking = readings
    predicted = ranking > 0.5
    scores = HeldOut(labels, np.arange(300) // 3, ranking - 0.5, NO_ROWS).scores()
    expected = {
        "accuracy": accuracy_score(labels, predicted),
        "precision": precision_score(labels, predicted),
        "recall": recall_score(labels, predicted),
        "f1": f1_score(labels, predicted),
        "auroc": roc_auc_score(labels, ranking),
    }
    assert set(scores) == set(expected)
    for name, value in expected.items():
        assert scores[name].value == pytest.approx(value, abs=1e-6)
        assert scores[name].low < value < scores[name].high


def test_weighted_auroc_is_that_of_repeated_examples(readings):
    labels, ranking = readings
    weights = np.random.default_rng(0).integers(0, 4, size=(3, 300))
    found = weighted_auroc(weights.astype(np.float32), labels, ranking)
    for row, value in zip(weights, found, strict=True):
        repeated = roc_auc_score(np.repeat(labels, row), np.repeat(ranking, row))
        assert value == pytest.approx(repeated, abs=1e-9)


def test_auroc_of_ties_alone_is_one_half():
    labels = np.array([True, False, False, True])
    assert weighted_auroc(np.ones((1, 4)), labels, np.zeros(4))[0] == 0.5
    assert weighted_auroc(np.ones((1, 4)), labels, labels.astype(float))[0] == 1
    assert weighted_auroc(np.ones((1, 4)), labels, -labels.astype(float))[0] == 0


def test_the_interval_has_the_width_that_theory_gives():
    """Accuracy of n independent people: a half-width of 1.96 sqrt(p (1 - p) / n)."""
    rng = np.random.default_rng(1)
    labels = np.arange(2000) % 2 == 0
    predicted = np.where(rng.random(2000) < 0.8, labels, ~labels)
    decision = predicted - 0.5
    accuracy = HeldOut(labels, np.arange(2000), decision, NO_ROWS).scores()["accuracy"]
    half_width = 1.96 * np.sqrt(accuracy.value * (1 - accuracy.value) / 2000)
    assert (accuracy.high - accuracy.low) / 2 == pytest.approx(half_width, rel=0.1)
    # Ten photographs of each person that are right or wrong together say no more than one.
    people = np.repeat(np.arange(2000), 10)
    tenfold = HeldOut(np.repeat(labels, 10), people, np.repeat(decision, 10), NO_ROWS)
    repeated = tenfold.scores()["accuracy"]
    assert (repeated.high - repeated.low) / 2 == pytest.approx(half_width, rel=0.1)


def test_a_bootstrap_draws_people():
    identities = np.array([7, 7, 3, 9, 3])
    weights = np.concatenate(list(bootstrap_weights(identities, n_resamples=250, seed=5)))
    assert weights.shape == (250, 5)
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert np.array_equal(weights[:, 2], weights[:, 4])
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    again = np.concatenate(list(bootstrap_weights(identities, n_resamples=250, seed=5)))
    assert np.array_equal(weights, again)


def test_a_paired_difference_cancels_what_the_models_share():
    """Two models that miss mostly the same hard people differ by less than each one varies."""
    rng = np.random.default_rng(2)
    first = rng.random(1000) < 0.7
    second = first | (rng.random(1000) < 0.03)
    gains = second.astype(float) - first
    found = paired_bootstrap(gains, np.arange(1000))
    assert found.estimate.value == pytest.approx(gains.mean())
    standard_error = gains.std() / np.sqrt(1000)
    width = found.estimate.high - found.estimate.low
    assert width == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert found.estimate.low > 0 and found.p < 0.01


def test_columns_that_are_a_sample_widen_the_interval():
    """Attributes that differ from one another: their spread over the root of their number."""
    rng = np.random.default_rng(3)
    effects = rng.normal(0, 0.05, 30)
    values = effects + rng.normal(0, 0.05, (400, 30))
    fixed = paired_bootstrap(values, np.arange(400)).estimate
    sampled = paired_bootstrap(values, np.arange(400), columns_vary=True).estimate
    assert sampled.high - sampled.low > 3 * (fixed.high - fixed.low)
    expected = 2 * 1.96 * effects.std() / np.sqrt(30)
    assert sampled.high - sampled.low == pytest.approx(expected, rel=0.25)


def test_missing_values_are_left_out():
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, 7.0]])
    assert paired_bootstrap(values, np.arange(3)).estimate.value == pytest.approx((2 + 6) / 2)
    with pytest.raises(DataError, match="nothing to compare"):
        paired_bootstrap(np.full(4, np.nan), np.arange(4))


def test_welch_is_scipys():
    first, second = np.array([0.81, 0.84, 0.83]), np.array([0.78, 0.80, 0.79, 0.805])
    expected = ttest_ind(first, second, equal_var=False)
    found = welch_difference(first, second)
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.estimate.low, found.estimate.high) == pytest.approx((interval.low, interval.high))
    assert found.n_trainings == 3
    with pytest.raises(DataError, match="at least two trainings"):
        welch_difference(first, second[:1])


def test_false_positives_of_few_trainings():
    """No difference between the models: at most 6% of the verdicts may name one."""
    rng = np.random.default_rng(5)
    for n in (3, 5):
        found = [welch_difference(*rng.normal(0.8, 0.01, (2, n))) for _ in range(2000)]
        wrong = [verdict(d, 0.02).partition(",")[0] in ("better", "worse") for d in found]
        assert np.mean(wrong) <= 0.06
        assert np.mean([d.p < 0.05 for d in found]) <= 0.06


def test_holm_multiplies_the_smallest_by_their_number():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("low", "high", "p", "n", "expected"),
    [
        (0.025, 0.05, 0.001, 3, "better"),
        (-0.05, -0.01, 0.001, 5, "worse"),
        (0.001, 0.015, 0.01, 3, "equivalent"),  # even where it excludes zero
        (-0.01, 0.03, 0.3, 3, "open"),
        (0.01, 0.05, 0.2, 3, "open"),  # clear alone, not among its family
        (0.025, 0.05, 0.001, 2, "better, this checkpoint only"),
    ],
)
def test_verdicts(low, high, p, n, expected):
    difference = Difference(Estimate((low + high) / 2, low, high), p, n)
    assert verdict(difference, 0.02) == expected


def test_folds_never_split_an_identity():
    identities = np.random.default_rng(6).integers(0, 50, size=500)
    folds = identity_folds(identities, 5, seed=1)
    people = [set(identities[folds == fold]) for fold in range(5)]
    assert [len(p) for p in people] == [10] * 5
    assert len(set.union(*people)) == 50
    assert np.array_equal(folds, identity_folds(identities, 5, seed=1))
    assert not np.array_equal(folds, identity_folds(identities, 5, seed=2))
    with pytest.raises(DataError, match="the data have 3"):
        identity_folds(np.array([1, 1, 2, 3]), 5)


@pytest.mark.parametrize("share", [0.06, 0.94])
def test_balanced_sets_are_balanced(share):
    labels = np.arange(1000) < 1000 * share
    chosen = balanced_indices(labels, seed=3)
    assert labels[chosen].sum() == 60
    assert len(np.unique(chosen)) == 120
    assert np.array_equal(chosen, balanced_indices(labels, seed=3))
    assert not np.array_equal(chosen, balanced_indices(labels, seed=4))


@pytest.mark.parametrize("n", [0, 19, 981, 1000])
def test_fewer_than_twenty_of_a_kind_are_refused(n):
    with pytest.raises(DataError, match=f"{n} examples have the attribute.*at least 20"):
        balanced_indices(np.arange(1000) < n)


def test_threshold_and_gain_of_a_known_logistic():
    rng = np.random.default_rng(3)
    coordinate = rng.normal(0.4, 2.0, size=200_000)
    labels = rng.random(200_000) < 1 / (1 + np.exp(-1.7 * (coordinate - 0.9)))
    threshold, gain = logistic_curve(coordinate, labels)
    assert threshold == pytest.approx(0.9, abs=0.02)
    assert gain == pytest.approx(1.7, rel=0.02)


def test_threshold_and_gain_follow_a_change_of_units():
    rng = np.random.default_rng(4)
    labels = np.arange(400) % 2 == 0
    coordinate = rng.normal(size=400) + labels
    threshold, gain = logistic_curve(coordinate, labels)
    scaled_threshold, scaled_gain = logistic_curve(1e-6 * coordinate + 3, labels)
    assert scaled_threshold == pytest.approx(1e-6 * threshold + 3, abs=1e-10)
    assert scaled_gain == pytest.approx(1e6 * gain, rel=1e-4)


def test_the_midpoint_lies_between_the_class_means():
    assert midpoint(np.array([0.0, 2.0, 10.0]), np.array([False, False, True])) == 5.5
