"""The report of a comparison: one page of two screens, and summary.json, which others read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from hublatent import __version__
from hublatent.errors import DataError
from hublatent.evaluation import claims, outcomes
from hublatent.evaluation.claims import Contrast, Evidence, Finding
from hublatent.evaluation.figures import editing_plot, reading_plot
from hublatent.evaluation.subjects import FACTS
from hublatent.figures import png_uri
from hublatent.stats import LEVEL, MARGINS, MIN_TRAININGS, Estimate, holm
from hublatent.storage import atomic_folder_update, parse_json

PAGE_NAME, SUMMARY_NAME = "index.html", "summary.json"
FIGURES = {"editing": "Editing and its price", "reading": "Reading against rate and distortion"}
TEMPLATES = Path(__file__).parent / "templates"
VERSION = 1
NONE = "–"
FACT_NAMES = {"kl": "KL, nats", "mse": "MSE"}
Row = tuple[str, ...]
EDITING_COLUMNS = ("model", "method", "strong", "onset", "leakage", "same person")


@dataclass(frozen=True)
class Summary:
    """What a comparison found, for those who show it elsewhere; tables name their columns first."""

    answer: tuple[str, ...]  # at most five sentences
    claims: tuple[tuple[str, str, str], ...]  # statement, verdict, and its contrasts in words
    models: tuple[str, ...]
    reading: tuple[Row, ...]  # model, accuracy, letters, rate, distortion ...
    editing: Mapping[str, tuple[Row, ...]]  # by attribute
    command: str  # that made it
    judge: str


def read_summary(folder: Path) -> Summary | None:
    """The summary of the comparison that a folder holds; None where none was made.

    Raises:
        DataError: it is damaged, or of another version.
    """
    path = folder / SUMMARY_NAME
    if not path.is_file():
        return None
    try:
        given = parse_json(path.read_text(encoding="utf-8"))
        version = given.pop("version", None)
        if version != VERSION:
            raise DataError(
                f"{path} has version {version!r}; expected {VERSION}. Compare again, by the "
                "command that stands in README."
            )
        return Summary(**{name: _as_tuples(value) for name, value in given.items()})
    except DataError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged (not JSON as it was written): {error}.") from error


def _as_tuples(value: Any) -> Any:
    """JSON with tuples for lists."""
    if isinstance(value, dict):
        return {name: _as_tuples(inner) for name, inner in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def figure_of(folder: Path, name: str) -> bytes | None:
    """One of FIGURES as PNG; None where the comparison drew none."""
    path = folder / f"{name}.png"
    return path.read_bytes() if path.is_file() else None


def write_report(evidence: Evidence, folder: Path, command: str, judge: str) -> Summary:
    """Write index.html, summary.json and the two plots; all of them or none."""
    findings = claims.examine(evidence)
    reading = tuple(reading_rows(evidence))
    attributes = sorted(set(evidence.strips["attribute"]))
    found = Summary(
        answer=tuple(answer(evidence, findings, reading, judge)),
        claims=tuple((f.statement, f.verdict, "; ".join(map(told, f.contrasts))) for f in findings),
        models=tuple(evidence.names),
        reading=reading,
        editing={a: tuple(editing_rows(evidence, a)) for a in attributes},
        command=command,
        judge=judge,
    )
    plots = {"editing": editing_plot(evidence), "reading": reading_plot(evidence)}
    document = json.dumps({"version": VERSION, **asdict(found)}, ensure_ascii=False, indent=1)
    files = {f"{name}.png": png for name, png in plots.items()}
    files[SUMMARY_NAME] = (document + "\n").encode()
    files[PAGE_NAME] = page(
        "comparison.html.jinja", summary=found,
        figures=[(FIGURES[name], png_uri(png)) for name, png in plots.items()],
        details=details(evidence), margins=MARGINS, level=LEVEL, min_trainings=MIN_TRAININGS,
    ).encode()  # fmt: skip
    with atomic_folder_update(folder, tuple(files)) as paths:
        for name, content in files.items():
            paths[name].write_bytes(content)
    return found


def page(template: str, **context: Any) -> str:
    """One page of a template, on which names are text and no markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return str(environment.get_template(template).render(version=__version__, **context))


def answer(
    evidence: Evidence, findings: Sequence[Finding], reading: Sequence[Row], judge: str
) -> list[str]:
    """At most five sentences: reading, editing, claims, rates, and how sure it is."""
    sentences = []
    if reading[1:]:
        first, *rest = (row for row in reading[1:] if "a" in row[2])
        n = evidence.accuracy.columns.get_level_values("attribute").nunique()
        text = f"{first[0]} is read best, at an accuracy of {first[1]} over {n} attribute"
        text += "s" * (n != 1)
        if rest:
            text += f"; {listed([row[0] for row in rest])} cannot be told apart from it"
        sentences.append(f"{text}.")
    if evidence.editors:
        sentences.append(_edited(evidence))
    sentences.append(_verdicts(findings))
    rates = evidence.trainings["kl"].dropna()
    if len(rates) > 1:
        text = f"The rates lie between {min(rates):.0f} and {max(rates):.0f} nats"
        same = max(rates) < 1.5 * min(rates)
        sentences.append(text + (", so the objectives hardly differ." if same else "."))
    trained = evidence.models[~evidence.models["baseline"].astype(bool)]
    repeated = trained["model"].value_counts() >= MIN_TRAININGS
    sentences.append(
        f"Edits were judged by {judge} and by networks from outside; {int(repeated.sum())} of "
        f"{len(repeated)} models were trained at least {MIN_TRAININGS} times, and what is said of "
        "the others holds for their one checkpoint."
    )
    return sentences


