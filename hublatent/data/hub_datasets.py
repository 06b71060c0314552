"""Listings of datasets of the `datasets` library: from the Hub, or saved in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from hublatent.data import listing
from hublatent.data.listing import IDENTITY_COLUMNS, PARTITION_COLUMNS, Listing, Table
from hublatent.errors import DataError, ImageError, unknown_name
from hublatent.hub.client import HTTPError

# What save_to_disk writes, or parquet files, or an imagefolder.
SAVED_DATASET = ("state.json", "dataset_dict.json", "*.parquet", "data/*.parquet", "metadata.jsonl")
_LABEL_KINDS = ("bool", "int", "uint", "float", "double")


def read_hub_dataset(
    source: str | Path, split: str | None = None, identity_column: str | None = None
) -> Listing:
    """Read a dataset from the Hub ("user/name") or from a folder.

    One column holds pictures; boolean columns, and numbers that are 0/1 or -1/1, are attributes.
    Several splits give the partition, unless one is chosen.
    """
    splits = _load_splits(source, split)
    import datasets

    try:
        rows = datasets.concatenate_datasets(list(splits.values()))
    except ValueError as error:
        raise DataError(
            f"The splits of {source} ({', '.join(splits)}) differ in their columns; choose one "
            f"({error})."
        ) from error
    if len(rows) == 0:
        raise DataError(f"The dataset {source} has no rows.")
    names = tuple(f"{name}/{i:06d}" for name, part in splits.items() for i in range(len(part)))
    columns = _texts(rows, {*IDENTITY_COLUMNS, *PARTITION_COLUMNS, identity_column})
    columns.index = pd.Index(names)
    if len(splits) > 1 and not set(PARTITION_COLUMNS) & set(columns):
        if not listing.PARTITION_SPELLINGS.keys() >= splits.keys():
            raise DataError(
                f"{source} has the splits {', '.join(splits)}, of which not all are train, "
                "validation or test; choose one with --split."
            )
        columns["partition"] = [name.split("/")[0] for name in names]
    column = _picture_column(rows, source)
    # Only this column is read per row, not decoded, and as plain Python values.
    undecoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    content = undecoded.with_format(None)

    def open_picture(index: int) -> Path | bytes:
        value = content[index][column] or {}
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        if value.get("path"):
            return Path(value["path"])
        raise ImageError(f"Row {names[index]} has no picture.")

    # The fingerprint tells apart datasets that have no files of their own.
    files = (Path(file["filename"]) for file in rows.cache_files)
    stamp = f"{listing.stamp_of(files)} {rows._fingerprint}"
    name = Path(source).resolve().name if Path(source).is_dir() else str(source)
    table = Table(str(source), names, columns, unit="Row")
    return listing.list_pictures(name, table, open_picture, stamp, identity_column=identity_column)


def _load_splits(source: str | Path, split: str | None) -> dict[str, Any]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(
            f"{source} needs the datasets library: pip install 'hublatent[training]'."
        ) from error
    is_saved = any((Path(source) / name).is_file() for name in SAVED_DATASET[:2])
    try:
        loaded = (datasets.load_from_disk if is_saved else datasets.load_dataset)(str(source))
    # Of damaged files the library says many things, TypeError and KeyError among them.
    except (OSError, ValueError, TypeError, LookupError, AttributeError, HTTPError,
            datasets.exceptions.DatasetsError) as error:  # fmt: skip
        raise DataError(f"The dataset {source} cannot be loaded: {error}") from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if split is None:
        return splits
    if split not in splits:
        raise DataError(unknown_name(f"split of {source}", split, splits))
    return {split: splits[split]}


def _picture_column(rows: Any, source: str | Path) -> str:
    import datasets

    found = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if len(found) != 1 and "image" not in found:
        raise DataError(
            f"{source} has {len(found)} picture columns ({', '.join(found) or 'none'}); "
            "expected one, or one of the name 'image'."
        )
    return "image" if "image" in found else found[0]


def _texts(rows: Any, others: set[str | None]) -> pd.DataFrame:
    """The columns of numbers and booleans, and these others, as texts ("" where empty)."""
    kinds = {name: str(getattr(kind, "dtype", "")) for name, kind in rows.features.items()}
    wanted = [
        name for name, kind in kinds.items()
        if kind.startswith(_LABEL_KINDS) or (name in others and kind)
    ]  # fmt: skip
    table = rows.select_columns(wanted).with_format("arrow")[:]
    texts = {name: table.column(name).cast("string").to_pandas().fillna("") for name in wanted}
    return pd.DataFrame(texts, index=range(len(rows)))
