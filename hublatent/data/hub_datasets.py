"""Listings of datasets of the `datasets` library: from the Hub, or saved in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hublatent.data.listing import (
    IDENTITY,
    PARTITION,
    SQUARE_CROP,
    Listing,
    draw_partition,
    parse_booleans,
    parse_identities,
    parse_partition,
    stamp_of,
)
from hublatent.errors import DataError, ImageError, unknown_name

_SAVED = ("state.json", "dataset_dict.json", "*.parquet", "data/*.parquet", "metadata.jsonl")


def is_saved_dataset(folder: Path) -> bool:
    """Whether the folder was written by save_to_disk, or holds parquet files or an imagefolder."""
    return any(path for pattern in _SAVED for path in folder.glob(pattern))


def read_hub_dataset(source: str | Path, split: str | None = None) -> Listing:
    """Read a dataset from the Hub or from a folder.

    Args:
        source: "user/name" or a folder. One column holds pictures; boolean columns, and integer
            ones of 0/1 or -1/1, are attributes; `identity` and `partition` are optional.
        split: the only split to take; None for all, which then give the partition.
    """
    splits = _load_splits(source, split)
    rows = _concatenate(splits, source)
    names = tuple(f"{name}/{i:06d}" for name, part in splits.items() for i in range(len(part)))
    picture = _picture_column(rows, source)
    texts = _label_texts(rows, picture)
    attributes, labels = _attributes(texts, source)
    for column in {IDENTITY, PARTITION} & set(texts):
        if "" in texts[column]:
            row = names[texts[column].index("")]
            raise DataError(f"The column {column} of {source} is empty in row {row}.")
    identities, people = parse_identities(texts.get(IDENTITY), names)
    if PARTITION in texts:
        partition = _partition(texts[PARTITION], f"The column {PARTITION} of {source}")
    elif len(splits) > 1:
        origin = [name for name, part in splits.items() for _ in range(len(part))]
        partition = _partition(origin, f"{source}, among its splits (one can be chosen),")
    else:
        partition = draw_partition(people)
    # The fingerprint tells apart datasets that have no files of their own.
    files = [Path(file["filename"]) for file in rows.cache_files]
    stamp = f"{stamp_of(files)} {rows._fingerprint}"
    opener = _Pictures(rows, picture, names)
    return Listing(names, attributes, labels, identities, partition, opener, stamp, SQUARE_CROP)


class _Pictures:
    """Gives the content of each row's picture, not decoded."""

    def __init__(self, rows: Any, column: str, names: Sequence[str]) -> None:
        import datasets

        undecoded = datasets.Image(decode=False)
        # Only this column is read per row, and as plain Python values.
        content = rows.select_columns([column]).cast_column(column, undecoded)
        self._content, self._column, self._names = content.with_format(None), column, names

    def __call__(self, index: int) -> Path | bytes:
        value = self._content[index][self._column]
        if value is not None and value["bytes"] is not None:
            return bytes(value["bytes"])
        if value is not None and value["path"]:
            return Path(value["path"])
        raise ImageError(f"Row {self._names[index]} has no picture.")


def _load_splits(source: str | Path, split: str | None) -> dict[str, Any]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(
            f"{source} needs the datasets library: pip install 'hublatent[training]'."
        ) from error
    folder = Path(source)
    is_saved = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
    try:
        loaded = (datasets.load_from_disk if is_saved else datasets.load_dataset)(str(source))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"The dataset {source} cannot be loaded: {error}") from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if split is None:
        return splits
    if split not in splits:
        raise DataError(unknown_name(f"split of {source}", split, splits))
    return {split: splits[split]}


def _concatenate(splits: dict[str, Any], source: str | Path) -> Any:
    import datasets

    try:
        rows = datasets.concatenate_datasets(list(splits.values()))
    except ValueError as error:
        raise DataError(
            f"The splits of {source} ({', '.join(splits)}) differ in their columns; "
            f"choose one ({error})."
        ) from error
    if len(rows) == 0:
        raise DataError(f"The dataset {source} has no rows.")
    return rows


def _picture_column(rows: Any, source: str | Path) -> str:
    import datasets

    found = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if len(found) != 1 and "image" not in found:
        raise DataError(
            f"{source} has {len(found)} picture columns ({', '.join(found) or 'none'}); "
            "expected one, or one of the name 'image'."
        )
    return "image" if "image" in found else found[0]


def _label_texts(rows: Any, picture: str) -> dict[str, list[str]]:
    """The columns that may be attributes, identity or partition, as texts ("" where empty)."""
    import datasets

    simple = (datasets.Value, datasets.ClassLabel)
    kinds = {name: kind.dtype for name, kind in rows.features.items() if isinstance(kind, simple)}
    wanted = [
        name
        for name, kind in kinds.items()
        if name in (IDENTITY, PARTITION) or kind.startswith(("bool", "int", "uint"))
    ]
    table = rows.select_columns(wanted).with_format("arrow")[:]
    return {
        name: ["" if value is None else str(value) for value in table.column(name).to_pylist()]
        for name in wanted
    }


def _attributes(
    texts: dict[str, list[str]], source: str | Path
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names (K,) and labels (N, K) of the columns that hold booleans; the others are named."""
    labels: dict[str, np.ndarray] = {}
    for name, values in texts.items():
        if name in (IDENTITY, PARTITION):
            continue
        column = parse_booleans(values)
        if isinstance(column, int):
            print(f"The column {name} is no attribute: row {column} holds {values[column]!r}.")
        else:
            labels[name] = column
    if not labels:
        raise DataError(f"{source} has no boolean column, nor one of 0/1 or -1/1, as attribute.")
    return tuple(labels), np.stack(list(labels.values()), axis=1)


def _partition(values: Sequence[str], where: str) -> np.ndarray:
    partition = parse_partition(values)
    if isinstance(partition, int):
        raise DataError(
            f"{where} has {values[partition]!r}; expected train, validation or test (0, 1 or 2)."
        )
    return partition
