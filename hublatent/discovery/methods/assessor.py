"""Directions learned through the model against a differentiable score (GANalyze).

Goetschalckx et al. 2019 (arXiv:1906.10112).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hublatent.discovery.methods.problem import Fits, Problem
from hublatent.errors import HublatentError
from hublatent.model import LatentModel

N_STEPS = 250
BATCH = 16
LARGEST_CHANGE = 3.0  # of the score, in its own units, to either side
PENALTY = 0.1

Score = Callable[[Tensor], Tensor]


def learn(
    model: LatentModel, score: Score, *, n_steps: int = N_STEPS, penalty: float = PENALTY,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """Learn the step in latent space that raises a score of the image by 1.

    Minimises, over samples z and changes a (Goetschalckx et al. 2019),

        E (A(G(z + a t)) - A(G(z)) - a)^2 + penalty * t' Cov^-1 t

    The penalty, the squared length of t in standard deviations, keeps it where latents lie. Where
    model and score are linear with gradient g, the minimum is
    t = Cov g / (g' Cov g + penalty / E a^2): the pattern of the filter g (Haufe et al. 2014).

    Args:
        score: images (B, C, H, W) -> (B,), differentiable; such as a classifier's logit, but never
            the judge's.

    Returns:
        (D,), t; a latent with layers moves all its default layers by it.
    """
    if model.training:
        raise HublatentError(
            "The model is in training mode, in which its images depend on one another; call "
            "model.eval() before."
        )
    generator = torch.Generator().manual_seed(seed)
    factor = _factor(model.latent_covariance)  # t = factor u, so that the penalty is |u|^2
    layers = torch.zeros(*model.latent_shape[:-1], 1).to(factor)  # (1,) or (L, 1)
    layers[model.moved_rows()] = 1
    squared_change = LARGEST_CHANGE**2 / 3  # E a^2

    # The start is the minimum of the linear case, the rate that of its steepest direction. Adam
    # would set out in the direction of the gradient's signs, and hardly come back from it.
    samples = model.sample_latents(4 * BATCH, generator=generator).split(BATCH)
    slopes = torch.cat([_slopes(model, score, z, layers) for z in samples]) @ factor  # (4 B, D)
    mean = slopes.mean(dim=0)
    u = mean / (mean.square().sum() + penalty / squared_change)
    rate = 1 / (squared_change * slopes.square().sum(dim=1).mean() + penalty)
    for step in range(n_steps):
        changes = (torch.rand(BATCH, generator=generator).to(u) * 2 - 1) * LARGEST_CHANGE
        latents = model.sample_latents(BATCH, generator=generator)
        with torch.no_grad():
            wanted = score(model.synthesize(latents)) + changes  # (B,)
        with torch.enable_grad():
            u.requires_grad_()
            shift = changes.reshape(-1, *[1] * (latents.ndim - 1)) * layers * (factor @ u)
            obtained = score(model.synthesize(latents + shift))
            loss = (obtained - wanted).square().mean() + penalty * u.square().sum()
            (gradient,) = torch.autograd.grad(loss, u)  # leaves none in model and score
        decay = 0.5 + 0.5 * math.cos(math.pi * step / n_steps)
        u = u.detach() - 0.5 * rate * decay * gradient
    if not bool(u.isfinite().all()):
        raise HublatentError("The score of the model's images is not finite.")
    return factor @ u


def _slopes(model: LatentModel, score: Score, latents: Tensor, layers: Tensor) -> Tensor:
    """(B, D): how each latent's score changes where its layers move together."""
    with torch.enable_grad():
        latents = latents.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(model.synthesize(latents)).sum(), latents)
    return (gradient * layers).reshape(len(latents), -1, latents.shape[-1]).sum(dim=1)


def assessor(problem: Problem) -> Fits:
    """The step that raises a classifier's logit; it sees no labelled image."""
    model, classifier = problem.model, problem.classifier
    if model is None or classifier is None:
        raise HublatentError(
            "The method 'assessor' learns through the model from a classifier's logit; pass both "
            "model= and classifier=."
        )
    column = classifier.index(problem.attribute)
    row = learn(model, lambda images: classifier(images)[:, column], seed=problem.seed)
    return Fits(np.tile(row.double().cpu().numpy(), (problem.n_folds + 1, 1)))


def _factor(covariance: Tensor) -> Tensor:
    """(D, D), F with F F' = covariance, which may be singular where dimensions are unused."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.clamp(min=0).sqrt()).to(covariance)
