"""Each term of each objective alone, against closed forms, reference values and known bugs."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from hublatent.errors import DataError
from hublatent.evaluation import rate
from hublatent.evaluation.rate import (
    KLTerms,
    decompose_kl,
    difference_log_density,
    pairwise_log_density,
)
from training.objectives import OBJECTIVES, Batch
from training.objectives import objective as elbo
from training.objectives.beta_tcvae import ESTIMATORS, importance_weights
from training.objectives.objective import Posterior
from training.recipes import VAERecipe

# The setting of the reference table: notes/losses-and-metrics.md, "MSS, row i".
N, B, D = 20_000, 64, 4
VARIANCE, SPREAD = 0.2, 0.8


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(n: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = _generator(seed)
    images = torch.rand(n, 3, 8, 8, generator=generator) * 2 - 1
    return images, images + 0.2 * torch.randn(images.shape, generator=generator)


# Likelihoods


@pytest.mark.parametrize("sigma", [1.0, 0.1])
def test_gaussian_is_the_density_of_pixels_in_0_1(sigma: float) -> None:
    images, decoded = _images()
    density = Normal((decoded + 1) / 2, sigma).log_prob((images + 1) / 2)
    expected = -density.sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(elbo.gaussian_reconstruction(decoded, images, sigma), expected)


def test_calibrated_gaussian_has_sigma_at_its_optimum() -> None:
    images, decoded = _images()
    rmse = ((decoded - images) / 2).square().mean().sqrt().item()
    calibrated = elbo.calibrated_reconstruction(decoded, images)
    torch.testing.assert_close(calibrated, elbo.gaussian_reconstruction(decoded, images, rmse))
    for other in (0.9 * rmse, 1.1 * rmse):
        assert elbo.gaussian_reconstruction(decoded, images, other) > calibrated
    # Up to its documented constant it is D_x / 2 * log(MSE).
    n_pixels = 3 * 8 * 8
    constant = n_pixels / 2 * (math.log(2 * math.pi) + 1)
    torch.testing.assert_close(
        calibrated - constant, torch.tensor(n_pixels / 2 * math.log(rmse**2))
    )


def test_calibrated_gaussian_stays_finite_for_a_perfect_copy() -> None:
    images, _ = _images()
    decoded = images.clone().requires_grad_()
    value = elbo.calibrated_reconstruction(decoded, images)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(decoded.grad).all()


@pytest.mark.parametrize("name", ["gaussian", "calibrated"])
def test_likelihoods_average_over_the_batch(name: str) -> None:
    images, decoded = _images()
    likelihood = getattr(elbo, f"{name}_reconstruction")
    once = likelihood(decoded, images)
    twice = likelihood(decoded.repeat(2, 1, 1, 1), images.repeat(2, 1, 1, 1))
    torch.testing.assert_close(once, twice)


# KL, ELBO, beta, capacity


def _posterior(n: int = 7, d: int = 5) -> tuple[Tensor, Tensor]:
    generator = _generator(3)
    return torch.randn(n, d, generator=generator), torch.randn(n, d, generator=generator)


def test_kl_is_summed_over_dimensions_and_averaged_over_the_batch() -> None:
    mean, log_variance = _posterior()
    each = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(rate.kl_divergence(mean, log_variance), each.sum(dim=1).mean())


def test_posterior_samples_have_its_moments() -> None:
    mean, log_variance = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, -2.0]])
    n = 100_000
    z = elbo.sample_posterior(mean.expand(n, -1), log_variance.expand(n, -1), _generator())
    torch.testing.assert_close(z.mean(dim=0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(dim=0), log_variance[0].exp(), atol=0.02, rtol=0.02)


def _combined(
    name: str, reconstruction: Tensor, posterior: Posterior, images_seen: int = 0, **values: float
) -> dict[str, Tensor]:
    """The terms of an objective whose training set has N images."""
    recipe = VAERecipe("vae", objective=name, **values)  # type: ignore[arg-type]
    objective: Any = OBJECTIVES[name](recipe, N, posterior.z.shape[1], torch.device("cpu"))
    nothing = torch.empty(0)
    batch = Batch(nothing, nothing, _generator(), images_seen)
    penalty, parts = objective.penalty(posterior, batch)
    return {"loss": reconstruction + penalty, "reconstruction": reconstruction, **parts}


def test_elbo_and_beta_vae_weigh_the_kl() -> None:
    mean, log_variance = _posterior()
    posterior = Posterior(mean, mean, log_variance)
    rec, kl = torch.tensor(100.0), rate.kl_divergence(mean, log_variance)
    lower_bound = {"loss": rec + kl, "reconstruction": rec, "kl": kl}
    assert _combined("beta-vae", rec, posterior, beta=1.0) == lower_bound
    assert _combined("beta-vae", rec, posterior, beta=4.0)["loss"] == rec + 4 * kl


def test_capacity_rises_linearly_in_steps() -> None:
    posterior = Posterior(*[torch.zeros(2, 3)] * 3)
    options = {"capacity": 25.0, "capacity_images": 100}
    values = [
        _combined("capacity-vae", torch.tensor(1.0), posterior, seen, **options)["capacity"].item()
        for seen in (0, 1, 50, 100, 1000)
    ]
    assert values == pytest.approx([0, 0.25, 12.5, 25, 25])


def test_capacity_pulls_the_batchs_kl_from_both_sides() -> None:
    mean, log_variance = _posterior()
    posterior = Posterior(mean, mean, log_variance)
    kl = rate.kl_divergence(mean, log_variance)
    rec, end = torch.tensor(10.0), 10**9

    def terms(capacity: float) -> dict[str, Tensor]:
        options = {"capacity": capacity, "capacity_weight": 100.0}
        return _combined("capacity-vae", rec, posterior, end, **options)

    for capacity in (kl.item() - 2, kl.item() + 2):
        assert terms(capacity)["loss"].item() == pytest.approx(10 + 100 * 2, rel=1e-4)
        assert terms(capacity)["kl"] == kl
        assert terms(capacity)["capacity"].item() == pytest.approx(capacity)
    # Counter-example: the absolute value of each image's KL lets none of them average out.
    each = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)
    per_image = (each - kl).abs().mean()
    assert terms(kl.item())["loss"].item() == pytest.approx(10, abs=0.1)
    assert per_image > 1


# beta-TCVAE: the importance weights


@pytest.mark.parametrize("size", [2, 3, 64])
def test_stratified_weights_have_their_diagonal_and_row_sums(size: int) -> None:
    weights = importance_weights(size, N, "mss").double()
    others = size - 1
    torch.testing.assert_close(weights.diagonal(), torch.full((size,), 1 / N).double())
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(size).double())
    expected_next = (N - others) / (N * others)
    for i in range(size):
        for j in range(size):
            if i != j:
                expected = expected_next if j == (i + 1) % size else 1 / others
                assert weights[i, j].item() == pytest.approx(expected)


def test_a_batch_of_one_has_the_weight_one() -> None:
    assert importance_weights(1, N, "mss").tolist() == [[1.0]]


def test_weights_of_weighted_sampling() -> None:
    torch.testing.assert_close(importance_weights(4, 100, "mws"), torch.full((4, 4), 1 / 400))


def test_impossible_weights_are_refused() -> None:
    with pytest.raises(DataError, match="batch of 5 from 4"):
        importance_weights(5, 4)
    with pytest.raises(DataError, match="mss"):
        importance_weights(5, 40, "msss")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_batch_of_one_gives_finite_terms_and_gradients(estimator: str) -> None:
    mean, log_variance = (t.requires_grad_() for t in _posterior(1))
    z = elbo.sample_posterior(mean, log_variance, _generator())
    terms = decompose_kl(z, mean, log_variance, importance_weights(1, N, estimator))
    (terms[0] + 4.0 * terms[1] + terms[2]).backward()
    assert all(torch.isfinite(t) for t in (*terms, mean.grad.sum(), log_variance.grad.sum()))
    if estimator == "mss":  # one posterior is all that is known: its own
        assert terms.mutual_information.item() == pytest.approx(0, abs=1e-5)
        assert terms.total_correlation.item() == pytest.approx(0, abs=1e-5)


# beta-TCVAE: each term against the reference table


def _column_bug(size: int, n_examples: int) -> Tensor:
    """Known bug: 1/N in column 0 and the stratum's weight in column 1, of every row."""
    others = size - 1
    stratum = (n_examples - others) / (n_examples * others)
    weights = torch.full((size, size), 1 / others)
    weights.view(-1)[::size] = 1 / n_examples
    weights.view(-1)[1::size] = stratum
    weights[others - 1, 0] = stratum
    return weights