def _edited(evidence: Evidence) -> str:
    """How strongly the models edit, and at which price."""
    methods = set(evidence.strips["method"])
    method = claims.BEST_METHOD if claims.BEST_METHOD in methods else claims.PAPER_METHOD
    found = {model: told for model, along, told in evidence.summaries() if along == method}
    strong = [f["strong"] for f in found.values() if np.isfinite(f["strong"])]
    leaks = {m: f["leakage"] for m, f in found.items() if np.isfinite(f["leakage"])}
    if not strong or not leaks:
        return "No edit could be judged."
    shares = " to ".join(dict.fromkeys(f"{s:.0%}" for s in (min(strong), max(strong))))
    text = f"Along the {method} directions {shares} of the edited faces show the attribute"
    text += " before they break"
    least, most = min(leaks, key=lambda m: leaks[m]), max(leaks, key=lambda m: leaks[m])
    if least == most:
        return f"{text}, with a leakage of {leaks[least]:.3f}."
    return (
        f"{text}; what else changes is least in {least} (leakage {leaks[least]:.3f}) and most in "
        f"{most} ({leaks[most]:.3f})."
    )


def _verdicts(findings: Sequence[Finding]) -> str:
    """How many claims hold, and which."""
    kinds: dict[str, list[str]] = {kind: [] for kind in claims.KINDS}
    for finding in findings:
        kinds[finding.verdict.partition(",")[0]].append(finding.statement)
    counts = ", ".join(f"{len(told)} {kind}" for kind, told in kinds.items() if told)
    text = f"Of {len(findings)} claims {counts}"
    held = "; ".join(kinds[claims.SUPPORTED])
    return f"{text}; what is supported: {held}." if held else f"{text}."


def reading_rows(evidence: Evidence) -> list[Row]:
    """Models, best first, with letters, rate and distortion; the first row names the columns."""
    estimates = {m: evidence.reading_estimate(m) for m in evidence.scores}
    names = sorted(estimates, key=lambda m: -estimates[m].value)
    pairs = list(combinations(names, 2))
    p_values = holm([evidence.reading_difference(a, b).p for a, b in pairs])
    apart = {pair for pair, p in zip(pairs, p_values, strict=True) if p < 1 - LEVEL}
    shown = claims.letters(names, lambda a, b: (a, b) in apart)
    heads = [FACT_NAMES.get(fact, fact.replace("_", " ")) for fact in FACTS]
    rows: list[Row] = [("model", "accuracy", "group", "trainings", *heads)]
    for name in names:
        trainings = evidence.of(name)
        facts = (NONE if np.isnan(v) else f"{v:.4g}" for v in trainings[list(FACTS)].mean())
        rows.append((name, interval(estimates[name]), shown[name], str(len(trainings)), *facts))
    return rows


def editing_rows(evidence: Evidence, attribute: str) -> list[Row]:
    """Rows of EDITING_COLUMNS of one attribute, strongest first; the first row names them."""
    rows = []
    for model, method, found in evidence.summaries(attribute):
        onset = f"{found['onset']:.1f}σ" if np.isfinite(found["onset"]) else "not reached"
        price = (number(found["leakage"]), share(found["identity"]))
        cells = (model, method, share(found["strong"]), onset, *price)
        rows.append((np.nan_to_num(found["strong"], nan=-1), cells))
    rows.sort(key=lambda row: -row[0])
    return [EDITING_COLUMNS, *(cells for _, cells in rows)]


def details(evidence: Evidence) -> list[tuple[str, list[Row]]]:
    """Folded tables: accuracy by attribute, null bands and ceilings."""
    found: list[tuple[str, list[Row]]] = []
    if evidence.scores:
        scores = evidence.accuracy.mean().unstack("training")  # attribute x training
        means = scores.T.groupby(evidence.models.set_index("training")["model"]).mean().T
        rows = [(str(name), *(f"{v:.3f}" for v in line)) for name, *line in means.itertuples()]
        found.append(("Accuracy by attribute", [("attribute", *means), *rows]))
    bands, drawn = outcomes.null_bands(evidence.table), outcomes.presence(evidence.table)
    keys = product(evidence.models["training"], sorted(set(evidence.strips["attribute"])))
    rows = [
        (*key, f"{drawn.get(key, outcomes.ABSENT):.2f}", number(bands.get(key, np.nan)))
        for key in keys
    ]
    head = ("training", "attribute", "counts as drawn from P", "null band, change of P")
    found.append(("Each model's own measure", [head, *rows]))
    return found


def told(contrast: Contrast) -> str:
    """A contrast in words."""
    numbers = interval(contrast.difference.estimate, signed=True)
    return f"{contrast.text}: {numbers}, {contrast.verdict}"


def interval(estimate: Estimate, signed: bool = False) -> str:
    """Such as "0.841 (0.829 to 0.853)"."""
    sign = "+" if signed else ""
    value, low, high = (f"{x:{sign}.3f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def share(value: float) -> str:
    return f"{value:.0%}" if np.isfinite(value) else NONE


def number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else NONE


def listed(names: Sequence[str]) -> str:
    """Up to four names; more are counted."""
    if len(names) > 4:
        return f"{len(names)} others"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
