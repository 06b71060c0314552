"""Style channels that change with an attribute (Wu et al. 2021, StyleSpace, arXiv:2011.12799)."""

from __future__ import annotations

import numpy as np

from hublatent.discovery.methods.problem import Fits, Problem
from hublatent.errors import HublatentError
from hublatent.stats import Bools, Floats, Ints

N_CHANNELS = 10


def stylespace(problem: Problem) -> Fits:
    """The most relevant channels, moved as far as images with the attribute lie from all others."""
    if problem.model is None or problem.model.space != "s":
        raise HublatentError(
            "The method 'stylespace' reads latents that are styles; pass "
            "model=StyleSpace(stylegan2) and latents from its to_styles()."
        )
    styles, label = problem.data.pooled_latents, problem.label

    def fit(seen: Ints) -> Floats:
        # The population is the balanced set: an attribute's rarity would only shrink the rest.
        return channel_direction(styles[seen].astype(np.float64), label[seen])

    return problem.each_fold(fit)


def channel_direction(styles: Floats, label: Bools, n_channels: int = N_CHANNELS) -> Floats:
    """(S,): in the most relevant channels, how far positives lie from the mean."""
    positives = styles[label]
    offset = positives.mean(axis=0) - styles.mean(axis=0)
    row = np.zeros(styles.shape[1])
    chosen = np.argsort(relevance(styles, label))[-n_channels:]
    row[chosen] = offset[chosen]
    return row


def relevance(styles: Floats, label: Bools) -> Floats:
    """(S,): |mean| / deviation of the normalised channels over images with the attribute.

    With d = (s - mean) / deviation over the population, theta = |mean d| / deviation of d (Wu et
    al. 2021).
    """
    spread = np.maximum(styles.std(axis=0), 1e-12)
    normalised = (styles[label] - styles.mean(axis=0)) / spread  # (P, S)
    return np.asarray(np.abs(normalised.mean(axis=0)) / np.maximum(normalised.std(axis=0), 1e-12))
