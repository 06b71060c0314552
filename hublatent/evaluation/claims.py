"""The paper's claims, each a small function: evidence in, contrasts with intervals out.

Each test was fixed before any result was seen. The contrasts of a claim are a family: their p
values are adjusted together (Holm). A claim is supported if each of its contrasts goes its way, and
contradicted by a single one that goes the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
import pandas as pd

from hublatent.evaluation import outcomes
from hublatent.evaluation.coherence import WHOLE_ABOVE
from hublatent.evaluation.holes import BETWEEN, BEYOND, SAMPLES
from hublatent.evaluation.subjects import IN_W
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
OURS = "btcvae"  # the architecture that the paper calls best
TC_OBJECTIVES, KL_OBJECTIVE = ("beta-tcvae", "factorvae"), "beta-vae"
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
    def names(self) -> list[str]:
        """The models, in their order."""
        return list(dict.fromkeys(self.models["model"]))

    @cached_property
    def readers(self) -> list[str]:
        """Models whose latents were read."""
        return [m for m in self.names if self.read_trainings(m)]

    @cached_property
    def editors(self) -> list[str]:
        """Models that were edited."""
        edited = set(self.strips["model"].astype(str)) if len(self.strips) else set()
        return [m for m in self.names if m in edited]

    @cached_property
    def layered(self) -> list[str]:
        """Models whose codes have layers."""
        return [m for m in self.names if self.fact(m, "layers")]

    def trainings(self, model: str) -> list[str]:
        """The trainings of a model."""
        return list(self.models.loc[self.models["model"] == model, "training"])

    def read_trainings(self, model: str) -> list[str]:
        """Those of them whose latents were read."""
        return [t for t in self.trainings(model) if t in self.accuracy]

    def fact(self, model: str, name: str) -> Any:
        """What is known of a model, as its first training tells it."""
        return self.models.loc[self.models["model"] == model, name].iloc[0]

    def scores(self, model: str) -> Floats:
        """Mean accuracy over the attributes, of each training."""
        read = self.read_trainings(model)
        return np.array([float(self.accuracy[t].mean().mean()) for t in read])

    def value(self, training: str, reading: str) -> float:
        """One number of a training, such as its kl; NaN if unknown."""
        found = select(self.table, training=training, reading=reading, attribute="")["value"]
        return float(found.iloc[0]) if len(found) else float("nan")

    @cached_property
    def _readings(self) -> dict[str, tuple[Floats, Floats]]:
        """Of each model the accuracy (K,) of each attribute, and bootstrap draws (R, K)."""
        found = {}
        for model in self.readers:
            mean = _over_trainings(self.accuracy[self.read_trainings(model)])
            found[model] = bootstrap_means(mean.to_numpy(), people(mean.index), self.seed)
        return found

    def reading_estimate(self, model: str) -> Estimate:
        """Mean accuracy, with the interval over people and attributes."""
        return from_draws(*self._readings[model], self.seed, columns_vary=True).estimate

    def reading_difference(self, first: str, second: str) -> Difference:
        """Accuracy of one model minus that of another, over the attributes."""
        scores = self.scores(first), self.scores(second)
        if min(map(len, scores)) >= MIN_TRAININGS:
            return welch_difference(*scores)
        points, draws = zip(self._readings[first], self._readings[second], strict=True)
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
        self, first: str, second: str, method: str, quantity: str
    ) -> Difference | None:
        """Share of strong edits, or leakage at the onset, of one model minus that of another.

        None where they share too few faces that somebody could judge.
        """
        values = [self.edit_values(model, method, quantity) for model in (first, second)]
        if not all(v.size for v in values):
            return None
        counts = [v.columns.get_level_values("training").nunique() for v in values]
        if min(counts) >= MIN_TRAININGS:
            means = [v.mean().groupby("training", observed=True).mean().to_numpy() for v in values]
            return welch_difference(*means)
        one, two = map(_over_trainings, values)
        faces = one.index.intersection(two.index)
        if len(faces) < MIN_FACES:
            return None
        gaps = (one.loc[faces] - two.loc[faces]).reindex(columns=one.columns)
        return paired_bootstrap(gaps.to_numpy(), people(faces), self.seed)

    def champions(self) -> dict[str, str]:
        """Architecture -> its model that reads best, so that each has the same choice."""
        groups: dict[str, list[str]] = {}
        for model in self.readers:
            if not self.fact(model, "baseline"):
                groups.setdefault(str(self.fact(model, "architecture")), []).append(model)
        return {a: max(group, key=lambda m: self.scores(m).mean()) for a, group in groups.items()}


def _over_trainings(values: pd.DataFrame) -> pd.DataFrame:
    """face x attribute, of face x (training, attribute): the mean over trainings."""
    return values.T.groupby(level="attribute", observed=True).mean().T


def reads_best(evidence: Evidence) -> Iterator[Contrast]:
    """Accuracy of β-TCVAE minus that of each other architecture."""
    champions = evidence.champions()
    ours = champions.pop(OURS, None)
    for rival in champions.values() if ours else ():
        difference = evidence.reading_difference(str(ours), rival)
        yield Contrast(f"{ours} minus {rival}", "accuracy", difference)


def edits_best(evidence: Evidence, method: str) -> Iterator[Contrast]:
    """Strong edits and leakage along a method's directions, β-TCVAE against each other one."""
    champions = {a: m for a, m in evidence.champions().items() if m in evidence.editors}
    ours = champions.pop(OURS, None)
    for rival in champions.values() if ours else ():
        yield from edit_contrasts(evidence, str(ours), rival, method)


