"""The metrics on codes whose scores are known: perfect, rotated, random, missing, duplicated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from hublatent.errors import DataError, HublatentError
from hublatent.evaluation.metrics import (
    METRICS,
    betavae_score,
    dci,
    factorvae_score,
    infomec,
    linear_separability,
    mig,
    path_length,
    sap,
)
from hublatent.evaluation.metrics.dci import disentanglement_and_completeness

N, K, VALUES = 6000, 5, 10
FEW = {"n_train": 2000, "n_test": 1000}


@pytest.fixture(scope="module")
def factors() -> np.ndarray:
    return np.random.default_rng(0).integers(VALUES, size=(N, K))


@pytest.fixture(scope="module")
def rotated(factors: np.ndarray) -> np.ndarray:
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((K, K)))
    return (factors - factors.mean(axis=0)) @ turn


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((N, K))


def plain_mig(latents: np.ndarray, factors: np.ndarray) -> float:
    """MIG a pair at a time, as reference implementations compute it."""
    gaps = []
    for v in factors.T:
        found = []
        for z in latents.T:
            edges = np.histogram(z, 20)[1]
            found.append(mutual_info_score(np.digitize(z, edges[:-1]), v))
        first, second = sorted(found)[::-1][:2]
        gaps.append((first - second) / mutual_info_score(v, v))
    return float(np.mean(gaps))


def test_mig_of_known_codes(factors: np.ndarray, rotated: np.ndarray, noise: np.ndarray) -> None:
    assert mig(factors, factors)["mig"] == pytest.approx(0.998, abs=2e-3)
    assert mig(rotated, factors)["mig"] < 0.2
    assert mig(noise, factors)["mig"] < 5e-3


def test_mig_is_the_plain_one() -> None:
    rng = np.random.default_rng(3)
    factors = rng.integers(VALUES, size=(N, K))
    latents = np.concatenate([factors + rng.standard_normal((N, K)), factors**2], axis=1)
    assert mig(latents, factors)["mig"] == pytest.approx(plain_mig(latents, factors), abs=1e-6)


def test_sap_of_known_codes(factors: np.ndarray, rotated: np.ndarray, noise: np.ndarray) -> None:
    assert sap(factors, factors, continuous=True)["sap"] == pytest.approx(0.9998, abs=1e-3)
    assert sap(rotated, factors, continuous=True)["sap"] < 0.4
    assert sap(noise, factors, continuous=True)["sap"] < 0.01
    binary = (factors[:, :2] > 4).astype(int)
    assert sap(factors[:, :2].astype(float), binary)["sap"] == pytest.approx(0.5, abs=0.05)


def test_dci_of_known_codes(factors: np.ndarray, rotated: np.ndarray) -> None:
    perfect = dci(factors[:2000], factors[:2000], "random-forest")
    assert perfect["disentanglement"] > 0.97 and perfect["completeness"] > 0.97
    assert perfect["informativeness"] == 1
    assert dci(rotated[:2000], factors[:2000], "random-forest")["disentanglement"] < 0.5
    assert dci(factors[:900], factors[:900] > 4, "logistic")["disentanglement"] > 0.9
    assert dci(factors[:900, :2], factors[:900, :2] > 4)["disentanglement"] > 0.97


def test_a_duplicated_code_is_disentangled_and_less_complete() -> None:
    # Each of 5 factors lies in two of 10 dimensions.
    importance = np.repeat(np.eye(5), 2, axis=0) / 2
    d, c = disentanglement_and_completeness(importance)
    assert d == pytest.approx(1, abs=1e-6)
    assert c == pytest.approx(1 - np.log(2) / np.log(10), abs=1e-6)


def test_factorvae_score_of_known_codes(
    factors: np.ndarray, rotated: np.ndarray, noise: np.ndarray
) -> None:
    def score(code: np.ndarray) -> float:
        return factorvae_score(code, factors, **FEW)["factorvae-score"]

    assert score(factors) == 1
    assert score(rotated) < 0.95
    assert score(noise) < 0.35
    # The missing factor's votes fall on all dimensions alike; the one that is noise stands for it.
    missing = np.concatenate([factors[:, :4], noise[:, :1]], axis=1)
    assert score(missing) == pytest.approx(0.85, abs=0.03)
    assert score(factors * 1e-3) == 0  # nothing varies enough


def test_betavae_score_of_known_codes(factors: np.ndarray, noise: np.ndarray) -> None:
    assert betavae_score(factors, factors, **FEW)["betavae-score"] > 0.99
    assert betavae_score(noise, factors, **FEW)["betavae-score"] < 0.3


def test_infomec_of_known_codes(factors: np.ndarray) -> None:
    few = factors[:2000, :3]
    jitter = np.random.default_rng(4).uniform(-0.4, 0.4, few.shape)
    perfect = infomec(few + jitter, few)
    assert perfect["modularity"] > 0.95 and perfect["compactness"] > 0.95
    assert 0.4 < perfect["explicitness"] <= 1
    # Twice the dimensions: each still tells of one factor, and no factor lies in one.
    doubled = infomec(np.concatenate([few + jitter, few - jitter], axis=1), few)
    assert doubled["modularity"] > 0.95 and doubled["compactness"] < 0.55
    turned = infomec(few @ np.linalg.qr(np.ones((3, 3)) + 2 * np.eye(3))[0] + jitter, few)
    assert turned["explicitness"] == pytest.approx(perfect["explicitness"], abs=0.15)


def test_linear_separability_is_one_where_a_plane_separates(noise: np.ndarray) -> None:
    separable = linear_separability(noise, noise[:, :2])["linear-separability"]
    assert separable == pytest.approx(1, abs=0.05)
    unknown = np.random.default_rng(5).standard_normal((N, 1))
    assert linear_separability(noise, unknown)["linear-separability"] == pytest.approx(2, abs=0.05)


def test_path_length_of_a_linear_decoder_is_its_squared_step() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.zeros(50, 3).double(), torch.ones(50, 3).double()
    weight = torch.randn(3, 12, generator=generator).double()
    found = path_length(
        lambda z: (z @ weight).reshape(-1, 3, 2, 2), first, second, lambda x: x.flatten(1)
    )
    expected = (torch.ones(3).double() @ weight).square().sum().item()
    assert found["path-length"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_bad_arrays_are_refused(metric: str, factors: np.ndarray) -> None:
    measure, latents = METRICS[metric], factors.astype(float)
    with pytest.raises(DataError, match="same N"):
        measure(latents[:10], factors)
    with pytest.raises(DataError, match="NaN"):
        measure(np.full((10, 2), np.nan), factors[:10])
    with pytest.raises(DataError, match="integers"):
        measure(latents, latents)
    with pytest.raises(DataError, match="single value"):
        measure(latents, np.zeros((N, 1), int))


def test_an_unknown_estimator_is_refused(factors: np.ndarray) -> None:
    with pytest.raises(HublatentError, match="random-forest"):
        dci(factors, factors, "forest")
