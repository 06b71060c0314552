"""Plots: editing against its price, reading against rate, and an audited direction."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from hublatent.evaluation.claims import PAPER_METHOD, Evidence

COLOURS = ("#4c5fd5", "#d1495b", "#2e8b57", "#e0a030", "#7b4fa3", "#3a9fbf", "#8c6d4f", "#555b66",
           "#c05fa0", "#9aa63a")  # fmt: skip
MARKERS = "osD^vPX*<>"
DPI = 110


def editing_plot(evidence: Evidence) -> bytes:
    """Each model's directions: share of strong edits against identity kept and leakage."""

    def draw(axes: Any) -> None:
        named: set[str] = set()  # the legend names each model once
        for model, method, found in evidence.summaries():
            look = _look(evidence.editors.index(model), filled=method != PAPER_METHOD)
            for axis, price in zip(axes, ("identity", "leakage"), strict=True):
                label = "_" if model in named else model
                axis.scatter(found[price], found["strong"], label=label, **look)
            named.add(model)
        axes[0].set(xlabel="share still the same person, at the onset", ylabel="share strong")
        axes[1].set(xlabel="leakage at the onset, mean |change of P|")
        axes[0].set_xlim(-0.02, 1.02)
        axes[0].set_title(f"hollow: along {PAPER_METHOD}", fontsize=8, loc="left")

    return _png(draw)


def reading_plot(evidence: Evidence) -> bytes:
    """Each training's accuracy against its rate and its distortion."""

    def draw(axes: Any) -> None:
        read = evidence.trainings.dropna(subset="score")
        for i, (model, group) in enumerate(read.groupby("model", sort=False)):
            for axis, fact in zip(axes, ("kl", "mse"), strict=True):
                if group["baseline"].iloc[0]:
                    style = {"color": "#999999", "linestyle": ":", "label": model}
                    axis.axhline(group["score"].mean(), **style)
                else:
                    look = _look(i, filled=True)
                    axis.scatter(group[fact], group["score"], label=model, **look)
        axes[0].set(xlabel="rate: KL, nats", ylabel="accuracy, mean of the attributes")
        known = evidence.trainings["kl"][evidence.trainings["kl"] > 0]
        if len(known) and known.max() > 3 * known.min():  # a shorter one has crowded ticks
            axes[0].set_xscale("log")
        axes[1].set(xlabel="distortion: mean squared error, pixels in [0, 1]")
        axes[1].locator_params(axis="x", nbins=5)

    return _png(draw)


def audit_plot(curve: pd.DataFrame) -> bytes:
    """One direction: P with its null band, and the shares still whole and the same person."""

    def draw(axes: Any) -> None:
        strength, start, band = curve["strength"], curve["P"].iloc[0], curve["null band"]
        axes[0].plot(strength, curve["P"], color=COLOURS[0], marker="o", label="P")
        low, high = np.clip((start - band, start + band), 0, 1)
        axes[0].fill_between(strength, low, high, alpha=0.3, label="null band")
        for i, name in enumerate(("same person", "whole"), start=1):
            axes[1].plot(strength, curve[name], color=COLOURS[i], marker="o", label=name)
        axes[1].legend(frameon=False)
        axes[0].set(xlabel="strength, standard deviations", ylabel="P(attribute); share of faces")
        axes[1].set(xlabel="strength, standard deviations")

    return _png(draw)


def _look(i: int, filled: bool) -> dict[str, Any]:
    colour = COLOURS[i % len(COLOURS)]
    return {
        "marker": MARKERS[(i // len(COLOURS) + i) % len(MARKERS)],
        "s": 42,
        "edgecolors": colour,
        "facecolors": colour if filled else "none",
        "linewidths": 1.4,
    }


def _png(draw: Callable[[Any], None]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes = np.asarray(figure.subplots(1, 2, sharey=True))
    draw(axes)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize=7, frameon=False)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(picture, format="png", dpi=DPI)
    return picture.getvalue()