def edit_contrasts(evidence: Evidence, first: str, second: str, method: str) -> Iterator[Contrast]:
    """Strong edits and leakage of one model against another, as far as they share faces."""
    pair = f"{first} minus {second}"
    for quantity, noun in (("share", "strong edits"), ("leakage", "leakage at the onset")):
        difference = evidence.edit_difference(first, second, method, quantity)
        if difference is not None:
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
    points: dict[str, list[tuple[float, float]]] = {}  # objective -> rate and accuracy
    for model in evidence.readers:
        rates = [evidence.value(t, "kl") for t in evidence.read_trainings(model)]
        found = zip(rates, evidence.scores(model), strict=True)
        points.setdefault(str(evidence.fact(model, "objective")), []).extend(found)
    plain = sorted(point for point in points.get(KL_OBJECTIVE, ()) if point[0] > 0)
    if len({rate for rate, _ in plain}) < 2:
        return
    rates, scores = np.array(plain).T
    for objective in TC_OBJECTIVES:
        gaps = [
            score - float(np.interp(np.log(rate), np.log(rates), scores))
            for rate, score in points.get(objective, ())
            if rates[0] <= rate <= rates[-1]
        ]
        if len(gaps) >= 2:
            text = f"{objective} minus the weight of the KL at equal rate, {len(gaps)} trainings"
            yield Contrast(text, "accuracy", mean_difference(np.array(gaps)))


def holes(evidence: Evidence, where: str) -> Iterator[Contrast]:
    """Whole faces somewhere less those at the samples: W+ models against the others."""
    others = [m for m in evidence.champions().values() if m not in evidence.layered]
    yield from _falls(evidence, product(evidence.layered, others), where)


def w_noise(evidence: Evidence) -> Iterator[Contrast]:
    """StyleGAN2 trained with noise in W minus the one without: whole faces between samples."""
    noisy = {m: bool(evidence.fact(m, "w_noise")) for m in evidence.layered}
    pairs = [(a, b) for a, b in permutations(noisy, 2) if noisy[a] and not noisy[b]]
    yield from _falls(evidence, pairs, BETWEEN)


