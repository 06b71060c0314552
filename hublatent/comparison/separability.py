"""Table 1: how well an attribute is read from the latents of people never seen.

All models have the same balanced pictures and the same folds of identities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch

from hublatent.checkpoint import init_parameters
from hublatent.comparison.results import Pair, PaperRow, Separability
from hublatent.discovery import N_FOLDS, HeldOut, LabelledLatents, balanced_set, cross_validate
from hublatent.model import LatentModel
from hublatent.stats import (
    Bools,
    Estimate,
    Floats,
    Ints,
    bootstrap_weights,
    interval,
    paired_difference,
)

PAPER_METHOD = "svm"
SEPARABILITY_METHODS = (PAPER_METHOD, "mean-difference")
CURVE_SIZES = (20, 50, 100, 200, 500, 1000, 2000, 5000)
MAJORITY = "majority"
RANDOM_ENCODER = "random-encoder"

_SOURCE = "Iliarski, Berlin, Krueger, Han: Comparison of Latent Space Interpretability, Table 1"
PAPER_TABLE = tuple(
    PaperRow(model, "Eyeglasses", *figures, source=_SOURCE)
    for model, figures in {
        "StyleGAN2": (0.8000, 0.7895, 0.8108, 0.8000),
        "VAE": (0.7611, 0.7680, 0.7484, 0.7581),
        "β-VAE": (0.8387, 0.7984, 0.8543, 0.8254),
        "β-TCVAE": (0.8750, 0.8516, 0.8997, 0.8750),
    }.items()
)


def separability(
    data: LabelledLatents, model: str, attribute: str, image_set: str, method: str, seed: int
) -> tuple[Separability, HeldOut]:
    """One row of the table, and the readings behind it, for paired differences.

    Args:
        data: latents with labels.
        model: its name.
        attribute, image_set, method: of the row.
        seed: of balanced set, folds and bootstrap.
    """
    held_out = cross_validate(data, attribute, method, seed=seed)
    cosines = held_out.rows @ held_out.rows.T
    stability = float(cosines[np.triu_indices(len(cosines), 1)].mean())
    curve: tuple[tuple[int, Estimate], ...] = ()
    if method == PAPER_METHOD:
        curve = tuple(_learning_curve(data, attribute, held_out, seed))
    row = _row(model, attribute, image_set, method, held_out, stability, seed)
    return Separability(**{**row, "curve": curve}), held_out


def majority(data: LabelledLatents, attribute: str, image_set: str, seed: int) -> Separability:
    """The row of always saying yes, which on a balanced set is right half of the time."""
    chosen = balanced_set(data, attribute, seed)
    labels = data.label(attribute)[chosen]
    # The same value for everybody: the decision is yes, the ranking is all ties.
    yes = HeldOut(labels, data.identities[chosen], np.ones(len(labels)), np.zeros((0, 0)))
    return Separability(**_row(MAJORITY, attribute, image_set, PAPER_METHOD, yes, None, seed))


def _row(
    model: str, attribute: str, image_set: str, method: str, held_out: HeldOut,
    stability: float | None, seed: int,
) -> dict[str, Any]:  # fmt: skip
    scores = held_out.scores(seed)
    return {
        "model": model,
        "attribute": attribute,
        "image_set": image_set,
        "method": method,
        "n": len(held_out.labels),
        "stability": stability,
        **scores,
    }


def _learning_curve(
    data: LabelledLatents, attribute: str, full: HeldOut, seed: int
) -> Iterator[tuple[int, Estimate]]:
    n_full = len(full.labels) * (N_FOLDS - 1) // N_FOLDS
    for n in (*(n for n in CURVE_SIZES if n < n_full), n_full):
        part = full if n == n_full else cross_validate(data, attribute, seed=seed, n_labelled=n)
        yield n, _accuracy(part, seed)


def _accuracy(held_out: HeldOut, seed: int) -> Estimate:
    """As in `classification_scores`, without the other scores, of which AUROC takes long."""
    correct = held_out.correct.astype(np.float32)
    drawn = [
        (w @ correct) / w.sum(axis=1) for w in bootstrap_weights(held_out.identities, seed=seed)
    ]
    return interval(np.concatenate(drawn), float(correct.mean()))


def pairs(
    correct: Mapping[str, Bools], identities: Ints, attribute: str, image_set: str, seed: int
) -> Iterator[Pair]:
    """Differences in accuracy between any two models, by the paired bootstrap.

    Args:
        correct: model -> (n,), which pictures it reads rightly; the same pictures for all.
        identities: (n,).
        attribute, image_set: of the pictures.
        seed: of the bootstrap.
    """
    for first, second in combinations(correct, 2):
        change = correct[first].astype(np.float32) - correct[second]

        def difference(weights: np.ndarray, change: Floats = change) -> Floats:
            return (weights @ change) / weights.sum(axis=1)

        score = paired_difference(difference, identities, seed)
        yield Pair(attribute, image_set, "accuracy", first, second, score)


def random_encoder(model: LatentModel, seed: int) -> LatentModel:
    """The same network with fresh weights: what its shape alone makes of the pictures."""
    arguments = {name: getattr(model, name) for name in init_parameters(type(model))}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(model)(**arguments).eval()
