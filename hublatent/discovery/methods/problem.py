"""What a method is given: one attribute's balanced set, its folds of identities, and the model.

Most methods need sums over examples alone. Sums over all folds but one are the sum over all less
that of the fold, so one pass over the latents serves every fold (`Problem.sums`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from hublatent.discovery.labelled import LabelledLatents
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import Bools, Floats, Ints

Result = TypeVar("Result")
# The indices (b,) and latents (b, D) of some examples -> two matrices (b, P) and (b, Q).
Design = Callable[[Ints, Floats], tuple[Floats, Floats]]


@dataclass(frozen=True, eq=False)
class Fits:
    """The directions that a method found without each fold, then that from all examples."""

    rows: Floats  # (F + 1, D), of any norm; (F + 1, L, D) where each layer moves its own way
    # (F + 1,), where <z, row> + intercept = 0 decides; None reads at the midpoint of class means.
    intercepts: Floats | None = None


@dataclass(frozen=True, eq=False)
class Problem:
    """One attribute to find the direction of."""

    data: LabelledLatents
    attribute: str
    chosen: Ints  # (n,), the balanced set: as many examples with as without the attribute
    folds: Ints  # (N,), the fold that each example's identity was dealt into, from 0
    model: LatentModel | None = None  # whose latents they are, for the methods that need it
    seed: int = 0  # for methods that draw
    classifier: AttributeClassifier | None = None  # to learn through the model; never the judge
    shared: dict[str, Any] = field(default_factory=dict)  # what does not depend on the attribute

    @property
    def n_folds(self) -> int:
        return int(self.folds.max()) + 1

    @property
    def label(self) -> Bools:
        """(N,): presence of the attribute."""
        return self.data.label(self.attribute)

    def sums(self, indices: Ints, design: Design) -> Floats:
        """(F + 1, P, Q): sums of left' right over examples without each fold, then over all.

        `design` makes left and right of examples and of their mirror images, whose latents come
        less the mean of all (`data.centre`).
        """
        parts: list[Floats] = [np.zeros(()) for _ in range(self.n_folds)]
        for seen, latents in self.data.blocks(indices):
            left, right = design(seen, latents.astype(float))
            for fold in range(self.n_folds):
                own = self.folds[seen] == fold
                parts[fold] = parts[fold] + left[own].T @ right[own]
        return without_each(np.stack(parts))

    def class_sums(self, rows: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """Of balanced examples without and with it: how many, sums of z, and of z squared.

        Args:
            rows: (K, D), of coordinates along which; of the latents themselves without any.

        Returns:
            (F + 1, 2, 1), and twice (F + 1, 2, D) or (F + 1, 2, K), of latents less `data.centre`.
        """
        label = self.label

        def design(seen: Ints, latents: Floats) -> tuple[Floats, Floats]:
            z = latents if rows is None else latents @ rows.T
            classes = np.stack([~label[seen], label[seen]], axis=1).astype(float)
            return classes, np.column_stack([np.ones(len(z)), z, z * z])

        found = self.sums(self.chosen, design)
        width = found.shape[2] // 2
        return found[..., :1], found[..., 1 : width + 1], found[..., width + 1 :]


def once(compute: Callable[[Problem], Result]) -> Callable[[Problem], Result]:
    """Compute something of a problem once, however many methods need it."""

    @wraps(compute)
    def kept(problem: Problem) -> Result:
        if compute.__name__ not in vars(problem):
            vars(problem)[compute.__name__] = compute(problem)
        result: Result = vars(problem)[compute.__name__]
        return result

    return kept


def without_each(parts: Floats) -> Floats:
    """Sums over all folds but each, then over all: (F, ...) -> (F + 1, ...)."""
    total = parts.sum(axis=0, keepdims=True)
    return np.concatenate([total - parts, total])
