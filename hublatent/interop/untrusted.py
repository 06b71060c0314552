"""Files of others, read in a process of its own (reader.py), so that none harms this one."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.numpy import load as load_safetensors

import hublatent
from hublatent.errors import HublatentError
from hublatent.interop.reader import DOCUMENT, memory_for, seconds_for
from hublatent.interop.unpickle import Module, named_module

__all__ = ["Content", "Module", "UnreadableFileError", "read_untrusted", "reader_command"]
_logger = logging.getLogger(__name__)
_SYSTEM_LACKS = "This system cannot limit a process's {}; only the time of the reading is limited."


class UnreadableFileError(HublatentError):
    """A file is damaged, hostile or of another kind; the message is "it ...", without its path."""


class Content(NamedTuple):
    """What a file holds.

    Attributes:
        form: "npy", "npz", "torch", "pickle" or "safetensors".
        value: made of dictionaries with texts or integers as keys, lists, texts, numbers, None,
            arrays and Modules; ... stands for a value of another kind.
    """

    form: str
    value: Any


def read_untrusted(path: Path, max_bytes: int, wanted: Sequence[str] = ()) -> Content:
    """Read a file of NumPy, PyTorch, pickle or safetensors as data; nothing in it is executed.

    Args:
        max_bytes: a larger one is refused.
        wanted: of a dictionary that has any of these keys, only these are read.

    Raises:
        UnreadableFileError: the file is missing, damaged, hostile or of another kind; or reading it
            takes more than 60 s and 1 GB beyond what its size warrants.
    """
    if not path.is_file():
        raise UnreadableFileError("does not exist" if not path.is_dir() else "is a folder")
    size = path.stat().st_size
    if size > max_bytes:
        raise UnreadableFileError(f"has {size:,} bytes; at most {max_bytes:,} are read here")
    seconds = seconds_for(size)
    try:
        exit_code, answer = _run(path, size, wanted)
    except subprocess.TimeoutExpired as error:
        raise UnreadableFileError(f"takes more than {seconds:.0f} seconds to read") from error
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror or error}") from error
    if exit_code or not answer:
        how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
        raise UnreadableFileError(
            f"is damaged or hostile: it ended the process that read it ({how}; "
            f"{memory_for(size) >> 20:,} MB of memory and {seconds:.0f} s were allowed)"
        )
    arrays = load_safetensors(answer)
    document = json.loads(arrays.pop(DOCUMENT).tobytes())
    if document["unlimited"]:
        _logger.warning(_SYSTEM_LACKS.format(" and ".join(document["unlimited"])))
    if "error" in document:
        raise UnreadableFileError(document["error"])
    return Content(document["form"], _decode(document["content"], arrays))


def reader_command(wanted: Sequence[str] = ()) -> list[str]:
    """The command that reads a file: this Python and its packages, without its start-up files."""
    root = str(Path(hublatent.__file__).resolve().parent.parent)
    paths = [str(Path(path).resolve()) for path in sys.path]
    code = (
        f"import sys; sys.path[:] = {[*paths, root]!r}; from hublatent.interop.reader import main"
    )
    return [sys.executable, "-I", "-S", "-c", f"{code}; main()", *wanted]


def _run(path: Path, size: int, wanted: Sequence[str]) -> tuple[int, bytes]:
    """Read a file in a process of its own; its exit code, and what it wrote."""
    # More threads would each take a share of the memory that is allowed.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with path.open("rb") as file:
        done = subprocess.run(
            reader_command(wanted), stdin=file, capture_output=True, timeout=seconds_for(size),
            env=environment, check=False,
        )  # fmt: skip
    return done.returncode, done.stdout


def _decode(value: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "module" in value:
        return named_module(value["module"], _decode(value["state"], arrays))
    if "dict" in value:
        return {key: _decode(item, arrays) for key, item in value["dict"]}
    return ...
