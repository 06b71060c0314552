"""Held-out readings of one draw of a balanced set, or of several, and their scores.

One draw of the negatives and folds moves a score by more than models differ, so comparisons take
means over draws, with intervals that cover people and draws alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from hublatent.errors import DataError
from hublatent.stats import Bools, Estimate, Floats, Ints, bootstrap_weights, interval


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Readings of the balanced images, each by a direction that never saw its identity.

    Attributes:
        labels: (n,), the truth.
        identities: (n,).
        decision: (n,), how far beyond the boundary; above 0 the attribute is read.
        rows: (F, ...), each fold's direction, of norm 1.
    """

    labels: Bools
    identities: Ints
    decision: Floats
    rows: Floats

    @property
    def correct(self) -> Bools:
        """(n,)."""
        return (self.decision > 0) == self.labels

    def scores(self, seed: int = 0) -> dict[str, Estimate]:
        """Accuracy, precision, recall, F1 and AUROC, with 95% intervals."""
        return DrawnReadings((self,), seed).scores()


@dataclass(frozen=True, eq=False)
class DrawnReadings:
    """Held-out readings of one attribute, one set of them for each draw.

    Attributes:
        draws: of each draw, the readings of its balanced images.
        seed: of the bootstrap.
    """

    draws: tuple[HeldOut, ...]
    seed: int = 0

    def scores(self) -> dict[str, Estimate]:
        """Accuracy, precision, recall, F1 and AUROC: means over the draws, 95% intervals."""
        return {name: interval(v[1:], float(v[0])) for name, v in self.resamples.items()}

    def difference(self, other: DrawnReadings) -> dict[str, Estimate]:
        """Each score less the other's, paired: the same people and draws in every resample.

        Raises:
            DataError: the other's readings are of other images.
        """
        if len(self.draws) != len(other.draws) or not all(
            np.array_equal(a.identities, b.identities) and np.array_equal(a.labels, b.labels)
            for a, b in zip(self.draws, other.draws, strict=True)
        ):
            raise DataError("Paired readings are of the same images, attribute, draws and seed.")
        return {
            name: interval(
                v[1:] - other.resamples[name][1:], float(v[0] - other.resamples[name][0])
            )
            for name, v in self.resamples.items()
        }

    @cached_property
    def resamples(self) -> dict[str, Floats]:
        """Each score of the data (first), then of each resample of people and draws: (R + 1,)."""
        people = np.unique(np.concatenate([draw.identities for draw in self.draws]))
        counts = [
            _counts(draw, np.searchsorted(people, draw.identities), len(people))
            for draw in self.draws
        ]
        table = np.stack(counts, axis=1).reshape(len(people), -1).astype(np.float32)
        once = np.ones((1, len(people)), np.float32)
        weights = chain([once], bootstrap_weights(np.arange(len(people)), seed=self.seed))
        totals = np.concatenate([w @ table for w in weights]).astype(np.float64)
        n_draws = len(self.draws)
        of_draws = np.concatenate([*bootstrap_weights(np.arange(n_draws), seed=self.seed)])
        of_draws = np.concatenate([np.ones((1, n_draws)), of_draws]) / n_draws  # (R + 1, draws)
        scores = _scores(*np.moveaxis(totals.reshape(len(totals), n_draws, -1), 2, 0))
        return {name: (of_draws * values).sum(axis=1) for name, values in scores.items()}


def _counts(draw: HeldOut, person: Ints, n_people: int) -> Floats:
    """(people, 6): what each person adds to the sums that the scores are made of."""
    yes, read = draw.labels, draw.decision > 0
    placement = _placements(draw)
    columns = [yes, ~yes, read, yes & read, yes * placement, ~yes * placement]
    return np.stack([np.bincount(person, c, n_people) for c in columns], axis=1)


def _scores(
    positives: Floats, negatives: Floats, read: Floats, hits: Floats, above: Floats, below: Floats
) -> dict[str, Floats]:
    """Each score, given weighted sums (R, draws).

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


def _placements(draw: HeldOut) -> Floats:
    """(n,): of a positive, the share of negatives below it; of a negative, of positives above it.

    A tie counts half.
    """
    share = np.empty(len(draw.labels))
    for kind in (True, False):
        others = np.sort(draw.decision[draw.labels != kind])
        mine = draw.decision[draw.labels == kind]
        below = (np.searchsorted(others, mine) + np.searchsorted(others, mine, "right")) / 2
        share[draw.labels == kind] = below / len(others) if kind else 1 - below / len(others)
    return share
