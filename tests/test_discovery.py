"""Discovery against closed forms: Gaussian classes, a linear model, a known logistic curve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from hublatent import VAE
from hublatent.discovery import METHODS, LabelledLatents, discover, logistic_curve
from hublatent.errors import DataError, HublatentError
from hublatent.statistics import balanced_indices, classification_scores, identity_folds

D = 5


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def model() -> VAE:
    torch.manual_seed(0)
    return VAE(image_size=16, latent_dim=D, width=4, max_width=4, n_stages=2).eval()


@pytest.fixture(scope="module")
def factor() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(D, D)) / 2 + np.eye(D)


def two_classes(factor: np.ndarray, shift: np.ndarray, n: int = 6000) -> LabelledLatents:
    rng = np.random.default_rng(1)
    labels = rng.random((n, 2)) < 0.5
    latents = rng.normal(size=(n, D)) @ factor.T + labels[:, :1] * shift
    return LabelledLatents(latents.astype(np.float32), labels, ("A", "B"), np.arange(n) // 2)


def test_filters_and_patterns_of_gaussian_classes(model, factor):
    """For two Gaussians, filters lie along Cov^-1 delta, patterns along delta."""
    shift = np.array([1.0, -0.5, 0.0, 0.8, 0.2])
    data = two_classes(factor, shift)
    best_filter = np.linalg.solve(factor @ factor.T, shift)
    truth = {"svm": best_filter, "logistic": best_filter}
    for method in METHODS:
        found = discover(data, "A", method, model=model).vector.numpy()
        assert cosine(found, truth.get(method, shift)) > 0.98, method
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_joint_tells_correlated_attributes_apart(model):
    rng = np.random.default_rng(2)
    first = rng.random(8000) < 0.5
    second = np.where(rng.random(8000) < 0.85, first, ~first)
    effects = np.eye(D)[:2]
    noise = 0.3 * rng.normal(size=(8000, D))
    labels = np.stack([first, second], axis=1)
    latents = (labels @ effects + noise).astype(np.float32)
    data = LabelledLatents(latents, labels, ("A", "B"), np.arange(8000))
    joint = discover(data, "A", "joint", model=model).vector.numpy()
    difference = discover(data, "A", "mean-difference", model=model).vector.numpy()
    assert cosine(joint, effects[0]) > 0.99
    assert cosine(difference, effects[0]) < 0.9


def test_threshold_and_gain_of_a_known_logistic():
    rng = np.random.default_rng(3)
    coordinate = rng.normal(0.4, 2.0, size=200_000)
    labels = rng.random(200_000) < 1 / (1 + np.exp(-1.7 * (coordinate - 0.9)))
    threshold, gain = logistic_curve(coordinate, labels)
    assert threshold == pytest.approx(0.9, abs=0.02)
    assert gain == pytest.approx(1.7, rel=0.02)


def test_scores_are_scikit_learns(model, factor):
    rng = np.random.default_rng(4)
    labels = rng.random(300) < 0.5
    ranking = np.round(rng.normal(size=300) + labels, 1)  # rounding makes ties
    predicted = ranking > 0.5
    scores = classification_scores(labels, predicted, ranking, np.arange(300) // 3)
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


def test_held_out_scores_of_noise_are_chance(model):
    rng = np.random.default_rng(5)
    latents = rng.normal(size=(400, D)).astype(np.float32)
    labels = rng.random((400, 1)) < 0.5
    data = LabelledLatents(latents, labels, ("A",), np.arange(400) // 4)
    score = discover(data, "A", "svm", model=model).scores["auroc"]
    assert score.low < 0.5 < score.high


def test_folds_never_split_an_identity():
    identities = np.random.default_rng(6).integers(0, 50, size=500)
    folds = identity_folds(identities, 5, seed=1)
    for identity in np.unique(identities):
        assert len(np.unique(folds[identities == identity])) == 1
    assert set(folds) == {0, 1, 2, 3, 4}
    assert np.array_equal(folds, identity_folds(identities, 5, seed=1))


def test_balanced_sets_are_balanced():
    labels = np.arange(1000) < 60
    chosen = balanced_indices(labels, seed=3)
    assert labels[chosen].sum() == 60
    assert len(np.unique(chosen)) == 120
    with pytest.raises(DataError, match="at least 20"):
        balanced_indices(np.arange(1000) < 19)


class Layered:
    """A model of layered latents, as far as discovery looks at it."""

    latent_shape = (4, D)
    latent_covariance = torch.eye(D)
    default_layers = (0, 1, 2)


def test_layered_latents_move_only_the_layers_asked_for(factor):
    flat = two_classes(factor, np.eye(D)[0], n=400)
    latents = np.repeat(flat.latents[:, None], 4, axis=1)
    data = LabelledLatents(latents, flat.labels, flat.attributes, flat.identities)
    assert discover(data, "A", "svm", model=Layered()).layers == (0, 1, 2)  # type: ignore[arg-type]
    chosen = discover(data, "A", "svm", model=Layered(), layers=[3])  # type: ignore[arg-type]
    assert chosen.layers == (3,)
    assert float(chosen.vector[3].norm()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(HublatentError, match="0 to 3"):
        discover(data, "A", "svm", model=Layered(), layers=[4])  # type: ignore[arg-type]


def test_unknown_names_offer_the_nearest(model, factor):
    data = two_classes(factor, np.eye(D)[0], n=200)
    with pytest.raises(DataError, match=r"Unknown attribute 'a'.*Did you mean A"):
        discover(data, "a", model=model)
    with pytest.raises(HublatentError, match="Did you mean svm"):
        discover(data, "A", "svn", model=model)
    with pytest.raises(HublatentError, match="no layers"):
        discover(data, "A", model=model, layers=[0])


def test_the_same_seed_finds_the_same(model, factor):
    data = two_classes(factor, np.eye(D)[1], n=500)
    first, second = (discover(data, "A", "svm", model=model, seed=3) for _ in range(2))
    assert torch.equal(first.vector, second.vector)
    assert first.scores == second.scores
