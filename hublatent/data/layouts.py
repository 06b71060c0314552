"""What labelled face data look like on disk: one small reader per layout.

A reader turns a source into a `Listing`: names, labels, identities, partition, and how to open
each picture. A new layout is one reader and one line in `LAYOUTS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hublatent.data import sprites
from hublatent.data.hub_datasets import is_saved_dataset, read_hub_dataset
from hublatent.data.listing import (
    CELEBA_CROP,
    IDENTITY,
    PARTITION,
    SQUARE_CROP,
    Listing,
    Table,
    draw_partition,
    parse_booleans,
    parse_identities,
    parse_partition,
    read_attribute_file,
    read_csv,
    read_lines,
    read_numbers,
    require_entries,
    stamp_of,
)
from hublatent.errors import DataError

HQ_ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
HQ_MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"

Reader = Callable[[Path], Listing]


def read_listing(source: str | Path, split: str | None = None) -> Listing:
    """Read the listing of a source of any layout; see `hublatent.data.load_dataset`."""
    folder = Path(source).expanduser()
    if not folder.exists():
        if source == sprites.NAME:
            return sprites.read_sprites()
        if isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
            return read_hub_dataset(source, split)
        raise DataError(
            f"There is no folder {source}; expected a folder, or a Hub dataset as 'user/name'."
        )
    if not folder.is_dir():
        raise DataError(f"{source} is a file; expected the folder that holds the data.")
    if not any(folder.iterdir()):
        raise DataError(f"{source} is an empty folder.")
    for description, matches, read in LAYOUTS:
        if matches(folder):
            return _read(folder, split, description, read)
    known = "; ".join(description for description, _, _ in LAYOUTS)
    raise DataError(f"{source} holds no data in a known layout. Known: {known}.")


def _read(folder: Path, split: str | None, description: str, read: Reader) -> Listing:
    if read is read_hub_dataset:
        return read_hub_dataset(folder, split)
    if split is not None:
        raise DataError(
            f"split {split!r} was asked for, but {folder} is {description}, which has no splits; "
            "leave it out, and take the partitions from FaceDataset.indices."
        )
    return read(folder)


def dataset_name(source: str | Path) -> str:
    """What the data set is called: by its layout where that is known, else by folder or Hub id."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return str(source)
    if is_celeba_hq(folder):
        return "celebamask-hq"
    return "celeba" if is_celeba(folder) else folder.resolve().name


def is_celeba(folder: Path) -> bool:
    return _celeba_file(folder, "list_attr_celeba", "Anno") is not None


def read_celeba(folder: Path) -> Listing:
    """CelebA's own layout (Liu et al. 2015), flat, with Anno/, Eval/ and Img/, or with .csv files.

    Args:
        folder: holds list_attr_celeba.txt, identity_CelebA.txt, list_eval_partition.txt and
            img_align_celeba/.
    """
    attribute_file = _celeba_file(folder, "list_attr_celeba", "Anno")
    pictures = _find(folder, "img_align_celeba", "Img")
    if attribute_file is None or pictures is None:
        raise DataError(f"{folder} has CelebA's attributes, but no folder img_align_celeba.")
    # Some archives unpack to img_align_celeba/img_align_celeba.
    pictures = _find(pictures, "img_align_celeba") or pictures
    if attribute_file.suffix == ".csv":
        table = read_csv(attribute_file)
        names, (attributes, labels) = table.names, _labels(table, attribute_file)
    else:
        names, attributes, labels = read_attribute_file(attribute_file)
    known = _from_celeba_files(folder, names, names)
    return _listing(pictures, names, attributes, labels, *known, CELEBA_CROP)


def is_celeba_hq(folder: Path) -> bool:
    return (folder / HQ_ATTRIBUTES).is_file()


def read_celeba_hq(folder: Path) -> Listing:
    """CelebAMask-HQ (Lee et al. 2020); who is on a picture is known through CelebA's own files.

    Args:
        folder: holds CelebA-HQ-img/, CelebAMask-HQ-attribute-anno.txt and, for identities,
            CelebA-HQ-to-CelebA-mapping.txt beside CelebA's identity_CelebA.txt.
    """
    pictures = folder / "CelebA-HQ-img"
    if not pictures.is_dir():
        raise DataError(f"{folder} has {HQ_ATTRIBUTES}, but no folder CelebA-HQ-img.")
    names, attributes, labels = read_attribute_file(folder / HQ_ATTRIBUTES)
    mapping = folder / HQ_MAPPING
    original = _original_names(mapping, names) if mapping.is_file() else None
    known = _from_celeba_files(folder, names, original)
    return _listing(pictures, names, attributes, labels, *known, SQUARE_CROP)


def is_csv_folder(folder: Path) -> bool:
    return any(folder.glob("*.csv"))


