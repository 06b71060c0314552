"""The paper's claims, each a small function: evidence in, contrasts with intervals out.

Each test was fixed before any result was seen. The contrasts of a claim are a family: their p
values are adjusted together (Holm). A claim is supported if each of its contrasts goes its way, and
contradicted by a single one that goes the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from hublatent.errors import DataError
from hublatent.evaluation import outcomes
from hublatent.evaluation.coherence import WHOLE_ABOVE
from hublatent.evaluation.holes import BETWEEN, BEYOND, SAMPLES
from hublatent.evaluation.table import people, select
from hublatent.stats import (
    MARGINS,
    MIN_TRAININGS,
    ONE_CHECKPOINT,
    Difference,
    Estimate,
    Floats,
    bootstrap_means,
    bootstrap_weights,
    from_draws,
    holm,
    mean_difference,
    paired_bootstrap,
    verdict,
    welch_difference,
)

PAPER_METHOD, BEST_METHOD = "svm", "joint"
SUPPORTED, CONTRADICTED, EQUIVALENT, OPEN = "supported", "contradicted", "equivalent", "open"
UNMEASURED = "not measured"
TC_OBJECTIVES, KL_OBJECTIVES = ("beta-tcvae", "factorvae"), ("beta-vae",)
LOWER_IS_BETTER = ("leakage",)
MIN_FACES = 10  # that two models share, for an interval
MIN_PAIRS = 30  # of samples: if none of n is a hole, 3 / n of all may still be (95%)


@dataclass(frozen=True)
class Contrast:
    """One comparison.

    Attributes:
        text: what is subtracted from what, in words.
        quantity: whose margin it has: "accuracy", "leakage" or "share".
        difference: with its interval; p adjusted for the claim's other contrasts.
        pair: whom it compares, where several quantities do.
    """

    text: str
    quantity: str
    difference: Difference
    pair: str = ""

    @property
    def verdict(self) -> str:
        """One of better, worse, equivalent, open; with "this checkpoint only" where it is so."""
        better_up = self.quantity not in LOWER_IS_BETTER
        return verdict(self.difference, MARGINS[self.quantity], better_up)


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes:
        key, statement: of the claim.
        verdict: over all contrasts, as `overall` says it.
        contrasts: what it rests on.
    """

    key: str
    statement: str
    verdict: str
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The long table and what is known of the models, with what claims ask of it.

    Attributes:
        table: the long table.
        models: a row for each training: model, training, architecture, objective, layers, beta ...
        seed: of the bootstraps.
    """

    table: pd.DataFrame
    models: pd.DataFrame
    seed: int = 0

    @cached_property
    def strips(self) -> pd.DataFrame:
        """Onsets, outcome and price of each edited face."""
        return outcomes.edits(self.table)

    @cached_property
    def accuracy(self) -> pd.DataFrame:
        """face x (training, attribute)."""
        return outcomes.accuracy(self.table)

    @cached_property
    def readers(self) -> list[str]:
        """Models whose latents were read, in their order."""
        read = set(self.accuracy.columns.get_level_values("training"))
        return list(dict.fromkeys(self.models.loc[self.models["training"].isin(read), "model"]))

    @cached_property
    def editors(self) -> list[str]:
        """Models that were edited."""
        edited = set(self.strips["model"].astype(str)) if len(self.strips) else set()
        return [m for m in dict.fromkeys(self.models["model"]) if m in edited]

    def trainings(self, model: str) -> list[str]:
        """The trainings of a model."""
        return list(self.models.loc[self.models["model"] == model, "training"])

    def fact(self, model: str, name: str) -> Any:
        """What is known of a model, as its first training tells it."""
        return self.models.loc[self.models["model"] == model, name].iloc[0]

    def score(self, training: str) -> float:
        """Mean accuracy over the attributes."""
        return float(self.accuracy[training].mean().mean())

    def value(self, training: str, reading: str) -> float:
        """One number of a training, such as its kl; NaN if unknown."""
        found = select(self.table, training=training, reading=reading, attribute="")["value"]
        return float(found.iloc[0]) if len(found) else float("nan")

    @cached_property
    def _reading_draws(self) -> dict[str, tuple[Floats, Floats]]:
        return {}

    def _reading(self, model: str) -> tuple[Floats, Floats]:
        """Accuracy (K,) of each attribute, and bootstrap draws (R, K)."""
        if model not in self._reading_draws:
            columns = self.accuracy[[t for t in self.trainings(model) if t in self.accuracy]]
            mean = columns.T.groupby(level="attribute", observed=True).mean().T
            who = people(mean.index)
            self._reading_draws[model] = bootstrap_means(mean.to_numpy(), who, self.seed)
        return self._reading_draws[model]

    def reading_estimate(self, model: str) -> Estimate:
        """Mean accuracy, with the interval over people and attributes."""
        point, drawn = self._reading(model)
        return from_draws(point, drawn, self.seed, columns_vary=True).estimate

    def reading_difference(self, first: str, second: str) -> Difference:
        """Accuracy of one model minus that of another, over the attributes."""
        trainings = [self.trainings(name) for name in (first, second)]
        if min(map(len, trainings)) >= MIN_TRAININGS:
            scores = [np.array([self.score(t) for t in group]) for group in trainings]
            return welch_difference(*scores)
        points, draws = zip(self._reading(first), self._reading(second), strict=True)
        difference = points[0] - points[1], draws[0] - draws[1]
        return from_draws(*difference, self.seed, columns_vary=True)

    def edit_values(self, model: str, method: str, quantity: str) -> pd.DataFrame:
        """face x (training, attribute): `strong` as 0 or 1, or the price at the onset."""
        rows = self.strips[(self.strips["model"] == model) & (self.strips["method"] == method)]
        if quantity == "share":
            judged = rows[rows["outcome"].notna()]
            rows = judged.assign(share=(judged["outcome"] == "strong").astype(float))
        return rows.pivot_table(quantity, "face", ["training", "attribute"], observed=True)

    def edit_difference(
        self, first: str, second: str, methods: tuple[str, str], quantity: str
    ) -> Difference:
        """Share of strong edits, or leakage at the onset, of one model minus that of another.

        Raises:
            DataError: no face has a value in both.
        """
        pair = zip((first, second), methods, strict=True)
        values = [self.edit_values(model, method, quantity) for model, method in pair]
        counts = [v.columns.get_level_values("training").nunique() for v in values]
        if min(counts) >= MIN_TRAININGS:
            means = [v.mean().groupby("training", observed=True).mean().to_numpy() for v in values]
            return welch_difference(*means)
        one, two = (v.T.groupby(level="attribute", observed=True).mean().T for v in values)
        faces = one.index.intersection(two.index)
        shared = [a for a in one.columns if a in two.columns]
        if len(faces) < MIN_FACES:
            raise DataError(
                f"{first} and {second} share {len(faces)} faces; an interval takes more."
            )
        gaps = one.loc[faces, shared].to_numpy() - two.loc[faces, shared].to_numpy()
        return paired_bootstrap(gaps, people(faces), self.seed)

    def champion(self, models: list[str]) -> str:
        """Of several models the one that reads best."""
        return max(models, key=lambda m: np.mean([self.score(t) for t in self.trainings(m)]))

    def champions(self) -> dict[str, str]:
        """Architecture -> its model that reads best, so that each has the same choice."""
        groups: dict[str, list[str]] = {}
        for model in self.readers:
            if self.fact(model, "baseline"):
                continue
            groups.setdefault(str(self.fact(model, "architecture")), []).append(model)
        return {architecture: self.champion(group) for architecture, group in groups.items()}


def reads_best(evidence: Evidence) -> Iterator[Contrast]:
    """Accuracy of β-TCVAE minus that of each other architecture."""
    champions = evidence.champions()
    ours = champions.pop("btcvae", None)
    for rival in champions.values() if ours else ():
        difference = evidence.reading_difference(str(ours), rival)
        yield Contrast(f"{ours} minus {rival}", "accuracy", difference)


def edits_best_svm(evidence: Evidence) -> Iterator[Contrast]:
    """Strong edits and leakage along the SVM's normals, β-TCVAE against each other one."""
    return _edits_best(evidence, PAPER_METHOD)