def _per_dimension_bug(z: Tensor, mean: Tensor, log_variance: Tensor, weights: Tensor) -> KLTerms:
    """Known bug: log W is added to every dimension of the joint before they are summed."""
    log_density = Normal(mean, (0.5 * log_variance).exp()).log_prob(z[:, None])
    weighted = weights.log()[..., None] + log_density
    own = Normal(mean, (0.5 * log_variance).exp()).log_prob(z).sum(dim=1)
    joint = weighted.sum(dim=2).logsumexp(dim=1)
    marginals = weighted.logsumexp(dim=1).sum(dim=1)
    prior = Normal(0.0, 1.0).log_prob(z).sum(dim=1)
    return KLTerms((own - joint).mean(), (joint - marginals).mean(), (marginals - prior).mean())


ESTIMATES = {
    "mss": lambda *posterior: decompose_kl(*posterior, importance_weights(B, N, "mss")),
    "mws": lambda *posterior: decompose_kl(*posterior, importance_weights(B, N, "mws")),
    "column bug": lambda *posterior: decompose_kl(*posterior, _column_bug(B, N)),
    "column and per-dimension bug": lambda *posterior: _per_dimension_bug(
        *posterior, _column_bug(B, N)
    ),
}
REFERENCE = {
    "mss": (3.69, -0.39, -0.10),
    "mws": (12.7, 30.1, -39.5),
    "column bug": (2.78, 0.35, 0.08),
    "column and per-dimension bug": (15.2, -12.1, 0.09),
}
# Means of 300 batches that spread by about 0.3, on both sides, and the table's rounding.
TOLERANCE = 0.1


