"""What a method is given: one attribute's balanced set, its folds of identities, and the model.

Most methods need sums over examples alone. Sums over all folds but one are the sum over all less
that of the fold, so one pass over the latents serves every fold (`without_each`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

import numpy as np

from hublatent.discovery.labelled import LabelledLatents, Latents
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import Bools, Floats, Ints

Given = TypeVar("Given")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Fits:
    """The directions that a method found without each fold, then that from all examples."""

    rows: Floats  # (F + 1, D), of any norm; (F + 1, L, D) where each layer moves its own way
    # (F + 1,), where <z, row> + intercept = 0 decides; None reads at the midpoint of class means.
    intercepts: Floats | None = None


@dataclass(frozen=True, eq=False)
class Population:
    """All labelled latents, at their natural prevalence, dealt into folds by identity."""

    data: LabelledLatents
    folds: Ints  # (N,), 0 to n_folds - 1
    n_folds: int


@dataclass(frozen=True, eq=False)
class Problem:
    """One attribute to find the direction of."""

    population: Population
    attribute: str
    chosen: Ints  # (n,), the balanced set: as many examples with as without the attribute
    model: LatentModel | None = None  # whose latents they are, for the methods that need it
    seed: int = 0  # for methods that draw
    classifier: AttributeClassifier | None = None  # to learn through the model; never the judge

    @property
    def data(self) -> LabelledLatents:
        return self.population.data

    @property
    def n_folds(self) -> int:
        return self.population.n_folds

    @property
    def label(self) -> Bools:
        """(N,): presence of the attribute."""
        return self.data.label(self.attribute)

    def blocks(self) -> Iterator[tuple[Latents, Bools, Ints]]:
        """Pooled latents (b, D), labels and folds (b,) of the balanced set, mirror images too."""
        label = self.label
        for indices, latents in self.data.blocks(self.chosen):
            yield latents, label[indices], self.population.folds[indices]


def once(compute: Callable[[Given], Result]) -> Callable[[Given], Result]:
    """Compute something of a Problem or a Population once, however many methods need it."""

    @wraps(compute)
    def kept(given: Given) -> Result:
        if compute.__name__ not in vars(given):
            vars(given)[compute.__name__] = compute(given)
        result: Result = vars(given)[compute.__name__]
        return result

    return kept


def without_each(parts: Floats) -> Floats:
    """Sums over all folds but each, then over all: (F, ...) -> (F + 1, ...)."""
    total = parts.sum(axis=0, keepdims=True)
    return np.concatenate([total - parts, total])