def edits_best(evidence: Evidence) -> Iterator[Contrast]:
    """The same along the joint directions."""
    return _edits_best(evidence, BEST_METHOD)


def _edits_best(evidence: Evidence, method: str) -> Iterator[Contrast]:
    champions = {a: m for a, m in evidence.champions().items() if m in evidence.editors}
    ours = champions.pop("btcvae", None)
    for rival in champions.values() if ours else ():
        yield from edit_contrasts(evidence, str(ours), rival, (method, method))


def edit_contrasts(
    evidence: Evidence, first: str, second: str, methods: tuple[str, str]
) -> Iterator[Contrast]:
    """Strong edits and leakage of one model against another, as far as they share faces."""
    names = [first, second]
    if methods[0] != methods[1]:
        names = [f"{name} along {method}" for name, method in zip(names, methods, strict=True)]
    for quantity, noun in (("share", "strong edits"), ("leakage", "leakage at the onset")):
        try:
            difference = evidence.edit_difference(first, second, methods, quantity)
        except (DataError, KeyError):  # the edits of one of them nobody could judge
            continue
        pair = f"{names[0]} minus {names[1]}"
        yield Contrast(f"{noun}: {pair}", quantity, difference, pair)


def kl_weight(evidence: Evidence) -> Iterator[Contrast]:
    """Networks that differ in β alone: the largest weight minus the smallest."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for model in evidence.readers:
        if pd.notna(evidence.fact(model, "beta")) and evidence.fact(model, "objective"):
            same = ("objective", "likelihood", "latent", "parameters")
            groups.setdefault(tuple(evidence.fact(model, n) for n in same), []).append(model)
    for group in groups.values():
        ordered = sorted(group, key=lambda m: float(evidence.fact(m, "beta")))
        low, high = ordered[0], ordered[-1]
        if evidence.fact(low, "beta") != evidence.fact(high, "beta"):
            difference = evidence.reading_difference(high, low)
            yield Contrast(f"{high} minus {low}", "accuracy", difference)


def total_correlation(evidence: Evidence) -> Iterator[Contrast]:
    """Models with weighted total correlation, minus what the KL's weight gives at their rate."""
    points = [
        (str(objective), evidence.value(training, "kl"), evidence.score(training))
        for training, objective in zip(
            evidence.models["training"], evidence.models["objective"], strict=True
        )
        if training in evidence.accuracy
    ]
    plain = sorted((rate, score) for o, rate, score in points if o in KL_OBJECTIVES and rate > 0)
    if len({rate for rate, _ in plain}) < 2:
        return
    rates, scores = np.array(plain).T
    for objective in TC_OBJECTIVES:
        gaps = [
            score - float(np.interp(np.log(rate), np.log(rates), scores))
            for o, rate, score in points
            if o == objective and rates[0] <= rate <= rates[-1]
        ]
        if len(gaps) >= 2:
            text = f"{objective} minus the weight of the KL at equal rate, {len(gaps)} trainings"
            yield Contrast(text, "accuracy", mean_difference(np.array(gaps)))


