"""Held-out readings of a balanced set, and their scores with intervals over people."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

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
        """Accuracy, precision, recall, F1 and AUROC, with 95% intervals over people."""
        people, person = np.unique(self.identities, return_inverse=True)
        yes, read = self.labels, self.decision > 0
        placement = self._placements()
        columns = [yes, ~yes, read, yes & read, yes * placement, ~yes * placement]
        table = np.stack([np.bincount(person, c, len(people)) for c in columns], axis=1)
        once = np.ones((1, len(people)), np.float32)
        weights = chain([once], bootstrap_weights(np.arange(len(people)), seed=seed))
        totals = np.concatenate([w @ table.astype(np.float32) for w in weights])  # (R + 1, 6)
        scores = _scores(*totals.astype(np.float64).T)
        return {name: interval(values[1:], float(values[0])) for name, values in scores.items()}

    def _placements(self) -> Floats:
        """(n,): of a positive the share of negatives below it, of a negative of positives above it.

        A tie counts half.
        """
        share = np.empty(len(self.labels))
        for kind in (True, False):
            others = np.sort(self.decision[self.labels != kind])
            mine = self.decision[self.labels == kind]
            below = (np.searchsorted(others, mine) + np.searchsorted(others, mine, "right")) / 2
            share[self.labels == kind] = below / len(others) if kind else 1 - below / len(others)
        return share


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
