"""The paper's claims, what became of each here, and the answer in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from hublatent.comparison import claim_tests
from hublatent.comparison.claim_tests import MAX_LISTED, Finding, Verdict
from hublatent.comparison.ranking import (
    EQUAL_EFFECT_SHARE,
    Ranking,
    accuracy_difference,
    best_edit,
    contenders,
    edits_of,
    rank_edits,
    rank_separability,
    reached,
    separability_row,
    sign,
)
from hublatent.comparison.results import SAMPLES, TEST, Comparison, Edits
from hublatent.comparison.words import counted, inline, interval, listed, percent, readable, sigmas
from hublatent.direction import Score

SMALL_NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what became of it here.

    Attributes:
        key: such as "1a"; claims with one digit belong together.
        short: the claim in a few words, to go on after "that".
        statement: the claim.
        verdict: one of VERDICTS.
        sentence: the numbers that the verdict rests on, in plain words.
        numbers: what was compared -> difference with its interval.
    """

    key: str
    short: str
    statement: str
    verdict: Verdict
    sentence: str
    numbers: Mapping[str, Score] = field(default_factory=dict)


CLAIMS: dict[str, tuple[str, str, Callable[[Comparison], Finding]]] = {
    "1a": (
        "β-TCVAE's latents separate the attributes best",
        "β-TCVAE is the most interpretable: a linear SVM separates attributes best in its latents.",
        claim_tests.claim_reads_best,
    ),
    "1b": (
        "β-TCVAE edits best along SVM normals",
        "β-TCVAE is the most interpretable: along SVM normals it gives the clearest edits.",
        claim_tests.claim_edits_best_svm,
    ),
    "1c": (
        "β-TCVAE edits best when every model has its best direction",
        "The same, with each model edited along the method that serves it best.",
        claim_tests.claim_edits_best,
    ),
    "2": (
        "the weight of the KL divergence matters",
        "The weight of the KL divergence decides how interpretable a latent space is.",
        claim_tests.claim_kl_weight,
    ),
    "3a": (
        "StyleGAN2's space has holes between its samples",
        "StyleGAN2's latent space is full of holes: between samples it draws less real faces than "
        "VAEs do.",
        claim_tests.claim_holes_between,
    ),
    "3b": (
        "StyleGAN2's space has holes beyond its samples",
        "StyleGAN2's latent space is full of holes: farther out it decays more than VAEs do.",
        claim_tests.claim_holes_beyond,
    ),
    "3c": (
        "noise in W during training closes StyleGAN2's holes",
        "Noise in W during training smooths StyleGAN2's latent space.",
        claim_tests.claim_w_noise,
    ),
    "4": (
        "edits fail where the face lies far from the boundary",
        "Edits fail where the face lies far from the SVM's boundary.",
        claim_tests.claim_boundary,
    ),
    "5": (
        "class means do worse than the SVM in W+",
        "In W+ the difference of class means edits worse than the SVM's normal.",
        claim_tests.claim_class_means,
    ),
}


def examine_claims(results: Comparison) -> list[Claim]:
    """Test every claim of the paper.

    Args:
        results: what was measured.

    Returns:
        All claims in the paper's order, those that could not be measured included.
    """
    return [
        Claim(key, short, statement, *test(results))
        for key, (short, statement, test) in CLAIMS.items()
    ]


def answer(results: Comparison) -> str:
    """What the numbers support, in words: the report's first paragraph.

    Args:
        results: what was measured.

    Returns:
        A few sentences: which model separates best, which edits best, what becomes of the paper's
        claims, and how sure all that is.
    """
    return " ".join(answer_paragraphs(results))


def answer_paragraphs(results: Comparison) -> list[str]:
    """The answer in four parts: separability, editing, the claims, and how sure all that is."""
    parts = (
        _separation(results),
        _editing(results),
        [_verdicts(examine_claims(results))],
        _certainty(results),
    )
    return [" ".join(part) for part in parts]


