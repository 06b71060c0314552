"""The comparison's tables: for the report, and for whoever shows scores elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hublatent.comparison.ranking import (
    baseline_names,
    best_edit,
    edits_of,
    is_known,
    model_order,
    ordered_edits,
    reached,
    separability_row,
    share_interval,
)
from hublatent.comparison.results import (
    PROJECTED,
    SAMPLES,
    TEST,
    TRAINING,
    Ceiling,
    Comparison,
    Edits,
    Separability,
)
from hublatent.comparison.words import number, percent, readable, sigmas
from hublatent.stats import Estimate

NONE = "–"
SCORES = ("accuracy", "precision", "recall", "f1", "auroc")
SCORE_HEADS = ("accuracy", "precision", "recall", "F1", "AUROC")


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
        text: what stands in it.
        interval: of a measured figure; a line each where there are several figures.
        strong: whether it is the best of its kind.
    """

    text: str
    interval: str = ""
    strong: bool = False

    def __str__(self) -> str:
        ranges = self.interval.replace("\n", "; ")
        return f"{self.text} ({ranges})" if ranges else self.text


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: what it is about.
        columns: its head.
        rows: as many cells each as there are columns.
        note: what a reader has to know.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def plain(self) -> list[list[str]]:
        """The rows as text, for a table widget."""
        return [[str(cell) for cell in row] for row in self.rows]


def scores_table(results: Comparison, attribute: str, faces: str = TEST) -> Table:
    """One row per model: how well the attribute is read, and how well it is edited.

    Args:
        results: what was measured.
        attribute: one of theirs.
        faces: TEST or SAMPLES.

    Returns:
        The overview that an app shows; a model without a figure has a dash there.
    """
    rows = []
    for name in model_order(results):
        read = separability_row(results, name, attribute)
        read = read or separability_row(results, name, attribute, PROJECTED)
        best = best_edit(edits_of(results, name, attribute, faces))
        scores = (read.accuracy, read.auroc) if read else (None, None)
        rows.append((_model_cell(results, name), *map(_cell, scores), *_edit_cells(best)))
    columns = (
        "model", "accuracy", "AUROC", "best direction", "strength", "leakage", "strong edits",
    )  # fmt: skip
    return Table(readable(attribute), columns, tuple(rows))


def separability_tables(results: Comparison, image_set: str = TRAINING) -> list[Table]:
    """Table 1, one table per attribute, with the baselines and, marked, the paper's own rows."""
    tables = []
    for attribute in results.attributes:
        found = [separability_row(results, n, attribute, image_set) for n in model_order(results)]
        rows = [row for row in found if row is not None]
        if not rows:
            continue
        best = max((r.accuracy.value for r in rows if is_known(r.accuracy)), default=None)
        cells = [_separability_cells(results, row, best) for row in rows]
        if image_set == TRAINING:
            cells += [
                (
                    Cell(f"{p.model}, the paper's own"),
                    *(Cell(f"{x:.4f}") for x in (p.accuracy, p.precision, p.recall, p.f1)),
                    Cell(NONE), Cell(NONE),
                )
                for p in results.paper_table
                if p.attribute == attribute
            ]  # fmt: skip
        note = f"{max(row.n for row in rows):,} faces, half of them with the attribute."
        heads = ("model", *SCORE_HEADS, "stability")
        tables.append(Table(readable(attribute), heads, tuple(cells), note))
    return tables


def pairs_table(results: Comparison) -> Table:
    """Paired differences of accuracies: those of the compared models first."""
    known = [pair for pair in results.pairs if is_known(pair.difference)]
    rows = tuple(
        (
            Cell(readable(p.attribute)),
            Cell(p.first),
            Cell(p.second),
            _cell(p.difference, signed=True),
            Cell("all" if p.image_set == TRAINING else p.image_set),
        )
        for p in known
    )
    return Table(
        "Paired differences of accuracies", ("attribute", "first", "second", "first - second",
        "faces"), rows,
    )  # fmt: skip


