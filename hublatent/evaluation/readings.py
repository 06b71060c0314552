"""Reading attributes in latents: the paper's Table 1, over draws of negatives and folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hublatent.discovery import N_FOLDS, LabelledLatents
from hublatent.discovery.methods import METHODS, Population, Problem
from hublatent.errors import DataError
from hublatent.evaluation import table
from hublatent.stats import (
    MIN_POSITIVES,
    Bools,
    Floats,
    Ints,
    balanced_indices,
    identity_folds,
    weighted_auroc,
)

MIN_RARER = 500  # examples of the rarer kind, for an attribute that nobody asked for by name
N_DRAWS, MIN_DRAWS = 20, 4
DRAWN = 12_000  # balanced positives in all draws: where one draw holds most, fewer say as much
MAX_SCORED = 600  # of each kind: the faces that every model is compared on


def readable(labels: Bools, attributes: Sequence[str], least: int = MIN_RARER) -> list[str]:
    """The attributes that enough pictures show and enough lack."""
    positive = labels.sum(axis=0)
    rarer = np.minimum(positive, len(labels) - positive)
    return [name for name, n in zip(attributes, rarer, strict=True) if n >= least]


def read_attributes(
    data: LabelledLatents,
    attributes: Sequence[str],
    faces: Sequence[str],
    *,
    method: str = "svm",
    seed: int = 0,
    done: Callable[[str], object] = lambda _: None,
) -> pd.DataFrame:
    """How well each attribute is read for people that the direction never saw.

    Args:
        data: N latents of training and validation pictures.
        attributes: what to read.
        faces: (N,), PERSON/PICTURE of each latent.
        method: of METHODS.
        seed: of the draws; the same for all models, so that they are compared on the same faces.
        done: told of each attribute when it is read.

    Returns:
        Rows `recall` and `specificity` of each scored face, and `auroc`, `draws` of each attribute.
    """
    names = np.asarray(faces)

    def one(attribute: str) -> pd.DataFrame:
        found = _read(data, attribute, names, method, seed)
        done(attribute)
        return found

    with ThreadPoolExecutor(min(4, cpu_count() or 1)) as pool:  # solvers release the lock
        return pd.concat([*pool.map(one, attributes)], ignore_index=True)


def _read(
    data: LabelledLatents, attribute: str, faces: NDArray[np.str_], method: str, seed: int
) -> pd.DataFrame:
    label = data.label(attribute)
    rarer = int(min(label.sum(), (~label).sum()))
    if rarer < MIN_POSITIVES:
        raise DataError(
            f"{attribute}: {rarer} of {len(label)} pictures are of the rarer kind; reading it "
            f"takes at least {MIN_POSITIVES}."
        )
    scored = scored_faces(label, seed)
    truth = label[scored]
    n_draws = int(np.clip(DRAWN // rarer, MIN_DRAWS, N_DRAWS))
    decide = partial(_decisions, data, attribute, method, scored)
    decisions = np.stack([decide(seed + draw) for draw in range(n_draws)])  # (draws, n)
    once = np.ones((1, len(scored)))
    auroc = [float(weighted_auroc(once, truth, row)[0]) for row in decisions]
    right = ((decisions > 0) == truth).mean(axis=0)  # (n,)
    parts = [
        table.rows({name: right[kind]}, attribute=attribute, method=method,
                   face=faces[scored[kind]])
        for name, kind in (("recall", truth), ("specificity", ~truth))
    ]  # fmt: skip
    whole = {"auroc": float(np.mean(auroc)), "draws": float(n_draws)}
    return pd.concat([*parts, table.rows(whole, attribute=attribute, method=method)])


def scored_faces(label: Bools, seed: int) -> Ints:
    """The pictures that are scored: as many of each kind, the same in every model."""
    rng = np.random.default_rng(seed)
    kinds = [rng.permutation(np.flatnonzero(label == kind)) for kind in (True, False)]
    n = min(MAX_SCORED, *map(len, kinds))
    return np.sort(np.concatenate([kind[:n] for kind in kinds]))


def _decisions(
    data: LabelledLatents, attribute: str, method: str, scored: Ints, seed: int
) -> Floats:
    """(n,): how far beyond the boundary each scored picture lies, for a fit without its person."""
    folds = identity_folds(data.identities, N_FOLDS, seed)
    label = data.label(attribute)
    problem = Problem(Population(data, folds, N_FOLDS), attribute, balanced_indices(label, seed))
    fits = METHODS[method](problem)
    if fits.intercepts is None:
        raise DataError(f"{method} finds no boundary, so it does not read; svm and logistic do.")
    latents = data.pooled_latents[scored].astype(np.float64)
    readings = latents @ fits.rows[:-1].T + fits.intercepts[:-1]  # (n, F)
    norms = np.linalg.norm(fits.rows[:-1], axis=1)
    return (readings / norms)[np.arange(len(scored)), folds[scored]]