def _separation(results: Comparison) -> list[str]:
    """Which model separates best: attribute by attribute, or counted where there are many."""
    names = [model.name for model in contenders(results)]
    ranked = {a: rank_separability(results, a, names) for a in results.attributes}
    known = {a: ranking for a, ranking in ranked.items() if ranking is not None}
    if not known:
        return ["Separability was not measured."]
    if len(known) > MAX_LISTED:
        return [_tally("separates", known)]
    groups: dict[tuple[str, tuple[str, ...], bool], list[str]] = {}
    for attribute, ranking in known.items():
        key = (ranking.best, ranking.tied, bool(ranking.tied or ranking.rest))
        groups.setdefault(key, []).append(attribute)
    sentences = [_separates(results, attributes, *key) for key, attributes in groups.items()]
    return [*sentences, *_on_projected(results, known), *_rivalling_baselines(results, known)]


def _separates(
    results: Comparison, attributes: list[str], best: str, tied: tuple[str, ...], rivals: bool
) -> str:
    rows = [separability_row(results, best, attribute) for attribute in attributes]
    scores = listed(
        [
            f"{readable(attribute)} ({inline(row.accuracy if row else None)})"
            for attribute, row in zip(attributes, rows, strict=True)
        ]
    )
    if not rivals:
        return f"{best}, without a rival here, separates {scores}."
    head = f"By the SVM's accuracy, {best} separates {scores} best"
    if not tied:
        return f"{head}, clearly ahead of every other model."
    return f"{head}, but {listed(tied)} cannot be told apart from it."


def _on_projected(results: Comparison, known: Mapping[str, Ranking]) -> list[str]:
    """Models that were read on the projected faces only, against the best of the others there."""
    sentences = []
    for model in contenders(results):
        if any(separability_row(results, model.name, attribute) for attribute in known):
            continue
        pairs = [
            accuracy_difference(results, ranking.best, model.name, attribute)
            for attribute, ranking in known.items()
        ]
        signs = [sign(pair) for pair in pairs if pair is not None]
        if signs:
            sentences.append(
                f"{model.name}, read on the projected faces only, is clearly worse there on "
                f"{signs.count(1)} and clearly better on {signs.count(-1)} of "
                f"{counted(len(signs), 'attribute')}."
            )
    return sentences


def _rivalling_baselines(results: Comparison, known: Mapping[str, Ranking]) -> list[str]:
    """The baselines that the best model does not clearly beat: what learning did not buy."""
    sentences = []
    for model in (m for m in results.models if m.baseline):
        level = []
        for attribute, ranking in known.items():
            d = accuracy_difference(results, ranking.best, model.name, attribute)
            if d is not None and sign(d) <= 0:
                level.append(readable(attribute))
        if level:
            sentences.append(f"The baseline {model.name} does no worse on {listed(level)}.")
    return sentences


def _editing(results: Comparison) -> list[str]:
    """Which model edits best, and along which method."""
    known = {}
    for attribute in results.attributes:
        rows = [best_edit(edits_of(results, m.name, attribute)) for m in contenders(results)]
        ranked = rank_edits([row for row in rows if row is not None])
        if ranked is not None:
            known[attribute] = ranked
    sentences = [_edits_own_samples(results)] if _only_samples(results) else []
    if not known:
        return sentences or ["Edits of test faces were not measured."]
    if len(known) > MAX_LISTED:
        rankings = {
            a: Ranking(best.model, tuple(row.model for row in tied), ())
            for a, (best, tied) in known.items()
        }
        return [_tally("edits", rankings), *sentences]
    groups: dict[tuple[str, ...], list[Edits]] = {}
    for best, tied in known.values():
        rivals = [f"{row.model} along {row.method}" for row in tied]
        key = (best.model, best.method, str(reached(best) and best.above_null), *rivals)
        groups.setdefault(key, []).append(best)
    return [_edits(rows, key[3:]) for key, rows in groups.items()] + sentences


