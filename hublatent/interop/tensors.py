"""Arrays of NumPy and tensors of PyTorch inside files that are read as data (see unpickle.py).

While a file is read, arrays and tensors stay descriptions of its bytes. `to_numpy` checks that a
description's claims are covered by these bytes, before anything of its size is allocated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hublatent.interop.unpickle import Buildable, Global, PickleError

MAX_AXES = 8
_NUMBER_KINDS = "biuf"
_BFLOAT16 = "bfloat16"  # NumPy has none: the upper half of a float32
STORAGE_TYPES = {
    "Float": "<f4",
    "Double": "<f8",
    "Half": "<f2",
    "BFloat16": _BFLOAT16,
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "|i1",
    "Byte": "|u1",
    "Bool": "|b1",
}


class DType(Buildable):
    """A NumPy type: its code, such as "f8", and then its byte order."""

    def __init__(self, code: str, *flags: Any) -> None:
        self.code = code
        self.order = "="

    def build(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise PickleError("is damaged: it holds an array type without a byte order")
        self.order = order

    def numpy(self) -> np.dtype[Any]:
        """The number type; texts, records and dates are refused."""
        return number_type(f"{self.order}{self.code}")


@dataclass
class Array(Buildable):
    """A NumPy array: shape, type and bytes, or the list of its objects."""

    shape: tuple[int, ...] = (0,)
    dtype: DType | None = None
    fortran: bool = False
    data: Any = b""

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise PickleError("is damaged: it holds an array without shape and type")
        _, self.shape, self.dtype, self.fortran, self.data = state

    def to_numpy(self) -> NDArray[Any]:
        if not isinstance(self.dtype, DType):
            raise PickleError("is damaged: it holds an array without a type")
        return array_of_bytes(
            as_bytes(self.data), self.dtype.numpy(), self.shape, fortran=bool(self.fortran)
        )


@dataclass
class Storage:
    """A run of numbers that tensors view; a torch file gives its bytes after its first mention."""

    type_name: str
    count: int
    data: memoryview | bytes | None = None

    @property
    def item_size(self) -> int:
        return 2 if self.type_name == _BFLOAT16 else np.dtype(self.type_name).itemsize

    def to_numpy(self) -> NDArray[Any]:
        held = 0 if self.data is None else len(self.data)
        if self.data is None or held != self.count * self.item_size:
            raise PickleError(
                f"claims {self.count:,} numbers for a tensor, but holds {held:,} bytes of them"
            )
        if self.type_name != _BFLOAT16:
            return np.frombuffer(self.data, self.type_name)
        halves = np.frombuffer(self.data, "<u2").astype("<u4")
        return (halves << 16).view("<f4")


@dataclass
class Tensor:
    """A view of a storage."""

    storage: Any
    offset: Any
    size: Any
    stride: Any

    def to_numpy(self) -> NDArray[Any]:
        if not isinstance(self.storage, Storage):
            raise PickleError("is damaged: it holds a tensor without a storage")
        size, stride = _shape(self.size), _shape(self.stride)
        (offset,) = _shape((self.offset,))
        if len(size) != len(stride):
            raise PickleError("is damaged: it holds a tensor whose shape and strides disagree")
        n = math.prod(size)
        if n == 0:
            return np.zeros(0, np.float32)
        last = offset + sum((s - 1) * t for s, t in zip(size, stride, strict=True))
        # n counts as well as the last index: a stride of 0 repeats one number without end.
        if n > self.storage.count or last >= self.storage.count:
            raise PickleError(
                f"claims a tensor of shape {size}, but holds {self.storage.count:,} numbers for it"
            )
        values = self.storage.to_numpy()
        strides = [t * values.itemsize for t in stride]
        return np.lib.stride_tricks.as_strided(values[offset:], size, strides, writeable=False)


def to_numpy(value: Any) -> NDArray[Any]:
    """The numbers of an array or tensor, without a copy; read-only.

    Raises:
        PickleError: the value is neither, or claims more than its bytes hold.
    """
    if isinstance(value, (Array, Tensor, Storage)):
        return value.to_numpy()
    if isinstance(value, np.ndarray):
        return value
    raise PickleError(f"holds a {type(value).__name__} where an array is expected")


def number_type(code: str) -> np.dtype[Any]:
    """The NumPy type of a code such as "<f8"; others than numbers are refused."""
    if code[1:2] in _NUMBER_KINDS and code[2:] in ("1", "2", "4", "8"):
        try:
            return np.dtype(code)
        except TypeError:
            pass  # such as "<f1"
    raise PickleError(f"holds an array of the type {code[:20]!r}, which are no numbers")


def array_of_bytes(
    data: bytes | memoryview, dtype: np.dtype[Any], shape: Any, *, fortran: bool = False
) -> NDArray[Any]:
    """An array over bytes that have to be exactly as many as its shape needs."""
    sizes = _shape(shape)
    if math.prod(sizes) * dtype.itemsize != len(data):
        raise PickleError(
            f"claims an array of shape {sizes} and type {dtype}, but holds {len(data):,} bytes"
        )
    if not len(data):
        return np.zeros(0, dtype)
    return np.frombuffer(data, dtype).reshape(sizes, order="F" if fortran else "C")


def new_storage(type_: Any, count: Any) -> Storage:
    """A storage of a torch file, by the Global of its type, such as torch.FloatStorage."""
    name = type_.name if isinstance(type_, Global) else ""
    kind = name.removeprefix("torch.").removesuffix("Storage")
    if kind not in STORAGE_TYPES or not isinstance(count, int) or count < 0:
        raise PickleError("is damaged: it holds a storage without type or length")
    return Storage(STORAGE_TYPES[kind], count)


def scalar(dtype: Any, data: Any) -> float | int | bool:
    """A NumPy number as a Python one."""
    if not isinstance(dtype, DType):
        raise PickleError("is damaged: it holds a number without a type")
    if len(data) > 8:  # before it is copied: a pickle can repeat one long text
        raise PickleError("is damaged: it holds a number of more than 8 bytes")
    value: float | int | bool = array_of_bytes(as_bytes(data), dtype.numpy(), ()).item()
    return value


def as_bytes(value: Any) -> bytes:
    """Bytes; pickles of Python 2 hold them as a text of the characters 0 to 255."""
    if isinstance(value, bytes):
        return value
    try:
        return bytes(value.encode("latin-1"))
    except (AttributeError, UnicodeEncodeError) as error:
        raise PickleError("is damaged: it holds no bytes where an array's are expected") from error


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > MAX_AXES:
        raise PickleError("is damaged: it holds an array without a shape")
    if not all(type(n) is int and 0 <= n < 2**40 for n in value):
        raise PickleError("is damaged: it holds an array with an impossible shape")
    return value
