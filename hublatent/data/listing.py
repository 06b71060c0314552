"""What is known about pictures before any is opened: tables beside them, and the listing they give.

Tables are texts, as CelebA's lists and CSV files have them; complaints name the line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from hublatent.direction import check_name
from hublatent.errors import DataError, DirectionError, shorten, unknown_name
from hublatent.images import CELEBA_CROP as CELEBA_SIDE

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
PARTITIONS = ("train", "validation", "test")
# Columns that are no attributes, under the names that people give them.
IDENTITY_COLUMNS = (
    "identity", "celeb_id", "person_id", "celebrity_id", "subject_id", "person", "subject",
)  # fmt: skip
PARTITION_COLUMNS = ("partition", "split")
PARTITION_SPELLINGS = {
    "train": 0, "0": 0, "validation": 1, "valid": 1, "val": 1, "1": 1, "test": 2, "2": 2,
}  # fmt: skip
# How `hublatent.images.face_crop` cuts CelebA's aligned pictures, and any others.
CELEBA_CROP = "central 148x148 (74x74 at half size)"
SQUARE_CROP = "largest centred square (of CelebA's 178x218 shape the central 148/178)"
_ZERO_ONE = ("0", "1")
_BOOLEAN_SPELLINGS = (_ZERO_ONE, ("-1", "1"), ("false", "true"), ("no", "yes"))
_MISSING = ("", "nan", "null", "none")  # what programs write where nothing is known
_UNNAMED = ("", "Unnamed: 0")  # what pandas calls the numbers of its rows


@dataclass(frozen=True, eq=False)
class Table:
    """What is written about N pictures."""

    source: str  # the file or data set, for messages
    names: tuple[str, ...]  # the pictures', unique
    columns: pd.DataFrame  # N rows of texts; its index tells where each row stands
    unit: str = "Line"  # what the index counts, for messages

    def __post_init__(self) -> None:
        first_row: dict[str, int] = {}
        for row, name in enumerate(self.names):
            if not name:
                raise DataError(f"{self.where(row)} has no file name.")
            first = first_row.setdefault(name, row)
            if first != row:
                place = f"{self.unit.lower()} {self.columns.index[first]}"
                raise DataError(
                    f"{self.where(row)} repeats {name} from {place}; expected each name once."
                )

    def where(self, row: int) -> str:
        """Where a row stands, such as "Line 3 of labels.csv"."""
        return f"{self.unit} {self.columns.index[row]} of {self.source}"

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


@dataclass(frozen=True, eq=False)
class Listing:
    """A set of N pictures, none of them opened yet."""

    name: str  # what the data set is called
    names: tuple[str, ...]  # the file names, unique
    attributes: tuple[str, ...]  # K names; none of an unlabelled set
    labels: np.ndarray  # (N, K) bool, presence of each attribute
    identities: np.ndarray  # (N,) int64, who is on the picture
    partition: np.ndarray  # (N,) uint8, index into PARTITIONS
    # Gives picture i's path or file content; raises ImageError where there is none.
    open: Callable[[int], Path | bytes]
    stamp: str  # text that changes whenever the pictures change
    crop: str  # how `hublatent.images.face_crop` cuts these pictures, in words
    crop_side: int = CELEBA_SIDE  # of that square in CelebA's own size


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
        header = [name.strip() for name in _cells(path, separator, n_skipped - 1, 1).iloc[0]]
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


def _cells(path: Path, separator: str, n_skipped: int, n_rows: int | None = None) -> pd.DataFrame:
    """Some lines' texts; the index holds the lines' numbers, and blank ones are left out."""
    cells = pd.read_csv(
        path, sep=separator, header=None, index_col=False, dtype=str, keep_default_na=False,
        skipinitialspace=True, skip_blank_lines=False, skiprows=n_skipped, nrows=n_rows,
        encoding="utf-8-sig",
    )  # fmt: skip
    cells.index += n_skipped + 1
    return cells[(cells != "").any(axis=1)]


def _names_position(header: list[str], first_row: list[str]) -> int:
    for k, text in enumerate(first_row):
        if PurePath(text.strip()).suffix.lower() in PICTURE_SUFFIXES:
            return k
    is_numbered = header[0] in _UNNAMED and first_row[0].isdecimal() and len(header) > 1
    return int(is_numbered)


def list_pictures(
    name: str, table: Table, pictures: Callable[[int], Path | bytes], stamp: str,
    crop: str = SQUARE_CROP, identity_column: str | None = None,
) -> Listing:  # fmt: skip
    """Make a listing of a table; `pictures` opens picture i, the rest is as in `Listing`.

    Who is on each picture says `identity_column`, by default one of the usual names.
    """
    people = identity_column or _first(IDENTITY_COLUMNS, table)
    split = _first(PARTITION_COLUMNS, table)
    if people is None:
        print("The data set has no identities: every picture counts as a person of its own.")
        identities, keys = np.arange(len(table.names), dtype=np.int64), list(table.names)
    else:
        if people != IDENTITY_COLUMNS[0]:
            print(f"Who is on each picture is read from the column {people}.")
        identities, keys = _identities(table.texts(people))
    partition = draw_partition(keys) if split is None else read_partition(table, split)
    attributes, labels = _labels(table, {people, split, *IDENTITY_COLUMNS, *PARTITION_COLUMNS})
    return Listing(
        name, table.names, attributes, labels, identities, partition, pictures, stamp, crop
    )


def read_partition(table: Table, column: str) -> np.ndarray:
    """A column of train, validation and test, or 0, 1 and 2: (N,) uint8."""
    texts = table.texts(column)
    parts = [PARTITION_SPELLINGS.get(text.lower(), -1) for text in texts]
    if -1 in parts:
        row = parts.index(-1)
        raise DataError(
            f"{table.where(row)} gives the partition {texts[row]!r}; expected train, validation or "
            "test (0, 1 or 2)."
        )
    return np.array(parts, np.uint8)


def draw_partition(keys: Iterable[str]) -> np.ndarray:
    """Draw 80/10/10 % for train, validation and test from a hash of each picture's identity.

    The same identity always lands in the same part, on every machine, whatever the other rows.
    """
    print("The data set has no partition: 80/10/10 % are drawn by identity.")
    hashes = [hashlib.sha256(key.encode()).digest()[:8] for key in keys]
    uniform = np.array([int.from_bytes(h, "big") for h in hashes], dtype=np.float64) / 2.0**64
    return (uniform >= 0.8).astype(np.uint8) + (uniform >= 0.9).astype(np.uint8)


def stamp_of(paths: Iterable[Path]) -> str:
    """A digest of the files' places, sizes and times; a missing file counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"{path.absolute()}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _first(usual: Sequence[str], table: Table) -> str | None:
    """The column of one of the usual names, however it is written: celeb_id, Celeb ID."""
    written = {re.sub(r"[\s-]", "_", name.strip()).lower(): name for name in table.columns}
    return next((written[name] for name in usual if name in written), None)


