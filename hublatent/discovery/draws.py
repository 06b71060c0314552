"""How well an attribute is read, over several draws of the negatives and of the folds.

One draw moves a score by more than models differ, so scores are means over draws, and their
intervals cover people and draws alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hublatent.discovery.cross_validation import HeldOut, cross_validate
from hublatent.discovery.labelled import LabelledLatents
from hublatent.errors import DataError
from hublatent.stats import N_BOOTSTRAP, Estimate, Floats, Ints, interval

if TYPE_CHECKING:
    from hublatent.model import LatentModel

N_DRAWS = 20


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
        rng = np.random.default_rng(self.seed)
        weights = _with_replacement(rng, len(people))  # (R + 1, people)
        of_draws = _with_replacement(rng, len(self.draws)) / len(self.draws)  # (R + 1, draws)
        total: dict[str, Floats] = {}
        for draw, share in zip(self.draws, of_draws.T, strict=True):
            person = np.searchsorted(people, draw.identities)
            for name, values in _weighted_scores(draw, person, weights).items():
                total[name] = total.get(name, 0) + share * values
        return total


def read_over_draws(
    data: LabelledLatents,
    attribute: str,
    method: str = "svm",
    *,
    model: LatentModel | None = None,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> DrawnReadings:
    """Cross-validate a method by identity, again for each draw of the negatives and the folds.

    Args:
        data, attribute, method, model: as for `cross_validate`.
        n_draws: how many; draw k has the seed `seed` + k, which gives all models the same.
        seed: of the first draw, and of the bootstrap.

    Raises:
        DataError: the attribute is unknown or has too few examples.
        HublatentError: the method is unknown.
    """
    seeds = range(seed, seed + n_draws)
    draws = (cross_validate(data, attribute, method, model=model, seed=s) for s in seeds)
    return DrawnReadings(tuple(draws), seed)


def _with_replacement(rng: np.random.Generator, n: int) -> Floats:
    """(R + 1, n): once each, then how often each is drawn in each resample."""
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=N_BOOTSTRAP)
    return np.concatenate([np.ones((1, n)), drawn]).astype(np.float32)


def _weighted_scores(draw: HeldOut, person: Ints, weights: Floats) -> dict[str, Floats]:
    """Each score under each row of weights: name -> (R,).

    The AUROC of a resample is taken to first order: the placements of its positives among all
    negatives, and of its negatives among all positives (DeLong et al. 1988).
    """
    yes, predicted = draw.labels, draw.decision > 0
    placement = _placements(draw)
    of_images = [yes, ~yes, predicted, yes & predicted, yes * placement, ~yes * placement]
    of_people = np.stack(
        [np.bincount(person, column, weights.shape[1]) for column in of_images], axis=1
    )
    positives, negatives, read, hits, above, below = (weights @ of_people.astype(np.float32)).T
    point = placement[yes].mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": (2 * hits + negatives - read) / (positives + negatives),
            "precision": hits / read,
            "recall": hits / positives,
            "f1": 2 * hits / (positives + read),
            "auroc": np.clip(above / positives + below / negatives - point, 0, 1),
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
