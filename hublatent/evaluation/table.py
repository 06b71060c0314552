"""The long table: one row for each value that was read off a model; everything else follows.

model      the recipe; trainings that differ in their seed alone are one model
training   the checkpoint
attribute  what was read or edited; "" for readings of the model itself
method     how the direction was found, or the kind of control; ""
face       "PERSON/PICTURE", so that bootstraps draw people; "" for readings of all together
strength   of an edit, in standard deviations; NaN where nothing was edited
reading    what was measured
value      the number

Readings of latents: `recall` of a face that shows the attribute and `specificity` of one that does
not, the share of draws in which it was read rightly by a direction that never saw the person;
`auroc`. Of images: `target` and `leakage` (logits of the judge, and the mean change of the other
attributes' probabilities), `logit leakage` (the same in standard deviations of their logits),
`identity` (distance to the unedited image), `coherence`. Of models: `kl`, `mse` etc.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hublatent.errors import DataError
from hublatent.storage import atomic_path

COLUMNS = ("model", "training", "attribute", "method", "face", "strength", "reading", "value")
TEXT = tuple(name for name in COLUMNS if name not in ("strength", "value"))
TABLE_NAME = "table.csv.gz"
DIGITS = 4
# "Methods" that move nothing, and nothing in particular; and where whole faces are counted.
CEILING, NULL = "ceiling", "null"
SAMPLES, BETWEEN, BEYOND = "samples", "between", "beyond"


def rows(
    readings: Mapping[str, Any], *, attribute: str = "", method: str = "",
    face: Sequence[str] | NDArray[np.str_] = "", strength: float = np.nan,
) -> pd.DataFrame:  # fmt: skip
    """Rows of one model: each reading is a number, or one for each face; NaN is left out."""
    values = [np.atleast_1d(np.asarray(given, float)) for given in readings.values()]
    columns = {
        "attribute": attribute, "method": method, "strength": strength,
        "face": face if isinstance(face, str) else np.tile(np.asarray(face), len(values)),
        "reading": np.repeat(list(readings), list(map(len, values))),
        "value": np.concatenate([*values, np.zeros(0)]),
    }  # fmt: skip
    return pd.DataFrame(columns).dropna(subset="value")


def join(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table of several, with texts as categories: most of them repeat."""
    found = [part for part in parts if len(part)] or [pd.DataFrame(columns=list(COLUMNS))]
    table = pd.concat(found, ignore_index=True)[list(COLUMNS)]
    return table.astype(dict.fromkeys(TEXT, "category") | {"strength": float, "value": float})


def save(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, compressed, atomically; the same table gives the same bytes."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed,
    ):
        table.to_csv(packed, index=False, float_format=f"%.{DIGITS}g")


def load(path: Path) -> pd.DataFrame:
    """Read a table.

    Raises:
        DataError: it is damaged, or of another version.
    """
    try:
        table = pd.read_csv(
            path, compression="gzip", keep_default_na=False, na_values={"strength": [""]},
            dtype=dict.fromkeys(TEXT, "category") | {"strength": float, "value": float},
        )  # fmt: skip
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table of readings: {error}.") from error
    if tuple(table.columns) != COLUMNS:
        raise DataError(
            f"{path} has the columns {', '.join(map(str, table.columns))}; expected "
            f"{', '.join(COLUMNS)}. It comes from another version; compare again."
        )
    return table


def select(table: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The rows whose columns have the wanted values; a list allows any of its members."""
    kept = np.ones(len(table), bool)
    for name, value in wanted.items():
        values = value if isinstance(value, list | tuple) else [value]
        kept &= table[name].isin(values).to_numpy()
    return table[kept]


def people(faces: Sequence[str] | pd.Index) -> NDArray[Any]:
    """Who is on each face."""
    return np.array([str(face).partition("/")[0] for face in faces])