def read_csv_folder(folder: Path) -> Listing:
    """A folder of pictures with attributes.csv, or with one .csv of another name.

    Args:
        folder: the file's first column holds picture names relative to it; the columns
            `identity` and `partition` are optional, all others are attributes.
    """
    files = sorted(folder.glob("*.csv"))
    file = folder / "attributes.csv" if folder / "attributes.csv" in files else files[0]
    if file.name != "attributes.csv" and len(files) > 1:
        found = ", ".join(path.name for path in files)
        raise DataError(f"{folder} has several .csv files ({found}); name one attributes.csv.")
    table = read_csv(file)
    attributes, labels = _labels(table, file)
    texts = table.columns.get(IDENTITY)
    if texts is not None and "" in texts:
        raise DataError(f"Line {table.lines[texts.index('')]} of {file} has no identity.")
    identities, people = parse_identities(texts, table.names)
    is_partitioned = PARTITION in table.columns
    partition = _partition(table, file) if is_partitioned else draw_partition(people)
    return _listing(folder, table.names, attributes, labels, identities, partition, SQUARE_CROP)


def _listing(
    pictures: Path,
    names: tuple[str, ...],
    attributes: tuple[str, ...],
    labels: np.ndarray,
    identities: np.ndarray,
    partition: np.ndarray,
    crop: str,
) -> Listing:
    """A listing of the picture files of one folder."""
    paths = [pictures / name for name in names]
    return Listing(
        names, attributes, labels, identities, partition, paths.__getitem__, stamp_of(paths), crop
    )


# --- CelebA's files -------------------------------------------------------------------------------


def _from_celeba_files(
    folder: Path, names: Sequence[str], original: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Identities and partition by each picture's name in CelebA, where the files are there.

    Args:
        folder: holds identity_CelebA.txt and list_eval_partition.txt.
        names: the N pictures' names here.
        original: their names in CelebA; None if unknown.
    """
    file = _celeba_file(folder, "identity_CelebA", "Anno")
    texts = None
    if file is not None and original is not None:
        by_name = read_numbers(file)
        require_entries(file, by_name, original)
        texts = [str(by_name[name]) for name in original]
    identities, people = parse_identities(texts, names)
    file = _celeba_file(folder, "list_eval_partition", "Eval")
    if file is None or original is None:
        return identities, draw_partition(people)
    by_name = read_numbers(file, partition=True)
    require_entries(file, by_name, original)
    return identities, np.array([by_name[name] for name in original], dtype=np.uint8)


def _original_names(mapping: Path, names: Sequence[str]) -> list[str]:
    """CelebA's name of each CelebA-HQ picture, from lines "idx orig_idx orig_file"."""
    original: dict[str, str] = {}
    for number, line in read_lines(mapping)[1:]:
        fields = line.split()
        if len(fields) != 3 or not fields[0].isdecimal():
            raise DataError(
                f"Line {number} of {mapping} is {line[:60]!r}; expected idx, orig_idx, orig_file."
            )
        original[fields[0]] = fields[2]
    numbers = [Path(name).stem for name in names]
    require_entries(mapping, original, numbers)
    return [original[number] for number in numbers]


def _celeba_file(folder: Path, stem: str, subfolder: str) -> Path | None:
    return _find(folder, f"{stem}.txt", subfolder) or _find(folder, f"{stem}.csv", subfolder)


def _find(folder: Path, name: str, subfolder: str = "") -> Path | None:
    """The file or folder of that name in `folder`, or in its subfolder."""
    candidates = (folder / name, folder / subfolder / name)
    return next((path for path in candidates if path.exists()), None)


# --- columns --------------------------------------------------------------------------------------


def _labels(table: Table, file: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Attributes (K,) and labels (N, K) of a CSV file."""
    labels: dict[str, np.ndarray] = {}
    for name, values in table.columns.items():
        if name in (IDENTITY, PARTITION):
            continue
        column = parse_booleans(values)
        if isinstance(column, int):
            raise DataError(
                f"Line {table.lines[column]} of {file} gives {name} the value "
                f"{values[column]!r}; expected 0/1, -1/1 or true/false, the same in all rows."
            )
        labels[name] = column
    if not labels:
        raise DataError(f"{file} has no attribute column; expected at least one beside the names.")
    return tuple(labels), np.stack(list(labels.values()), axis=1)


def _partition(table: Table, file: Path) -> np.ndarray:
    values = table.columns[PARTITION]
    partition = parse_partition(values)
    if isinstance(partition, int):
        raise DataError(
            f"Line {table.lines[partition]} of {file} gives the partition "
            f"{values[partition]!r}; expected train, validation or test (0, 1 or 2)."
        )
    return partition


LAYOUTS: tuple[tuple[str, Callable[[Path], bool], Reader], ...] = (
    # CelebA's own files may lie beside those of CelebAMask-HQ, for the identities.
    (f"CelebAMask-HQ ({HQ_ATTRIBUTES}, CelebA-HQ-img/)", is_celeba_hq, read_celeba_hq),
    ("CelebA (list_attr_celeba.txt, img_align_celeba/)", is_celeba, read_celeba),
    ("a saved dataset (save_to_disk, parquet, imagefolder)", is_saved_dataset, read_hub_dataset),
    ("a folder of pictures with one .csv (attributes.csv)", is_csv_folder, read_csv_folder),
)
