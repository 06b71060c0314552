"""What a method is given: one attribute's balanced set, its folds of identities, and the model.

Most methods need sums over examples alone. Sums over all folds but one are the sum over all less
that of the fold, so one pass over the latents serves every fold (`without_each`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hublatent.discovery.labelled import Latents
from hublatent.stats import Bools, Floats, Ints

if TYPE_CHECKING:
    from hublatent.discovery.labelled import LabelledLatents
    from hublatent.model import LatentModel
    from hublatent.perception.classifier import AttributeClassifier

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Fits:
    """The directions that a method found without each fold, then that from all examples.

    Attributes:
        rows: (F + 1, D), of any norm; (F + 1, L, D) where a method moves each layer its own way.
        intercepts: (F + 1,), where <z, row> + intercept = 0 decides; None reads at the midpoint of
            the class means.
    """

    rows: Floats
    intercepts: Floats | None = None


@dataclass(frozen=True, eq=False)
class Population:
    """All labelled latents, at their natural prevalence, dealt into folds by identity.

    Attributes:
        data: N labelled latents.
        folds: (N,), 0 to n_folds - 1.
        n_folds: how many.
    """

    data: LabelledLatents
    folds: Ints
    n_folds: int
    _memory: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)

    def once(self, compute: Callable[[Population], Result]) -> Result:
        """`compute(self)`, computed once for all attributes."""
        if compute not in self._memory:
            self._memory[compute] = compute(self)
        return self._memory[compute]


@dataclass(frozen=True, eq=False)
class Problem:
    """One attribute to find the direction of.

    Attributes:
        population: all labelled latents, and their folds.
        attribute: one of the data's.
        chosen: (n,), the balanced set: as many examples with as without the attribute.
        model: whose latents they are; None where no method asks for it.
        seed: for methods that draw.
        classifier: for methods that learn through the model; never the judge.
    """

    population: Population
    attribute: str
    chosen: Ints
    model: LatentModel | None = None
    seed: int = 0
    classifier: AttributeClassifier | None = None
    _memory: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)

    @property
    def data(self) -> LabelledLatents:
        """The labelled latents."""
        return self.population.data

    @property
    def n_folds(self) -> int:
        """How many folds are held out in turn."""
        return self.population.n_folds

    @property
    def label(self) -> Bools:
        """(N,): presence of the attribute."""
        return self.data.label(self.attribute)

    @property
    def target(self) -> Floats:
        """(N,): the continuous quantity behind the label; the label itself where none is known."""
        if self.data.targets is None:
            return self.label.astype(np.float64)
        return np.asarray(self.data.targets[:, self.data.column(self.attribute)], np.float64)

    def once(self, compute: Callable[[Problem], Result]) -> Result:
        """`compute(self)`, computed once however many methods need it."""
        if compute not in self._memory:
            self._memory[compute] = compute(self)
        return self._memory[compute]

    def blocks(self) -> Iterator[tuple[Latents, Bools, Ints]]:
        """Go over the balanced set, mirror images included, a block at a time.

        Yields:
            Pooled latents (b, D), labels (b,) and folds (b,).
        """
        label = self.label
        for indices, latents in self.data.blocks(self.chosen):
            yield latents, label[indices], self.population.folds[indices]

    def each_fold(self, fit: Callable[[Ints], Floats]) -> Fits:
        """Fit anew without each fold: for methods that are no sums over examples.

        Args:
            fit: indices (n,) of balanced examples -> the direction (D,) or (L, D).
        """
        folds = self.population.folds[self.chosen]
        return Fits(np.stack([fit(self.chosen[folds != f]) for f in range(self.n_folds + 1)]))


def without_each(parts: Floats) -> Floats:
    """Sums over all folds but each, then over all: (F, ...) -> (F + 1, ...)."""
    total = parts.sum(axis=0, keepdims=True)
    return np.concatenate([total - parts, total])
