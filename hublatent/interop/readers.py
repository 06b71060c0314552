"""Files of NumPy, PyTorch and pickle, read as data: nothing in them is executed."""

from __future__ import annotations

import io
import mmap
import struct
import tokenize
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from hublatent.interop.tensors import (
    STORAGE_TYPES,
    Array,
    DType,
    Storage,
    Tensor,
    array_of_bytes,
    as_bytes,
    new_storage,
    number_type,
    scalar,
)
from hublatent.interop.unpickle import Budget, Global, PickleError, Resolver, run_pickle

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001
LEGACY_TORCH_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled TORCH_MAGIC
ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
)


def empty_dict() -> dict[str, Any]:
    """Not `dict` itself: that would hash what a pickle passes to it."""
    return {}


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": empty_dict,
    "builtins.set": lambda items=None: items,
    "builtins.frozenset": lambda items=None: items,
    "numpy.dtype": DType,
    "numpy.core.multiarray._reconstruct": lambda kind, shape, code: Array(),
    "numpy.core.multiarray.scalar": scalar,
    "numpy.core.numeric._frombuffer": lambda data, dtype, shape, order: Array(
        shape, dtype, order == "F", data
    ),
    "torch._utils._rebuild_tensor_v2": lambda storage, offset, size, stride, *rest: Tensor(
        storage, offset, size, stride
    ),
    "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *rest: tensor,
    "torch.Size": lambda sizes: sizes,
    "torch.device": lambda kind, index=None: kind,
}
# Mentioned as arguments, never called.
_INERT = {
    "numpy.ndarray",
    *(f"torch.{kind}Storage" for kind in STORAGE_TYPES),
    *(f"torch.{kind}" for kind in ("float16", "bfloat16", "float32", "float64", "int64")),
}