def _falls(evidence: Evidence, pairs: Iterable[tuple[str, str]], where: str) -> Iterator[Contrast]:
    """How much more the share of whole faces falls in one model than in the other."""
    for pair in pairs:
        falls = [
            [fall(evidence.table, training, where) for training in evidence.trainings(model)]
            for model in pair
        ]
        if min(len(f) for group in falls for f in group) == 0:
            continue
        if min(sum(map(len, group)) for group in falls) < MIN_PAIRS:
            continue
        n = min(map(len, falls))
        if n >= MIN_TRAININGS:
            difference = welch_difference(*(np.array([f.mean() for f in g]) for g in falls))
        else:
            difference = welch_difference(*map(np.concatenate, falls))
        yield Contrast(" minus ".join(pair), "share", replace(difference, n_trainings=n))


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
    for model in evidence.layered or evidence.readers:
        each = [_correlation(evidence, training) for training in evidence.trainings(model)]
        found = [c for c in each if c is not None]
        if len(found) >= MIN_TRAININGS:
            values = np.array([difference.estimate.value for difference in found])
            yield Contrast(model, "share", mean_difference(values))
        elif found:
            yield Contrast(model, "share", found[0])


def _correlation(evidence: Evidence, training: str) -> Difference | None:
    rows = select(evidence.table, training=training, reading=["way", "end target"])
    grid = rows.pivot_table("value", ["attribute", "face"], "reading", observed=True).dropna()
    if len(grid) < MIN_FACES or grid.shape[1] < 2:
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
    return from_draws(correlation(np.ones((1, len(x)))), drawn[:, None])


def class_means(evidence: Evidence) -> Iterator[Contrast]:
    """P along the SVM's normal minus P along class means, both moved equally far in W+."""
    for model in evidence.layered:
        rows = select(evidence.table, model=model, reading=["target", "step"])
        gaps = {}
        for attribute, part in rows.groupby("attribute", observed=True):
            methods = PAPER_METHOD, "mean-difference"
            curves = [curve for m in methods if (curve := _curve(part[part["method"] == m]))]
            if len(curves) == 2:
                half = min(distances[-1] for distances, _ in curves) / 2
                first, second = (
                    grid.apply(partial(np.interp, half, distances), axis=1)
                    for distances, grid in curves
                )
                gaps[attribute] = first - second
        if gaps:
            frame = pd.DataFrame(gaps)
            difference = paired_bootstrap(frame.to_numpy(), people(frame.index), evidence.seed)
            yield Contrast(f"P along svm minus along class means, {model}", "share", difference)


def _curve(rows: pd.DataFrame) -> tuple[Floats, pd.DataFrame] | None:
    """Distances moved (S,), and P of each face there (face x S)."""
    steps = rows.loc[rows["reading"] == "step", "value"]
    rows = rows[(rows["reading"] == "target") & rows["strength"].notna()]
    if not len(steps) or not len(rows):
        return None
    grid = outcomes.probability(rows.pivot_table("value", "face", "strength", observed=True))
    return grid.columns.to_numpy(float) * float(steps.mean()), grid


def w_plus(evidence: Evidence) -> Iterator[Contrast]:
    """The same faces, each layer with its own code, minus all layers with their mean."""
    for model in evidence.layered:
        yield from edit_contrasts(evidence, model, model + IN_W, BEST_METHOD)


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
    "1b": Claim("β-TCVAE edits best along SVM normals", partial(edits_best, method=PAPER_METHOD)),
    "1c": Claim("β-TCVAE edits best along the joint directions",
                partial(edits_best, method=BEST_METHOD)),
    "2": Claim("A larger weight of the KL is read better", kl_weight),
    "2b": Claim("Weighting total correlation is read better than the KL, at equal rate",
                total_correlation),
    "3a": Claim("Between its samples StyleGAN2 draws fewer whole faces than at them",
                partial(holes, where=BETWEEN), "worse"),
    "3b": Claim("Beyond its samples StyleGAN2 draws fewer whole faces, equally far out",
                partial(holes, where=BEYOND), "worse"),
    "3c": Claim("Noise in W during training closes holes", w_noise),
    "4": Claim("Edits from farther before the boundary end worse, at one end coordinate",
               boundary, "worse"),
    "5": Claim("In W+ the SVM's normal edits better than class means, equally far", class_means),
    "6": Claim("W+, a code for each layer, edits better than W, one code for all", w_plus),
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
    if kinds & ({"better", "worse"} - {expected}):
        return CONTRADICTED + note
    if len(kinds) > 1:
        return OPEN + note
    return {expected: SUPPORTED, EQUIVALENT: EQUIVALENT}.get(kinds.pop(), OPEN) + note


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