def holes_between(evidence: Evidence) -> Iterator[Contrast]:
    """Whole faces between two samples less those at the samples: W+ models against the others."""
    return _holes(evidence, BETWEEN)


def holes_beyond(evidence: Evidence) -> Iterator[Contrast]:
    """The same at twice the samples' distance from the mean."""
    return _holes(evidence, BEYOND)


def _holes(evidence: Evidence, where: str) -> Iterator[Contrast]:
    models = list(dict.fromkeys(evidence.models["model"]))
    layered = [m for m in models if evidence.fact(m, "layers")]
    others = [m for m in evidence.champions().values() if m not in layered]
    for first in layered:
        for second in others:
            difference = _gap(evidence, first, second, where)
            if difference is not None:
                yield Contrast(f"{first} minus {second}", "share", difference)


def w_noise(evidence: Evidence) -> Iterator[Contrast]:
    """StyleGAN2 trained with noise in W minus the one without: whole faces between samples."""
    models = list(dict.fromkeys(evidence.models["model"]))
    noisy = {m: bool(evidence.fact(m, "w_noise")) for m in models if evidence.fact(m, "layers")}
    for first, second in combinations(noisy, 2):
        if noisy[first] != noisy[second]:
            pair = (first, second) if noisy[first] else (second, first)
            difference = _gap(evidence, *pair, BETWEEN)
            if difference is not None:
                yield Contrast(f"{pair[0]} minus {pair[1]}", "share", difference)


