"""A run's folder: settings, state, log. Killed at any moment, a run goes on from its last state.

Randomness is a function of (seed, step), so a state holds no random generators, and a resumed run
ends with the weights of an unbroken one. States are safetensors with a JSON header, never pickles.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hublatent.errors import DataError
from hublatent.storage import atomic_path, only_writer, write_text

STATE_NAME = "state.safetensors"
SETTINGS_NAME = "settings.json"
LOG_NAME = "log.jsonl"
RESULTS_NAME = "results.json"  # what make_card.py reads
MODEL_FOLDER = "model"  # of a finished run, and make_card.py's default


@dataclass(frozen=True)
class Run:
    """The folder of one training, with its settings, state, log and pictures."""

    folder: Path

    @contextmanager
    def open(
        self, settings: Mapping[str, Any], is_main: bool, may_change: Collection[str] = (),
        defaults: Mapping[str, Any] = {},
    ) -> Iterator[None]:  # fmt: skip
        """Begin the run, or open it again for resuming; meanwhile no other process may.

        Args:
            settings: JSON-able values that define the run; a resumed run must have the same.
            is_main: of several processes that train together, the one that writes.
            may_change: settings of which a resumed run may have other values.
            defaults: values of settings that a run had before they could be chosen.
        """
        with only_writer(self.folder) if is_main else nullcontext():
            if is_main:
                given, usual = json.loads(json.dumps([settings, defaults]))
                _keep_settings(self.folder, given, may_change, usual)
            yield

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write nested dicts (keys: texts or integers) and lists of tensors and JSON values."""
        tensors: dict[str, Tensor] = {}
        skeleton = _take_tensors(state, "", tensors)
        with atomic_path(self.folder / STATE_NAME) as temporary:
            save_file(tensors, temporary, metadata={"skeleton": json.dumps(skeleton)})

    def load_state(self) -> dict[str, Any] | None:
        """Read the last state; None where the run is new."""
        path = self.folder / STATE_NAME
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            skeleton = json.loads(file.metadata()["skeleton"])
            return _put_tensors(skeleton, file.get_tensor)

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Write what make_card.py and other programs read of a finished run."""
        write_text(self.folder / RESULTS_NAME, json.dumps(results, indent=2) + "\n")

    def log(self, **values: Any) -> None:
        """Append a line to log.jsonl."""
        with (self.folder / LOG_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def trim_log(self, n_images: int) -> None:
        """Drop what the log says beyond the state that a resumed run starts from."""
        path = self.folder / LOG_NAME
        if not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):  # cut short by a kill
                if json.loads(line).get("images", 0) <= n_images:
                    kept.append(line + "\n")
        write_text(path, "".join(kept))


def read_results(folder: Path) -> dict[str, Any]:
    """What a run has written for make_card.py; empty where it has not."""
    path = folder / RESULTS_NAME
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a run."""
    return dict(json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8")))


def _keep_settings(
    folder: Path, given: dict[str, Any], may_change: Collection[str], defaults: dict[str, Any]
) -> None:
    """Refuse other settings than the stored ones; the file tells the latest of those that may."""
    path = folder / SETTINGS_NAME
    stored = {**defaults, **read_settings(folder)} if path.is_file() else given
    names = {*stored, *given} - set(may_change)
    different = sorted(name for name in names if stored.get(name) != given.get(name))
    if different:
        changes = ", ".join(f"{k} {stored.get(k)!r} -> {given.get(k)!r}" for k in different)
        raise DataError(
            f"{folder} holds a run with other settings ({changes}). "
            "Give the same ones to resume it, or another --out."
        )
    write_text(path, json.dumps(given, indent=2) + "\n")


def _take_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Replace each tensor by its name; integer keys and tuples survive as tagged lists."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(value, Mapping):
        items = [[k, _take_tensors(v, f"{path}/{k}", tensors)] for k, v in value.items()]
        return {"dict": items}
    if isinstance(value, (list, tuple)):
        return {"list": [_take_tensors(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]}
    return {"json": value}


def _put_tensors(skeleton: dict[str, Any], get_tensor: Callable[[str], Tensor]) -> Any:
    ((kind, value),) = skeleton.items()
    if kind == "tensor":
        return get_tensor(value)
    if kind == "dict":
        return {k: _put_tensors(v, get_tensor) for k, v in value}
    if kind == "list":
        return [_put_tensors(v, get_tensor) for v in value]
    return value
