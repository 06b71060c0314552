"""What face data look like on disk: one small reader per layout.

A reader says which table describes a folder's pictures, and where they lie. A new layout is one
reader and one line in `LAYOUTS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hublatent.data import listing, sprites
from hublatent.data.hub_datasets import SAVED_DATASET, read_hub_dataset
from hublatent.data.listing import Listing, Table, picture_key, read_table
from hublatent.errors import DataError

CELEBA_ATTRIBUTES = tuple(
    f"{place}list_attr_celeba.{ending}" for place in ("", "Anno/") for ending in ("txt", "csv")
)
CELEBA_PICTURES = ("img_align_celeba", "img_align_celeba_png")
HQ_ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
HQ_MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
HQ_PICTURES = "CelebA-HQ-img"
TABLE_NAME = "attributes.csv"

# Folder -> what the data set is called, the folder of its pictures, and what is known about them.
Reader = Callable[[Path], tuple[str, Path, Table]]


def read_listing(
    source: str | Path, split: str | None = None, identity_column: str | None = None
) -> Listing:
    """The listing of a source of any layout; see `hublatent.data.load_dataset`."""
    folder = Path(source).expanduser()
    if not folder.exists():
        if source == sprites.NAME:
            return sprites.read_sprites()
        if isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
            return read_hub_dataset(source, split, identity_column)
        raise DataError(
            f"There is no folder {source}; expected a folder, or a Hub dataset as 'user/name'."
        )
    if not folder.is_dir():
        raise DataError(f"{source} is a file; expected the folder that holds the data.")
    if not any(folder.iterdir()):
        raise DataError(f"{source} is an empty folder.")
    folder, description, read = _find_layout(folder)
    if read is None:
        return read_hub_dataset(folder, split, identity_column)
    if split is not None:
        raise DataError(
            f"split {split!r} was asked for, but {folder} is {description}, which has no splits; "
            "leave it out, and take the partitions from FaceDataset.indices."
        )
    name, pictures, table = read(folder)
    paths = _find_pictures(pictures, table.names)
    crop = listing.CELEBA_CROP if read is read_celeba else listing.SQUARE_CROP
    stamp = listing.stamp_of(paths)
    return listing.list_pictures(name, table, paths.__getitem__, stamp, crop, identity_column)


def _find_layout(folder: Path) -> tuple[Path, str, Reader | None]:
    """The layout of a folder, or of the one folder in it, as torchvision keeps celeba in its root.

    That is the folder that has it, the layout in words, and its reader.
    """
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = {
        place: (place, description, read)
        for place in places
        for description, patterns, read in reversed(LAYOUTS)
        if any(path for pattern in patterns for path in place.glob(pattern))
    }
    if folder in found or len(found) == 1:
        return found.get(folder) or next(iter(found.values()))
    if _pictures_below(folder):
        return folder, "a folder of pictures", read_pictures
    known = "; ".join(description for description, _, _ in LAYOUTS)
    raise DataError(f"{folder} holds no data in a known layout. Known: pictures alone; {known}.")


def read_celeba(folder: Path) -> tuple[str, Path, Table]:
    """CelebA's own layout (Liu et al. 2015), flat, with Anno/, Eval/ and Img/, or with .csv files.

    It has list_attr_celeba, identity_CelebA, list_eval_partition and img_align_celeba(_png)/.
    """
    pictures = _find(folder, *CELEBA_PICTURES)
    if pictures is None:
        zipped = _find(folder, "img_align_celeba.zip")
        hint = f"; unpack {zipped}" if zipped else ""
        raise DataError(f"{folder} has CelebA's attributes, but no folder img_align_celeba{hint}.")
    # Some archives unpack to img_align_celeba/img_align_celeba.
    nested = pictures / pictures.name
    table = read_table(_find(folder, "list_attr_celeba.txt", "list_attr_celeba.csv") or folder)
    return "celeba", nested if nested.is_dir() else pictures, _join(folder, table, table.names)


def read_celeba_hq(folder: Path) -> tuple[str, Path, Table]:
    """CelebAMask-HQ (Lee et al. 2020).

    Who is on a picture is known through its mapping and CelebA's own files, where they are there.
    """
    pictures = folder / HQ_PICTURES
    if not pictures.is_dir():
        raise DataError(f"{folder} has {HQ_ATTRIBUTES}, but no folder {HQ_PICTURES}.")
    table = read_table(folder / HQ_ATTRIBUTES)
    if (folder / HQ_MAPPING).is_file():
        mapping = read_table(folder / HQ_MAPPING, names="idx")
        files = mapping.texts("orig_file")
        table = _join(folder, table, [files[row] for row in mapping.rows_of(table.names)])
    else:
        print(f"{folder} lacks {HQ_MAPPING}, without which CelebA's identities cannot be used.")
    return "celebamask-hq", pictures, table


def read_table_folder(folder: Path) -> tuple[str, Path, Table]:
    """A folder of pictures with attributes.csv, or with one .csv of another name."""
    files = sorted(folder.glob("*.csv"))
    file = folder / TABLE_NAME if folder / TABLE_NAME in files else files[0]
    if file.name != TABLE_NAME and len(files) > 1:
        found = ", ".join(path.name for path in files)
        raise DataError(f"{folder} has several .csv files ({found}); name one {TABLE_NAME}.")
    return folder.resolve().name, folder, read_table(file)


def read_pictures(folder: Path) -> tuple[str, Path, Table]:
    """A folder of unlabelled pictures, in it or in folders of it."""
    names = tuple(path.relative_to(folder).as_posix() for path in _pictures_below(folder))
    return folder.resolve().name, folder, Table(str(folder), names, pd.DataFrame(index=names))


def _join(folder: Path, table: Table, originals: Sequence[str]) -> Table:
    """A table with its originals' identities and partition, where CelebA's files are there."""
    columns = {}
    for column, stem in (("identity", "identity_CelebA"), ("partition", "list_eval_partition")):
        file = _find(folder, f"{stem}.txt", f"{stem}.csv")
        if file is not None:
            known = read_table(file, headerless=("file", column))
            (given, *_) = known.columns
            texts = known.texts(given)
            if column == "partition":
                listing.read_partition(known, given)
            columns[column] = [texts[row] for row in known.rows_of(originals)]
    return replace(table, columns=table.columns.assign(**columns))


def _find_pictures(folder: Path, names: Sequence[str]) -> list[Path]:
    """Each picture's path; .png serves for .jpg, and 000001.jpg for 1.jpg."""
    paths = [folder / name for name in names]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if missing:
        there = {picture_key(p.relative_to(folder).as_posix()): p for p in _pictures_below(folder)}
        for i in missing:
            paths[i] = there.get(picture_key(names[i]), paths[i])
    return paths