def resolver(budget: Budget, *, inside: bool = False) -> Resolver:
    """The globals of plain containers, NumPy and PyTorch.

    Args:
        budget: counts the operations of pickles inside the pickle too.
        inside: whether the pickle is itself inside a pickle; then it may not hold a further one.
    """

    def encode(text: str, encoding: str) -> bytes:
        budget.spend(len(text) // 1000)
        return as_bytes(text)  # protocol 2 writes bytes as text, always in latin1

    def load_from_bytes(data: bytes) -> Any:
        # torch's own function of this name is an unrestricted torch.load.
        budget.spend(len(data) // 1000)
        return read_torch_legacy(as_bytes(data), budget)

    table: dict[str, Callable[..., Any]] = {**_FUNCTIONS, "_codecs.encode": encode}
    if not inside:
        table["torch.storage._load_from_bytes"] = load_from_bytes

    def resolve(name: str) -> Global | None:
        for old, new in (("numpy._core.", "numpy.core."), ("__builtin__.", "builtins.")):
            if name.startswith(old):
                name = new + name.removeprefix(old)
        name = name.replace("torch.cuda.", "torch.") if name.endswith("Storage") else name
        return Global(name, table.get(name)) if name in table or name in _INERT else None

    return resolve


def read_pickle(path: Path, budget: Budget, resolve: Resolver | None = None) -> Any:
    """Read a file that is one pickle; arrays in it are Array, tensors Tensor.

    Args:
        path: the file.
        budget: counts the operations.
        resolve: the globals that are known; None takes those of `resolver`.

    Raises:
        PickleError: it is damaged or holds something else than data.
    """
    if not path.stat().st_size:
        raise PickleError("is empty")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return run_pickle(cast(BinaryIO, content), resolve or resolver(budget), budget)


def read_torch_legacy(data: bytes, budget: Budget) -> Any:
    """Read the format of torch.save before 1.6: five pickles, then the bytes of the storages.

    Raises:
        PickleError: it is damaged or holds something else than data.
    """
    stream, resolve = io.BytesIO(data), resolver(budget, inside=True)
    storages: dict[str, Storage] = {}

    def load_storage(
        kind: str, type_: Global, key: str, where: str, count: int, part_of: Any = None
    ) -> Storage:
        if part_of is not None:
            raise PickleError("holds a storage inside another one; save it with a newer torch")
        return storages.setdefault(_text(key), new_storage(type_, count))

    header = [run_pickle(stream, resolve, budget) for _ in range(3)]
    little = header[2].get("little_endian") if isinstance(header[2], dict) else None
    if header[:2] != [TORCH_MAGIC, TORCH_PROTOCOL] or little is not True:
        raise PickleError("holds something else than a torch file where one is expected")
    value = run_pickle(stream, resolve, budget, load_storage)
    _fill_storages(storages, run_pickle(stream, resolve, budget), stream, memoryview(data))
    return value


def _fill_storages(
    storages: dict[str, Storage], keys: Any, stream: io.BytesIO, view: memoryview
) -> None:
    """Give each storage its bytes: for each key a count of 8 bytes, then the numbers."""
    for key in keys if isinstance(keys, list) else ():
        storage = storages.get(_text(key))
        count = int.from_bytes(stream.read(8), "little")
        if storage is None or count != storage.count:
            raise PickleError("is truncated or damaged: its tensors' numbers are missing")
        start = stream.tell()
        storage.data = view[start : start + count * storage.item_size]
        stream.seek(start + len(storage.data))


def read_torch_zip(path: Path, budget: Budget) -> Any:
    """Read the format of torch.save since 1.6: a zip of one pickle and one file per storage.

    Raises:
        PickleError: it is damaged or holds something else than data.
    """
    with open_zip(path) as archive:
        return _read_torch_archive(archive, budget)


def _read_torch_archive(archive: zipfile.ZipFile, budget: Budget) -> Any:
    names = set(archive.namelist())
    pickles = [name for name in names if name.rsplit("/", 1)[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise PickleError("is a zip, but not one that torch.save wrote: it lacks data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in names and read_entry(archive, f"{folder}byteorder") != b"little":
        raise PickleError("was written by a big-endian machine")
    storages: dict[str, Storage] = {}

    def load_storage(kind: str, type_: Global, key: str, where: str, count: int) -> Storage:
        entry = f"{folder}data/{_text(key)}"
        if entry not in names:
            raise PickleError(f"is damaged: it lacks the storage {key[:40]!r}")
        if key not in storages:
            storages[key] = new_storage(type_, count)
            storages[key].data = read_entry(archive, entry)
        return storages[key]

    stream = io.BytesIO(read_entry(archive, pickles[0]))
    return run_pickle(stream, resolver(budget, inside=True), budget, load_storage)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip whose entries are stored uncompressed, so that it cannot unfold to gigabytes.

    Raises:
        PickleError: it is damaged, or compressed.
    """
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise PickleError("is a truncated or damaged zip") from error
    entries = archive.infolist()
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if compressed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        archive.close()
        raise PickleError("is a compressed zip, which torch.save and numpy.savez do not write")
    return archive


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one entry.

    Raises:
        PickleError: it is damaged.
    """
    try:
        return archive.read(name)
    except ZIP_ERRORS as error:
        raise PickleError("is a truncated or damaged zip") from error


def read_npy(data: bytes, budget: Budget) -> Any:
    """Read a .npy file: its array, or the one object that an object array without axes holds.

    Raises:
        PickleError: it is damaged or holds something else than data.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    except (ValueError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise PickleError("is truncated or damaged: it has no readable NumPy header") from error
    if dtype != np.dtype(object):
        rest = memoryview(data)[stream.tell() :]
        return array_of_bytes(rest, number_type(dtype.str), shape, fortran=fortran)
    array = run_pickle(stream, resolver(budget, inside=True), budget)
    is_one_object = isinstance(array, Array) and isinstance(array.data, list)
    if not is_one_object or shape != () or len(array.data) != 1:
        raise PickleError("is an array of Python objects; expected numbers, or one dictionary")
    return array.data[0]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PickleError("is damaged: it names a storage by something that is no text")
    return value
