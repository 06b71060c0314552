"""From the long table to what an edit achieves: onsets, outcomes, and its price where it works.

Success is measured against each model's own ceiling, since a blurry model cannot draw what the
judge calls certain: the attribute is there where P lies half-way between the model's unedited faces
without it and its reconstructions of faces that have it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hublatent.evaluation.judges import BROKEN_BELOW
from hublatent.evaluation.table import CEILING, NULL, select
from hublatent.perception.faces import SAME_PERSON_DISTANCE
from hublatent.stats import Floats

ABSENT = 0.5  # a face whose P is below lacks the attribute
OUTCOMES = ("strong", "no effect", "decohered")
NULL_PERCENTILE = 95
STRIP = ["model", "training", "attribute", "method", "face"]
PRICES = ("leakage", "logit leakage", "identity", "coherence")


def edits(table: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """A row for each edited face: its onsets, outcome and price.

    Only faces whose unedited image the judge calls without the attribute count.

    Args:
        table: the long table.
        wanted: columns and their values, such as attribute="Smiling".

    Returns:
        model, training, attribute, method, face; there and broken (strengths, in standard
        deviations; infinite where it never comes to that); outcome and share (1 if strong, else
        0), missing where nobody looked closely; leakage, logit_leakage, identity and coherence at
        the onset, NaN without one.
    """
    rows = select(table, **wanted)
    rows = rows[rows["strength"].notna() & (rows["method"] != NULL) & (rows["face"] != "")]
    strips = rows.drop_duplicates(STRIP)[STRIP].reset_index(drop=True)
    if strips.empty:
        columns = [
            "there",
            "broken",
            "outcome",
            "share",
            *(name.replace(" ", "_") for name in PRICES),
        ]
        return strips.reindex(columns=[*STRIP, *columns])
    number = rows.groupby(STRIP, observed=True, sort=False).ngroup().to_numpy()
    strengths, column = np.unique(rows["strength"], return_inverse=True)
    values = {name: np.full((len(strips), len(strengths)), np.nan) for name in ("target", *PRICES)}
    for name, grid in values.items():
        mine = (rows["reading"] == name).to_numpy()
        grid[number[mine], column[mine]] = rows["value"].to_numpy()[mine]
    target, left = probability(values["target"]), values["coherence"]
    drawn = strips.join(presence(table).rename("drawn"), on=["training", "attribute"])["drawn"]
    threshold = drawn.fillna(ABSENT).to_numpy()
    there = onset(strengths, target >= threshold[:, None], target, threshold)
    known = np.isfinite(left).all(axis=1)
    broken = np.where(known, breaks(strengths, left), np.nan)
    strips["there"], strips["broken"] = there, broken
    strips["outcome"] = pd.Series(outcome(there, broken), dtype=object).where(known)
    strips["share"] = np.where(known, strips["outcome"] == "strong", np.nan)
    for name in PRICES:
        strips[name.replace(" ", "_")] = at(strengths, values[name], there)
    lacking = target[:, 0] < np.minimum(ABSENT, threshold)
    return strips[lacking].reset_index(drop=True)


def presence(table: pd.DataFrame) -> pd.Series:
    """The P above which an attribute counts as drawn, by (training, attribute).

    Missing where no unedited face or none with the attribute was judged.
    """
    target = table[table["reading"] == "target"]
    target = target.assign(value=probability(target["value"]))
    best = target["method"] == CEILING
    having, without = target[best], target[~best & (target["strength"] == 0)]
    return ((_grouped(having).mean() + _grouped(without).mean()) / 2).dropna()


def null_bands(table: pd.DataFrame) -> pd.Series:
    """The change of P that 95% of aimless directions stay below, by (training, attribute)."""
    changes = select(table, method=NULL)
    return _grouped(changes.assign(value=changes["value"].abs())).quantile(NULL_PERCENTILE / 100)


def _grouped(rows: pd.DataFrame) -> Any:
    return rows.groupby(["training", "attribute"], observed=True)["value"]


def onset(strengths: Floats, reached: NDArray[np.bool_], values: Floats, threshold: Any) -> Floats:
    """The first strength (n,) at which something is reached, interpolated; infinite if it never is.

    Args:
        strengths: (S,), growing.
        reached: (n, S), whether it is.
        values: (n, S), which rise through the threshold there.
        threshold: what has to be reached; one, or (n,).
    """
    first = reached.argmax(axis=1)
    before, row = np.maximum(first - 1, 0), np.arange(len(values))
    low, high = values[row, before], values[row, first]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(high > low, np.clip((threshold - low) / (high - low), 0, 1), 1)
    found = strengths[before] + share * (strengths[first] - strengths[before])
    return np.where(reached.any(axis=1), found, np.inf)


def breaks(strengths: Floats, left: Floats, threshold: float = BROKEN_BELOW) -> Floats:
    """The strengths (n,) from which faces are broken, of what is left of them (n, S)."""
    return onset(strengths, left < threshold, -left, -threshold)


def at(strengths: Floats, values: Floats, where: Floats) -> Floats:
    """Each row of values (n, S) at a strength of its own (n,); NaN where that is infinite."""
    inside = np.isfinite(where)
    after = np.clip(np.searchsorted(strengths, where), 1, len(strengths) - 1)
    row, low, high = np.arange(len(values)), strengths[after - 1], strengths[after]
    share = (np.where(inside, where, low) - low) / (high - low)
    found = (1 - share) * values[row, after - 1] + share * values[row, after]
    return np.where(inside, found, np.nan)


def outcome(there: Floats, broken: Floats) -> NDArray[np.str_]:
    """Strong: there before the face breaks; decohered: it breaks without that; else no effect."""
    strong = np.isfinite(there) & (there < broken)
    return np.where(strong, "strong", np.where(np.isfinite(broken), "decohered", "no effect"))


def summary(strips: pd.DataFrame) -> dict[str, float]:
    """Shares of outcomes, and the median onset and mean price of one direction's strips."""
    judged = strips[strips["outcome"].notna()]
    reached = strips[np.isfinite(strips["there"])]
    return {
        **{name: float((judged["outcome"] == name).mean()) for name in OUTCOMES},
        "n": float(len(strips)),
        "reached": len(reached) / max(1, len(strips)),
        "onset": float(np.median(strips["there"])) if len(strips) else np.nan,
        "leakage": float(reached["leakage"].mean()),
        "logit_leakage": float(reached["logit_leakage"].mean()),
        "identity": float((reached["identity"].dropna() < SAME_PERSON_DISTANCE).mean()),
    }


def accuracy(table: pd.DataFrame, method: str = "svm") -> pd.DataFrame:
    """Share of draws in which each face was read rightly: face x (training, attribute)."""
    rows = select(table, reading=["recall", "specificity"], method=method)
    grid = rows.pivot_table("value", "face", ["training", "attribute"], observed=True)
    # Levels that are categories lose their place where a training was edited and never read.
    grid.columns = grid.columns.set_levels([level.astype(str) for level in grid.columns.levels])
    return grid


def probability(logits: Any) -> Any:
    """P of logits, an array or a table."""
    return 1 / (1 + np.exp(-logits))