def _edits(rows: list[Edits], tied: tuple[str, ...]) -> str:
    """One or several attributes that the same model edits best along the same method."""
    model, method = rows[0].model, rows[0].method
    names = listed([readable(row.attribute) for row in rows])
    share = percent(EQUAL_EFFECT_SHARE)
    if not reached(rows[0]):
        tops = [max(range(len(r.share)), key=lambda i: r.share[i]) for r in rows]
        nearest = listed(
            [
                f"{percent(row.share[top])} at {sigmas(row.strengths[top])}"
                for row, top in zip(rows, tops, strict=True)
            ]
        )
        return (
            f"No model edits {names} so far that {share} of the faces show it to the judge; "
            f"{model} along {method} comes nearest, with {nearest}."
        )
    strengths = listed(
        [f"{row.equal_effect.strength.value:.1f}σ" for row in rows if row.equal_effect.strength]
    )
    costs = listed([interval(row.equal_effect.leakage) for row in rows])
    text = (
        f"{model} along its {method} direction edits {names} best: {share} of the faces show the "
        f"attribute at {strengths}, where the others change by {costs} on average"
    )
    if not rows[0].above_null:
        return f"{text}; but that does not rise above the null band of random directions."
    if tied:
        return f"{text}; {listed(tied)} cannot be told apart from it."
    return f"{text}."


def _only_samples(results: Comparison) -> list[str]:
    """Models that were edited on their own samples only, and so are in no ranking."""
    on_faces = {row.model for row in results.edits if row.faces == TEST}
    return [
        m.name
        for m in contenders(results)
        if m.name not in on_faces
        and any(row.model == m.name and row.faces == SAMPLES for row in results.edits)
    ]


def _edits_own_samples(results: Comparison) -> str:
    names = _only_samples(results)
    verb = "was" if len(names) == 1 else "were"
    return f"{listed(names)} {verb} scored on own samples only, and so cannot be ranked with these."


def _tally(verb: str, rankings: Mapping[str, Ranking]) -> str:
    """How many of many attributes each model leads, and on how many of them clearly."""
    leads: dict[str, list[bool]] = {}
    for ranking in rankings.values():
        leads.setdefault(ranking.best, []).append(not ranking.tied)
    parts = [
        f"{name} {verb} {len(leads[name])} best ({sum(leads[name])} of them clearly)"
        for name in sorted(leads, key=lambda name: -len(leads[name]))
    ]
    return f"Of {len(rankings)} attributes, {listed(parts)}."


def _verdicts(claims: list[Claim]) -> str:
    """What became of the paper's claims, in one sentence or two."""
    groups = {v: [c.short for c in claims if c.verdict == v] for v in VERDICTS}
    tested = len(claims) - len(groups["not measured"])
    if not tested:
        return "None of the paper's claims could be tested."
    phrases: dict[Verdict, tuple[str, str]] = {
        "supported": ("the numbers support", "that"),
        "not supported": ("the numbers speak against", "that"),
        "undecided": ("the numbers leave open", "whether"),
    }
    sentences = []
    for verdict, (phrase, joint) in phrases.items():
        if groups[verdict]:
            n = SMALL_NUMBERS[len(groups[verdict])]
            told = "; ".join(f"{joint} {short}" for short in groups[verdict])
            sentences.append(f"{phrase} {n}: {told}.")
    first = f"Of the paper's claims {sentences[0]}"
    text = " ".join([first, *(s[0].upper() + s[1:] for s in sentences[1:])])
    if groups["not measured"]:
        text += f" {SMALL_NUMBERS[len(groups['not measured'])].capitalize()} could not be tested."
    return text


def _certainty(results: Comparison) -> list[str]:
    """What the intervals cover, and what they do not."""
    counts = [row.n for row in results.edits if row.faces == TEST]
    sentences = []
    if counts:
        low, high = min(counts), max(counts)
        n = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        quality = [s.value for a, s in results.judge.auroc.items() if a in results.attributes]
        judge = (
            f", whose AUROC on real test pictures is at least {min(quality):.3f}" if quality else ""
        )
        sentences.append(
            f"Edits were scored on {n} test faces each by the classifier {results.judge.name}"
            f"{judge}."
        )
    if results.hand_labels is not None:
        labels = results.hand_labels
        sentences.append(
            f"Its outcomes agree with {labels.n} strips labelled by eye in "
            f"{percent(labels.agreement.value)} of the cases (kappa {inline(labels.kappa, 2)})."
        )
    elif any(row.outcomes for row in results.edits):
        sentences.append("No strips have been labelled by eye yet to check its outcomes.")
    sentences.append(
        "All intervals are 95% and cover the choice of people; every model was trained once, so "
        "the luck of a training is not in them."
    )
    return sentences
