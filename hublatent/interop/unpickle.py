"""Pickles of NumPy and PyTorch as data; runs in the process of reader.py.

Unpickling runs a program. Here the only callables that such a program can reach are the few below,
which do no more than keep what they are given, so that whatever it does with them, nothing else is
executed. What it wastes (memory, time, the stack) the limits of the process bound, and for whatever
else a damaged program raises reader.py has one sentence.

Arrays and tensors stay descriptions of bytes until `to_numpy`, which raises where the bytes do not
cover what the descriptions claim.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

TORCH_HEADER = (0x1950A86A20F9469CFC6C, 1001)  # the magic number and version of torch.save's files
_BFLOAT16 = "bfloat16"  # NumPy has none: the upper half of a float32
STORAGES = {
    "Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": _BFLOAT16, "Long": "<i8",
    "Int": "<i4", "Short": "<i2", "Char": "|i1", "Byte": "|u1", "Bool": "|b1",
}  # fmt: skip
Bytes = bytes | memoryview


class UnreadableError(Exception):
    """A file is damaged, or holds something else than data; the message continues "it ..."."""


class Module:
    """An object of a class that is not needed here: its class's name and its attributes."""

    class_name: str
    state: Any

    def __new__(cls, *arguments: Any) -> Module:
        return named_module(cls.__name__, {}, super().__new__(cls))

    def __setstate__(self, state: Any) -> None:
        self.state = state


def named_module(class_name: str, state: Any, module: Module | None = None) -> Module:
    """A module of any class's name."""
    module = Module() if module is None else module
    module.class_name, module.state = class_name, state
    return module


