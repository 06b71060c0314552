"""A listing: what a data set's text files say, before any picture is opened; and their parsing.

Every complaint names the file and the line.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hublatent.errors import DataError

PARTITIONS = ("train", "validation", "test")
# Columns that are no attributes.
IDENTITY, PARTITION = "identity", "partition"
# How `hublatent.images.face_crop` cuts CelebA's aligned pictures, and any others.
CELEBA_CROP = "central 148x148 (74x74 at half size)"
SQUARE_CROP = "largest centred square (of CelebA's 178x218 shape the central 148/178)"
_PARTITION_SPELLINGS = {
    "train": 0, "0": 0, "validation": 1, "valid": 1, "val": 1, "1": 1, "test": 2, "2": 2,
}  # fmt: skip
_BOOLEAN_SPELLINGS = (("0", "1"), ("-1", "1"), ("false", "true"))


@dataclass(frozen=True, eq=False)
class Listing:
    """A labelled set of pictures, none of them opened yet.

    Attributes:
        names: file name of each of the N pictures, unique.
        attributes: names of the K attributes.
        labels: (N, K) bool, presence of each attribute.
        identities: (N,) int64, who is on the picture.
        partition: (N,) uint8, index into PARTITIONS.
        open: gives picture i's path or file content; raises ImageError where there is none.
        stamp: text that changes whenever the pictures change.
        crop: how `hublatent.images.face_crop` cuts these pictures, in words.
    """

    names: tuple[str, ...]
    attributes: tuple[str, ...]
    labels: np.ndarray
    identities: np.ndarray
    partition: np.ndarray
    open: Callable[[int], Path | bytes]
    stamp: str
    crop: str


@dataclass(frozen=True)
class Table:
    """A CSV file whose first column holds file names.

    Attributes:
        names: the first column.
        columns: the texts of every other column.
        lines: line number of each row.
    """

    names: tuple[str, ...]
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]


def read_attribute_file(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Read CelebA's attribute format: a count, the attributes' names, then rows of name and -1/1.

    Returns:
        File names (N,), attributes (K,) and labels (N, K), bool.

    Raises:
        DataError: count, header and rows disagree.
    """
    lines = read_lines(path)
    if len(lines) < 3:
        raise DataError(
            f"{path} has {len(lines)} lines; expected a count, the attributes' names, then rows."
        )
    (first, count), (second, header), *rows = lines
    if not count.strip().isdecimal():
        raise DataError(f"Line {first} of {path} is {count[:40]!r}; expected the number of rows.")
    attributes = tuple(header.split())
    _check_header(attributes, f"Line {second} of {path}")
    if int(count) != len(rows):
        raise DataError(
            f"Line {first} of {path} announces {count.strip()} rows; {len(rows)} follow."
        )
    names, values = [], []
    for number, line in rows:
        name, *texts = line.split()
        if len(texts) != len(attributes):
            raise DataError(
                f"Line {number} of {path} has {len(texts)} values; "
                f"expected {len(attributes)}, one for each name in line {second}."
            )
        if not {"-1", "1"}.issuperset(texts):
            k = next(k for k, text in enumerate(texts) if text not in ("-1", "1"))
            raise DataError(
                f"Line {number} of {path} gives {attributes[k]} the value {texts[k]!r}; "
                "expected -1 or 1."
            )
        names.append(name)
        values.append(np.array([text == "1" for text in texts]))
    _check_names(names, [number for number, _ in rows], path)
    return tuple(names), attributes, np.stack(values)


