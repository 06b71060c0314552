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

from hublatent import stats
from hublatent.evaluation import outcomes
from hublatent.evaluation.judges import WHOLE_ABOVE
from hublatent.evaluation.subjects import FACTS, IN_W
from hublatent.evaluation.table import BETWEEN, BEYOND, SAMPLES, people, select
from hublatent.stats import Difference, Estimate, Floats

PAPER_METHOD, BEST_METHOD = "svm", "joint"
SUPPORTED, CONTRADICTED, EQUIVALENT, OPEN = "supported", "contradicted", "equivalent", "open"
UNMEASURED = "not measured"
KINDS = (SUPPORTED, CONTRADICTED, EQUIVALENT, OPEN, UNMEASURED)  # of verdicts
OURS = "btcvae"  # the architecture that the paper calls best
TC_OBJECTIVES, KL_OBJECTIVE = ("beta-tcvae", "factorvae"), "beta-vae"
LOWER_IS_BETTER = ("leakage",)
MIN_FACES = 10  # that two models share, for an interval
MIN_PAIRS = 30  # of samples: if none of n is a hole, 3 / n of all may still be (95%)


@dataclass(frozen=True)
class Contrast:
    """One comparison."""

    text: str  # what is subtracted from what, in words
    quantity: str  # whose margin it has: "accuracy", "leakage" or "share"
    difference: Difference  # its p is adjusted for the claim's other contrasts
    pair: str = ""  # whom it compares, where several quantities do

    @property
    def verdict(self) -> str:
        """One of better, worse, equivalent, open; with "this checkpoint only" where it is so."""
        better_up = self.quantity not in LOWER_IS_BETTER
        return stats.verdict(self.difference, stats.MARGINS[self.quantity], better_up)