def _pictures_below(folder: Path) -> list[Path]:
    """The pictures of a folder and of those in it, without the hidden files that a Mac leaves."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in listing.PICTURE_SUFFIXES)
    return sorted(p for p in found if not p.name.startswith("."))


def _find(folder: Path, *names: str) -> Path | None:
    """What has the first of these names, in a folder or in those that CelebA's archive makes."""
    places = (folder / place / name for name in names for place in ("", "Anno", "Eval", "Img"))
    return next((path for path in places if path.exists()), None)


# In words, the patterns of which one has to be there, and the reader; None where `datasets` reads.
LAYOUTS: tuple[tuple[str, tuple[str, ...], Reader | None], ...] = (
    # CelebA's own files may lie beside those of CelebAMask-HQ, for the identities.
    (f"CelebAMask-HQ ({HQ_ATTRIBUTES}, {HQ_PICTURES}/)", (HQ_ATTRIBUTES,), read_celeba_hq),
    ("CelebA (list_attr_celeba.txt, img_align_celeba/)", CELEBA_ATTRIBUTES, read_celeba),
    ("a saved dataset (save_to_disk, parquet, imagefolder)", SAVED_DATASET, None),
    (f"a folder of pictures with one .csv ({TABLE_NAME})", ("*.csv",), read_table_folder),
)