@cache
def _mean_terms(name: str) -> tuple[float, ...]:
    generator = _generator(5)
    means = torch.randn(N, D, generator=generator) * math.sqrt(SPREAD)
    log_variance = torch.full((B, D), math.log(VARIANCE))
    batches = []
    for _ in range(300):
        mean = means[torch.randperm(N, generator=generator)[:B]]
        z = elbo.sample_posterior(mean, log_variance, generator)
        batches.append(torch.stack(ESTIMATES[name](z, mean, log_variance)))
    return tuple(torch.stack(batches).mean(dim=0).tolist())


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_each_term_meets_its_reference_value(name: str) -> None:
    assert _mean_terms(name) == pytest.approx(REFERENCE[name], abs=TOLERANCE)


@pytest.mark.parametrize("bug", ["column bug", "column and per-dimension bug"])
def test_the_known_bugs_fail_the_reference_though_their_sum_is_right(bug: str) -> None:
    right, wrong = _mean_terms("mss"), _mean_terms(bug)
    assert wrong != pytest.approx(REFERENCE["mss"], abs=TOLERANCE)
    assert sum(wrong) == pytest.approx(sum(right), abs=1e-3)
    assert any(abs(a - b) > 3 * TOLERANCE for a, b in zip(wrong, REFERENCE["mss"], strict=True))


def test_all_examples_as_posteriors_give_the_closed_form() -> None:
    # The aggregate posterior is N(0, I): all of the KL is mutual information.
    generator = _generator(6)
    mean = torch.randn(N, D, generator=generator) * math.sqrt(SPREAD)
    log_variance = torch.full_like(mean, math.log(VARIANCE))
    z = elbo.sample_posterior(mean[:500], log_variance[:500], generator)
    terms = decompose_kl(z, mean, log_variance, torch.full((1, N), 1 / N))
    information = D / 2 * math.log((SPREAD + VARIANCE) / VARIANCE)
    assert information == pytest.approx(3.22, abs=0.005)
    assert [t.item() for t in terms] == pytest.approx([information, 0, 0], abs=0.2)