@dataclass(frozen=True)
class Finding:
    """What became of a claim: its verdict over all the contrasts that it rests on."""

    key: str
    statement: str
    verdict: str
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The long table and what is known of the models, with what claims ask of it."""

    table: pd.DataFrame
    models: pd.DataFrame  # a row for each training, as of Subject.about
    seed: int = 0  # of the bootstraps

    @cached_property
    def strips(self) -> pd.DataFrame:
        """Onsets, outcome and price of each edited face."""
        return outcomes.edits(self.table)

    @cached_property
    def accuracy(self) -> pd.DataFrame:
        """face x (training, attribute)."""
        return outcomes.accuracy(self.table)

    @cached_property
    def trainings(self) -> pd.DataFrame:
        """The row of each training, with FACTS and `score`, its mean accuracy over attributes."""
        own = select(self.table, attribute="", method="", reading=FACTS)
        facts = own.pivot_table("value", "training", "reading", observed=True)
        scores = self.accuracy.mean().groupby(level="training").mean().rename("score")
        return self.models.set_index("training").join(facts.reindex(columns=FACTS)).join(scores)

    @cached_property
    def names(self) -> list[str]:
        """The models, in their order."""
        return list(dict.fromkeys(self.models["model"]))

    @cached_property
    def scores(self) -> dict[str, Floats]:
        """The accuracies of each model's trainings, of those whose latents were read."""
        read = self.trainings.dropna(subset="score").groupby("model", sort=False)["score"]
        return {str(model): scores.to_numpy() for model, scores in read}

    @cached_property
    def edited(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The strips of each (model, method)."""
        groups = self.strips.groupby(["model", "method"], observed=True)
        return {(str(model), str(method)): strips for (model, method), strips in groups}

    @cached_property
    def editors(self) -> list[str]:
        """Models that were edited; W beside W+ is none of its own."""
        return [m for m in self.names if any(m == model for model, _ in self.edited)]

    @cached_property
    def layered(self) -> list[str]:
        """Models whose latents have layers."""
        return [m for m in self.names if self.fact(m, "layers")]

    def summaries(
        self, attribute: str | None = None
    ) -> Iterator[tuple[str, str, dict[str, float]]]:
        """What each model's edits along each method come to, of one attribute or of all."""
        for name, (model, method) in product(self.editors, self.edited):
            strips = self.edited[model, method]
            mine = strips if attribute is None else strips[strips["attribute"] == attribute]
            if model == name and len(mine):
                yield model, method, outcomes.summary(mine)

    def of(self, model: str) -> pd.DataFrame:
        """The rows of a model's trainings."""
        return self.trainings[self.trainings["model"] == model]

    def fact(self, model: str, name: str) -> Any:
        """What is known of a model, as its first training tells it."""
        return self.of(model)[name].iloc[0]

    @cached_property
    def _readings(self) -> dict[str, tuple[Floats, Floats]]:
        """Of each model the accuracy (K,) of each attribute, and bootstrap draws (R, K)."""
        read = [self.of(model).dropna(subset="score").index for model in self.scores]
        means = [_over_trainings(self.accuracy[list(trainings)]) for trainings in read]
        who = people(self.accuracy.index)
        point, draws = stats.bootstrap_means(np.concatenate(means, axis=1), who, self.seed)
        ends = np.cumsum([mean.shape[1] for mean in means])[:-1]
        parts = zip(np.split(point, ends), np.split(draws, ends, axis=1), strict=True)
        return dict(zip(self.scores, parts, strict=True))

    def reading_estimate(self, model: str) -> Estimate:
        """Mean accuracy, with the interval over people and attributes."""
        return stats.from_draws(*self._readings[model], self.seed, columns_vary=True).estimate

    def reading_difference(self, first: str, second: str) -> Difference:
        """Accuracy of one model minus that of another, over the attributes."""
        scores = self.scores[first], self.scores[second]
        if min(map(len, scores)) >= stats.MIN_TRAININGS:
            return stats.welch_difference(*scores)
        points, draws = zip(self._readings[first], self._readings[second], strict=True)
        difference = points[0] - points[1], draws[0] - draws[1]
        return stats.from_draws(*difference, self.seed, columns_vary=True)

    def edit_difference(
        self, first: str, second: str, method: str, quantity: str
    ) -> Difference | None:
        """Share of strong edits, or leakage at the onset, of one model minus that of another.

        None where they share too few faces that somebody could judge.
        """
        found = [self.edited.get((m, method), self.strips[:0]) for m in (first, second)]
        if not all(strips[quantity].notna().any() for strips in found):
            return None
        by = ["training", "attribute"]
        values = [strips.pivot_table(quantity, "face", by, observed=True) for strips in found]
        means = [v.mean().groupby("training", observed=True).mean().to_numpy() for v in values]
        if min(map(len, means)) >= stats.MIN_TRAININGS:
            return stats.welch_difference(*means)
        one, two = map(_over_trainings, values)
        faces = one.index.intersection(two.index)
        if len(faces) < MIN_FACES:
            return None
        gaps = (one.loc[faces] - two.loc[faces]).reindex(columns=one.columns)
        return stats.paired_bootstrap(gaps.to_numpy(), people(faces), self.seed)

    @cached_property
    def champions(self) -> dict[str, str]:
        """Architecture -> its model that reads best, so that each has the same choice."""
        groups: dict[str, list[str]] = {}
        for model in self.scores:
            if not self.fact(model, "baseline"):
                groups.setdefault(str(self.fact(model, "architecture")), []).append(model)
        return {a: max(group, key=lambda m: self.scores[m].mean()) for a, group in groups.items()}

    def rivals(self, among: Iterable[str]) -> Iterator[tuple[str, str]]:
        """The champion of β-TCVAE beside each of the others."""
        chosen = {a: m for a, m in self.champions.items() if m in among}
        ours = [chosen.pop(OURS)] if OURS in chosen else []
        return product(ours, chosen.values())


def _over_trainings(values: pd.DataFrame) -> pd.DataFrame:
    """face x attribute, of face x (training, attribute): the mean over trainings."""
    return values.T.groupby(level="attribute", observed=True).mean().T


def reads_best(evidence: Evidence) -> Iterator[Contrast]:
    """Accuracy of β-TCVAE minus that of each other architecture."""
    for ours, rival in evidence.rivals(evidence.scores):
        difference = evidence.reading_difference(ours, rival)
        yield Contrast(f"{ours} minus {rival}", "accuracy", difference)


def edits_best(evidence: Evidence, method: str) -> Iterator[Contrast]:
    """Strong edits and leakage along a method's directions, β-TCVAE against each other one."""
    for ours, rival in evidence.rivals(evidence.editors):
        yield from edit_contrasts(evidence, ours, rival, method)


def edit_contrasts(evidence: Evidence, first: str, second: str, method: str) -> Iterator[Contrast]:
    """Strong edits and leakage of one model against another, as far as they share faces."""
    pair = f"{first} minus {second}"
    for quantity, noun in (("share", "strong edits"), ("leakage", "leakage at the onset")):
        difference = evidence.edit_difference(first, second, method, quantity)
        if difference is not None:
            yield Contrast(f"{noun}: {pair}", quantity, difference, pair)


def kl_weight(evidence: Evidence) -> Iterator[Contrast]:
    """Networks that differ in β alone: the largest weight minus the smallest."""
    known = evidence.trainings.dropna(subset=["score", "beta", "objective"])
    alike = ["objective", "likelihood", "latent", "parameters"]
    for _, group in known.groupby(alike, sort=False):
        weights = group.drop_duplicates("model").set_index("model")["beta"].astype(float)
        high, low = str(weights.idxmax()), str(weights.idxmin())
        if weights[high] > weights[low]:
            difference = evidence.reading_difference(high, low)
            yield Contrast(f"{high} minus {low}", "accuracy", difference)


def total_correlation(evidence: Evidence) -> Iterator[Contrast]:
    """Models with weighted total correlation, minus what the KL's weight gives at their rate."""
    known = evidence.trainings.dropna(subset=["score", "kl"]).sort_values("kl")
    plain = known[(known["objective"] == KL_OBJECTIVE) & (known["kl"] > 0)]
    if plain["kl"].nunique() < 2:
        return
    for objective in TC_OBJECTIVES:
        ours = known[
            (known["objective"] == objective) & known["kl"].between(*plain["kl"].iloc[[0, -1]])
        ]
        if len(ours) >= 2:
            rates, scores = np.log(plain["kl"]), plain["score"]
            gaps = ours["score"] - np.interp(np.log(ours["kl"]), rates, scores)
            text = f"{objective} minus the weight of the KL at equal rate, {len(gaps)} trainings"
            yield Contrast(text, "accuracy", stats.mean_difference(gaps.to_numpy()))


def holes(evidence: Evidence, where: str) -> Iterator[Contrast]:
    """Whole faces somewhere less those at the samples: W+ models against the others."""
    others = [m for m in evidence.champions.values() if m not in evidence.layered]
    yield from _falls(evidence, product(evidence.layered, others), where)


def w_noise(evidence: Evidence) -> Iterator[Contrast]:
    """StyleGAN2 trained with noise in W minus the one without: whole faces between samples."""
    noisy = {m: bool(evidence.fact(m, "w_noise")) for m in evidence.layered}
    pairs = [(a, b) for a, b in permutations(noisy, 2) if noisy[a] and not noisy[b]]
    yield from _falls(evidence, pairs, BETWEEN)


def _falls(evidence: Evidence, pairs: Iterable[tuple[str, str]], where: str) -> Iterator[Contrast]:
    """How much more the share of whole faces falls in one model than in the other."""
    rows = select(evidence.table, reading="coherence", method=[SAMPLES, where])
    grid = rows.pivot_table("value", ["training", "face"], "method", observed=True)
    if not {SAMPLES, where} <= set(grid):
        return
    whole = (grid.dropna() >= WHOLE_ABOVE).astype(float)
    groups = (whole[where] - whole[SAMPLES]).groupby(level="training", observed=True)
    fall = {str(training): values.to_numpy() for training, values in groups}  # of each pair
    for pair in pairs:
        trainings = [list(evidence.of(model).index) for model in pair]
        falls = [[fall[t] for t in group if t in fall] for group in trainings]
        if list(map(len, falls)) != list(map(len, trainings)):
            continue
        if min(sum(map(len, group)) for group in falls) < MIN_PAIRS:
            continue
        n = min(map(len, falls))
        if n >= stats.MIN_TRAININGS:
            difference = stats.welch_difference(*(np.array([f.mean() for f in g]) for g in falls))
        else:
            difference = stats.welch_difference(*map(np.concatenate, falls))
        yield Contrast(" minus ".join(pair), "share", replace(difference, n_trainings=n))


def boundary(evidence: Evidence) -> Iterator[Contrast]:
    """Rank correlation of the way to one end coordinate with what the judge says there."""
    rows = select(evidence.table, reading=["way", "end target"])
    for model in evidence.layered or evidence.scores:
        each = [_correlation(select(rows, training=t), evidence.seed)
                for t in evidence.of(model).index]  # fmt: skip
        found = [c for c in each if c is not None]
        if len(found) >= stats.MIN_TRAININGS:
            values = np.array([difference.estimate.value for difference in found])
            yield Contrast(model, "share", stats.mean_difference(values))
        elif found:
            yield Contrast(model, "share", found[0])


def _correlation(rows: pd.DataFrame, seed: int) -> Difference | None:
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
    drawn = np.concatenate([correlation(w) for w in stats.bootstrap_weights(who, seed=seed)])
    return stats.from_draws(correlation(np.ones((1, len(x)))), drawn[:, None])


def class_means(evidence: Evidence) -> Iterator[Contrast]:
    """P along the SVM's normal minus P along class means, both moved equally far in W+."""
    methods = PAPER_METHOD, "mean-difference"
    for model in evidence.layered:
        rows = select(evidence.table, model=model, method=methods, reading=["target", "step"])
        gaps = {}
        for attribute, part in rows.groupby("attribute", observed=True):
            steps = part[part["reading"] == "step"].groupby("method", observed=True)["value"].mean()
            edited = part[part["strength"].notna()]
            if not set(methods) <= set(steps.index) & set(edited["method"]):
                continue
            grid = edited.pivot_table("value", "face", ["method", "strength"], observed=True)
            half = steps.min() * edited["strength"].max() / 2  # of the way that both go
            first, second = (
                outcomes.at(p.columns.to_numpy(float), p.to_numpy(), np.full(len(p), half / step))
                for p, step in ((outcomes.probability(grid[m]), steps[m]) for m in methods)
            )
            gaps[attribute] = pd.Series(first - second, grid.index)
        if gaps:
            frame = pd.DataFrame(gaps)
            found = stats.paired_bootstrap(frame.to_numpy(), people(frame.index), evidence.seed)
            yield Contrast(f"P along svm minus along class means, {model}", "share", found)


def w_plus(evidence: Evidence) -> Iterator[Contrast]:
    """The same faces, each layer with its own latent, minus all layers with their mean."""
    for model in evidence.layered:
        yield from edit_contrasts(evidence, model, model + IN_W, BEST_METHOD)


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, or of its code, that numbers can decide."""

    statement: str
    test: Callable[[Evidence], Iterator[Contrast]]  # the contrasts that it rests on
    expected: str = "better"  # or "worse": what each of them is if the claim holds


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
    family = adjusted(claim.test(evidence))
    pairs: dict[str, list[str]] = {}
    for contrast in family:
        pairs.setdefault(contrast.pair or contrast.text, []).append(contrast.verdict)
    verdict = overall([of_pair(verdicts) for verdicts in pairs.values()], claim.expected)
    return Finding(key, claim.statement, verdict, family)


def adjusted(contrasts: Iterable[Contrast]) -> tuple[Contrast, ...]:
    """A family of contrasts, their p values adjusted for one another."""
    family = tuple(contrasts)
    p_values = stats.holm([c.difference.p for c in family])
    return tuple(
        replace(c, difference=replace(c.difference, p=p))
        for c, p in zip(family, p_values, strict=True)
    )


def of_pair(verdicts: Sequence[str]) -> str:
    """One verdict of the quantities in which two models are compared.

    Better in one and equivalent in the others is better; worse in one is worse.
    """
    kinds, note = _kinds(verdicts)
    return next(k for k in ("worse", OPEN, "better", EQUIVALENT) if k in kinds) + note


def overall(verdicts: Sequence[str], expected: str = "better") -> str:
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
    of_all = {expected: SUPPORTED, EQUIVALENT: EQUIVALENT}
    return (of_all.get(kinds.pop(), OPEN) if len(kinds) == 1 else OPEN) + note


def _kinds(verdicts: Sequence[str]) -> tuple[set[str], str]:
    """The kinds of some verdicts, and ", this checkpoint only" if that is said of one."""
    alone = any(stats.ONE_CHECKPOINT in text for text in verdicts)
    kinds = {text.partition(",")[0] for text in verdicts}
    return kinds, f", {stats.ONE_CHECKPOINT}" if alone else ""


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
    signs = [chr(ord("a") + i % 26) + "'" * (i // 26) for i in range(len(groups))]
    return {n: "".join(s for s, g in zip(signs, groups, strict=True) if n in g) for n in names}
