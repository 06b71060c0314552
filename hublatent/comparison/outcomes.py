"""Strong, no effect, decohered: the paper's 8, 5 and 7 of 20, counted by a program.

A strip is one face at growing strengths. Where P(target) never exceeds 1/2 it has no effect.
Otherwise the first picture where it does is looked at: too unreal, and the strip is decohered.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hublatent.comparison.results import OUTCOME_LETTERS, Comparison, HandLabels, OutcomeCounts
from hublatent.errors import DataError, unknown_name
from hublatent.stats import Floats, bootstrap_weights, interval

PRESENT = 0.5  # P(target) above which the attribute counts as drawn
DECOHERED_QUANTILE = 0.05
SHEET_COLUMNS = ("model", "attribute", "method", "faces", "face", "label")

THRESHOLDS = {
    "strong": PRESENT,
    "decohered": DECOHERED_QUANTILE,
}
THRESHOLDS_TEXT = {
    "no effect": f"P(target) stays at or below {PRESENT} up to the strip's end.",
    "decohered": "At the first strength where P(target) exceeds "
    f"{PRESENT}, the realism score is below the {DECOHERED_QUANTILE:.0%} quantile of the same "
    "model's unedited reconstructions of validation faces, as many wearers as others (without an "
    "encoder: of its own samples that are not edited).",
    "strong": f"P(target) exceeds {PRESENT} somewhere on the strip, and the first such picture "
    "is not decohered.",
}


def realism_threshold(realism: Floats) -> float:
    """The realism (n,) of unedited validation faces -> below what a picture is decohered."""
    return float(np.quantile(realism, DECOHERED_QUANTILE))


def classify(target: Floats, realism: Floats, threshold: float) -> list[str]:
    """The outcome of each strip.

    Args:
        target: (n, S), P(target) at growing positive strengths.
        realism: (n, S).
        threshold: realism below it is decoherence.

    Returns:
        n times one of OUTCOMES.
    """
    present = target > PRESENT
    first = present.argmax(axis=1)
    real = realism[np.arange(len(target)), first] >= threshold
    found = np.where(real, "strong", "decohered")
    return [str(x) for x in np.where(present.any(axis=1), found, "no effect")]


def count(outcomes: Sequence[str], strength: float) -> OutcomeCounts:
    """Count outcomes of strips that end at a strength."""
    return OutcomeCounts(
        strong=outcomes.count("strong"),
        no_effect=outcomes.count("no effect"),
        decohered=outcomes.count("decohered"),
        strength=strength,
        by_face="".join(OUTCOME_LETTERS[outcome] for outcome in outcomes),
    )


def draw_sheet(comparison: Comparison, n: int = 60, seed: int = 0) -> list[dict[str, str]]:
    """Draw random strips to be labelled by eye; the program's verdict is not on the sheet.

    Args:
        comparison: with outcomes.
        n: how many strips.
        seed: of the draw.

    Returns:
        Rows with SHEET_COLUMNS; `label` is empty, `face` counts from 0.
    """
    strips = [
        (row.model, row.attribute, row.method, row.faces, str(face))
        for row in comparison.edits
        if row.outcomes is not None
        for face in range(row.n)
    ]
    order = np.random.default_rng(seed).permutation(len(strips))[:n]
    return [dict(zip(SHEET_COLUMNS, (*strips[i], ""), strict=True)) for i in order]


def compare_with_hand_labels(path: Path, comparison: Comparison, seed: int = 0) -> HandLabels:
    """Agreement of the program's outcomes with a sheet that was labelled by eye.

    Args:
        path: CSV with SHEET_COLUMNS; rows without a label are left out.
        comparison: with the outcomes of the same strips.
        seed: of the bootstrap over strips.

    Raises:
        DataError: a column, label or strip is unknown, or nothing is labelled.
    """
    rows = _read_sheet(path)
    program = _by_strip(comparison)
    known: list[tuple[str, str]] = []
    for line, row in enumerate(rows, start=2):
        strip = tuple(row[column] for column in SHEET_COLUMNS[:-1])
        if row["label"] not in OUTCOME_LETTERS:
            raise DataError(f"{path}, line {line}: {_unknown_label(row['label'])}")
        if strip not in program:
            raise DataError(f"{path}, line {line}: no such strip: {', '.join(strip)}.")
        known.append((row["label"], program[strip]))
    if not known:
        raise DataError(f"{path} holds no labelled strip.")
    return agreement([k[0] for k in known], [k[1] for k in known], seed)


def agreement(hand: Sequence[str], program: Sequence[str], seed: int = 0) -> HandLabels:
    """Share of equal outcomes, and Cohen's kappa (Cohen 1960), with intervals over strips."""
    names = list(OUTCOME_LETTERS)
    one = np.eye(len(names), dtype=np.float32)
    first = one[[names.index(x) for x in hand]]  # (n, 3)
    second = one[[names.index(x) for x in program]]

    def both(weights: Floats) -> tuple[Floats, Floats]:
        total = weights.sum(axis=1)
        observed = (weights @ (first * second).sum(axis=1)) / total
        by_chance = ((weights @ first) * (weights @ second)).sum(axis=1) / total**2
        with np.errstate(invalid="ignore", divide="ignore"):
            return observed, (observed - by_chance) / (1 - by_chance)

    drawn = [both(w) for w in bootstrap_weights(np.arange(len(hand)), seed=seed)]
    point = both(np.ones((1, len(hand)), np.float32))
    scores = [interval(np.concatenate([d[i] for d in drawn]), float(point[i][0])) for i in range(2)]
    return HandLabels(len(hand), *scores)


def _read_sheet(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = set(SHEET_COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
            return [row for row in reader if row["label"]]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _by_strip(comparison: Comparison) -> Mapping[tuple[str, ...], str]:
    outcome = {letter: name for name, letter in OUTCOME_LETTERS.items()}
    return {
        (row.model, row.attribute, row.method, row.faces, str(face)): outcome[letter]
        for row in comparison.edits
        if row.outcomes is not None
        for face, letter in enumerate(row.outcomes.by_face)
    }


def _unknown_label(label: str) -> str:
    return unknown_name("label", label, OUTCOME_LETTERS)
