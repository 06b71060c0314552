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

from hublatent.evaluation.coherence import BROKEN_BELOW
from hublatent.evaluation.edits import ABSENT, CEILING, NULL
from hublatent.evaluation.table import select
from hublatent.stats import Floats

SAME_PERSON = (
    0.6  # dlib's threshold of the distance: 89% of CelebA's pairs of one person are nearer
)
OUTCOMES = ("strong", "no effect", "decohered")
NULL_PERCENTILE = 95


def edits(table: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """A row for each edited face: its onsets, outcome and price.

    Only faces whose unedited picture the judge calls without the attribute count.

    Args:
        table: the long table.
        wanted: columns and their values, such as attribute="Smiling".

    Returns:
        model, training, attribute, method, face; there and broken (strengths, in standard
        deviations; infinite where it never comes to that); outcome, missing where nobody looked
        closely; leakage, logit_leakage, identity and coherence at the onset, NaN without one.
    """
    rows = select(table, **wanted)
    rows = rows[rows["strength"].notna() & (rows["method"] != NULL)]
    whole = rows["face"] == ""
    parts = []
    keys = ["model", "training", "attribute", "method"]
    for key, group in rows[~whole].groupby(keys, observed=True):
        about = dict(zip(keys, key, strict=True))
        threshold = presence(table, about["training"], about["attribute"])
        parts.append(_strips(group, threshold).assign(**about))
    if not parts:
        return pd.DataFrame(columns=[*keys, "face", "there", "broken", "outcome", "leakage"])
    return pd.concat(parts, ignore_index=True)


def presence(table: pd.DataFrame, training: str, attribute: str) -> float:
    """The P above which an attribute counts as drawn by a model."""
    rows = select(table, training=training, attribute=attribute)
    having = probability(rows.loc[rows["method"] == CEILING, "value"])
    start = (rows["strength"] == 0) & (rows["reading"] == "target")
    without = probability(rows.loc[start, "value"])
    if not len(having) or not len(without):
        return ABSENT
    return float((having.mean() + without.mean()) / 2)


def _strips(group: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """One row per face of one direction's edits."""
    grids = {
        reading: part.pivot_table("value", "face", "strength", observed=True)
        for reading, part in group.groupby("reading", observed=True)
    }
    target = probability(grids["target"])
    target = target[target.iloc[:, 0] < min(ABSENT, threshold)]
    strengths = target.columns.to_numpy(float)
    there = np.array([onset(strengths, row >= threshold, row, threshold) for row in target.values])
    found = pd.DataFrame({"face": target.index.astype(str), "there": there})
    left = grids["coherence"].reindex(target.index) if "coherence" in grids else target * np.nan
    known = left.notna().all(axis=1).to_numpy()
    found["broken"] = np.where(known, breaks(strengths, left.to_numpy()), np.nan)
    found["outcome"] = pd.Series(outcome(there, found["broken"].to_numpy())).where(known)
    for reading in ("leakage", "logit leakage", "identity", "coherence"):
        grid = grids[reading].reindex(target.index) if reading in grids else target * np.nan
        found[reading.replace(" ", "_")] = [
            np.interp(at, strengths, row) if np.isfinite(at) else np.nan
            for at, row in zip(there, grid.to_numpy(), strict=True)
        ]
    return found


def onset(strengths: Floats, reached: Floats, values: Floats, threshold: float) -> float:
    """The first strength at which something is reached, interpolated; infinite if it never is.

    Args:
        strengths: (S,), growing.
        reached: (S,), whether it is.
        values: (S,), which rise through the threshold there.
        threshold: what has to be reached.
    """
    hits = np.flatnonzero(reached)
    if not len(hits):
        return float("inf")
    i = int(hits[0])
    if i == 0 or values[i] <= values[i - 1]:
        return float(strengths[i])
    share = (threshold - values[i - 1]) / (values[i] - values[i - 1])
    return float(strengths[i - 1] + np.clip(share, 0, 1) * (strengths[i] - strengths[i - 1]))


def breaks(strengths: Floats, left: Floats, threshold: float = BROKEN_BELOW) -> Floats:
    """The strengths (n,) from which faces are broken, of what is left of them (n, S)."""
    return np.array([onset(strengths, row < threshold, -row, -threshold) for row in left])


def outcome(there: Floats, broken: Floats) -> NDArray[np.str_]:
    """Strong: there before the face breaks; decohered: it breaks without that; else no effect."""
    strong = np.isfinite(there) & (there < broken)
    return np.where(strong, "strong", np.where(np.isfinite(broken), "decohered", "no effect"))


def summary(strips: pd.DataFrame) -> dict[str, float]:
    """Shares of outcomes, and the median onset and mean price of one direction's strips."""
    judged = strips[strips["outcome"].notna()]
    found = {name: float((judged["outcome"] == name).mean()) for name in OUTCOMES}
    reached = strips[np.isfinite(strips["there"])]
    return {
        **found,
        "n": float(len(strips)),
        "reached": len(reached) / max(1, len(strips)),
        "onset": float(np.median(strips["there"])) if len(strips) else np.nan,
        "leakage": float(reached["leakage"].mean()),
        "logit_leakage": float(reached["logit_leakage"].mean()),
        "identity": float((reached["identity"].dropna() < SAME_PERSON).mean()),
    }


def null_band(table: pd.DataFrame, training: str, attribute: str) -> float:
    """The change of P that 95% of directions that mean nothing stay below."""
    changes = select(table, training=training, attribute=attribute, method=NULL)["value"]
    return float(np.percentile(changes.abs(), NULL_PERCENTILE)) if len(changes) else np.nan


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