def equal_effect_tables(results: Comparison, faces: str) -> list[Table]:
    """Models by methods: the strength at equal effect, and the leakage there."""
    tables = []
    for attribute in results.attributes:
        edits = ordered_edits(results, attribute, faces)
        methods = [m for m in results.methods if any(row.method == m for row in edits)]
        best = best_edit(edits)
        rows = []
        for name in dict.fromkeys(row.model for row in edits):
            cells = [
                _equal_effect(row, row is best) if row else Cell(NONE)
                for row in (_first(edits, name, method) for method in methods)
            ]
            rows.append((_model_cell(results, name), *cells))
        if rows:
            table = Table(readable(attribute), ("model", *methods), tuple(rows), _count_note(edits))
            tables.append(table)
    return tables


def edit_details_tables(results: Comparison, faces: str) -> list[Table]:
    """Everything else at equal effect, one row per model and method."""
    columns = (
        "model", "direction", "strength", "leakage", "perceptual distance", "feature similarity",
        "realism", "monotonicity", "path length", "above null band",
    )  # fmt: skip
    tables = []
    for attribute in results.attributes:
        rows = tuple(_details(row) for row in ordered_edits(results, attribute, faces))
        if rows:
            tables.append(Table(readable(attribute), columns, rows))
    return tables


def outcome_tables(results: Comparison, faces: str) -> list[Table]:
    """Counts of strong, ineffective and decohered strips."""
    columns = (
        "model", "direction", "strong", "no effect", "decohered", "share strong", "up to",
    )  # fmt: skip
    tables = []
    for attribute in results.attributes:
        rows = []
        for row in ordered_edits(results, attribute, faces):
            if row.outcomes is None:
                continue
            counts = (row.outcomes.strong, row.outcomes.no_effect, row.outcomes.decohered)
            share = _percent_cell(share_interval(counts[0], sum(counts)))
            cells = (Cell(f"{count:,}") for count in counts)
            end = Cell(sigmas(row.outcomes.strength))
            rows.append((Cell(row.model), Cell(row.method), *cells, share, end))
        if rows:
            tables.append(Table(readable(attribute), columns, tuple(rows)))
    return tables


def judge_table(results: Comparison) -> Table:
    """How good the judge is, and what blur leaves of each attribute in each model's pictures."""
    attributes = [a for a in results.attributes if a in results.judge.auroc]
    rows = [
        (Cell("AUROC on real test faces"), *(_cell(results.judge.auroc[a]) for a in attributes))
    ]
    for name in model_order(results):
        read = {c.attribute: c for c in results.ceilings if c.model == name}
        if any(attribute in read for attribute in attributes):
            label = Cell(f"mean P in {name}'s pictures")
            rows.append((label, *(_ceiling(read.get(attribute)) for attribute in attributes)))
    note = (
        "Mean P: the judge's reading of each model's unedited reconstructions, of faces that have "
        "the attribute, and of faces that lack it."
    )
    return Table("", ("", *map(readable, attributes)), tuple(rows), note)


def models_table(results: Comparison) -> Table:
    """What was compared."""
    rows = tuple(
        (
            Cell(m.name),
            Cell(m.architecture or NONE),
            Cell(f"{m.space.upper()}, {' x '.join(map(str, m.latent_shape))}" if m.space else NONE),
            Cell(f"{m.n_parameters:,}" if m.n_parameters else NONE),
            Cell(f"{m.image_size} px" if m.image_size else NONE),
            Cell("; ".join(filter(None, ["baseline" if m.baseline else "", m.note, m.problem]))),
            Cell(m.fingerprint[:12] or NONE),
        )
        for m in results.models
    )
    columns = ("model", "architecture", "latents", "parameters", "images", "remarks", "weights")
    return Table("", columns, rows)


def above_null(results: Comparison) -> str:
    """Which edits rise above the null band, in words."""
    rows = [row for row in results.edits if row.method in results.methods]
    if not rows or not results.null_bands:
        return "Null bands were not measured."
    below: dict[str, list[str]] = {}
    for row in rows:
        if not row.above_null:
            where = f"{readable(row.attribute)}{' on own samples' if row.faces == SAMPLES else ''}"
            below.setdefault(f"{row.model} along {row.method}", []).append(where)
    n = len(rows) - sum(map(len, below.values()))
    text = f"{n:,} of {len(rows):,} edits rise above the null band with their whole interval"
    if not below:
        return f"{text}."
    return f"{text}; these do not: " + "; ".join(
        f"{who} ({', '.join(names)})" for who, names in below.items()
    ) + "."  # fmt: skip


