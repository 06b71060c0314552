"""Style channels that change with an attribute (Wu et al. 2021, StyleSpace, arXiv:2011.12799)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from hublatent.discovery.labelled import LabelledLatents
from hublatent.discovery.methods.problem import Fits, Problem
from hublatent.errors import DataError, HublatentError
from hublatent.model import LatentModel
from hublatent.models.style_space import StyleSpace
from hublatent.models.stylegan2 import StyleGAN2
from hublatent.stats import Bools, Floats

N_CHANNELS = 10


@torch.no_grad()
def in_styles(model: LatentModel, data: LabelledLatents) -> tuple[StyleSpace, LabelledLatents]:
    """A StyleGAN2 as a model of styles, and the styles of its latents."""
    if not isinstance(model, StyleGAN2):
        raise DataError(f"Styles are those of a StyleGAN2; a {type(model).__name__} has none.")
    space = StyleSpace(model)
    parts = torch.from_numpy(data.latents).to(model.latent_mean).split(1024)
    styles = torch.cat([space.to_styles(part) for part in parts]).cpu().numpy()
    return space, replace(data, latents=styles, mirrored=None)


def stylespace(problem: Problem) -> Fits:
    """The most relevant channels, moved as far as images with the attribute lie from all others."""
    if problem.model is None or problem.model.space != "s":
        raise HublatentError(
            "The method 'stylespace' reads latents that are styles; pass "
            "model=StyleSpace(stylegan2) and latents from its to_styles()."
        )
    styles, label = problem.data.pooled_latents, problem.label
    folds = problem.folds[problem.chosen]
    # The population is the balanced set: an attribute's rarity would only shrink the rest.
    learnt = [problem.chosen[folds != fold] for fold in range(problem.n_folds + 1)]
    rows = [channel_direction(styles[seen].astype(np.float64), label[seen]) for seen in learnt]
    return Fits(np.stack(rows))


def channel_direction(styles: Floats, label: Bools, n_channels: int = N_CHANNELS) -> Floats:
    """(S,): in the most relevant channels, how far positives lie from the mean."""
    row = styles[label].mean(axis=0) - styles.mean(axis=0)
    row[np.argsort(relevance(styles, label))[:-n_channels]] = 0
    return row


def relevance(styles: Floats, label: Bools) -> Floats:
    """(S,): theta = |mean d| / deviation of d over images with the attribute (Wu et al. 2021).

    d = (s - mean) / deviation over the population.
    """
    spread = np.maximum(styles.std(axis=0), 1e-12)
    normalised = (styles[label] - styles.mean(axis=0)) / spread  # (P, S)
    return np.asarray(np.abs(normalised.mean(axis=0)) / np.maximum(normalised.std(axis=0), 1e-12))