def _gap(evidence: Evidence, first: str, second: str, where: str) -> Difference | None:
    """How much more the share of whole faces falls in one model than in the other."""
    falls = [
        [fall(evidence.table, training, where) for training in evidence.trainings(model)]
        for model in (first, second)
    ]
    if not all(len(f) for group in falls for f in group):
        return None
    if min(sum(map(len, group)) for group in falls) < MIN_PAIRS:
        return None
    n = min(map(len, falls))
    if n >= MIN_TRAININGS:
        return welch_difference(*(np.array([f.mean() for f in group]) for group in falls))
    return replace(welch_difference(*map(np.concatenate, falls)), n_trainings=n)


def fall(table: pd.DataFrame, training: str, where: str) -> Floats:
    """Of each pair of samples, whether it is a face there (0 or 1) less whether they are."""
    rows = select(table, training=training, method=[SAMPLES, where], reading="coherence")
    grid = rows.pivot_table("value", "face", "method", observed=True)
    if where not in grid or SAMPLES not in grid:
        return np.zeros(0)
    whole = grid >= WHOLE_ABOVE
    return whole[where].to_numpy(float) - whole[SAMPLES].to_numpy(float)


def boundary(evidence: Evidence) -> Iterator[Contrast]:
    """Rank correlation of the way to one end coordinate with what the judge says there."""
    models = list(dict.fromkeys(evidence.models["model"]))
    layered = [m for m in models if evidence.fact(m, "layers")]
    for model in layered or evidence.readers:
        trainings = evidence.trainings(model)
        found = [c for t in trainings if (c := _correlation(evidence, t)) is not None]
        if len(found) >= MIN_TRAININGS:
            yield Contrast(
                model, "share", mean_difference(np.array([d.estimate.value for d in found]))
            )
        elif found:
            yield Contrast(model, "share", found[0])


def _correlation(evidence: Evidence, training: str) -> Difference | None:
    rows = select(evidence.table, training=training, reading=["way", "end target"])
    grid = rows.pivot_table("value", ["attribute", "face"], "reading", observed=True).dropna()
    if len(grid) < 10 or grid.shape[1] < 2:
        return None
    ranks = grid.groupby("attribute", observed=True).rank()
    ranks -= ranks.groupby("attribute", observed=True).transform("mean")
    x, y = ranks["way"].to_numpy(), ranks["end target"].to_numpy()
    sums = np.stack([x * y, x * x, y * y], axis=1)

    def correlation(weights: Floats) -> Floats:
        xy, xx, yy = (weights @ sums).T
        return np.asarray(xy / np.sqrt(xx * yy))

    who = people(grid.index.get_level_values("face"))
    drawn = np.concatenate([correlation(w) for w in bootstrap_weights(who, seed=evidence.seed)])
    point = float(correlation(np.ones((1, len(x))))[0])
    return from_draws(np.array([point]), drawn[:, None])


def class_means(evidence: Evidence) -> Iterator[Contrast]:
    """P along the SVM's normal minus P along class means, both moved equally far in W+."""
    for model in dict.fromkeys(evidence.models["model"]):
        if not evidence.fact(model, "layers"):
            continue
        rows = select(evidence.table, model=model, reading=["target", "step"])
        gaps = {}
        for attribute, part in rows.groupby("attribute", observed=True):
            curves = {
                m: _at_distance(part[part["method"] == m]) for m in ("svm", "mean-difference")
            }
            if all(curve is not None for curve in curves.values()):
                gaps[attribute] = _gap_at_equal_distance(*curves.values())
        if gaps:
            frame = pd.DataFrame(gaps)
            difference = paired_bootstrap(frame.to_numpy(), people(frame.index), evidence.seed)
            yield Contrast(f"P along svm minus along class means, {model}", "share", difference)


def _at_distance(rows: pd.DataFrame) -> tuple[Floats, pd.DataFrame] | None:
    """Distances moved (S,), and P of each face there (face x S)."""
    steps = rows.loc[rows["reading"] == "step", "value"]
    rows = rows[(rows["reading"] == "target") & rows["strength"].notna()]
    if not len(steps) or not len(rows):
        return None
    grid = outcomes.probability(rows.pivot_table("value", "face", "strength", observed=True))
    return grid.columns.to_numpy(float) * float(steps.mean()), grid


