"""Directions that never saw some people, and how well they read those people.

Every model has the same balanced images and the same folds of identities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hublatent.discovery.labelled import BLOCK, LabelledLatents
from hublatent.discovery.methods import METHODS, Fits, Population, Problem
from hublatent.discovery.readings import HeldOut
from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.stats import (
    Floats,
    Ints,
    balanced_indices,
    identity_folds,
    midpoint,
)

if TYPE_CHECKING:
    from hublatent.model import LatentModel
    from hublatent.perception.classifier import AttributeClassifier

N_FOLDS = 5
N_DRAWS = 20  # of the negatives and folds, in comparisons


def pose(
    data: LabelledLatents,
    attributes: Sequence[str],
    *,
    model: LatentModel | None = None,
    classifier: AttributeClassifier | None = None,
    seed: int = 0,
) -> Iterator[Problem]:
    """Each attribute's problem; what does not depend on the attribute is computed once.

    A DataError, as of `balanced_set`, comes before the first is yielded.
    """
    chosen = {attribute: balanced_set(data, attribute, seed) for attribute in attributes}
    population = Population(data, identity_folds(data.identities, N_FOLDS, seed), N_FOLDS)
    for attribute, indices in chosen.items():
        yield Problem(population, attribute, indices, model, seed, classifier)


def balanced_set(data: LabelledLatents, attribute: str, seed: int = 0) -> Ints:
    """The images (n,) that an attribute is learnt and read on: as many with as without it.

    Raises:
        DataError: it is unknown, fewer than 20 examples have or lack it, or they show so few
            people that a fit without some of them has none.
    """
    label = data.label(attribute)
    try:
        chosen = balanced_indices(label, seed)
        folds = identity_folds(data.identities, N_FOLDS, seed)[chosen]
    except DataError as error:
        raise DataError(f"{attribute}: {error}") from error
    for fold in range(N_FOLDS):
        if len(np.unique(label[chosen][folds != fold])) < 2:
            raise DataError(
                f"{attribute}: its examples show too few people; with one fifth of the people "
                "held out, none is left to learn from."
            )
    return chosen


def cross_validate(
    data: LabelledLatents,
    attribute: str,
    method: str = "svm",
    *,
    model: LatentModel | None = None,
    seed: int = 0,
) -> HeldOut:
    """Cross-validate a method by identity.

    Args:
        data: latents with labels.
        attribute: what to read.
        method: one of METHODS.
        model: whose latents they are, for the methods that need it.
        seed: of the balanced set and the folds; the same one gives all models the same.

    Raises:
        DataError: the attribute is unknown or has too few examples.
        HublatentError: the method is unknown.
    """
    check_methods([method])
    (problem,) = pose(data, (attribute,), model=model, seed=seed)
    return read_held_out(problem, METHODS[method](problem))


def read_held_out(problem: Problem, fits: Fits) -> HeldOut:
    """Read each balanced image with the direction that never saw its identity."""
    label = problem.label[problem.chosen]
    folds = problem.population.folds[problem.chosen]
    rows = unit_rows(problem, fits)
    readings = read(problem.data, problem.chosen, rows[:-1])  # (n, F)
    if fits.intercepts is None:
        cut = [midpoint(r[folds != k], label[folds != k]) for k, r in enumerate(readings.T)]
    else:
        cut = -fits.intercepts[:-1] / np.linalg.norm(fits.rows[:-1], axis=1)
    decision = (readings - np.array(cut))[range(len(label)), folds]
    identities = problem.data.identities[problem.chosen]
    return HeldOut(label, identities, decision, rows[:-1])


def unit_rows(problem: Problem, fits: Fits) -> Floats:
    """(F + 1, ...): the directions scaled to norm 1.

    Raises:
        DataError: one has no direction, as where all latents are the same.
    """
    axes = tuple(range(1, fits.rows.ndim))
    norms = np.sqrt(np.square(fits.rows).sum(axis=axes, keepdims=True))
    if not (np.isfinite(norms).all() and norms.all()):
        raise DataError(
            f"{problem.attribute}: the latents do not change with it in any direction (are they "
            "all the same?), so there is nothing to find."
        )
    return fits.rows / norms


def read(data: LabelledLatents, indices: Ints, rows: Floats) -> Floats:
    """(n, R): <z, row> of some images; rows (R, D) read latents averaged over their layers."""
    latents = data.pooled_latents if rows.ndim == 2 else data.latents
    columns = rows.reshape(len(rows), -1).T.astype(float)
    parts = (latents[indices[i : i + BLOCK]] for i in range(0, len(indices), BLOCK))
    return np.concatenate([part.reshape(len(part), -1) @ columns for part in parts])


def check_methods(methods: Sequence[str]) -> None:
    """Refuse unknown methods."""
    for method in methods:
        if method not in METHODS:
            raise HublatentError(unknown_name("method", method, METHODS))
