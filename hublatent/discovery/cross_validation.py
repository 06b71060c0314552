"""Directions that never saw some people, and how well they read those people.

Every model has the same balanced images and the same folds of identities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from hublatent import stats
from hublatent.discovery.labelled import LabelledLatents
from hublatent.discovery.methods import METHODS, Fits, Problem
from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import Bools, Estimate, Floats, Ints

N_FOLDS = 5
N_DRAWS = 20  # of the negatives and folds, in comparisons


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Readings of the balanced images, each by a direction that never saw its identity."""

    labels: Bools  # (n,), the truth
    identities: Ints  # (n,)
    decision: Floats  # (n,), how far beyond the boundary; above 0 the attribute is read
    rows: Floats  # (F, ...), each fold's direction, of norm 1

    @property
    def correct(self) -> Bools:
        """(n,)."""
        return (self.decision > 0) == self.labels

    def scores(self, seed: int = 0) -> dict[str, Estimate]:
        """Accuracy, precision, recall, F1 and AUROC, with 95% intervals over people."""
        people, person = np.unique(self.identities, return_inverse=True)
        yes, read = self.labels, self.decision > 0
        placement = self._placements()
        columns = [yes, ~yes, read, yes & read, yes * placement, ~yes * placement]
        table = np.stack([np.bincount(person, c, len(people)) for c in columns], axis=1)
        once = np.ones((1, len(people)), np.float32)
        weights = (once, *stats.bootstrap_weights(np.arange(len(people)), seed=seed))
        totals = np.concatenate([w @ table.astype(np.float32) for w in weights])  # (R + 1, 6)
        scores = _scores(*totals.astype(np.float64).T)
        return {name: stats.interval(score[1:], float(score[0])) for name, score in scores.items()}

    def _placements(self) -> Floats:
        """(n,): of a positive the share of negatives below it, of a negative of positives above it.

        A tie counts half.
        """
        place = rankdata(self.decision)
        for kind in (True, False):
            own = self.labels == kind
            below = (place[own] - rankdata(self.decision[own])) / (~own).sum()
            place[own] = below if kind else 1 - below
        return place


def _scores(
    positives: Floats, negatives: Floats, read: Floats, hits: Floats, above: Floats, below: Floats
) -> dict[str, Floats]:
    """Each score, given weighted sums (R + 1,), those of the data themselves first.

    The AUROC is taken to first order: the placements of a resample's positives among all
    negatives, and of its negatives among all positives (DeLong et al. 1988).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = above / positives + below / negatives - above[:1] / positives[:1]
        return {
            "accuracy": (2 * hits + negatives - read) / (positives + negatives),
            "precision": hits / read,
            "recall": hits / positives,
            "f1": 2 * hits / (positives + read),
            "auroc": auroc.clip(0, 1),
        }


def pose(
    data: LabelledLatents, attributes: Sequence[str], *, model: LatentModel | None = None,
    classifier: AttributeClassifier | None = None, seed: int = 0,
) -> Iterator[Problem]:  # fmt: skip
    """Each attribute's problem; what does not depend on the attribute is computed once.

    A DataError, as of `balanced_set`, comes before the first is yielded.
    """
    chosen = {attribute: balanced_set(data, attribute, seed) for attribute in attributes}
    folds, shared = stats.identity_folds(data.identities, N_FOLDS, seed), dict[str, Any]()
    for attribute, indices in chosen.items():
        yield Problem(data, attribute, indices, folds, model, seed, classifier, shared)


def balanced_set(data: LabelledLatents, attribute: str, seed: int = 0) -> Ints:
    """The images (n,) that an attribute is learnt and read on: as many with as without it.

    A DataError says that it is unknown, that fewer than 20 examples have or lack it, or that they
    show so few people that a fit without some of them has none.
    """
    label = data.label(attribute)
    try:
        chosen = stats.balanced_indices(label, seed)
        folds = stats.identity_folds(data.identities, N_FOLDS, seed)[chosen]
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
    data: LabelledLatents, attribute: str, method: str = "svm", *,
    model: LatentModel | None = None, seed: int = 0,
) -> HeldOut:  # fmt: skip
    """Cross-validate one of METHODS by identity.

    Some need the model of the latents. The same seed gives all models the same balanced set and
    folds.
    """
    check_methods([method])
    (problem,) = pose(data, (attribute,), model=model, seed=seed)
    return read_held_out(problem, METHODS[method](problem))


def read_held_out(problem: Problem, fits: Fits) -> HeldOut:
    """Read each balanced image with the direction that never saw its identity."""
    label = problem.label[problem.chosen]
    folds = problem.folds[problem.chosen]
    rows = unit_rows(problem, fits)[:-1]
    readings, of_centre = problem.data.read(problem.chosen, rows)  # (n, F), (F,)
    if fits.intercepts is None:
        cut = [stats.midpoint(r[folds != k], label[folds != k]) for k, r in enumerate(readings.T)]
    else:
        cut = -fits.intercepts[:-1] / np.linalg.norm(fits.rows[:-1], axis=1) - of_centre
    decision = (readings - np.array(cut))[range(len(label)), folds]
    return HeldOut(label, problem.data.identities[problem.chosen], decision, rows)


def unit_rows(problem: Problem, fits: Fits) -> Floats:
    """(F + 1, ...): the directions scaled to norm 1."""
    axes = tuple(range(1, fits.rows.ndim))
    norms = np.sqrt(np.square(fits.rows).sum(axis=axes, keepdims=True))
    if not (np.isfinite(norms).all() and norms.all()):
        raise DataError(
            f"{problem.attribute}: the latents do not change with it in any direction (are they "
            "all the same?), so there is nothing to find."
        )
    return fits.rows / norms


def check_methods(methods: Sequence[str]) -> None:
    """Refuse unknown methods."""
    for method in methods:
        if method not in METHODS:
            raise HublatentError(unknown_name("method", method, METHODS))
