"""The process that reads a file of others: its standard input; it answers on its standard output.

It imports NumPy and no PyTorch, has limits on memory and time, and may write no file. What it
hands back is plain: a JSON document of names, texts and numbers, and the arrays it mentions, as one
safetensors file.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import zipfile
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize
from safetensors.numpy import save as save_safetensors

from hublatent.interop.unpickle import (
    STORAGES,
    Array,
    DataUnpickler,
    Module,
    Storage,
    Tensor,
    UnreadableError,
    number_type,
    read_torch_legacy,
    shown,
)

DOCUMENT = "document"
MEMORY_PER_BYTE, MEMORY = 4, 1 << 30
SECONDS, BYTES_PER_SECOND = 60, 4 << 20
MAX_UNFOLDED = 64 << 20
MAX_DEPTH, MAX_LENGTH, VALUE_LENGTH = 60, 1 << 24, 56  # of the document, in about its characters
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # its pickled magic number
_PACKED = "is compressed ({}); unpack it first"
# How files start that are none of those read here, and what they are.
_OTHERS = {
    b"version https://git-lfs":
    "is a Git LFS pointer and not the file itself; `git lfs pull` fetches it",
    b"\x1f\x8b": _PACKED.format("gzip"), b"BZh": _PACKED.format("bzip2"),
    b"\xfd7zXZ": _PACKED.format("xz"), b"7z\xbc\xaf": _PACKED.format("7z"),
    b"GGUF": "is a gguf file: control vectors of a language model (repeng, llama.cpp), which have "
    "no place in an image model",
    b"\x89HDF": "is an HDF5 file, which is not read here", b"%PDF": "is a PDF",
    b"\x89PNG": "is a picture (PNG)", b"\xff\xd8\xff": "is a picture (JPEG)",
    b"GIF8": "is a picture (GIF)", b"RIFF": "is a picture or a sound (RIFF)",
}  # fmt: skip
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head")


def seconds_for(size: int) -> float:
    """How long the reading of so many bytes may take."""
    return SECONDS + size / BYTES_PER_SECOND


def memory_for(size: int) -> int:
    """How many bytes of memory the reading of so many bytes may take."""
    return MEMORY_PER_BYTE * size + MEMORY


def main() -> None:
    """Read standard input within limits, and answer."""
    size = os.fstat(0).st_size
    unlimited = limit_process(size)
    with open(0, "rb", closefd=False) as file:
        answer = answer_for(file, size, sys.argv[1:], unlimited)
    sys.stdout.buffer.write(answer)


def limit_process(size: int) -> list[str]:
    """Limit this process for a file of so many bytes; returns what this system cannot limit."""
    try:
        import resource
    except ImportError:  # Windows
        return ["memory", "time"]
    seconds = int(seconds_for(size)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a pipe is no file
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory_for(size), memory_for(size)))
    except (ValueError, OSError):  # macOS
        return ["memory"]
    return []


def answer_for(
    file: BinaryIO, size: int, wanted: Collection[str], unlimited: Collection[str] = ()
) -> bytes:
    """The answer on a file, as the bytes of a safetensors file.

    Args:
        wanted: of a dictionary at the top that has any of these keys, only these are handed back.
        unlimited: what limits this process does not have.
    """
    encoder, kind = _Encoder(max(2 * size, MAX_UNFOLDED)), "file"
    try:
        kind = recognise(file, size)
        form, content = _READERS[kind][1](file, size)
        if isinstance(content, dict) and content.keys() & set(wanted):
            content = {key: content[key] for key in wanted if key in content}
        document = {"form": form, "content": encoder.encode(content)}
    except UnreadableError as error:
        document = {"error": str(error)}
    except RecursionError:
        document = {"error": "holds values nested without end"}
    except MemoryError:
        limit = f"{memory_for(size) >> 20:,} MB"
        text = f"asks for more than {limit} of memory, though it has only {size:,} bytes"
        document = {"error": text}
    except Exception:  # whatever the program in a damaged file, or the reader of its form, raises
        document = {"error": f"is a truncated or damaged {kind}"}
    encoded = json.dumps({**document, "unlimited": list(unlimited)}).encode("ascii")
    arrays = {} if "error" in document else encoder.arrays
    return save_safetensors({DOCUMENT: np.frombuffer(encoded, np.uint8), **arrays})


def recognise(file: BinaryIO, size: int) -> str:
    """What a file is by how it starts: a key of _READERS."""
    start = file.read(512)
    file.seek(0)
    for kind, (beginning, _) in _READERS.items():
        if beginning and start.startswith(beginning):
            return kind
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
        return "safetensors file"
    for beginning, text in _OTHERS.items():
        if start.startswith(beginning):
            raise UnreadableError(text)
    if start.lstrip().lower().startswith(_PAGES):
        raise UnreadableError(
            "is an HTML page and not the file itself: the download was answered by a page (a "
            "quota, a login, a warning); open it in a browser"
        )
    raise UnreadableError("is of no known format" if size else "is empty")


def read_npy(data: bytes) -> Any:
    """Read a .npy file: its array, or the one text or object that an array without axes holds."""
    stream, header = io.BytesIO(data), np.lib.format
    version = header.read_magic(stream)
    read = header.read_array_header_1_0 if version == (1, 0) else header.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    rest = memoryview(data)[stream.tell() :]
    if dtype.kind == "U" and shape == ():  # such as a name beside a vector
        return str(rest, "utf-32-le", "replace").rstrip("\0")
    if dtype != np.dtype(object):
        numbers = np.frombuffer(rest, number_type(dtype.str))
        return numbers.reshape(shape, order="F" if fortran else "C")
    array = DataUnpickler(stream, inside=True).load()
    is_list = isinstance(array, Array) and isinstance(array.data, list)
    if not is_list or shape != () or len(array.data) != 1:
        raise UnreadableError("is an array of Python objects; expected numbers, or one dictionary")
    return array.data[0]


def read_safetensors(data: bytes) -> dict[str, NDArray[Any]]:
    """Read a safetensors file; NumPy's own reader of them knows no bfloat16."""
    found = {}
    for name, tensor in deserialize(data):
        kind, shape, content = _SAFETENSORS.get(tensor["dtype"]), tensor["shape"], tensor["data"]
        if kind is None:
            raise UnreadableError(f"holds {shown(name)} of the type {tensor['dtype']}")
        found[name] = Storage(kind, partial(bytes, content)).to_numpy().reshape(shape)
    return found


