"""Who is ahead of whom, and how surely: intervals, differences, and the order of models.

A difference counts when its 95% interval leaves zero out. Models that were measured on the same
pictures have a paired bootstrap (`Pair`); other differences are taken from the two intervals as if
they were independent, which is the cautious side for faces that both share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from hublatent.comparison.results import TEST, TRAINING, Comparison, Edits, Model, Separability
from hublatent.stats import Estimate

PAPER_METHOD = "svm"
EQUAL_EFFECT_SHARE = 0.8
LEVEL = 0.95


def is_known(score: Estimate | None) -> bool:
    """Whether there is a score, and it and its interval are numbers."""
    return score is not None and all(map(math.isfinite, (score.value, score.low, score.high)))


def sign(score: Estimate) -> int:
    """1 or -1 where the whole interval lies above or below zero, otherwise 0."""
    if not is_known(score):
        return 0
    return int(score.low > 0) - int(score.high < 0)


def difference(first: Estimate, second: Estimate) -> Estimate:
    """first - second of two independent scores; the intervals' arms add in quadrature."""
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above)


def mean(scores: Sequence[Estimate]) -> Estimate:
    """Mean of scores that may rest on the same faces: their intervals do not shrink."""
    n = len(scores)
    return Estimate(
        sum(s.value for s in scores) / n,
        sum(s.low for s in scores) / n,
        sum(s.high for s in scores) / n,
    )


def widened(score: Estimate, n: int) -> Estimate:
    """The interval at which the best of n tests is wrong as rarely as one (Bonferroni)."""
    normal = NormalDist()
    tail = (1 - LEVEL) / 2
    factor = normal.inv_cdf(1 - tail / max(1, n)) / normal.inv_cdf(1 - tail)
    low, high = score.low - score.value, score.high - score.value
    return Estimate(score.value, score.value + factor * low, score.value + factor * high)


def share_interval(count: int, n: int) -> Estimate:
    """A share with its Wilson (1927) interval."""
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share = count / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    arm = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Estimate(share, max(0.0, centre - arm), min(1.0, centre + arm))


@dataclass(frozen=True)
class Ranking:
    """The leader, and those that cannot be told from it; `rest` in their order."""

    best: str
    tied: tuple[str, ...]
    rest: tuple[str, ...]


def contenders(results: Comparison) -> list[Model]:
    """The models that are compared, without the baselines."""
    return [model for model in results.models if not model.baseline]


def model_order(results: Comparison) -> list[str]:
    """Compared models first, then baselines, those without a network (majority) last."""
    listed = [m.name for m in results.models if not m.baseline]
    listed += [m.name for m in results.models if m.baseline]
    return list(dict.fromkeys([*listed, *(row.model for row in results.separability)]))


def baseline_names(results: Comparison) -> set[str]:
    """What is compared with, but does not compete."""
    return set(model_order(results)) - {m.name for m in contenders(results)}


def ordered_edits(results: Comparison, attribute: str, faces: str) -> list[Edits]:
    """Rows of one attribute, in the order of models and methods."""
    models, methods = model_order(results), list(results.methods)
    rows = [r for r in results.edits if (r.attribute, r.faces) == (attribute, faces)]
    rows = [r for r in rows if r.model in models and r.method in methods]
    return sorted(rows, key=lambda r: (models.index(r.model), methods.index(r.method)))


def separability_row(
    results: Comparison, model: str, attribute: str, image_set: str = TRAINING
) -> Separability | None:
    """A model's row of Table 1."""
    for row in results.separability:
        found = (row.model, row.attribute, row.image_set, row.method)
        if found == (model, attribute, image_set, PAPER_METHOD):
            return row
    return None


def accuracy_difference(
    results: Comparison, first: str, second: str, attribute: str
) -> Estimate | None:
    """Paired difference of accuracies; on the projected pictures where only those are shared."""
    found: dict[str, Estimate] = {}
    for pair in results.pairs:
        if pair.attribute != attribute or pair.score != "accuracy":
            continue
        d = pair.difference
        if (pair.first, pair.second) == (first, second):
            found[pair.image_set] = d
        elif (pair.first, pair.second) == (second, first):
            found[pair.image_set] = Estimate(-d.value, -d.high, -d.low)
    known = {image_set: d for image_set, d in found.items() if is_known(d)}
    return known.get(TRAINING) or next(iter(known.values()), None)


def rank_separability(results: Comparison, attribute: str, names: Iterable[str]) -> Ranking | None:
    """Order models by accuracy; tied with the first are those whose difference spans zero."""
    rows = [separability_row(results, name, attribute) for name in names]
    known = [row for row in rows if row is not None and is_known(row.accuracy)]
    if not known:
        return None
    known.sort(key=lambda row: -row.accuracy.value)
    best, *others = (row.model for row in known)

    def behind(name: str) -> bool:
        paired = accuracy_difference(results, best, name, attribute)
        return paired is not None and sign(paired) > 0

    tied = tuple(name for name in others if not behind(name))
    return Ranking(best, tied, tuple(name for name in others if name not in tied))


def reached(row: Edits) -> bool:
    """Whether enough faces wear the attribute at some strength."""
    return is_known(row.equal_effect.strength) and is_known(row.equal_effect.leakage)


def edits_of(
    results: Comparison, model: str, attribute: str, faces: str = TEST, method: str | None = None
) -> list[Edits]:
    """A model's rows of one attribute, along all methods or one."""
    return [
        row
        for row in results.edits
        if (row.model, row.attribute, row.faces) == (model, attribute, faces)
        and method in (None, row.method)
    ]


def edit_rank(row: Edits) -> tuple[int, float]:
    """Sorts edits: those that reach the effect by leakage, then the others by their share."""
    if reached(row) and row.equal_effect.leakage is not None:
        return (0 if row.above_null else 1, row.equal_effect.leakage.value)
    return (2, -max(row.share, default=0.0))


def best_edit(rows: Iterable[Edits]) -> Edits | None:
    """The edit that reaches the effect with the least leakage, or else comes nearest."""
    return min(rows, key=edit_rank, default=None)


def compare_edits(first: Edits, second: Edits, n_tests: int = 1) -> int:
    """1 where the first edits better, -1 where the second does, 0 where that is not sure.

    Between two that reach the effect, the one with less leakage there is better; one that reaches
    it is better than one that surely does not; of two that do not, the one with more effect at
    the largest strength. `n_tests` widens the intervals of differences (see `widened`).
    """
    a, b = first.equal_effect.leakage, second.equal_effect.leakage
    if reached(first) and reached(second) and a is not None and b is not None:
        return sign(widened(difference(b, a), n_tests))
    if reached(first):
        return int(_surely_reached(first) and _surely_not_reached(second))
    if reached(second):
        return -compare_edits(second, first, n_tests)
    return sign(widened(difference(first.target[-1], second.target[-1]), n_tests))


def rank_edits(rows: Sequence[Edits]) -> tuple[Edits, list[Edits]] | None:
    """The best of several edits, and those that are not surely worse."""
    best = best_edit(rows)
    if best is None:
        return None
    others = [row for row in sorted(rows, key=edit_rank) if row is not best]
    return best, [row for row in others if compare_edits(best, row) <= 0]


def _surely_reached(row: Edits) -> bool:
    strength = row.equal_effect.strength
    return strength is not None and strength.high < row.strengths[-1]


def _surely_not_reached(row: Edits) -> bool:
    top = max(row.share, default=0.0)
    return share_interval(round(top * row.n), row.n).high < EQUAL_EFFECT_SHARE
