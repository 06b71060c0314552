"""A listing: what is known about a data set's pictures before any of them is opened."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hublatent.data.tables import Table
from hublatent.direction import check_name
from hublatent.errors import DataError, DirectionError, shorten
from hublatent.images import CELEBA_CROP as CELEBA_SIDE

PARTITIONS = ("train", "validation", "test")
# Columns that are no attributes, under the names that people give them.
IDENTITY_COLUMNS = (
    "identity", "celeb_id", "person_id", "celebrity_id", "subject_id", "person", "subject",
)  # fmt: skip
PARTITION_COLUMNS = ("partition", "split")
# How `hublatent.images.face_crop` cuts CelebA's aligned pictures, and any others.
CELEBA_CROP = "central 148x148 (74x74 at half size)"
SQUARE_CROP = "largest centred square (of CelebA's 178x218 shape the central 148/178)"
PARTITION_SPELLINGS = {
    "train": 0, "0": 0, "validation": 1, "valid": 1, "val": 1, "1": 1, "test": 2, "2": 2,
}  # fmt: skip
_ZERO_ONE = ("0", "1")
_BOOLEAN_SPELLINGS = (_ZERO_ONE, ("-1", "1"), ("false", "true"), ("no", "yes"))


@dataclass(frozen=True, eq=False)
class Listing:
    """A set of pictures, none of them opened yet.

    Attributes:
        name: what the data set is called.
        names: file name of each of the N pictures, unique.
        attributes: names of the K attributes; none of an unlabelled set.
        labels: (N, K) bool, presence of each attribute.
        identities: (N,) int64, who is on the picture.
        partition: (N,) uint8, index into PARTITIONS.
        open: gives picture i's path or file content; raises ImageError where there is none.
        stamp: text that changes whenever the pictures change.
        crop: how `hublatent.images.face_crop` cuts these pictures, in words.
        crop_side: side of that square in CelebA's own size.
    """

    name: str
    names: tuple[str, ...]
    attributes: tuple[str, ...]
    labels: np.ndarray
    identities: np.ndarray
    partition: np.ndarray
    open: Callable[[int], Path | bytes]
    stamp: str
    crop: str
    crop_side: int = CELEBA_SIDE


def list_pictures(
    name: str, table: Table, pictures: Callable[[int], Path | bytes], stamp: str,
    crop: str = SQUARE_CROP, identity_column: str | None = None,
) -> Listing:  # fmt: skip
    """Make a listing of a table: the N pictures' names, labels, identities and partitions.

    Args:
        pictures: opens picture i.
        stamp: text that changes whenever the pictures change.
        identity_column: says who is on each picture; by default one of the usual names.
    """
    column = identity_column or _first(IDENTITY_COLUMNS, table)
    people = None if column is None else table.texts(column)
    if column is not None and column != IDENTITY_COLUMNS[0]:
        print(f"Who is on each picture is read from the column {column}.")
    identities, keys = _identities(people, table.names)
    split = _first(PARTITION_COLUMNS, table)
    partition = draw_partition(keys) if split is None else read_partition(table, split)
    attributes, labels = _labels(table, {column, split, *IDENTITY_COLUMNS, *PARTITION_COLUMNS})
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


def _identities(
    people: Sequence[str] | None, names: Sequence[str]
) -> tuple[np.ndarray, Sequence[str]]:
    """Identities (N,) as numbers, their own or the ranks of their names; and the N texts."""
    if people is None:
        print("The data set has no identities: every picture counts as a person of its own.")
        return np.arange(len(names), dtype=np.int64), names
    if all(text.isdecimal() and len(text) < 19 for text in people):
        numbers = np.array([int(text) for text in people], dtype=np.int64)
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
        faults = fits.argmin(axis=1)
        best = int(np.where(fits.all(axis=1), len(codes), faults).argmax())
        if fits[best].all():
            labels[name] = np.array([word == _BOOLEAN_SPELLINGS[best][1] for word in words])[codes]
            spellings.add(_BOOLEAN_SPELLINGS[best])
            continue
        row = int(faults[best])
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
    shape = (len(table.names), len(labels))
    return tuple(labels), np.array([*labels.values()], dtype=bool).reshape(shape[::-1]).T.copy()
