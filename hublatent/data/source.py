"""Labelled pictures as a command line names them; without torch, so that --help answers at once."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hublatent.data.dataset import FaceDataset


@dataclass(frozen=True)
class DataSource:
    """The pictures that a command reads.

    Attributes:
        data: folder or Hub dataset of faces; "sprites" are drawn here.
        split: of a Hub dataset, the one split to take.
        identity_column: of a table or Hub dataset, the column that says who is on each picture; by
            default one of the usual names.
        cache: folder of the decoded images; by default ~/.cache/hublatent/datasets.
    """

    data: str
    split: str | None = None
    identity_column: str | None = None
    cache: Path | None = None

    def load(self, image_size: int, progress: bool = True, crop: int | None = None) -> FaceDataset:
        """The data set, its pictures so many pixels wide; see `hublatent.data.load_dataset`."""
        from hublatent.data.dataset import load_dataset

        options = {} if crop is None else {"crop": crop}
        return load_dataset(
            self.data, image_size, cache=self.cache, split=self.split,
            identity_column=self.identity_column, progress=progress, **options,
        )  # fmt: skip

    def words(self) -> str:
        """The options that name these pictures, as a published command may hold them."""
        from hublatent.storage import portable

        given = {"--split": self.split, "--identity-column": self.identity_column}
        options = {"--data": portable(self.data)} | {k: v for k, v in given.items() if v}
        return shlex.join(word for option in options.items() for word in option)