def _read_zip(file: BinaryIO, size: int) -> tuple[str, Any]:
    """A zip of torch.save, numpy.savez or numpy.savez_compressed."""
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise UnreadableError("is a zip that holds two files of one name")
    pickles = [name for name in names if name.rsplit("/", 1)[-1] == "data.pkl"]
    unfolded = sum(entry.file_size for entry in archive.infolist())
    if unfolded > max(size, MAX_UNFOLDED if not pickles else 0):
        raise UnreadableError(f"is a zip of {size:,} bytes that unfolds to {unfolded:,}")
    if any(name.endswith("/constants.pkl") for name in names):
        raise UnreadableError(
            "is a program of TorchScript (torch.jit.save) and not weights; save its state_dict"
        )
    if len(pickles) == 1:
        return "torch", _read_torch_zip(archive, pickles[0].removesuffix("data.pkl"))
    if names and all(name.endswith(".npy") for name in names):
        return "npz", {name[:-4]: read_npy(archive.read(name)) for name in names}
    held = ", ".join(shown(name) for name in names[:5]) or "nothing"
    raise UnreadableError(f"is a zip that neither torch.save nor numpy.savez wrote; holds {held}")


def _read_torch_zip(archive: zipfile.ZipFile, folder: str) -> Any:
    names = set(archive.namelist())
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise UnreadableError("was written by a big-endian machine")

    def read_storage(key: str) -> bytes:
        if f"{folder}data/{key}" not in names:
            raise UnreadableError(f"is damaged: it lacks the storage {shown(key)}")
        return archive.read(f"{folder}data/{key}")

    stream = io.BytesIO(archive.read(f"{folder}data.pkl"))
    return DataUnpickler(stream, read_storage, inside=True).load()


_SAFETENSORS_TYPES = ("F32", "F64", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
_SAFETENSORS = dict(zip(_SAFETENSORS_TYPES, STORAGES, strict=True))  # in PyTorch's words
# What a file is for messages: how it starts, and what reads its form and content, by its size.
_READERS: dict[str, tuple[bytes, Callable[[BinaryIO, int], tuple[str, Any]]]] = {
    "zip": (b"PK\x03\x04", _read_zip),
    "NumPy file": (b"\x93NUMPY", lambda file, _: ("npy", read_npy(file.read()))),
    "PyTorch file": (LEGACY_START, lambda file, _: ("torch", read_torch_legacy(file.read()))),
    "pickle": (b"\x80", lambda file, _: ("pickle", DataUnpickler(file).load())),
    "safetensors file": (b"", lambda file, _: ("safetensors", read_safetensors(file.read()))),
}


class _Encoder:
    """Writes values down as JSON; arrays, of so many bytes in all, apart from it."""

    def __init__(self, max_bytes: int) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.bytes_left, self.length_left = max_bytes, MAX_LENGTH

    def encode(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON: {"dict": pairs}, {"module": name, "state": value}, {"array": name}."""
        self.length_left -= VALUE_LENGTH + (len(value) if isinstance(value, str) else 0)
        if depth > MAX_DEPTH or self.length_left < 0:
            raise UnreadableError("holds values nested without end")
        if value is None or isinstance(value, (str, bool, float)):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= 64 else {"other": "int"}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.encode(item, depth + 1) for item in value]
        if isinstance(value, dict):
            pairs = [[self.encode(k), self.encode(v, depth + 1)] for k, v in value.items()]
            if not all(isinstance(key, (str, int)) for key, _ in pairs):
                raise UnreadableError("has a dictionary key that is neither a text nor an integer")
            return {"dict": pairs}
        if isinstance(value, Module):
            return {"module": value.class_name, "state": self.encode(value.state, depth + 1)}
        if isinstance(value, Array | Storage | Tensor | np.ndarray):
            return {"array": self._add(value)}
        return {"other": type(value).__name__}

    def _add(self, value: Any) -> str:
        array = value if isinstance(value, np.ndarray) else value.to_numpy()
        self.bytes_left -= array.nbytes
        if self.bytes_left < 0:  # one storage can be viewed many times
            raise UnreadableError("holds more numbers than its bytes can be")
        name = str(len(self.arrays))
        self.arrays[name] = np.array(array, array.dtype.newbyteorder("<"), order="C")
        return name
