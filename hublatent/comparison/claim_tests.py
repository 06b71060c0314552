"""The test of each of the paper's claims: results in; a verdict, a sentence and numbers out.

Each test is fixed here, before any result is seen. A claim over several rivals or attributes is
supported only if it holds for every one of them, and refuted by a single clear exception, whose
interval is widened for the number of chances it had (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Literal

from hublatent.comparison.ranking import (
    PAPER_METHOD,
    accuracy_difference,
    best_edit,
    compare_edits,
    contenders,
    difference,
    edits_of,
    is_known,
    mean,
    reached,
    sign,
    widened,
)
from hublatent.comparison.results import SAMPLES, TEST, Comparison, Edits, Holes, Model
from hublatent.comparison.words import counted, interval, listed, readable
from hublatent.discovery.methods import PROJECTED_SUFFIX
from hublatent.stats import Estimate

Verdict = Literal["supported", "not supported", "undecided", "not measured"]
CLASS_MEANS = "mean-difference"
MAX_LISTED = 4  # attributes that a sentence goes through one by one


Finding = tuple[Verdict, str, Mapping[str, Estimate]]


def claim_reads_best(results: Comparison) -> Finding:
    """Paired difference of accuracies, β-TCVAE minus each rival."""
    ours = _first(contenders(results), "btcvae")
    if ours is None:
        return _not_measured("No β-TCVAE was compared.")
    rivals = [m.name for m in contenders(results) if m.architecture != "btcvae"]
    found = {
        (attribute, rival): d
        for attribute in results.attributes
        for rival in rivals
        if (d := accuracy_difference(results, ours.name, rival, attribute)) is not None
    }
    if not found:
        return _not_measured(f"No accuracies of {ours.name} and a rival on the same pictures.")
    strongest = []
    for attribute in dict.fromkeys(a for a, _ in found):
        rival = min(
            (r for a, r in found if a == attribute), key=lambda r: found[attribute, r].value
        )
        text = interval(found[attribute, rival], signed=True)
        strongest.append((readable(attribute), f"{text} against {rival}"))
    sentence = (
        f"{ours.name}'s accuracy minus that of its strongest rival: "
        f"{_through(strongest)}{_absent(results, 'stylegan2', 'StyleGAN2')}."
    )
    return _all(list(found.values())), sentence, _named(found)


def claim_edits_best_svm(results: Comparison) -> Finding:
    """Leakage at equal effect along the SVM normals, β-TCVAE against each rival."""
    return _edits_best(results, PAPER_METHOD)


def claim_edits_best(results: Comparison) -> Finding:
    """The same, each model along the method that serves it best."""
    return _edits_best(results, None)


def _edits_best(results: Comparison, method: str | None) -> Finding:
    ours = _first(contenders(results), "btcvae")
    if ours is None:
        return _not_measured("No β-TCVAE was compared.")
    contests: list[tuple[Edits, Edits]] = []
    told: list[tuple[str, str]] = []
    numbers: dict[str, Estimate] = {}
    for attribute in results.attributes:
        mine = best_edit(edits_of(results, ours.name, attribute, TEST, method))
        rivals = [
            best_edit(edits_of(results, m.name, attribute, TEST, method))
            for m in contenders(results)
            if m.architecture != "btcvae"
        ]
        others = [row for row in rivals if row is not None]
        if mine is None or not others:
            continue
        compared = [(compare_edits(mine, other), other) for other in others]
        contests += [(mine, other) for other in others]
        rival = best_edit(row for s, row in compared if s == min(s for s, _ in compared))
        if rival is not None:
            told.append((readable(attribute), f"{_cost(mine)} against {_cost(rival)}"))
        for _, other in compared:
            if (gap := _leakage_gap(other, mine)) is not None:
                numbers[f"{readable(attribute)}: {other.model} minus {mine.model}"] = gap
    if not contests:
        where = f"along {method}" if method else "along any method"
        return _not_measured(f"No edits of {ours.name} and of a rival {where} on the same faces.")
    signs = [compare_edits(mine, other) for mine, other in contests]
    rest = f" {ours.name} edits better than {signs.count(1)} of "
    rest += f"{len(signs)} edits of rivals and worse than {signs.count(-1)}."
    absent = _absent(results, "stylegan2", "StyleGAN2")
    sentence = f"Leakage at equal effect: {_through(told)}{absent}.{rest}"
    return _vote(contests), sentence, numbers


def claim_kl_weight(results: Comparison) -> Finding:
    """Every pair of same-size networks that differ in the weight of the KL only."""
    family = _beta_family(results)
    if len(family) < 2:
        return _not_measured(
            "It takes two networks of one size that differ in β only; "
            f"{counted(len(family), 'network')} with a known β took part."
        )
    found: dict[tuple[str, str], Estimate] = {}
    for attribute in results.attributes:
        for low, high in combinations(sorted(family), 2):
            d = accuracy_difference(results, family[high].name, family[low].name, attribute)
            if d is not None:
                found[attribute, f"β = {high:g} minus β = {low:g}"] = d
    if not found:
        return _not_measured("No accuracies of these networks on the same pictures.")
    adjusted = {key: widened(d, len(found)) for key, d in found.items()}
    clear = {key: found[key] for key, d in adjusted.items() if sign(d)}
    shown = clear or found
    largest = sorted(shown, key=lambda key: -abs(shown[key].value))[:MAX_LISTED]
    texts = [
        f"{readable(a)}, {what}: {interval(found[a, what], signed=True)}" for a, what in largest
    ]
    weights = listed([f"{beta:g}" for beta in sorted(family)])
    head = f"Accuracy with β = {weights} on one network: "
    if clear:
        up = sum(d.value > 0 for d in clear.values())
        head += (
            f"{len(clear)} of {len(found)} differences are clear after correction for "
            f"their number, {up} of them in favour of the larger β. The largest: "
        )
        return "supported", f"{head}{'; '.join(texts)}.", _named(found)
    head += f"none of {len(found)} differences is clear. The largest: "
    return "undecided", f"{head}{'; '.join(texts)}.", _named(found)


def claim_holes_between(results: Comparison) -> Finding:
    """Realism half-way between two samples minus realism at the samples."""
    return _holes(results, "half-way between two samples", _dip)


def claim_holes_beyond(results: Comparison) -> Finding:
    """Realism at the farthest radius that all models share minus realism at the samples."""
    radii = [{r for r, _ in row.realism_beyond} for row in results.holes]
    shared = set.intersection(*radii) if radii else set()
    if not shared or max(shared) <= 1 or 1.0 not in shared:
        return _not_measured("Realism beyond the samples was not measured at shared distances.")
    far = max(shared)
    where = f"{far:g} times as far from the mean as the samples"
    return _holes(results, where, lambda row: _fall(row, far))


def claim_w_noise(results: Comparison) -> Finding:
    """The dip of StyleGAN2 trained with noise in W minus that of the one without."""
    models = [m for m in contenders(results) if m.architecture == "stylegan2"]
    dips = {row.model: _dip(row) for row in results.holes}
    noisy = [m.name for m in models if _has_w_noise(m) and m.name in dips]
    plain = [m.name for m in models if not _has_w_noise(m) and m.name in dips]
    if not noisy or not plain:
        return _not_measured("It takes StyleGAN2 trained both with and without noise in W.")
    gain = difference(dips[noisy[0]], dips[plain[0]])
    sentence = (
        f"Change of realism half-way between samples: {interval(dips[noisy[0]], signed=True)} "
        f"for {noisy[0]}, {interval(dips[plain[0]], signed=True)} for {plain[0]}; difference "
        f"{interval(gain, signed=True)}."
    )
    return _of_sign(sign(gain)), sentence, {f"{noisy[0]} minus {plain[0]}": gain}


def _holes(results: Comparison, where: str, measure: Callable[[Holes], Estimate]) -> Finding:
    architectures = {m.name: m for m in contenders(results)}
    known = {row.model: measure(row) for row in results.holes if row.model in architectures}
    known = {name: score for name, score in known.items() if is_known(score)}
    ours = [
        name for name in known
        if architectures[name].architecture == "stylegan2" and not _has_w_noise(architectures[name])
    ]  # fmt: skip
    vaes = [name for name in known if architectures[name].space == "z"]
    if not ours:
        return _not_measured("No realism along lines was measured for StyleGAN2.")
    if not vaes:
        return _not_measured("No realism along lines was measured for a VAE.")
    gaps = {name: difference(known[name], known[ours[0]]) for name in vaes}
    nearest = min(vaes, key=lambda name: gaps[name].value)
    sentence = (
        f"Change of realism {where}: {interval(known[ours[0]], signed=True)} for {ours[0]}, "
        f"{interval(known[nearest], signed=True)} for {nearest}, the VAE that is hurt most; "
        f"the VAE's minus StyleGAN2's is {interval(gaps[nearest], signed=True)}."
    )
    numbers = {f"{name} minus {ours[0]}": gap for name, gap in gaps.items()}
    return _all(list(gaps.values())), sentence, numbers


def claim_boundary(results: Comparison) -> Finding:
    """Rank correlation of the initial distance with how well the edit works; negative if so."""
    compared = {m.name for m in contenders(results)}
    rows = [r for r in results.boundary if is_known(r.correlation) and r.model in compared]
    sampled = {row.model for row in rows if row.method == PAPER_METHOD}
    rows = [
        row for row in rows
        if row.method == PAPER_METHOD
        or (row.method == PAPER_METHOD + PROJECTED_SUFFIX and row.model not in sampled)
    ] or rows  # fmt: skip
    spaces = {m.name: m.space for m in results.models}
    w_plus = [row for row in rows if spaces.get(row.model) == "w+"]
    decisive = w_plus or rows
    if not decisive:
        return _not_measured("The outcome was not set against the distance from the boundary.")
    average = mean([row.correlation for row in decisive])
    signs = [sign(row.correlation) for row in decisive]
    who = "StyleGAN2" if w_plus else "the models (StyleGAN2 was not among them)"
    sentence = (
        f"Rank correlation of a face's distance from the boundary with the effect of its "
        f"edit, mean over {counted(len(decisive), 'combination')} of model, attribute and faces of "
        f"{who}: {interval(average, 2, signed=True)}; clearly negative in {signs.count(-1)}, "
        f"clearly positive in {signs.count(1)}."
    )
    rest = [row.correlation for row in rows if row not in decisive]
    if rest:
        sentence += f" In the VAEs: {interval(mean(rest), 2, signed=True)}."
    numbers = {f"{r.model}, {readable(r.attribute)}, {r.faces}": r.correlation for r in decisive}
    return _of_sign(-sign(average)), sentence, numbers


def claim_class_means(results: Comparison) -> Finding:
    """Edits along the SVM normal against those along the difference of class means, in W+."""
    models = [m.name for m in contenders(results) if m.space == "w+"]
    pairs = list(_svm_and_means(results, models))
    if not pairs:
        elsewhere = [m.name for m in contenders(results) if m.space != "w+"]
        others = list(_svm_and_means(results, elsewhere))
        text = "No model with a W+ space was edited along both."
        if others:
            signs = [compare_edits(svm, means) for svm, means in others]
            text += (
                f" In the other spaces the SVM normal edits better in {signs.count(1)} of "
                f"{len(signs)}, class means in {signs.count(-1)}."
            )
        return _not_measured(text)
    signs = [compare_edits(svm, means) for svm, means in pairs]
    told = [
        (
            f"{readable(svm.attribute)} ({svm.model}, {_faces(svm)})",
            f"{_cost(svm, False)} against {_cost(means, False)}",
        )
        for svm, means in pairs
    ]
    numbers = {
        f"{svm.model}, {readable(svm.attribute)}, {svm.faces}: "
        f"{means.method} minus {svm.method}": gap
        for svm, means in pairs
        if (gap := _leakage_gap(means, svm)) is not None
    }
    sentence = (
        f"Leakage at equal effect: {_through(told)}. The SVM normal is better in "
        f"{signs.count(1)} of {len(signs)}, class means in {signs.count(-1)}."
    )
    return _vote(pairs), sentence, numbers


def _beta_family(results: Comparison) -> dict[float, Model]:
    """β -> model, for the largest group of plain or β-VAEs that have equally many parameters."""
    groups: dict[int, dict[float, Model]] = {}
    for model in results.models:
        if model.architecture in ("vae", "betavae") and model.beta is not None:
            groups.setdefault(model.n_parameters, {})[model.beta] = model
    return max(groups.values(), key=len, default={})


def _has_w_noise(model: Model) -> bool:
    return bool(model.w_noise)


def _dip(row: Holes) -> Estimate:
    """Realism half-way minus the mean of the two ends."""
    points = dict(row.realism_between)
    middle = min(points, key=lambda t: abs(t - 0.5))
    return difference(points[middle], mean([points[min(points)], points[max(points)]]))


def _fall(row: Holes, radius: float) -> Estimate:
    points = dict(row.realism_beyond)
    return difference(points[radius], points[1.0])


def _svm_and_means(results: Comparison, models: Sequence[str]) -> Iterator[tuple[Edits, Edits]]:
    """Edits along both, found in the same codes: of samples or an encoder, and of projections."""
    for model, attribute, faces, codes in product(
        models, results.attributes, (TEST, SAMPLES), ("", PROJECTED_SUFFIX)
    ):
        svm = edits_of(results, model, attribute, faces, PAPER_METHOD + codes)
        means = edits_of(results, model, attribute, faces, CLASS_MEANS + codes)
        if svm and means:
            yield svm[0], means[0]


def _cost(row: Edits, with_model: bool = True) -> str:
    """Model, method and what the edit costs."""
    who = f"{row.model} along {row.method}" if with_model else f"along {row.method}"
    between = " for " if with_model else " "
    if reached(row):
        return f"{interval(row.equal_effect.leakage)}{between}{who}"
    return f"not reached{' by ' if with_model else ' '}{who}"


def _leakage_gap(first: Edits, second: Edits) -> Estimate | None:
    a, b = first.equal_effect.leakage, second.equal_effect.leakage
    return difference(a, b) if a is not None and b is not None else None


def _faces(row: Edits) -> str:
    return "test faces" if row.faces == TEST else "own samples"


def _all(differences: Sequence[Estimate]) -> Verdict:
    """Supported if all are clearly positive, not supported if one is clearly negative."""
    if all(sign(d) > 0 for d in differences):
        return "supported"
    if any(sign(widened(d, len(differences))) < 0 for d in differences):
        return "not supported"
    return "undecided"


def _vote(contests: Sequence[tuple[Edits, Edits]]) -> Verdict:
    """Supported if the first edits better in all, not supported if it is clearly worse in one."""
    if all(compare_edits(a, b) > 0 for a, b in contests):
        return "supported"
    worse = any(compare_edits(a, b, n_tests=len(contests)) < 0 for a, b in contests)
    return "not supported" if worse else "undecided"


def _of_sign(value: int) -> Verdict:
    verdicts: dict[int, Verdict] = {1: "supported", 0: "undecided", -1: "not supported"}
    return verdicts[value]


def _not_measured(why: str) -> Finding:
    return "not measured", why, {}


def _first(models: Sequence[Model], architecture: str) -> Model | None:
    return next((m for m in models if m.architecture == architecture), None)


def _absent(results: Comparison, architecture: str, name: str) -> str:
    return "" if _first(results.models, architecture) else f" ({name} took no part)"


def _through(told: Sequence[tuple[str, str]]) -> str:
    """Attribute by attribute; with many attributes the first ones, and how many more there are."""
    shown = [f"{name}, {text}" for name, text in told[:MAX_LISTED]]
    rest = len(told) - len(shown)
    return "; ".join(shown) + (f"; and {counted(rest, 'other')}" if rest else "")


def _named(found: Mapping[tuple[str, str], Estimate]) -> dict[str, Estimate]:
    return {f"{readable(attribute)}: {what}": d for (attribute, what), d in found.items()}