def read_numbers(path: Path, *, partition: bool = False) -> dict[str, int]:
    """Read lines of a file name and a number; of a .csv file the first line is the header.

    Args:
        path: the file.
        partition: whether the numbers stand for PARTITIONS.

    Raises:
        DataError: a line is not of that form, or a name occurs twice.
    """
    lines = read_lines(path)
    if path.suffix == ".csv":
        lines = [(number, line.replace(",", " ")) for number, line in lines[1:]]
    numbers: list[tuple[str, int]] = []
    for line_number, line in lines:
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdecimal():
            raise DataError(
                f"Line {line_number} of {path} is {line[:60]!r}; expected a file name and a number."
            )
        if partition and fields[1] not in ("0", "1", "2"):
            raise DataError(
                f"Line {line_number} of {path} gives {fields[0]} the partition {fields[1]}; "
                "expected 0 (train), 1 (validation) or 2 (test)."
            )
        numbers.append((fields[0], int(fields[1])))
    _check_names([name for name, _ in numbers], [number for number, _ in lines], path)
    return dict(numbers)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1."""
    return [(i, s) for i, s in enumerate(_read_text(path).splitlines(), start=1) if s.strip()]


def read_csv(path: Path) -> Table:
    """Read a CSV file whose first column holds file names.

    Raises:
        DataError: rows and header disagree, or a name occurs twice.
    """
    reader = csv.reader(io.StringIO(_read_text(path), newline=""))
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if any(field.strip() for field in row):
                rows.append([field.strip() for field in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"Line {reader.line_num} of {path} is not CSV ({error}).") from error
    if len(rows) < 2:
        raise DataError(f"{path} has {len(rows)} rows; expected a header and at least one row.")
    header = rows[0]
    _check_header(header, f"Line {lines[0]} of {path}")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"Line {line} of {path} has {len(row)} fields; expected {len(header)}, "
                "as in the header."
            )
    names, *columns = zip(*rows[1:], strict=True)
    _check_names(names, lines[1:], path)
    return Table(names, dict(zip(header[1:], columns, strict=True)), lines[1:])


def parse_booleans(values: Sequence[str]) -> np.ndarray | int:
    """Read a column of 0/1, -1/1 or true/false.

    Returns:
        (N,) bool; or, where the column is none of these, the position of the value at fault.
    """
    texts = [value.strip().lower() for value in values]
    faults = []
    for absent, present in _BOOLEAN_SPELLINGS:
        if {absent, present}.issuperset(texts):
            return np.array([text == present for text in texts], dtype=bool)
        faults.append(next(i for i, text in enumerate(texts) if text not in (absent, present)))
    return max(faults)


def parse_identities(
    texts: Sequence[str] | None, names: Sequence[str]
) -> tuple[np.ndarray, Sequence[str]]:
    """Turn identities into numbers; without any, each picture is a person of its own.

    Args:
        texts: the identity on each of the N pictures, a number or a name; None if unknown.
        names: the pictures' file names.

    Returns:
        (N,) int64, the numbers themselves or the ranks of the sorted names; and the N texts that
        stand for a person, from which `draw_partition` draws.
    """
    if texts is None:
        print("The data set has no identities: every picture counts as a person of its own.")
        return np.arange(len(names), dtype=np.int64), names
    if all(text.isdecimal() and len(text) < 19 for text in texts):
        numbers = np.array([int(text) for text in texts], dtype=np.int64)
        return numbers, [str(number) for number in numbers]
    return np.unique(np.array(texts), return_inverse=True)[1].astype(np.int64), texts


def parse_partition(values: Sequence[str]) -> np.ndarray | int:
    """Read train/validation/test or 0/1/2.

    Returns:
        (N,) uint8, indices into PARTITIONS; or the position of the value at fault.
    """
    parts = [_PARTITION_SPELLINGS.get(value.strip().lower(), -1) for value in values]
    return parts.index(-1) if -1 in parts else np.array(parts, dtype=np.uint8)


def draw_partition(keys: Iterable[str]) -> np.ndarray:
    """Draw 80/10/10 % for train, validation and test from a hash of each picture's identity.

    The same identity always lands in the same part, on every machine, whatever the other rows.

    Args:
        keys: the identity of each of the N pictures, as text.

    Returns:
        (N,) uint8, indices into PARTITIONS.
    """
    print("The data set has no partition: 80/10/10 % are drawn by identity.")
    hashes = [hashlib.sha256(key.encode()).digest()[:8] for key in keys]
    uniform = np.array([int.from_bytes(h, "big") for h in hashes], dtype=np.float64) / 2.0**64
    return (uniform >= 0.8).astype(np.uint8) + (uniform >= 0.9).astype(np.uint8)


def require_entries(file: Path, known: Container[str], names: Iterable[str]) -> None:
    """Refuse a file that says nothing about some of the names."""
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"{file} has no line for {len(missing)} of the pictures, the first of them "
            f"{missing[0]}; expected one line for each."
        )


def stamp_of(paths: Iterable[Path]) -> str:
    """A digest of the files' places, sizes and times; a missing file counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"{path.absolute()}\0{state}\n".encode())
    return digest.hexdigest()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8 ({error}).") from error


def _check_header(header: Sequence[str], where: str) -> None:
    for i, name in enumerate(header):
        if not name:
            raise DataError(f"{where}: column {i + 1} has no name; expected one for each column.")
        if name in header[:i]:
            raise DataError(f"{where} has the name {name!r} twice; expected each once.")


def _check_names(names: Sequence[str], lines: Sequence[int], path: Path) -> None:
    first_line: dict[str, int] = {}
    for name, line in zip(names, lines, strict=True):
        if not name:
            raise DataError(f"Line {line} of {path} has no file name.")
        if name in first_line:
            raise DataError(
                f"Line {line} of {path} repeats {name} from line {first_line[name]}; "
                "expected each name once."
            )
        first_line[name] = line