def _gap_at_equal_distance(first: Any, second: Any) -> pd.Series:
    at = min(first[0][-1], second[0][-1]) / 2
    p = [grid.apply(lambda row, d=d: np.interp(at, d, row), axis=1) for d, grid in (first, second)]
    return p[0] - p[1]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, or of its code, that numbers can decide.

    Attributes:
        statement: what is claimed.
        test: the contrasts that it rests on.
        expected: what each of them is if the claim holds, "better" or "worse".
    """

    statement: str
    test: Callable[[Evidence], Iterator[Contrast]]
    expected: str = "better"


CLAIMS: Mapping[str, Claim] = {
    "1a": Claim("β-TCVAE's latents are read best", reads_best),
    "1b": Claim("β-TCVAE edits best along SVM normals", edits_best_svm),
    "1c": Claim("β-TCVAE edits best along the joint directions", edits_best),
    "2": Claim("A larger weight of the KL is read better", kl_weight),
    "2b": Claim("Weighting total correlation is read better than the KL, at equal rate",
                total_correlation),
    "3a": Claim("Between its samples StyleGAN2 draws fewer whole faces than at them",
                holes_between, "worse"),
    "3b": Claim("Beyond its samples StyleGAN2 draws fewer whole faces, equally far out",
                holes_beyond, "worse"),
    "3c": Claim("Noise in W during training closes holes", w_noise),
    "4": Claim("Edits from farther before the boundary end worse, at one end coordinate",
               boundary, "worse"),
    "5": Claim("In W+ the SVM's normal edits better than class means, equally far", class_means),
}  # fmt: skip


def examine(evidence: Evidence) -> list[Finding]:
    """Test every claim; those that could not be measured included."""
    return [examine_claim(evidence, key) for key in CLAIMS]


def examine_claim(evidence: Evidence, key: str) -> Finding:
    """Test one claim, with the p values of its contrasts adjusted."""
    claim = CLAIMS[key]
    contrasts = list(claim.test(evidence))
    adjusted = holm([c.difference.p for c in contrasts])
    family = tuple(
        replace(c, difference=replace(c.difference, p=p))
        for c, p in zip(contrasts, adjusted, strict=True)
    )
    pairs: dict[str, list[str]] = {}
    for contrast in family:
        pairs.setdefault(contrast.pair or contrast.text, []).append(contrast.verdict)
    verdict = overall([of_pair(verdicts) for verdicts in pairs.values()], claim.expected)
    return Finding(key, claim.statement, verdict, family)


def of_pair(verdicts: Sequence[str]) -> str:
    """One verdict of the quantities in which two models are compared.

    Better in one and equivalent in the others is better; worse in one is worse.
    """
    kinds, note = _kinds(verdicts)
    return next(k for k in ("worse", OPEN, "better", EQUIVALENT) if k in kinds) + note


def overall(verdicts: list[str], expected: str = "better") -> str:
    """What the verdicts of a claim's contrasts say of the claim.

    Returns:
        "supported" if all are as expected, "contradicted" if one is the opposite, "equivalent" if
        all are, "not measured" without any, else "open"; and if so, "this checkpoint only".
    """
    if not verdicts:
        return UNMEASURED
    kinds, note = _kinds(verdicts)
    found = OPEN
    if kinds & ({"better", "worse"} - {expected}):
        found = CONTRADICTED
    elif kinds == {expected}:
        found = SUPPORTED
    elif kinds == {EQUIVALENT}:
        found = EQUIVALENT
    return found + note


def _kinds(verdicts: Sequence[str]) -> tuple[set[str], str]:
    """The kinds of some verdicts, and ", this checkpoint only" if that is said of one."""
    alone = any(ONE_CHECKPOINT in text for text in verdicts)
    return {text.partition(",")[0] for text in verdicts}, f", {ONE_CHECKPOINT}" if alone else ""


def letters(names: list[str], differ: Callable[[str, str], bool]) -> dict[str, str]:
    """Compact letter display (Piepho 2004): names that share a letter are not told apart.

    Args:
        names: best first.
        differ: whether two of them do.
    """
    groups: list[set[str]] = [set(names)]
    for first, second in combinations(names, 2):
        if not differ(first, second):
            continue
        split: list[set[str]] = []
        for group in groups:
            both = first in group and second in group
            split += [group - {first}, group - {second}] if both else [group]
        unique = [g for i, g in enumerate(split) if g not in split[:i]]
        groups = [g for g in unique if not any(g < other for other in unique)]
    groups.sort(key=lambda g: sorted(names.index(n) for n in g))
    return {
        name: "".join(_letter(i) for i, group in enumerate(groups) if name in group)
        for name in names
    }


def _letter(i: int) -> str:
    return chr(ord("a") + i % 26) + "'" * (i // 26)
