"""A run's folder: settings, state, log. Killed at any moment, a run goes on from its last state.

Randomness is a function of (seed, step), so a state holds no random generators, and a resumed run
ends with the weights of an unbroken one. States are safetensors with a JSON header, never pickles.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import accelerate
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from hublatent.data import FaceDataset
from hublatent.errors import DataError, HublatentError
from hublatent.model import LatentModel
from hublatent.storage import atomic_path, write_text
from training.allocator import keep_freed_memory

STATE_NAME = "state.safetensors"
SETTINGS_NAME = "settings.json"
LOG_NAME = "log.jsonl"
RESULTS_NAME = "results.json"  # what make_card.py reads
MODEL_FOLDER = "model"  # of a finished run, and make_card.py's default
PRECISIONS = ("auto", "fp32", "bf16")
Result = TypeVar("Result")
Report = TypeVar("Report")
Report_co = TypeVar("Report_co", covariant=True)


@dataclass(frozen=True)
class Run:
    """The folder of one training.

    Attributes:
        folder: where settings, state, log and pictures lie.
        settings: the recipe's values; a resumed run must have the same.
    """

    folder: Path
    settings: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path, settings: Mapping[str, Any]) -> Run:
        """Start a run, or open it again for resuming.

        Args:
            folder: the run's folder; made where it is missing.
            settings: JSON-able values that define the run.

        Raises:
            DataError: the folder holds a run with other settings.
        """
        path = Path(folder)
        for torn in path.glob(f".{STATE_NAME}.*.tmp"):  # a kill while a state was being written
            torn.unlink()
        given = json.loads(json.dumps(settings))
        known = path / SETTINGS_NAME
        if known.is_file():
            stored = json.loads(known.read_text(encoding="utf-8"))
            different = sorted(k for k in {*stored, *given} if stored.get(k) != given.get(k))
            if different:
                changes = ", ".join(f"{k} {stored.get(k)!r} -> {given.get(k)!r}" for k in different)
                raise DataError(
                    f"{path} holds a run with other settings ({changes}). "
                    "Give the same ones to resume it, or another --out."
                )
        else:
            write_text(known, json.dumps(given, indent=2) + "\n")
        return cls(path, given)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the state, atomically.

        Args:
            state: nested dicts and lists of tensors and JSON values (keys: texts or integers).
        """
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

    def log(self, **values: Any) -> None:
        """Append a line to log.jsonl."""
        with (self.folder / LOG_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def trim_log(self, key: str, last: float) -> None:
        """Drop the log lines beyond the state that a resumed run starts from.

        Args:
            key: the counting value of each line, such as "images".
            last: lines with a larger value go; so does a line cut short by a kill.
        """
        path = self.folder / LOG_NAME
        if not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                continue
            if values.get(key, 0) <= last:
                kept.append(line + "\n")
        write_text(path, "".join(kept))


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A generator that depends on nothing but (seed, step, stream).

    Args:
        seed: the run's seed.
        step: the step's number.
        stream: tells apart independent uses within one step, such as processes.
    """
    generator = torch.Generator()
    # Three odd 64-bit constants spread neighbouring numbers over the whole range of seeds.
    mixed = seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB
    generator.manual_seed(mixed % (1 << 63))
    return generator


def described(model: LatentModel, dataset: FaceDataset, n_parameters: int) -> dict[str, Any]:
    """What any results.json says of a model and of the data that it was trained on."""
    return {
        "data": dataset.digest,
        "preprocessing": dataset.preprocessing,
        "n_train": len(dataset.indices("train")),
        "n_skipped": len(dataset.skipped),
        "n_parameters": n_parameters,
        "fingerprint": model.fingerprint(),
        "torch": torch.__version__,
    }


def choose_precision(requested: str, step: Callable[[str], Any], repeats: int = 3) -> str:
    """Choose between fp32 and bf16 by a quick measurement, since some machines lack fast bf16.

    Args:
        requested: "fp32" or "bf16" force the choice; "auto" measures.
        step: runs one forward and backward pass in the given precision.
        repeats: timed passes of each; the fastest counts.

    Returns:
        "fp32" or "bf16".
    """
    if requested not in PRECISIONS:
        raise DataError(f"precision {requested!r}; expected one of {', '.join(PRECISIONS)}.")
    if requested != "auto":
        return requested
    seconds = {}
    for precision in ("fp32", "bf16"):
        step(precision)
        seconds[precision] = min(_timed(lambda p=precision: step(p)) for _ in range(repeats))  # type: ignore[misc]
    chosen = min(seconds, key=seconds.__getitem__)
    print(
        f"precision: {chosen} (a step takes {seconds['fp32'] * 1e3:.0f} ms in fp32, "
        f"{seconds['bf16'] * 1e3:.0f} ms in bf16)"
    )
    return chosen


def start_accelerator() -> accelerate.Accelerator:
    """Accelerate for this process, on the GPU where there is one."""
    keep_freed_memory()
    device = getattr(torch, "accelerator", torch.cuda)  # torch.accelerator is new in 2.6
    # Without this, processes launched on a machine without a GPU would each train on their own.
    on_cpu = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not device.is_available()
    return accelerate.Accelerator(cpu=on_cpu, mixed_precision="no")


def parameter_count(model: nn.Module) -> int:
    """How many trained numbers a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def exit_on_user_error(main: Callable[[], Result]) -> Result:
    """Run a script; the user's mistakes end it with one sentence and exit code 2.

    Args:
        main: the script's body.
    """
    try:
        return main()
    except HublatentError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'A file'} cannot be read or written: {error.strerror or error}.")
    except SafetensorError as error:  # how safetensors reports a full disk
        _fail(f"A safetensors file could not be written or read: {error}.")


def _fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def _timed(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


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


class Stepper(Protocol[Report_co]):
    """A trainer, as far as a run of many steps needs it."""

    @property
    def images_seen(self) -> int:
        """Images seen so far, over all processes."""

    def step(self) -> Report_co:
        """Train on one batch."""


def run_steps(
    trainer: Stepper[Report],
    n_images: int,
    show: Callable[[Report], Mapping[str, str]],
    after_step: Callable[[Report], None] | None,
) -> None:
    """Train until so many images have been seen, with a progress bar.

    Args:
        trainer: takes the steps.
        n_images: where the training ends; a step that was begun before is finished.
        show: what of a step's report stands beside the bar.
        after_step: logs and saves; None on all but the main process, which then stay silent.
    """
    bar = tqdm(
        total=n_images,
        initial=trainer.images_seen,
        unit="image",
        mininterval=1.0 if sys.stderr.isatty() else 10.0,
        disable=after_step is None,
    )
    with bar:
        while trainer.images_seen < n_images:
            report = trainer.step()
            bar.update(trainer.images_seen - bar.n)
            if after_step is not None:
                after_step(report)
                bar.set_postfix(show(report), refresh=False)
