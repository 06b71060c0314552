"""Discovery against closed forms: Gaussian classes, a linear model, chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hublatent import VAE
from hublatent.discovery import (
    FROM_LABELS,
    LabelledLatents,
    cross_validate,
    cross_validation,
    discover,
    discover_all,
)
from hublatent.discovery.methods import METHODS
from hublatent.errors import DataError, HublatentError
from hublatent.model import LatentModel

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
    for method in FROM_LABELS:
        found = discover(data, "A", method, model=model).vector.numpy()
        assert cosine(found, truth.get(method, shift)) > 0.98, method
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", FROM_LABELS)
def test_what_mirroring_turns_round_is_not_part_of_an_attribute(model, factor, method):
    """Mirroring turns the first coordinate's sign here, so no fit may lean to either side."""
    one_sided = two_classes(factor, np.array([0.3, -0.5, 0.0, 0.8, 0.2]), n=400)
    mirrored = one_sided.latents * np.array([-1, 1, 1, 1, 1], np.float32)
    data = replace(one_sided, mirrored=mirrored)
    found, without = (discover(d, "A", method, model=model) for d in (data, one_sided))
    assert abs(found.vector[0]) < 1e-3 < abs(without.vector[0])
    assert found.n_positive == without.n_positive


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


def test_held_out_scores_of_noise_are_chance(model):
    rng = np.random.default_rng(9)
    latents = rng.normal(size=(4000, D)).astype(np.float32)
    labels = rng.random((4000, 1)) < 0.5
    data = LabelledLatents(latents, labels, ("A",), np.arange(4000) // 4)
    score = discover(data, "A", "svm", model=model).scores["auroc"]
    assert score.low < 0.5 < score.high


class Layered(LatentModel):
    """A model of layered latents, as far as discovery looks at it."""

    default_layers = (0, 1, 2)

    def __init__(self):
        super().__init__(16, 3, (4, D))


def test_layered_latents_move_only_the_layers_asked_for(factor):
    flat = two_classes(factor, np.eye(D)[0], n=400)
    latents = np.repeat(flat.latents[:, None], 4, axis=1)
    data = LabelledLatents(latents, flat.labels, flat.attributes, flat.identities)
    assert discover(data, "A", "svm", model=Layered()).layers == (0, 1, 2)
    chosen = discover(data, "A", "svm", model=Layered(), layers=[3])
    assert chosen.layers == (3,)
    assert float(chosen.vector[3].norm()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(HublatentError, match="0 to 3"):
        discover(data, "A", "svm", model=Layered(), layers=[4])


def test_layered_latents_are_read_averaged_over_all_layers(factor):
    flat = two_classes(factor, np.eye(D)[0], n=400)
    latents = np.random.default_rng(6).normal(size=(400, 4, D)).astype(np.float32)
    latents += (flat.latents - latents.mean(axis=1))[:, None]  # their mean is the flat latent
    data = LabelledLatents(latents, flat.labels, flat.attributes, flat.identities)
    found = discover(data, "A", "svm", model=Layered())
    rows, truth = cross_validate(flat, "A"), found.scores["accuracy"].value
    assert truth == pytest.approx(rows.correct.mean())


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


def test_threshold_and_gain_are_those_of_the_populations(model, factor):
    """Two Gaussians that differ by delta: P(A | c) is logistic in c, with known constants."""
    shift = np.array([1.0, -0.5, 0.0, 0.8, 0.2])
    direction = discover(two_classes(factor, shift, n=20_000), "A", "svm", model=model)
    row = direction.vector.numpy().astype(np.float64)
    spread = row @ factor @ factor.T @ row
    # log P(c | A) / P(c | not A) = (c - midpoint) * gap / variance, with <v, v> = 1.
    assert direction.threshold == pytest.approx(row @ shift / 2, abs=0.03)
    assert direction.gain == pytest.approx(row @ shift / spread, rel=0.05)


@pytest.mark.parametrize("method", FROM_LABELS)
def test_where_latents_lie_moves_the_threshold_alone(model, method):
    """z + t for all: c rises by <t, v> / <v, v>, and so does the threshold; nothing else."""
    rng = np.random.default_rng(4)
    data = two_classes(np.eye(D), np.array([1.0, -0.5, 0.0, 0.8, 0.2]), n=400)
    data = replace(data, latents=np.round(data.latents * 64) / 64)  # so that z + t is exact
    shift = rng.integers(-20_000, 20_000, D).astype(np.float32)
    plain, moved = (
        discover(replace(data, latents=data.latents + t), "A", method, model=model)
        for t in (np.float32(0), shift)
    )
    assert cosine(plain.vector.numpy(), moved.vector.numpy()) > 0.999999
    assert moved.gain == pytest.approx(plain.gain, rel=1e-3) and plain.gain > 0
    rise = float(moved.vector.double() @ torch.from_numpy(shift).double()) / moved.squared_norm
    assert moved.threshold - rise == pytest.approx(plain.threshold, abs=0.01)
    assert moved.scores["accuracy"].value == pytest.approx(plain.scores["accuracy"].value)


def test_sigma_is_the_spread_over_the_models_statistics(model, factor):
    data = two_classes(factor, np.ones(D), n=2000)
    model.set_latent_statistics(torch.from_numpy(data.latents))
    direction = discover(data, "A", "pattern", model=model)
    measured = direction.coordinate(torch.from_numpy(data.latents)).std()
    assert direction.sigma == pytest.approx(float(measured), rel=1e-4)


def test_many_at_once_are_those_found_alone(model, factor):
    data = two_classes(factor, np.eye(D)[1], n=500)
    together = list(discover_all(data, ("A", "B"), ("svm", "pattern", "joint"), model=model))
    assert [d.name for d in together[:4]] == ["A.svm", "A.pattern", "A.joint", "B.svm"]
    for direction in together:
        alone = discover(data, direction.attribute, direction.method, model=model)
        assert torch.equal(alone.vector, direction.vector)
        assert alone.scores == direction.scores


def test_held_out_people_do_not_help(model):
    """Latents that only tell persons apart read nothing on persons never seen."""
    rng = np.random.default_rng(7)
    identities = np.repeat(np.arange(5 * 12), 8)
    persons = rng.normal(size=(60, 200)) * 4
    latents = persons[identities] + 0.1 * rng.normal(size=(480, 200))
    labels = (rng.permutation(60) < 30)[identities][:, None]
    wide = VAE(image_size=16, latent_dim=200, width=4, max_width=4, n_stages=2)
    data = LabelledLatents(latents.astype(np.float32), labels, ("A",), identities)
    assert discover(data, "A", "svm", model=wide).scores["accuracy"].value < 0.75
    leaky = LabelledLatents(data.latents, labels, ("A",), np.arange(480))
    assert discover(leaky, "A", "svm", model=wide).scores["accuracy"].value > 0.95


def test_too_few_examples_or_people_are_refused(model):
    rng = np.random.default_rng(8)
    latents = rng.normal(size=(200, D)).astype(np.float32)
    rare = LabelledLatents(latents, (np.arange(200) < 19)[:, None], ("Rare",), np.arange(200))
    with pytest.raises(DataError, match=r"Rare: 19 examples have the attribute.*at least 20"):
        discover(rare, "Rare", model=model)
    one = np.where(np.arange(200) < 30, 0, np.arange(200))
    person = LabelledLatents(latents, (np.arange(200) < 30)[:, None], ("One",), one)
    with pytest.raises(DataError, match="One: its examples show too few people"):
        discover(person, "One", model=model)


def test_latents_that_do_not_fit_are_refused():
    latents, labels = np.zeros((4, D), np.float32), np.zeros((4, 2), bool)
    with pytest.raises(DataError, match="do not belong together"):
        LabelledLatents(latents, labels, ("A",), np.arange(4))
    with pytest.raises(DataError, match="NaN"):
        LabelledLatents(latents * np.nan, labels, ("A", "B"), np.arange(4))
    with pytest.raises(DataError, match="mirror"):
        LabelledLatents(latents, labels, ("A", "B"), np.arange(4), mirrored=latents[:3])


@pytest.mark.parametrize("method", ["svm", "logistic"])
def test_normals_are_those_of_scikit_learn(factor, method):
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    theirs = {
        "svm": LinearSVC(C=0.01, dual=False, tol=1e-8, max_iter=10_000),
        "logistic": LogisticRegression(C=0.1, tol=1e-8, max_iter=10_000),
    }[method]
    data = two_classes(factor, np.array([1.0, -0.5, 0.0, 0.8, 0.2]), n=700)
    data = replace(data, latents=40 * data.latents + 300)
    (problem,) = cross_validation.pose(data, ["A"])
    fits = METHODS[method](problem)
    folds = problem.folds[problem.chosen]
    for fold in range(problem.n_folds + 1):
        kept = problem.chosen[folds != fold]
        latents = data.latents[kept].astype(np.float64)
        mean, spread = latents.mean(axis=0), np.sqrt(latents.var(axis=0).mean())
        theirs.fit((latents - mean) / spread, data.label("A")[kept])
        assert cosine(fits.rows[fold], theirs.coef_[0]) > 0.99999
        margin = fits.rows[fold] @ mean + fits.intercepts[fold]
        assert margin == pytest.approx(theirs.intercept_[0], abs=0.01)


# --- numbers at their edges -----------------------------------------------------------------------


def simple(n: int, width: int = D, people: int | None = None, **changes) -> LabelledLatents:
    rng = np.random.default_rng(5)
    labels = (np.arange(n) % 2 == 0)[:, None]
    latents = rng.normal(size=(n, width)).astype(np.float32)
    latents[:, 0] += 4 * labels[:, 0]
    given = {"latents": latents, "labels": labels, "identities": np.arange(n) % (people or n)}
    return LabelledLatents(**{**given, "attributes": ("A",), **changes})


def test_unknown_labels_are_refused():
    labels = np.where(np.arange(40) < 1, np.nan, np.arange(40) % 2)[:, None]
    with pytest.raises(DataError, match=r"other than 0 and 1 \(or NaN\)"):
        simple(40, labels=labels)


@pytest.mark.parametrize("method", FROM_LABELS)
def test_latents_that_are_all_the_same_have_no_direction(model, method):
    for constant in (0.0, 3.7):
        data = simple(200, latents=np.full((200, D), constant, np.float32))
        with pytest.raises(DataError, match=r"A: .*the same"):
            discover(data, "A", method, model=model)


def test_one_person_alone_is_refused(model):
    with pytest.raises(DataError, match="need as many identities; the data have 1"):
        discover(simple(200, people=1), "A", model=model)


@pytest.mark.parametrize("method", FROM_LABELS)
def test_one_dimension_is_its_own_direction(method):
    narrow = VAE(image_size=16, latent_dim=1, width=4, max_width=4, n_stages=2)
    found = discover(simple(200, 1), "A", method, model=narrow)
    assert found.vector.tolist() == [1.0]
    assert found.scores["accuracy"].value > 0.9


@pytest.mark.parametrize("method", FROM_LABELS)
def test_twenty_of_each_are_enough(model, method):
    found = discover(simple(40), "A", method, model=model)
    assert found.vector[0] > 0.7 and found.scores["auroc"].value > 0.9


@pytest.mark.parametrize("method", FROM_LABELS)
def test_faces_that_appear_twice_change_no_direction(model, method):
    once = simple(400)
    twice = replace(
        once,
        latents=np.repeat(once.latents, 2, axis=0),
        labels=np.repeat(once.labels, 2, axis=0),
        identities=np.repeat(once.identities, 2),
    )
    first, second = (discover(d, "A", method, model=model) for d in (once, twice))
    assert cosine(first.vector.numpy(), second.vector.numpy()) > 0.999
    for name, score in first.scores.items():  # two photographs of a person say no more than one
        assert second.scores[name].low == pytest.approx(score.low, abs=0.02)


@pytest.mark.parametrize("method", FROM_LABELS)
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_unit_of_latents_does_not_matter(model, method, scale):
    data = simple(200)
    found = discover(
        replace(data, latents=data.latents * np.float32(scale)), "A", method, model=model
    )
    plain = discover(data, "A", method, model=model)
    assert cosine(found.vector.numpy(), plain.vector.numpy()) > 0.9999
    assert found.gain * scale == pytest.approx(plain.gain, rel=1e-3)
