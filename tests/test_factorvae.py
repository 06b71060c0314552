"""FactorVAE's objective: the density ratio against closed forms, and who learns from which loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.objectives import Batch
from training.objectives.factorvae import (
    Discriminator,
    FactorVAEObjective,
    discriminator_loss,
    permute_dimensions,
    total_correlation,
)
from training.recipes import VAERecipe

TINY = VAERecipe(
    "factorvae", image_size=16, latent_dim=4, width=4, max_width=8, n_stages=2,
    objective="factorvae", gamma=3.0, discriminator_width=16, batch_size=8,
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(n: int, rho: float, seed: int) -> Tensor:
    """n draws of a Gaussian of two unit variances and a correlation."""
    first, noise = torch.randn(2, n, generator=seeded(seed))
    return torch.stack([first, rho * first + math.sqrt(1 - rho**2) * noise], dim=1)


@pytest.mark.parametrize(("rho", "allowed"), [(0.9, 0.083), (0.5, 0.0144), (0.0, 0.02)])
def test_total_correlation_of_correlated_gaussians(rho: float, allowed: float) -> None:
    torch.manual_seed(0)
    latents, draws = correlated(50_000, rho, seed=1), seeded(2)
    discriminator = Discriminator(2, width=64)
    n_steps, highest = 500, 1e-3
    optimizer = torch.optim.Adam(discriminator.parameters(), highest)
    for step in range(n_steps):
        joint = latents[torch.randint(len(latents), (1_000,), generator=draws)]
        others = latents[torch.randint(len(latents), (1_000,), generator=draws)]
        permuted = permute_dimensions(others, draws)
        loss = discriminator_loss(discriminator(joint), discriminator(permuted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = highest * (1 - step / n_steps)
        optimizer.step()
    with torch.no_grad():
        found = total_correlation(discriminator(correlated(50_000, rho, seed=3))).item()
    assert found == pytest.approx(-0.5 * math.log(1 - rho**2), abs=allowed)


def test_each_dimension_is_permuted_by_itself() -> None:
    latents = torch.randn(64, 5, generator=seeded())
    permuted = permute_dimensions(latents, seeded(1))
    assert torch.equal(permuted.sort(dim=0).values, latents.sort(dim=0).values)
    orders = [(permuted[:, [d]] == latents[:, d]).int().argmax(dim=1).tolist() for d in range(5)]
    assert len({tuple(order) for order in orders}) == 5


def test_the_discriminators_loss_is_the_mean_cross_entropy() -> None:
    joint, permuted = torch.randn(6, 2, generator=seeded()), torch.randn(6, 2, generator=seeded(1))
    right = torch.cat([joint.softmax(dim=1)[:, 0], permuted.softmax(dim=1)[:, 1]])
    torch.testing.assert_close(discriminator_loss(joint, permuted), -right.log().mean())


def objective_and_batch() -> tuple[FactorVAEObjective, torch.nn.Module, Batch]:
    torch.manual_seed(0)
    model = TINY.build()
    objective = FactorVAEObjective(TINY, 100, 4, torch.device("cpu"))
    images = torch.rand(8, 3, 16, 16, generator=seeded()) * 2 - 1
    return objective, model, Batch(images, torch.zeros(8, 0), seeded(1))


def test_the_models_loss_is_the_papers() -> None:
    objective, model, batch = objective_and_batch()
    terms = objective.terms(model, batch)
    expected = terms["reconstruction"] + terms["kl"] + 3 * terms["total_correlation"]
    torch.testing.assert_close(terms["loss"], expected)


def test_the_discriminators_step_leaves_no_gradient_in_the_model() -> None:
    objective, model, batch = objective_and_batch()
    objective.terms(model, batch)["loss"].backward(inputs=list(model.parameters()))
    assert all(p.grad is None for p in objective.discriminator.parameters())
    model.zero_grad(set_to_none=True)
    objective.own_terms(model, batch)["own_loss"].backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad.abs().sum() > 0 for p in objective.discriminator.parameters())