def _identities(people: list[str]) -> tuple[np.ndarray, list[str]]:
    """Identities (N,) as numbers, their own or the ranks of their names; and the N texts."""
    if all(text.isdecimal() and len(text) < 19 for text in people):
        numbers = np.array(people, dtype=np.int64)
        return numbers, [str(number) for number in numbers]
    return np.unique(np.array(people), return_inverse=True)[1].astype(np.int64), people


def _labels(table: Table, others: Container[str | None]) -> tuple[tuple[str, ...], np.ndarray]:
    """Attributes (K,) and labels (N, K) of the columns that hold booleans; the others are named.

    Raises:
        DataError: a column begins as labels and goes on otherwise.
    """
    labels: dict[str, np.ndarray] = {}
    spellings = set()
    for name in table.columns:
        if name in others:
            continue
        try:
            check_name(name)
        except DirectionError as error:
            print(f"The column {shorten(name)} is no attribute: {error}")
            continue
        codes, distinct = pd.factorize(table.columns[name])
        words = [text.strip().lower().removesuffix(".0") for text in distinct]
        fits = np.array([[word in pair for word in words] for pair in _BOOLEAN_SPELLINGS])[:, codes]
        faults = np.where(fits.all(axis=1), len(codes), fits.argmin(axis=1))
        best = int(faults.argmax())  # the spelling that goes farthest
        row = int(faults[best])
        if row == len(codes):
            labels[name] = np.array([word == _BOOLEAN_SPELLINGS[best][1] for word in words])[codes]
            spellings.add(_BOOLEAN_SPELLINGS[best])
            continue
        sentence = (
            f"{table.where(row)} gives {name} the value {shorten(distinct[codes[row]])}; expected "
            "0/1, -1/1, true/false or yes/no, the same in all rows. A column of people is named by "
            "--identity-column."
        )
        if fits[best].mean() >= 0.5:
            raise DataError(sentence)
        print(f"The column {name} is no attribute: {sentence}")
    if _ZERO_ONE in spellings:
        print("Labels of 0 and 1 are read as absent and present.")
    if not labels:
        print("The data set has no labels; its pictures can be encoded, and no attribute be found.")
        return (), np.zeros((len(table.names), 0), bool)
    return tuple(labels), np.column_stack([*labels.values()])
