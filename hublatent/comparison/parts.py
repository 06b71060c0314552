"""Finished parts of a long measurement, one file each, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hublatent.comparison.storage import from_json, to_json
from hublatent.storage import write_text

# Raised when a measure changes, so that parts measured by an older hublatent are not used.
PARTS_VERSION = 1


class Parts:
    """Measures what is not there yet, and reads the rest.

    Values go through JSON in any case, so a resumed run gives the same as one that was never
    stopped.

    Args:
        folder: of the parts' files.
        progress: whether to show a progress bar.
    """

    def __init__(self, folder: Path, progress: bool) -> None:
        self._folder = folder
        self._bar = tqdm(
            total=0, desc="compare", unit="picture", unit_scale=True, disable=not progress
        )

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._bar.close()

    def expect(self, n_pictures: int) -> None:
        """How many pictures are to be drawn in all, for the progress bar."""
        self._bar.reset(n_pictures)

    def get(
        self,
        name: str,
        key: Mapping[str, Any],
        kind: Any,
        measure: Callable[[], Any],
        n_pictures: int = 0,
    ) -> Any:
        """The value of a part.

        Args:
            name: of its file.
            key: everything that the value depends on, as JSON.
            kind: the type of the value, for reading it.
            measure: computes it.
            n_pictures: how many pictures that means.
        """
        text = json.dumps({"version": PARTS_VERSION, **key}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = self._folder / f"{name}-{digest}.json"
        self._bar.set_postfix_str(name)
        if not path.is_file():
            write_text(path, json.dumps(to_json(measure())))
        self._bar.update(n_pictures)
        return from_json(kind, json.loads(path.read_text(encoding="utf-8")))
