"""LSA-VAE's and the autoencoder's objectives: closed forms, and who learns from which term."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from training.objectives import Batch
from training.objectives.autoencoder import AutoencoderObjective
from training.objectives.lsavae import (
    LSAVAEObjective,
    attribute_cross_entropy,
    attribute_kl,
    encode_by_constants,
    frozen_statistics,
)
from training.recipes import VAERecipe

TINY = VAERecipe(
    "lsavae", image_size=16, style_dim=3, width=4, max_width=8, n_stages=2, objective="lsavae",
)  # fmt: skip
CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_and_batch(recipe: VAERecipe = TINY) -> tuple[Any, Batch]:
    torch.manual_seed(0)
    model = recipe.build(("Eyeglasses", "Smiling"))
    images = torch.rand(8, 3, 16, 16, generator=seeded()) * 2 - 1
    labels = torch.randint(0, 2, (8, 2), generator=seeded(1)).float()
    return model, Batch(images, labels, seeded(2))


def test_the_attributes_lie_behind_the_style() -> None:
    model, _ = model_and_batch()
    assert model.latent_shape == (5,) and model.attribute_axes == {"Eyeglasses": 3, "Smiling": 4}


def test_attributes_have_a_prior_for_each_label() -> None:
    mean, log_variance = torch.randn(6, 2, generator=seeded()), torch.rand(6, 2)
    labels = torch.tensor([[0.0, 1.0]]).expand(6, -1)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(posterior, Normal(2 * labels - 1, 1.0)).sum(dim=1).mean()
    torch.testing.assert_close(attribute_kl(mean, log_variance, labels), expected)


def test_attributes_are_read_by_the_priors_own_log_odds() -> None:
    values = torch.randn(6, 2, generator=seeded())
    labels = torch.randint(0, 2, (6, 2), generator=seeded(1)).float()
    present, absent = (Normal(m, 1.0).log_prob(values) for m in (1.0, -1.0))
    p = (present - absent).sigmoid()
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).sum(dim=1).mean()
    torch.testing.assert_close(attribute_cross_entropy(values, labels), expected)


def test_the_loss_is_the_sum_that_the_recipe_weighs() -> None:
    model, batch = model_and_batch()
    terms = LSAVAEObjective(TINY, 100, 5, CPU).terms(model, batch)
    read = terms["attribute_cross_entropy"] + terms["drawn_attribute_cross_entropy"]
    # A fresh encoder's KL lies far below the margin, so that its hinge is open.
    hinge = TINY.margin - terms["drawn_style_kl"]
    expected = terms["reconstruction"] + terms["style_kl"] + terms["attribute_kl"]
    expected = expected + TINY.attribute_weight * read
    expected = expected + TINY.adversarial_weight * (hinge + terms["drawn_style_kl"])
    torch.testing.assert_close(terms["loss"], expected)


def test_drawn_images_are_judged_without_teaching_the_encoder() -> None:
    model, batch = model_and_batch()
    images = batch.images.clone().requires_grad_()
    statistics = [value.clone() for value in model.encoder.buffers()]
    with frozen_statistics(model.encoder):
        judged = encode_by_constants(model, images)
        plain = model.encode_distribution(batch.images)
    for one, other in zip(judged, plain, strict=True):
        torch.testing.assert_close(one, other)
    judged[0].square().sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())
    assert all(map(torch.equal, statistics, model.encoder.buffers()))
    model.encode_distribution(batch.images)
    assert not all(map(torch.equal, statistics, model.encoder.buffers()))


def test_an_autoencoder_minimises_its_reconstruction_alone() -> None:
    recipe = VAERecipe(
        "autoencoder", image_size=16, latent_dim=4, width=4, max_width=8, n_stages=2,
        objective="autoencoder", likelihood="gaussian", sigma=0.5,
    )  # fmt: skip
    model, batch = model_and_batch(recipe)
    terms = AutoencoderObjective(recipe, 100, 4, CPU).terms(model, batch)
    pixels: list[Tensor] = [
        (x + 1) / 2 for x in (model.decode_unclamped(model.encode(batch.images)), batch.images)
    ]
    density = Normal(pixels[0], 0.5).log_prob(pixels[1])
    torch.testing.assert_close(terms["loss"], -density.sum(dim=(1, 2, 3)).mean())
