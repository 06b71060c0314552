"""Reading attributes in latents: the paper's Table 1, over draws of negatives and folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hublatent.discovery import LabelledLatents
from hublatent.discovery.cross_validation import pose, unit_rows
from hublatent.discovery.methods.linear import svm
from hublatent.evaluation import table
from hublatent.stats import Bools, Floats, Ints, weighted_auroc

MIN_RARER = 500  # examples of the rarer kind, for an attribute that nobody asked for by name
N_DRAWS, MIN_DRAWS = 20, 4
DRAWN = 12_000  # balanced positives in all draws: where one draw holds most, fewer say as much
MAX_SCORED = 600  # of each kind: the faces that every model is compared on


def readable(labels: Bools, attributes: Sequence[str], least: int = MIN_RARER) -> list[str]:
    """The attributes that enough images show and enough lack."""
    positive = labels.sum(axis=0)
    rarer = np.minimum(positive, len(labels) - positive)
    return [name for name, n in zip(attributes, rarer, strict=True) if n >= least]


def read_attributes(
    data: LabelledLatents, attributes: Sequence[str], faces: Sequence[str], *, seed: int = 0,
    done: Callable[[str], object] = lambda _: None,
) -> pd.DataFrame:  # fmt: skip
    """How well an SVM reads each attribute for people that it never saw.

    Args:
        data: N latents of training and validation images.
        faces: (N,), PERSON/PICTURE of each latent.
        seed: the same for all models, so that they are compared on the same faces.
        done: told of each attribute when it is read.

    Returns:
        Rows `recall` and `specificity` of each scored face, and `auroc`, `draws` of each attribute.
    """
    names = np.asarray(faces)

    def one(attribute: str) -> pd.DataFrame:
        found = _read(data, attribute, names, seed)
        done(attribute)
        return found

    with ThreadPoolExecutor(min(4, cpu_count() or 1)) as pool:  # solvers release the lock
        return pd.concat([*pool.map(one, attributes)], ignore_index=True)


def _read(
    data: LabelledLatents, attribute: str, faces: NDArray[np.str_], seed: int
) -> pd.DataFrame:
    label = data.label(attribute)
    rarer = int(min(label.sum(), (~label).sum()))
    scored = scored_faces(label, seed)
    truth = label[scored]
    n_draws = int(np.clip(DRAWN // max(1, rarer), MIN_DRAWS, N_DRAWS))
    draws = [_decisions(data, attribute, scored, seed + draw) for draw in range(n_draws)]
    once = np.ones((1, len(scored)))
    auroc = np.mean([weighted_auroc(once, truth, row)[0] for row in draws])
    right = ((np.stack(draws) > 0) == truth).mean(axis=0)  # (n,)
    parts = [
        table.rows({name: right[kind]}, attribute=attribute, method="svm",
                   face=faces[scored[kind]])
        for name, kind in (("recall", truth), ("specificity", ~truth))
    ]  # fmt: skip
    whole = {"auroc": auroc, "draws": n_draws}
    return pd.concat([*parts, table.rows(whole, attribute=attribute, method="svm")])


def scored_faces(label: Bools, seed: int) -> Ints:
    """The images that are scored: as many of each kind, the same in every model."""
    rng = np.random.default_rng(seed)
    kinds = [rng.permutation(np.flatnonzero(label == kind)) for kind in (True, False)]
    n = min(MAX_SCORED, *map(len, kinds))
    return np.sort(np.concatenate([kind[:n] for kind in kinds]))


def _decisions(data: LabelledLatents, attribute: str, scored: Ints, seed: int) -> Floats:
    """(n,): how far beyond the boundary each scored image lies, for a fit without its person."""
    (problem,) = pose(data, [attribute], seed=seed)
    fits = svm(problem)
    assert fits.intercepts is not None, "an SVM has a boundary"
    cut = fits.intercepts[:-1] / np.linalg.norm(fits.rows[:-1], axis=1)
    less_centre, of_centre = data.read(scored, unit_rows(problem, fits)[:-1])  # (n, F), (F,)
    readings = less_centre + (of_centre + cut)
    return readings[np.arange(len(scored)), problem.folds[scored]]
