"""The rate and its parts against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from hublatent.evaluation import rate
from hublatent.evaluation.rate import (
    active_dimensions,
    decompose_kl,
    decomposed_kl,
    kl_divergence,
)
from training.objectives.objective import sample_posterior


def test_the_kl_is_torchs() -> None:
    mean, log_variance = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(dim=1).mean()
    assert torch.allclose(kl_divergence(mean, log_variance), expected, atol=1e-5)


def test_the_parts_add_up_to_the_kl() -> None:
    mean = torch.randn(800, 3, generator=torch.Generator().manual_seed(7))
    log_variance = torch.full_like(mean, -2.0)
    whole = float(kl_divergence(mean, log_variance))
    assert sum(decomposed_kl(mean, log_variance).values()) == pytest.approx(whole, rel=0.03)


def test_images_told_apart_carry_log_n_nats_and_correlated_dimensions_their_correlation() -> None:
    sharp = decomposed_kl(torch.arange(50.0)[:, None] * 100, torch.zeros(50, 1))
    assert sharp["mutual_information"] == pytest.approx(math.log(50), abs=1e-6)
    rho, n = 0.9, 1500
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    mean = torch.stack([noise[:, 0], rho * noise[:, 0] + (1 - rho**2) ** 0.5 * noise[:, 1]], dim=1)
    found = decomposed_kl(mean, torch.full((n, 2), math.log(0.05)))
    covariance = torch.tensor([[1.05, rho], [rho, 1.05]])
    expected = -0.5 * math.log(float(torch.linalg.det(covariance)) / 1.05**2)
    assert found["total_correlation"] == pytest.approx(expected, abs=0.06)


def test_dimensions_that_never_move_are_not_active() -> None:
    spread = torch.tensor([1, 1, 0.01, 0])
    assert active_dimensions(torch.randn(100, 4) * spread) == 2


def test_pieces_give_the_decomposition_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    z = sample_posterior(mean, mean - 1, torch.Generator().manual_seed(1))
    whole = decompose_kl(z, mean, mean - 1, torch.full((1, 30), 1 / 30))
    monkeypatch.setattr(rate, "ELEMENTS", 30 * 4 * 7)  # 7 rows at a time
    assert list(decomposed_kl(mean, mean - 1, seed=1).values()) == pytest.approx(
        [float(term) for term in whole], abs=1e-4
    )
