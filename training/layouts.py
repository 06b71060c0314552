"""What labelled picture folders look like on disk: one small reader per layout.

A reader turns names, labels, identities and partition into a `Listing` and says how to open each
picture; it decodes none. A new layout is one reader and one line in `LAYOUTS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hublatent.errors import DataError

PARTITIONS = ("train", "validation", "test")
CELEBA_CROP = "central 148x148 (74x74 at half size)"
SQUARE_CROP = "largest centred square (of CelebA's 178x218 shape the central 148/178)"


@dataclass(frozen=True, eq=False)
class Listing:
    """A labelled set of pictures, none of them opened yet.

    Attributes:
        names: file name of each of the N pictures, unique.
        attributes: names of the K attributes.
        labels: (N, K) bool, presence of each attribute.
        identities: (N,) int64, who is on the picture.
        partition: (N,) uint8, index into PARTITIONS.
        open: gives picture i's path or file content; raises OSError where it is missing.
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


Reader = Callable[[Path], Listing]


# --- CelebA -------------------------------------------------------------------------------------


def is_celeba(folder: Path) -> bool:
    """Whether CelebA's attribute file is there, beside the pictures or in Anno/."""
    return _find(folder, "list_attr_celeba.txt", "Anno") is not None


def read_celeba(folder: Path) -> Listing:
    """CelebA's own layout, flat or with its Anno/, Eval/ and Img/ folders (Liu et al. 2015)."""
    attribute_file = _find(folder, "list_attr_celeba.txt", "Anno")
    pictures = _find(folder, "img_align_celeba", "Img")
    if attribute_file is None or pictures is None:
        raise DataError(
            f"{folder} has CelebA's list_attr_celeba.txt but no img_align_celeba folder."
        )
    # Some archives unpack to img_align_celeba/img_align_celeba.
    pictures = _find(pictures, "img_align_celeba") or pictures
    names, attributes, labels = read_attribute_file(attribute_file)
    identities, keys = _identities(_find(folder, "identity_CelebA.txt", "Anno"), names)
    partition = _partition(_find(folder, "list_eval_partition.txt", "Eval"), names, keys)
    paths = [pictures / name for name in names]
    return Listing(
        names, attributes, labels, identities, partition, paths.__getitem__, stamp_of(paths),
        CELEBA_CROP,
    )  # fmt: skip


def _identities(file: Path | None, names: Sequence[str]) -> tuple[np.ndarray, Sequence[str]]:
    """Identities as numbers, and as the texts from which a partition is drawn."""
    if file is None:
        print("No identity_CelebA.txt was found: every picture counts as a person of its own.")
        return np.arange(len(names), dtype=np.int64), names
    by_name = read_numbers(file)
    _require_entries(file, by_name, names)
    identities = np.array([by_name[name] for name in names], dtype=np.int64)
    return identities, [str(identity) for identity in identities]


def _partition(file: Path | None, names: Sequence[str], keys: Sequence[str]) -> np.ndarray:
    if file is None:
        print("No list_eval_partition.txt was found: 80/10/10 % are drawn by identity.")
        return draw_partition(keys)
    by_name = read_numbers(file, allowed=range(len(PARTITIONS)))
    _require_entries(file, by_name, names)
    return np.array([by_name[name] for name in names], dtype=np.uint8)


# --- the parts layouts share ---------------------------------------------------------------------


