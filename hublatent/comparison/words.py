"""Numbers and lists as a report writes them."""

from __future__ import annotations

from collections.abc import Sequence

from hublatent.comparison.ranking import is_known
from hublatent.stats import Estimate

MINUS = "\N{MINUS SIGN}"


def number(value: float, digits: int = 3, signed: bool = False) -> str:
    """A number with a real minus sign; what rounds to zero has no sign."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def interval(score: Estimate | None, digits: int = 3, signed: bool = False, unit: str = "") -> str:
    """A score and its interval, such as 0.872 (0.860 to 0.884)."""
    if score is None or not is_known(score):
        return "not measured"
    value, low, high = (number(x, digits, signed) for x in (score.value, score.low, score.high))
    return f"{value}{unit} ({low} to {high})"


def inline(score: Estimate | None, digits: int = 3) -> str:
    """A score and its interval inside brackets that the sentence has: 0.872, 0.860 to 0.884."""
    return interval(score, digits).replace(" (", ", ").rstrip(")")


def sigmas(strength: float) -> str:
    """A strength, such as +4σ."""
    return f"{strength:+g}σ".replace("-", MINUS) if strength else "0"


def listed(items: Sequence[str], last: str = "and") -> str:
    """Items as a sentence lists them."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def counted(n: int, noun: str) -> str:
    """A count and its noun: one face, 2 faces."""
    if n == 1:
        return f"one {noun}"
    return f"{n:,} {noun}s"


def readable(attribute: str) -> str:
    """CelebA's name of an attribute, as text."""
    return attribute.replace("_", " ")


def percent(share: float) -> str:
    """A share in whole percent."""
    return f"{share:.0%}"
