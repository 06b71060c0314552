"""The answer in words, written from the numbers: the report's first paragraph."""

from __future__ import annotations

from collections.abc import Mapping

from hublatent.comparison.claim_tests import MAX_LISTED, Verdict
from hublatent.comparison.claims import VERDICTS, Claim, examine_claims
from hublatent.comparison.ranking import (
    EQUAL_EFFECT_SHARE,
    Ranking,
    accuracy_difference,
    best_edit,
    compare_edits,
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

SMALL_NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


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
        return [_tally("separates", known), *_rivalling_readers(results, known)]
    groups: dict[tuple[str, tuple[str, ...], bool], list[str]] = {}
    for attribute, ranking in known.items():
        key = (ranking.best, ranking.tied, bool(ranking.tied or ranking.rest))
        groups.setdefault(key, []).append(attribute)
    sentences = [_separates(results, attributes, *key) for key, attributes in groups.items()]
    return [*sentences, *_on_projected(results, known), *_rivalling_readers(results, known)]


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
                f"{signs.count(1)} of {counted(len(signs), 'attribute')} and clearly better on "
                f"{signs.count(-1)}."
            )
    return sentences


def _rivalling_readers(results: Comparison, known: Mapping[str, Ranking]) -> list[str]:
    """The baselines that the best reader does not clearly beat: what learning did not buy."""
    sentences = []
    for model in (m for m in results.models if m.baseline):
        pairs = {
            attribute: accuracy_difference(results, ranking.best, model.name, attribute)
            for attribute, ranking in known.items()
        }
        signs = {attribute: sign(pair) for attribute, pair in pairs.items() if pair is not None}
        sentences += _rivals("separates", model.name, signs)
    return sentences


def _rivalling_editors(results: Comparison, known: Mapping[str, Edits]) -> list[str]:
    """The baselines that the best editor does not clearly beat."""
    sentences = []
    for model in (m for m in results.models if m.baseline):
        rows = {a: best_edit(edits_of(results, model.name, a)) for a in known}
        signs = {a: compare_edits(known[a], row) for a, row in rows.items() if row is not None}
        sentences += _rivals("edits", model.name, signs)
    return sentences


def _rivals(verb: str, name: str, signs: Mapping[str, int]) -> list[str]:
    """One sentence on a baseline: -1 where it beats the best model, 0 where that is not sure."""
    better = [readable(attribute) for attribute, s in signs.items() if s < 0]
    level = [readable(attribute) for attribute, s in signs.items() if s == 0]
    parts = []
    if better:
        parts.append(f"{verb} {_some(better)} clearly better than that")
    if level:
        parts.append(f"cannot be told apart from the best on {_some(level)}")
    return [f"The baseline {name} {' and '.join(parts)}."] if parts else []


def _some(names: list[str]) -> str:
    return listed(names) if len(names) <= MAX_LISTED else f"{len(names)} attributes"


def _editing(results: Comparison) -> list[str]:
    """Which model edits best, and along which method."""
    known = {}
    contending = {m.name for m in contenders(results)}
    for attribute in results.attributes:
        rows = [best_edit(edits_of(results, m.name, attribute)) for m in contenders(results)]
        ranked = rank_edits([row for row in rows if row is not None])
        if ranked is not None:
            known[attribute] = ranked
    sentences = [_edits_own_samples(results)] if _only_samples(results) else []
    if not known:
        return sentences or ["Edits of test faces were not measured."]
    baselines = _rivalling_editors(results, {a: best for a, (best, _) in known.items()})
    if len(known) > MAX_LISTED:
        rankings = {
            a: Ranking(best.model, tuple(row.model for row in tied), ())
            for a, (best, tied) in known.items()
        }
        return [_tally("edits", rankings), *sentences, *baselines]
    groups: dict[tuple[str, ...], list[Edits]] = {}
    for best, tied in known.values():
        rivals = [f"{row.model} along {row.method}" for row in tied]
        key = (best.model, best.method, str((reached(best), best.above_null)), *rivals)
        groups.setdefault(key, []).append(best)
    alone = len({row.model for row in results.edits if row.faces == TEST} & contending) == 1
    told = [_edits(rows, key[3:], alone) for key, rows in groups.items()]
    return [*told, *sentences, *baselines]


def _edits(rows: list[Edits], tied: tuple[str, ...], alone: bool) -> str:
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
    verb = f"is the only one here, and edits {names}" if alone else f"edits {names} best"
    text = (
        f"{model} along its {method} direction {verb}: {share} of the faces show the "
        f"attribute at {strengths}, where the others change by {costs} on average"
    )
    if all(row.outcomes for row in rows):
        text += f"; {listed([_strong(row) for row in rows])} of the strips are strong"
    if not rows[0].above_null:
        return f"{text}; but that does not rise above the null band of random directions."
    if tied:
        return f"{text}; {listed(tied)} cannot be told apart from it."
    return f"{text}."


def _strong(row: Edits) -> str:
    outcomes = row.outcomes
    if outcomes is None:
        return "no share"
    n = outcomes.strong + outcomes.no_effect + outcomes.decohered
    return percent(outcomes.strong / n if n else 0.0)


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
            f"The program's outcomes agree with {labels.n} strips labelled by eye in "
            f"{percent(labels.agreement.value)} of the cases (kappa {inline(labels.kappa, 2)})."
        )
    elif any(row.outcomes for row in results.edits):
        sentences.append("No strips have been labelled by eye yet to check the program's outcomes.")
    sentences.append(
        "All intervals are 95% and cover the choice of people; every model was trained once, so "
        "the luck of a training is not in them."
    )
    return sentences