def read_attribute_file(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Read CelebA's attribute format: a count, the attributes' names, then rows of name and -1/1.

    Returns:
        File names (N,), attributes (K,) and labels (N, K), bool.

    Raises:
        DataError: count, header and rows disagree; the message names the line.
    """
    lines = read_lines(path)
    if len(lines) < 3:
        raise DataError(f"{path} has {len(lines)} lines; expected a count, the names, then rows.")
    (_, count), (_, header), *rows = lines
    if not count.strip().isdecimal():
        raise DataError(f"Line 1 of {path} is {count[:40]!r}; expected the number of rows.")
    attributes = tuple(header.split())
    check_unique(attributes, f"Line 2 of {path}", "attribute")
    if int(count) != len(rows):
        raise DataError(f"Line 1 of {path} announces {count.strip()} rows, but {len(rows)} follow.")
    labels = np.empty((len(rows), len(attributes)), dtype=bool)
    first_line: dict[str, int] = {}
    for i, (number, line) in enumerate(rows):
        name, *values = line.split()
        if len(values) != len(attributes):
            raise DataError(
                f"Line {number} of {path} has {len(values)} values; "
                f"expected {len(attributes)}, one for each name in line 2."
            )
        if not {"-1", "1"}.issuperset(values):
            k = next(k for k, value in enumerate(values) if value not in ("-1", "1"))
            raise DataError(
                f"Line {number} of {path} gives {attributes[k]} the value {values[k]!r}; "
                "expected -1 or 1."
            )
        _note_line(first_line, name, number, path)
        labels[i] = [value == "1" for value in values]
    return tuple(first_line), attributes, labels


def read_numbers(path: Path, allowed: range | None = None) -> dict[str, int]:
    """Read a file of lines "name number".

    Args:
        path: the file.
        allowed: the numbers that may occur; None for any.

    Raises:
        DataError: a line is not of that form, or a name occurs twice; the message names the line.
    """
    numbers: dict[str, int] = {}
    first_line: dict[str, int] = {}
    for line_number, line in read_lines(path):
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdecimal():
            raise DataError(
                f"Line {line_number} of {path} is {line[:60]!r}; expected a file name and a number."
            )
        number = int(fields[1])
        if allowed is not None and number not in allowed:
            raise DataError(
                f"Line {line_number} of {path} gives {number}; expected one of "
                f"{', '.join(map(str, allowed))}."
            )
        _note_line(first_line, fields[0], line_number, path)
        numbers[fields[0]] = number
    return numbers


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8 ({error}).") from error
    return [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]


def check_unique(names: Iterable[str], where: str, kind: str) -> None:
    """Refuse names that occur twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where} has the {kind} {name!r} twice; expected each once.")
        seen.add(name)


def draw_partition(keys: Iterable[str]) -> np.ndarray:
    """Draw 80/10/10 % for train, validation and test from a hash of each picture's identity.

    The same identity always lands in the same part, on every machine, whatever the other rows.

    Args:
        keys: the identity of each of the N pictures, as text.

    Returns:
        (N,) uint8, indices into PARTITIONS.
    """
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
        digest.update(f"{path.absolute()}\0{state}\n".encode())
    return digest.hexdigest()


def _require_entries(file: Path, known: Mapping[str, int], names: Iterable[str]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"{file} lacks {len(missing)} of the names in the attribute file, "
            f"the first of them {missing[0]}; expected one line for each."
        )


def _note_line(first_line: dict[str, int], name: str, number: int, path: Path) -> None:
    if name in first_line:
        raise DataError(
            f"Line {number} of {path} repeats {name} from line {first_line[name]}; "
            "expected each name once."
        )
    first_line[name] = number


def _find(folder: Path, name: str, subfolder: str | None = None) -> Path | None:
    """The file or folder of that name in `folder`, or in its subfolder."""
    candidates = [folder / name, *([folder / subfolder / name] if subfolder else [])]
    return next((path for path in candidates if path.exists()), None)


LAYOUTS: tuple[tuple[str, Callable[[Path], bool], Reader], ...] = (
    ("CelebA (list_attr_celeba.txt, img_align_celeba/)", is_celeba, read_celeba),
)


def read_listing(source: str | Path, split: str | None = None) -> Listing:
    """Read the listing of a source of any layout."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(f"{source} is no folder.")
    for _, matches, read in LAYOUTS:
        if matches(folder):
            return read(folder)
    known = "; ".join(description for description, _, _ in LAYOUTS)
    raise DataError(f"{source} holds no data in a known layout. Known: {known}.")
