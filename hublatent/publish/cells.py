"""Checked numbers and escaped texts: what a card may print."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from hublatent.errors import HublatentError
from hublatent.stats import Estimate


def check_number(name: str, value: Any) -> float:
    """A plain float, of a number of Python, NumPy or torch.

    Raises:
        HublatentError: it is no number, NaN or infinite; says which by its name.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise HublatentError(
            f"{name} = {value!r} is not a number, so no card states it."
        ) from error
    if not math.isfinite(number):
        raise HublatentError(f"{name} = {number}; a card states finite numbers only.")
    return number


def interval_cell(name: str, score: Estimate | Mapping[str, float] | None) -> str:
    """A figure with its interval; "-" where there is none."""
    if score is None:
        return "-"
    estimate = Estimate(**score) if isinstance(score, Mapping) else score
    figures = (estimate.value, estimate.low, estimate.high)
    value, low, high = (check_number(name, figure) for figure in figures)
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def percent_cell(value: Any, name: str) -> str:
    """A share; "-" where it is not known."""
    return "-" if value is None else f"{check_number(name, value):.1%}"


def number_cell(value: Any, name: str) -> str:
    """A setting or measure, as a reader wants to see it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else f"{check_number(name, value):.4g}"


def text(value: Any) -> Markup:
    """Text that is no markup, stays on its line, and within its table cell."""
    if isinstance(value, Markup):
        return value
    plain = re.sub(r"\s+", " ", str(value)).replace("<", "&lt;")
    return Markup(re.sub(r"([|`\[])", r"\\\1", plain))


def code(value: Any) -> Markup:
    """Text as code, within a table cell too."""
    plain = re.sub(r"\s+", " ", str(value)).replace("`", "'").replace("|", "\\|")
    return Markup(f"`{plain.replace('<', '&lt;')}`")


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> Markup:
    """A table; "" without rows."""
    head, *lines = (list(map(text, cells)) for cells in (head, *rows))
    if not lines:
        return Markup("")
    shown = [f"| {' | '.join(cells)} |" for cells in (head, *lines)]
    return Markup("\n".join([shown[0], "|" + "---|" * len(head), *shown[1:]]) + "\n\n")