def _ceiling(read: Ceiling | None) -> Cell:
    if read is None:
        return Cell(NONE)
    wearers, others = _cell(read.wearers, 2), _cell(read.others, 2)
    return Cell(f"{wearers.text}, {others.text}", f"{wearers.interval}\n{others.interval}")


def _separability_cells(
    results: Comparison, row: Separability, best: float | None
) -> tuple[Cell, ...]:
    cells = [_cell(getattr(row, score)) for score in SCORES]
    if row.accuracy.value == best:
        cells[0] = Cell(cells[0].text, cells[0].interval, strong=True)
    stability = Cell(NONE if row.stability is None else number(row.stability, 2))
    return (_model_cell(results, row.model), *cells, stability)


def _equal_effect(row: Edits, best: bool) -> Cell:
    strength, leakage = row.equal_effect.strength, row.equal_effect.leakage
    mark = "" if row.above_null else " †"
    if not reached(row) or strength is None or leakage is None:
        top = max(row.share, default=0.0)
        return Cell(f"not reached, {percent(top)}{mark}")
    text = f"{number(strength.value, 1)}σ, {number(leakage.value)}{mark}"
    ranges = f"{_range(strength, 1)}\n{_range(leakage)}"
    return Cell(text, ranges, strong=best)


def _edit_cells(best: Edits | None) -> tuple[Cell, ...]:
    """Best direction, strength, leakage and strong share of the overview."""
    if best is None:
        return (Cell(NONE),) * 4
    effect = best.equal_effect
    outcomes = best.outcomes
    strong = Cell(NONE)
    if outcomes is not None:
        n = outcomes.strong + outcomes.no_effect + outcomes.decohered
        strong = _percent_cell(share_interval(outcomes.strong, n))
    if not reached(best):
        reach = Cell(f"not reached, {percent(max(best.share, default=0.0))}")
        return Cell(best.method), reach, Cell(NONE), strong
    return Cell(best.method), _cell(effect.strength, 1, unit="σ"), _cell(effect.leakage), strong


def _details(row: Edits) -> tuple[Cell, ...]:
    effect = row.equal_effect
    strength = Cell(f"not reached, {percent(max(row.share, default=0.0))}")
    if reached(row):
        strength = _cell(effect.strength, 1, unit="σ")
    measures = (effect.leakage, effect.distance, effect.similarity, effect.realism)
    more = (row.monotonicity, row.path_length)
    null = Cell("yes" if row.above_null else "no")
    return Cell(row.model), Cell(row.method), strength, *map(_cell, (*measures, *more)), null


def _first(edits: Sequence[Edits], model: str, method: str) -> Edits | None:
    return next((row for row in edits if (row.model, row.method) == (model, method)), None)


def _count_note(edits: Sequence[Edits]) -> str:
    counts = sorted({row.n for row in edits})
    n = " to ".join(f"{x:,}" for x in (counts[0], counts[-1])[: len(counts)])
    notes = list(dict.fromkeys(f"{row.model}: {row.note}" for row in edits if row.note))
    return " ".join([f"{n} faces that lack the attribute.", *notes])


def _model_cell(results: Comparison, name: str) -> Cell:
    return Cell(f"{name} (baseline)" if name in baseline_names(results) else name)


def _cell(score: Estimate | None, digits: int = 3, signed: bool = False, unit: str = "") -> Cell:
    if score is None or not is_known(score):
        return Cell(NONE)
    return Cell(f"{number(score.value, digits, signed)}{unit}", _range(score, digits, signed))


def _percent_cell(score: Estimate) -> Cell:
    if not is_known(score):
        return Cell(NONE)
    return Cell(percent(score.value), f"{percent(score.low)} to {percent(score.high)}")


def _range(score: Estimate, digits: int = 3, signed: bool = False) -> str:
    return f"{number(score.low, digits, signed)} to {number(score.high, digits, signed)}"
