"""How the comparison's figures look, and how they become files.

Colours are Okabe & Ito's (2008), which colour-blind readers can tell apart; markers and dashes say
the same again. The same figure gives the same bytes: there is no pyplot state and no date.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hublatent.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8A7A00",
)  # fmt: skip
MARKERS = "osD^vPX*<>hp"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
NULL_COLOUR, INK, GRID_COLOUR = "#BBBBBB", "#1f2430", "#E4E4E4"
WIDTH = 9.0  # inches; 900 CSS pixels, drawn half as fine again
DPI = 150
N_COLOURS = 128  # of a file's palette; a quarter of the bytes, and the eye sees no difference
N_COLUMNS = 3


@dataclass(frozen=True)
class Plot:
    """A figure as a file.

    Attributes:
        name: of the file, without its ending.
        title: its heading.
        caption: what is drawn, and how to read it.
        png: its bytes.
    """

    name: str
    title: str
    caption: str
    png: bytes


def panels(
    n: int,
    height: float,
    *,
    n_columns: int = N_COLUMNS,
    share_x: bool = False,
    share_y: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width with n panels; places without a panel stay empty."""
    from matplotlib.figure import Figure

    n_columns = min(n, n_columns)
    n_rows = -(-n // n_columns)
    figure = Figure(
        figsize=(WIDTH, n_rows * height + 0.35), dpi=DPI, facecolor="white", layout="constrained"
    )
    axes = figure.subplots(n_rows, n_columns, sharex=share_x, sharey=share_y, squeeze=False)
    flat = list(axes.flat)
    for axis in flat[n:]:
        axis.set_axis_off()
    for axis in flat:
        # Shared scales hide the inner numbers; a panel with nothing below it needs its own.
        axis.tick_params(labelbottom=True)
    return figure, flat[:n]


def dress(axis: Axes, title: str, x: str, y: str = "") -> None:
    """Labels, and as little else as possible; y is named at the left edge only."""
    axis.set_title(title, fontsize=10, loc="left", color=INK)
    axis.set_xlabel(x, fontsize=9, color=INK)
    place = axis.get_subplotspec()
    if place is None or place.is_first_col():
        axis.set_ylabel(y, fontsize=9, color=INK)
    axis.tick_params(labelsize=8, colors=INK)
    axis.grid(color=GRID_COLOUR, linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend above all panels, each label once."""
    known: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    if known:
        n_rows = -(-len(known) // 5)
        figure.legend(
            list(known.values()), list(known), loc="outside upper center",
            ncols=-(-len(known) // n_rows), fontsize=8.5, frameon=False, handlelength=3.2,
        )  # fmt: skip


def colour_bar(figure: Figure, image: Any, axes: Sequence[Axes], label: str) -> None:
    bar = figure.colorbar(image, ax=list(axes), fraction=0.03, pad=0.01)
    bar.set_label(label, fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8)


def band(
    axis: Axes, x: Sequence[float], scores: Sequence[Estimate], label: str, style: dict[str, Any]
) -> None:
    """A curve and its interval."""
    low, high = [s.low for s in scores], [s.high for s in scores]
    axis.fill_between(x, low, high, color=style["color"], alpha=0.16, lw=0)
    axis.plot(x, [s.value for s in scores], label=label, markersize=4, **style)


def arms(scores: Sequence[Estimate]) -> list[list[float]]:
    """Error bars: how far the interval reaches below and above."""
    return [
        [max(0.0, s.value - s.low) for s in scores],
        [max(0.0, s.high - s.value) for s in scores],
    ]


def look(i: int) -> dict[str, Any]:
    """The i-th look: colours, markers and dashes have different periods, so that none repeats."""
    return {
        "color": OKABE_ITO[i % len(OKABE_ITO)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i % len(DASHES)],
        "linewidth": 1.4,
    }


def plot(figure: Figure, name: str, title: str, caption: str) -> Plot:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    small = io.BytesIO()
    # Saved without metadata: the file tells neither a date nor matplotlib's version.
    drawn.quantize(N_COLOURS).save(small, format="PNG", optimize=True)
    return Plot(name, title, caption, small.getvalue())
