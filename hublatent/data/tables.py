"""Tables of texts beside pictures: CelebA's lists and CSV files; complaints name the line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from hublatent.errors import DataError, unknown_name

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
_MISSING = ("", "nan", "null", "none")  # what programs write where nothing is known
_UNNAMED = ("", "Unnamed: 0")  # what pandas calls the numbers of its rows


@dataclass(frozen=True, eq=False)
class Table:
    """What is written about N pictures.

    Attributes:
        source: the file or data set, for messages.
        names: the pictures' names, unique.
        columns: N rows of texts; its index tells where each row stands.
        unit: what the index counts, for messages.
    """

    source: str
    names: tuple[str, ...]
    columns: pd.DataFrame
    unit: str = "Line"

    def __post_init__(self) -> None:
        first_row: dict[str, int] = {}
        for row, name in enumerate(self.names):
            if not name:
                raise DataError(f"{self.where(row)} has no file name.")
            if first_row.setdefault(name, row) != row:
                raise DataError(
                    f"{self.where(row)} repeats {name} from "
                    f"{self.where(first_row[name], short=True)}; expected each name once."
                )

    def where(self, row: int, *, short: bool = False) -> str:
        """Where a row stands, such as "Line 3 of labels.csv"; short, "line 3"."""
        place = f"{self.unit} {self.columns.index[row]}"
        return place.lower() if short else f"{place} of {self.source}"

    def texts(self, column: str) -> list[str]:
        """A column in which every row has to say something."""
        if column not in self.columns:
            raise DataError(unknown_name(f"column of {self.source}", column, self.columns))
        texts = [text.strip() for text in self.columns[column]]
        for row, text in enumerate(texts):
            if text.lower() in _MISSING:
                raise DataError(f"{self.where(row)} has no {column}.")
        return texts

    def rows_of(self, names: Sequence[str]) -> np.ndarray:
        """The rows (n,) that speak of these pictures, whatever ending or zeros a name has."""
        rows = {picture_key(name): row for row, name in enumerate(self.names)}
        rows |= {name: row for row, name in enumerate(self.names)}
        found = [rows.get(name, rows.get(picture_key(name))) for name in names]
        if None in found:
            raise DataError(
                f"{self.source} has no line for {found.count(None)} of the pictures, the first of "
                f"them {names[found.index(None)]}; expected one line for each."
            )
        return np.array(found, np.int64)


def picture_key(name: str) -> str:
    """What 1.jpg, 000001.jpg and 000001.png have in common, and a\\1.jpg with a/1.jpg."""
    return re.sub(r"(^|/)0+(?=\d+$)", r"\1", re.sub(r"\.\w+$", "", name.replace("\\", "/")))


def read_table(path: Path, *, names: str | None = None, headerless: Sequence[str] = ()) -> Table:
    """Read a file of columns, separated by commas, semicolons or blanks, with a header.

    CelebA writes the number of rows first, and a header that is silent about the pictures' names;
    pandas writes a column of row numbers.

    Args:
        names: the column of the pictures' names; by default the first that looks like it.
        headerless: the columns of a file that may lack a header.

    Raises:
        DataError: it is no table, or its rows, header and count contradict each other.
    """
    try:
        if b"\0" in path.read_bytes():  # at which old versions of pandas end a text
            raise DataError(f"{path} holds NUL characters; expected a text file in UTF-8.")
        with path.open(encoding="utf-8-sig") as file:
            start = list(islice(((i, s) for i, s in enumerate(file, 1) if s.strip()), 2))
        if len(start) < 2:
            raise DataError(f"{path} has {len(start)} lines; expected a header, then rows.")
        (n_skipped, first), (_, second) = start
        is_counted = first.strip().isdecimal()
        separator = next((mark for mark in ",;" if mark in second), r"\s+")
        if is_counted:
            n_skipped = start[1][0]
        header = _cells(path, separator, n_skipped - 1, 1).iloc[0].tolist()
        if headerless and any(re.fullmatch(r"-?\d+", text) for text in header):
            header, n_skipped = list(headerless), n_skipped - 1
        cells = _cells(path, separator, n_skipped)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8 ({error}).") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise DataError(f"{path} is no table: {reason}.") from error
    if is_counted and int(first) != len(cells):
        raise DataError(f"{path} announces {first.strip()} rows; {len(cells)} follow.")
    if is_counted and len(header) == cells.shape[1] - 1:
        header, names = ["file", *header], "file"
    return _table(path, header, cells, names)


def _cells(path: Path, separator: str, n_skipped: int, n_rows: int | None = None) -> pd.DataFrame:
    """Some lines' texts; the index holds the lines' numbers, and blank ones are left out."""
    cells = pd.read_csv(
        path, sep=separator, header=None, index_col=False, dtype=str, keep_default_na=False,
        skipinitialspace=True, skip_blank_lines=False, skiprows=n_skipped, nrows=n_rows,
        encoding="utf-8-sig",
    )  # fmt: skip
    cells.index += n_skipped + 1
    return cells[(cells != "").any(axis=1)]


def _table(path: Path, header: list[str], cells: pd.DataFrame, names: str | None) -> Table:
    header = [name.strip() for name in header]
    if len(header) != cells.shape[1]:
        raise DataError(
            f"Line {cells.index[0]} of {path} has {cells.shape[1]} fields; expected {len(header)}, "
            "as in the header."
        )
    if names is not None and names not in header:
        raise DataError(unknown_name(f"column of {path}", names, header))
    at = header.index(names) if names else _names_position(header, cells.iloc[0].tolist())
    kept = {}
    for k, name in enumerate(header):
        if k == at or (name in _UNNAMED and (k == 0 or not cells[k].any())):
            continue
        if not name:
            raise DataError(f"{path}: column {k + 1} has no name; expected one for each column.")
        if name in kept:
            raise DataError(f"{path} has the column {name!r} twice; expected each once.")
        kept[name] = cells[k]
    columns = pd.DataFrame(kept, index=cells.index)
    return Table(str(path), tuple(cells[at].str.strip()), columns)


def _names_position(header: list[str], first_row: list[str]) -> int:
    for k, text in enumerate(first_row):
        if PurePath(text.strip()).suffix.lower() in PICTURE_SUFFIXES:
            return k
    is_numbered = header[0] in _UNNAMED and first_row[0].isdecimal() and len(header) > 1
    return int(is_numbered)