def test_terms_match_a_slow_plain_version() -> None:
    mean, log_variance = (t.double() for t in _posterior(5, 3))
    z = elbo.sample_posterior(mean, log_variance, _generator())
    weights = importance_weights(5, 50).double()
    information = correlation = dimension_wise = 0.0
    for i in range(5):
        density = [
            [
                math.exp(-((z[i, d] - mean[j, d]) ** 2) / 2 / math.exp(log_variance[j, d]))
                / math.sqrt(2 * math.pi * math.exp(log_variance[j, d]))
                for d in range(3)
            ]
            for j in range(5)
        ]
        joint = sum(weights[i, j] * math.prod(density[j]) for j in range(5))
        product = math.prod(sum(weights[i, j] * density[j][d] for j in range(5)) for d in range(3))
        prior = math.prod(math.exp(-(z[i, d] ** 2) / 2) / math.sqrt(2 * math.pi) for d in range(3))
        information += math.log(math.prod(density[i]) / joint) / 5
        correlation += math.log(joint / product) / 5
        dimension_wise += math.log(product / prior) / 5
    terms = decompose_kl(z, mean, log_variance, weights)
    expected = (information, correlation, dimension_wise)
    assert [t.item() for t in terms] == pytest.approx(expected, rel=1e-5)


# beta-TCVAE: the objective


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_beta_tcvae_is_the_elbo_plus_the_extra_total_correlation(estimator: str) -> None:
    mean, log_variance = _posterior(16)
    z = elbo.sample_posterior(mean, log_variance, _generator())
    terms = decompose_kl(z, mean, log_variance, importance_weights(16, N, estimator))
    rec, beta = torch.tensor(50.0), 6.0
    # The KL of the same samples: log q(z|x) - log p(z).
    own = Normal(mean, (0.5 * log_variance).exp()).log_prob(z).sum(dim=1)
    kl = (own - Normal(0.0, 1.0).log_prob(z).sum(dim=1)).mean()
    expected = rec + kl + (beta - 1) * terms.total_correlation
    posterior = Posterior(z, mean, log_variance)
    found = _combined("beta-tcvae", rec, posterior, beta=beta, estimator=estimator)  # type: ignore[arg-type]
    torch.testing.assert_close(found["loss"], expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found["kl"], kl, rtol=1e-5, atol=1e-4)
    # Counter-example, known from widely used code: beta KL + (beta - 1) TC.
    wrong = rec + beta * kl + (beta - 1) * terms.total_correlation
    assert abs(wrong - found["loss"]) > 1
    weighted = {"beta": beta, "alpha": 0.5, "gamma": 3.0, "estimator": estimator}
    found = _combined("beta-tcvae", rec, posterior, **weighted)  # type: ignore[arg-type]
    by_hand = rec + 0.5 * terms[0] + 6 * terms[1] + 3 * terms[2]
    torch.testing.assert_close(found["loss"], by_hand)


def test_far_apart_posteriors_stay_exact() -> None:
    # Most densities underflow: only a sample's own posterior, of weight 1/N, is near it.
    mean = 20.0 * torch.stack([torch.randperm(32, generator=_generator(d)) for d in range(6)], 1)
    log_variance = torch.full((32, 6), -4.0)
    z = elbo.sample_posterior(mean, log_variance, _generator(1))
    terms = decompose_kl(z, mean, log_variance, importance_weights(32, N))
    log_n = math.log(N)
    expected = [log_n, (6 - 1) * log_n]
    assert [t.item() for t in terms[:2]] == pytest.approx(expected, rel=1e-3)


def test_autocast_does_not_coarsen_the_terms() -> None:
    mean, log_variance = _posterior(16)
    z = elbo.sample_posterior(mean, log_variance, _generator())
    weights = importance_weights(16, N)
    expected = decompose_kl(z, mean, log_variance, weights)
    with torch.autocast("cpu", torch.bfloat16):
        assert decompose_kl(z, mean, log_variance, weights) == expected


def test_both_ways_to_a_density_agree() -> None:
    draws = torch.Generator().manual_seed(0)
    z, mean, log_variance = (torch.randn(n, 3, generator=draws) for n in (4, 6, 6))
    torch.testing.assert_close(
        difference_log_density(z, mean, log_variance), pairwise_log_density(z, mean, log_variance)
    )