class DType:
    """A NumPy type: its code, such as "f8", and then its byte order."""

    def __init__(self, code: Any, *flags: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class Array:
    """A NumPy array: shape, type and bytes, or the list of its objects."""

    def __init__(self, data: Any = b"", dtype: Any = None, shape: Any = (0,), order: Any = "C"):
        self.data, self.dtype, self.shape, self.fortran = data, dtype, shape, order == "F"

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def to_numpy(self) -> NDArray[Any]:
        numbers = np.frombuffer(
            as_bytes(self.data), number_type(self.dtype.order + self.dtype.code)
        )
        return numbers.reshape(self.shape, order="F" if self.fortran else "C")


class Storage:
    """A run of numbers that tensors view; its bytes are read when they are needed."""

    def __init__(self, kind: Any, read: Callable[[], Bytes]) -> None:
        self.is_bfloat16, self.read = STORAGES[kind] == _BFLOAT16, read
        self.dtype = np.dtype("<u2" if self.is_bfloat16 else STORAGES[kind])

    def to_numpy(self) -> NDArray[Any]:
        numbers = np.frombuffer(self.read(), self.dtype)
        return (numbers.astype("<u4") << 16).view("<f4") if self.is_bfloat16 else numbers


class Tensor:
    """A view of a storage."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def to_numpy(self) -> NDArray[Any]:
        size, stride, offset, numbers = self.size, self.stride, self.offset, self.storage.to_numpy()
        last = offset + sum((s - 1) * t for s, t in zip(size, stride, strict=True))
        # n counts as well as the last index: a stride of 0 repeats one number without end.
        if min(offset, *size, *stride, 0) < 0 or max(math.prod(size), last + 1) > len(numbers):
            raise UnreadableError(
                f"claims a tensor of shape {size}, but holds {len(numbers):,} numbers for it"
            )
        strides = [t * numbers.itemsize for t in stride]
        return np.lib.stride_tricks.as_strided(numbers[offset:], size, strides, writeable=False)


class DataUnpickler(pickle.Unpickler):
    """Python's Unpickler with the names of this module in the place of all others.

    Args:
        read_storage: gives the bytes of a torch file's storage by its key; None refuses storages.
        inside: whether the pickle is itself inside a pickle; then it may not hold a further one.
    """

    def __init__(
        self, stream: BinaryIO, read_storage: Callable[[str], Bytes] | None = None,
        inside: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(stream, encoding="latin1")  # pickles of Python 2 hold bytes as texts
        self.read_storage = read_storage
        self.names = dict(_NAMES) if inside else {**_NAMES, **_OUTER_NAMES}
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        for old, new in _RENAMED:
            full = full.replace(old, new) if full.startswith(old) else full
        if full in self.names:
            return self.names[full]
        if full.startswith(_MODULES):
            return type(name[:100], (Module,), {})
        if full.startswith("torch.") and full.removesuffix("Storage")[6:] in STORAGES:
            return full.removesuffix("Storage")[6:]
        raise UnreadableError(
            f"asks to run {shown(f'{module}.{name}')}, which is code and not data; nothing of it "
            "was run"
        )

    def persistent_load(self, identifier: Any) -> Storage:
        if self.read_storage is None:
            raise UnreadableError("refers to a storage outside itself")
        _, kind, key, _, _, *view = identifier
        if any(part is not None for part in view):
            raise UnreadableError("holds a storage inside another one; save it with a newer torch")
        if not isinstance(key, str):
            raise UnreadableError("is damaged: it names a storage by something that is no text")
        read = self.read_storage
        return self.storages.setdefault(key, Storage(kind, lambda: read(key)))


def read_torch_legacy(data: bytes) -> Any:
    """Read the format of torch.save before 1.6: five pickles, then the bytes of the storages."""
    stream, places = io.BytesIO(data), dict[str, memoryview]()
    magic, protocol, system = (DataUnpickler(stream, inside=True).load() for _ in range(3))
    if (magic, protocol) != TORCH_HEADER or system["little_endian"] is not True:
        raise UnreadableError("holds something else than a torch file where one is expected")
    unpickler = DataUnpickler(stream, places.__getitem__, inside=True)
    value, keys = unpickler.load(), DataUnpickler(stream, inside=True).load()
    for key in keys:  # for each a count of 8 bytes, then the numbers
        count = int.from_bytes(stream.read(8), "little")
        start = stream.tell()
        n_bytes = count * unpickler.storages[key].dtype.itemsize
        places[key] = memoryview(data)[start : start + n_bytes]
        stream.seek(start + len(places[key]))
    return value


def number_type(code: str) -> np.dtype[Any]:
    """The NumPy type of a code such as "<f8"; others than numbers are refused."""
    if code[1:2] in tuple("biuf") and code[2:] in ("1", "2", "4", "8"):
        return np.dtype(code)
    raise UnreadableError(f"holds an array of the type {shown(code)}, which are no numbers")


def as_bytes(value: Any, encoding: Any = "latin1") -> bytes:
    """Bytes; protocol 2 and Python 2 write them as a text of the characters 0 to 255."""
    return bytes(value) if isinstance(value, bytes | bytearray) else value.encode("latin1")


def shown(text: str) -> str:
    """A text of a file for a message: short, and printable."""
    return text if text.isprintable() and len(text) <= 100 else ascii(text[:100])


def _persistent_module(meta: Any) -> Module:
    """NVIDIA's function of this place executes the source text that lies in `meta`."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise UnreadableError("is damaged: it holds a network without a class name")
    return named_module(meta["class_name"][:100], meta.get("state"))


def _first(value: Any = None, *rest: Any) -> Any:
    return value


_RENAMED = (
    ("numpy._core.", "numpy.core."),
    ("__builtin__.", "builtins."),
    ("torch.cuda.", "torch."),
)
_MODULES = ("torch.nn.modules.", "training.networks", "dnnlib.tflib.", "tfutil.", "pathlib.")
_NAMES: dict[str, Any] = {
    "argparse.Namespace": type("Namespace", (Module,), {}),
    "builtins.frozenset": _first,
    "builtins.set": _first,
    "collections.OrderedDict": OrderedDict,
    "dnnlib.EasyDict": OrderedDict,
    "dnnlib.util.EasyDict": OrderedDict,
    "_codecs.encode": as_bytes,
    "numpy.core.multiarray._reconstruct": lambda kind, shape, code: Array(),
    "numpy.core.multiarray.scalar": lambda dtype, data: Array(data, dtype, ()).to_numpy().item(),
    "numpy.core.numeric._frombuffer": Array,
    "numpy.dtype": DType,
    "numpy.ndarray": "numpy.ndarray",  # an argument, never called; so are the texts below
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch.Size": _first,
    "torch.device": _first,
    **{f"torch.{kind}": kind for kind in ("float16", "bfloat16", "float32", "float64", "int64")},
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_module,
}
# PyTorch's own function of this name is an unrestricted torch.load.
_OUTER_NAMES = {
    "torch.storage._load_from_bytes": lambda data: read_torch_legacy(as_bytes(data)),
}
