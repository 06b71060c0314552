"""The comparison's figures, drawn from its results alone; plot_style.py says how they look."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hublatent.comparison.plot_style import (
    INK,
    N_COLUMNS,
    NULL_COLOUR,
    Plot,
    arms,
    band,
    colour_bar,
    dress,
    legend,
    look,
    panels,
    plot,
)
from hublatent.comparison.ranking import (
    EQUAL_EFFECT_SHARE,
    PAPER_METHOD,
    baseline_names,
    is_known,
    model_order,
    ordered_edits,
    share_interval,
)
from hublatent.comparison.results import PROJECTED, SAMPLES, TEST, TRAINING, Comparison, Edits
from hublatent.comparison.words import number, percent, readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTCOME_STYLES = {
    "strong": ("#009E73", ""),
    "no effect": ("#D9D9D9", ""),
    "decohered": ("#D55E00", "///"),
}
N_HEAT_COLUMNS = 20
PANEL_HEIGHT = 2.75


def draw_plots(results: Comparison) -> list[Plot]:
    """Draw every figure that the results allow.

    Args:
        results: what was measured.

    Returns:
        The figures in the report's order; those without numbers are left out.
    """
    plots = [separability_dots(results, image_set) for image_set in (TRAINING, PROJECTED)]
    plots.append(learning_curves(results))
    for attribute in results.attributes:
        for faces in (TEST, SAMPLES):
            plots.append(effect_by_strength(results, attribute, faces))
            plots.append(effect_by_leakage(results, attribute, faces))
            plots.append(outcome_bars(results, attribute, faces))
            plots.append(leakage_heat_map(results, attribute, faces))
    plots.append(realism_lines(results))
    plots += [cosine_matrices(results, method) for method in results.methods]
    return [plot for plot in plots if plot is not None]


def separability_dots(results: Comparison, image_set: str) -> Plot | None:
    """Accuracy of the paper's SVM per model, with intervals, baselines and the paper's values."""
    rows = [r for r in results.separability if r.method == PAPER_METHOD or r.model == "majority"]
    rows = [r for r in rows if r.image_set == image_set and is_known(r.accuracy)]
    attributes = _with_rows(results, rows)
    if not attributes:
        return None
    names = [name for name in model_order(results) if any(r.model == name for r in rows)]
    figure, axes = panels(len(attributes), 0.9 + 0.3 * len(names), share_x=True, share_y=True)
    baselines = baseline_names(results)
    for axis, attribute in zip(axes, attributes, strict=False):
        for row in (r for r in rows if r.attribute == attribute):
            style = look(names.index(row.model))
            style["linestyle"] = "none"
            if row.model in baselines:
                style.update(markerfacecolor="white", color=INK)
            y = names.index(row.model)
            axis.errorbar(
                row.accuracy.value, y, xerr=arms([row.accuracy]), capsize=3, markersize=6, **style
            )
        for paper in (p for p in results.paper_table if p.attribute == attribute):
            place = _paper_place(results, names, paper.model)
            if place is not None:
                axis.plot(paper.accuracy, place, "x", color=INK, markersize=7, zorder=5)
        axis.axvline(0.5, color=NULL_COLOUR, linewidth=1)
        dress(axis, readable(attribute), "accuracy (share of faces)")
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
    caption = (
        "How well a linear SVM tells each attribute in each model's latents, for people it was not "
        "fitted on; bars are 95% intervals over people. Open markers: baselines. Crosses: the "
        "paper's own values, from other data. Grey line: always giving one answer."
    )
    if image_set == PROJECTED:
        caption += " On the faces that were projected into the models without an encoder."
        return plot(figure, "separability-projected", "Separability, projected faces", caption)
    return plot(figure, "separability", "Separability", caption)


def learning_curves(results: Comparison) -> Plot | None:
    """Accuracy by the number of labelled pictures."""
    rows = [r for r in results.separability if r.curve and r.image_set == TRAINING]
    attributes = _with_rows(results, rows)
    if not attributes:
        return None
    names = model_order(results)
    figure, axes = panels(len(attributes), PANEL_HEIGHT)
    ticks = sorted({n for row in rows for n, _ in row.curve})
    for axis, attribute in zip(axes, attributes, strict=False):
        for row in (r for r in rows if r.attribute == attribute):
            band(
                axis,
                [n for n, _ in row.curve],
                [score for _, score in row.curve],
                row.model,
                look(names.index(row.model)),
            )
        axis.set_xscale("log")
        axis.set_xticks(_thinned(ticks), [f"{n:,}" for n in _thinned(ticks)])
        axis.minorticks_off()
        dress(axis, readable(attribute), "labelled faces (logarithmic)", "accuracy")
    legend(figure, axes)
    caption = (
        "Accuracy of the SVM on unseen people, by the number of labelled faces it was fitted on; "
        "shades are 95% intervals over people."
    )
    return plot(figure, "learning-curves", "Learning curves", caption)


def effect_by_strength(results: Comparison, attribute: str, faces: str) -> Plot | None:
    """Change of P(target) by strength, one panel per model; the null band is shaded."""
    bands = {b.model: b for b in results.null_bands if (b.attribute, b.faces) == (attribute, faces)}

    def fill(axis: Axes, model: str, rows: list[Edits]) -> None:
        if model in bands:
            null = np.array(bands[model].band)
            axis.fill_between(
                bands[model].strengths, -null, null, color=NULL_COLOUR, alpha=0.5, lw=0
            )
        for row in rows:
            band(axis, row.strengths, row.target, row.method, _method_style(results, row.method))
        dress(axis, model, "strength (σ)", "change of P(target)")
        axis.set_xticks([-8, -4, 0, 4, 8])

    caption = (
        f"By how much the judge's P({readable(attribute)}) changes along each direction, on "
        f"{_faces(faces)}; coloured shades are 95% intervals, the grey one is the null band: 95% "
        "of the control directions (random, or fitted on shuffled labels) stay inside it."
    )
    title = f"{readable(attribute)}: effect by strength{_on(faces)}"
    return _by_model(results, attribute, faces, fill, "effect", title, caption)


def effect_by_leakage(results: Comparison, attribute: str, faces: str) -> Plot | None:
    """Change of P(target) against leakage, one panel per model, from 0 to the largest strength."""
    bands = {
        b.model: max((x for s, x in zip(b.strengths, b.band, strict=True) if s > 0), default=0.0)
        for b in results.null_bands
        if (b.attribute, b.faces) == (attribute, faces)
    }

    def fill(axis: Axes, model: str, rows: list[Edits]) -> None:
        if model in bands:
            axis.axhspan(-bands[model], bands[model], color=NULL_COLOUR, alpha=0.5, lw=0)
        for row in rows:
            keep = [i for i, s in enumerate(row.strengths) if s >= 0]
            leakage, target = [row.leakage[i] for i in keep], [row.target[i] for i in keep]
            axis.errorbar(
                [s.value for s in leakage],
                [s.value for s in target],
                xerr=arms(leakage),
                yerr=arms(target),
                label=row.method,
                elinewidth=0.8,
                markersize=4,
                **_method_style(results, row.method),
            )
        dress(axis, model, "leakage (mean |ΔP| of the others)", "change of P(target)")

    caption = (
        f"What an edit of {readable(attribute)} achieves against what it costs, on "
        f"{_faces(faces)}: each curve starts unedited at the lower left and goes one strength "
        "further at each mark. Higher and farther left is better. Bars are 95% intervals; "
        "grey: the widest part of the null band."
    )
    title = f"{readable(attribute)}: effect against leakage{_on(faces)}"
    return _by_model(results, attribute, faces, fill, "effect-leakage", title, caption)


def outcome_bars(results: Comparison, attribute: str, faces: str) -> Plot | None:
    """Shares of strong, ineffective and decohered edits per model and method."""
    rows = [r for r in ordered_edits(results, attribute, faces) if r.outcomes is not None]
    if not rows:
        return None
    figure, (axis,) = panels(1, 1.1 + 0.24 * len(rows))
    for y, row in enumerate(rows):
        if row.outcomes is None:
            continue
        counts = (row.outcomes.strong, row.outcomes.no_effect, row.outcomes.decohered)
        left, n = 0.0, max(1, sum(counts))
        for (outcome, (colour, hatch)), count in zip(OUTCOME_STYLES.items(), counts, strict=True):
            width, label = count / n, outcome if y == 0 else None
            axis.barh(
                y, width, 0.74, left, color=colour, hatch=hatch, edgecolor="white", label=label
            )
            left += width
        strong = share_interval(counts[0], n)
        axis.errorbar(strong.value, y, xerr=arms([strong]), color="black", capsize=3, lw=1.2)
    axis.set_yticks(range(len(rows)), [f"{r.model}, {r.method}" for r in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(lambda x, _: percent(x))
    dress(axis, "", "share of faces")
    _separate_models(axis, rows)
    legend(figure, [axis])
    caption = (
        f"What becomes of a strip that ends at its largest strength, on {_faces(faces)}: the "
        f"paper counted 8 strong, 5 without effect and 7 decohered of 20 in StyleGAN2. Black: 95% "
        "interval of the strong share."
    )
    title = f"{readable(attribute)}: outcomes{_on(faces)}"
    return plot(figure, _file("outcomes", attribute, faces), title, caption)


def leakage_heat_map(results: Comparison, attribute: str, faces: str) -> Plot | None:
    """Change of the other attributes at equal effect, for those that change most."""
    rows = [r for r in ordered_edits(results, attribute, faces) if r.leakage_by_attribute]
    if not rows:
        return None
    names = sorted(
        {name for row in rows for name in row.leakage_by_attribute if name != attribute},
        key=lambda name: (-sum(abs(r.leakage_by_attribute.get(name, 0.0)) for r in rows), name),
    )
    shown = names[:N_HEAT_COLUMNS]
    matrix = np.array([[r.leakage_by_attribute.get(n, math.nan) for n in shown] for r in rows])
    figure, (axis,) = panels(1, 2.4 + 0.2 * len(rows))
    limit = max(0.1, float(np.nanmax(np.abs(matrix))))
    image = axis.imshow(matrix, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    axis.set_xticks(range(len(shown)), [readable(n) for n in shown], rotation=60, ha="right")
    marks = ["" if r.equal_effect.strength else " *" for r in rows]
    labels = [f"{r.model}, {r.method}{mark}" for r, mark in zip(rows, marks, strict=True)]
    axis.set_yticks(range(len(rows)), labels)
    axis.tick_params(labelsize=8, length=0)
    _separate_models(axis, rows)
    colour_bar(figure, image, [axis], "mean change of P")
    rest = (
        f", the {len(shown)} of {len(names)} that change most," if len(names) > len(shown) else ""
    )
    caption = (
        f"By how much the judge's P of the other attributes{rest} changes where "
        f"{percent(EQUAL_EFFECT_SHARE)} of the {_faces(faces)} show {readable(attribute)}. "
        "*: that is not reached; shown at the largest strength."
    )
    title = f"{readable(attribute)}: leakage{_on(faces)}"
    return plot(figure, _file("leakage", attribute, faces), title, caption)


def realism_lines(results: Comparison) -> Plot | None:
    """Realism between two samples, and beyond them."""
    rows = [row for row in results.holes if row.realism_between or row.realism_beyond]
    if not rows:
        return None
    names = model_order(results)
    figure, axes = panels(2, 3.4, n_columns=2)
    for row in rows:
        style = look(names.index(row.model))
        for axis, points in zip(axes, (row.realism_between, row.realism_beyond), strict=True):
            band(axis, [x for x, _ in points], [score for _, score in points], row.model, style)
    dress(axes[0], "between two samples", "way from one sample (0) to another (1)", "realism")
    dress(axes[1], "outwards", "distance from the mean (1 = the sample)", "realism")
    legend(figure, axes)
    caption = (
        "Realism score of what the models draw on straight lines between their samples, and from "
        "the mean through a sample and beyond; a dip is a hole. Above 1 a picture is within reach "
        "of the reference pictures. Shades are 95% intervals over lines."
    )
    return plot(figure, "realism", "Realism between and beyond samples", caption)


def cosine_matrices(results: Comparison, method: str) -> Plot | None:
    """Cosines between the directions of the attributes, one panel per model."""
    rows = [row for row in results.cosines if row.method == method and row.attributes]
    if not rows:
        return None
    largest = max(len(row.attributes) for row in rows)
    n_columns = N_COLUMNS if largest <= 12 else 1
    height = 2.9 if largest <= 12 else 8.4
    figure, axes = panels(len(rows), height, n_columns=n_columns)
    image = None
    for axis, row in zip(axes, rows, strict=False):
        matrix = np.array(row.matrix)
        image = axis.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1)
        labels = [readable(a) for a in row.attributes]
        axis.set_xticks(range(len(labels)), labels, rotation=60, ha="right")
        axis.set_yticks(range(len(labels)), labels)
        axis.tick_params(labelsize=8 if largest <= 12 else 6.5, length=0)
        axis.set_title(row.model, fontsize=10, loc="left", color=INK)
        if largest <= 8:
            for (i, j), value in np.ndenumerate(matrix):
                colour = "white" if abs(value) > 0.7 else INK
                axis.text(
                    j, i, number(value, 2), ha="center", va="center", fontsize=8, color=colour
                )
    if image is not None:
        colour_bar(figure, image, axes, "cosine")
    caption = (
        f"Cosine between the attributes' {method} directions in each latent space: 0 where one can "
        "be changed without moving along the other."
    )
    return plot(figure, f"cosines-{method}", f"Cosines between {method} directions", caption)


def _separate_models(axis: Axes, rows: Sequence[Edits]) -> None:
    """A line wherever the rows of another model begin."""
    for y in range(1, len(rows)):
        if rows[y].model != rows[y - 1].model:
            axis.axhline(y - 0.5, color=INK, linewidth=0.8)


def _by_model(
    results: Comparison,
    attribute: str,
    faces: str,
    fill: Callable[[Axes, str, list[Edits]], None],
    kind: str,
    title: str,
    caption: str,
) -> Plot | None:
    """One panel per model with a curve per method; all panels share their scales."""
    rows = ordered_edits(results, attribute, faces)
    names = list(dict.fromkeys(row.model for row in rows))
    if not names:
        return None
    figure, axes = panels(len(names), PANEL_HEIGHT, share_x=True, share_y=True)
    for axis, name in zip(axes, names, strict=False):
        axis.axhline(0, color=INK, linewidth=0.6)
        fill(axis, name, [row for row in rows if row.model == name])
    legend(figure, axes)
    return plot(figure, _file(kind, attribute, faces), title, caption)


def _method_style(results: Comparison, method: str) -> dict[str, Any]:
    """One look per method in all figures, whichever of them a figure holds."""
    known = list(results.methods)
    return look(known.index(method) if method in known else len(known))


def _with_rows(results: Comparison, rows: Sequence[Any]) -> list[str]:
    return [a for a in results.attributes if any(row.attribute == a for row in rows)]


def _paper_place(results: Comparison, names: Sequence[str], paper_name: str) -> int | None:
    """The line of the model that has the architecture of a row of the paper's."""
    architecture = paper_name.lower().replace("β", "beta").replace("-", "")
    architecture = architecture.replace("betatcvae", "btcvae")
    for model in results.models:
        if model.architecture == architecture and model.name in names and not model.baseline:
            return names.index(model.name)
    return None


def _thinned(ticks: Sequence[int]) -> list[int]:
    """At most four of the ticks, the ends among them."""
    if len(ticks) <= 4:
        return list(ticks)
    return [ticks[round(i * (len(ticks) - 1) / 3)] for i in range(4)]


def _faces(faces: str) -> str:
    return "real test faces" if faces == TEST else "faces that the model drew itself"


def _on(faces: str) -> str:
    return "" if faces == TEST else ", own samples"


def _file(kind: str, attribute: str, faces: str) -> str:
    return f"{kind}-{attribute}" + ("" if faces == TEST else f"-{faces}")
