"""Directions that others published, read from their own file formats without executing anything.

A file says little: most hold a bare array. What a format is known to mean (its space, its layers,
its scale) is written down here; what neither the file nor its format says stays absent.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hublatent.errors import DirectionError
from hublatent.interop import readers
from hublatent.interop.tensors import Array, Storage, Tensor, to_numpy
from hublatent.interop.unpickle import Budget, PickleError

MAX_FILE_BYTES = 64 << 20
MAX_WIDTH = 16_384
MAX_LAYERS = 64
MAX_COMPONENTS = 4096
KNOWN_FORMATS = (
    "InterFaceGAN, HiGAN, stylegan-encoder and few-shot .npy, encoder4editing .pt, GANSpace .pkl, "
    "hublatent .npz, lists of StyleSpace channels"
)
_ARRAYS = (Array, Storage, Tensor, np.ndarray)
_NO_CALIBRATION = ("threshold", "gain")
_NO_STATISTICS = (*_NO_CALIBRATION, "sigma", "mean")


@dataclass(frozen=True, eq=False)
class ForeignDirection:
    """A direction as its author published it.

    Attributes:
        vector: (1, D), or (L, D) with one row per layer; float32, with the file's norm.
        source_format: "interfacegan", "higan", "stylegan-encoder", "few-shot", "e4e", "e4e-pca",
            "ganspace", "npz" or "npy".
        name: the file's stem, or the name that the file gives.
        space: "z", "w" or "w+"; None where neither the file nor its format says.
        layers: the layers its author moves; None where it does not say.
        missing: what the file lacks: "threshold", "gain", "sigma", "mean", "layers", "space".
        shift_scale: its author's unit, one of which moves the latent by shift_scale * vector.
        conditioned_on: the attributes that its author held while forming it.
        metadata: what else the file says: texts and numbers.
    """

    vector: NDArray[np.float32]
    source_format: str
    name: str
    space: str | None = None
    layers: tuple[int, ...] | None = None
    missing: tuple[str, ...] = _NO_STATISTICS
    shift_scale: float | None = None
    conditioned_on: tuple[str, ...] = ()
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)


def read_foreign(path: str | Path) -> tuple[ForeignDirection, ...]:
    """Read every direction of a file in one of the published formats.

    Args:
        path: the file; its format is recognised by its content.

    Returns:
        One direction, or one per component of a PCA.

    Raises:
        DirectionError: the file is missing, damaged or hostile, or of no known format; says why.
    """
    path = Path(path)
    if not path.is_file():
        raise DirectionError(f"{path} does not exist.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DirectionError(
            f"{path} has {path.stat().st_size:,} bytes; a file of directions has at most "
            f"{MAX_FILE_BYTES:,}."
        )
    try:
        return _interpret(_read_content(path), path)
    except PickleError as error:
        raise DirectionError(f"{path} {error}.") from error


def _read_content(path: Path) -> Any:
    """The array or dictionary that a file holds."""
    with path.open("rb") as file:
        start = file.read(len(readers.LEGACY_TORCH_START))
    budget = Budget()
    if start.startswith(b"\x93NUMPY"):
        return readers.read_npy(path.read_bytes(), budget)
    if start == readers.LEGACY_TORCH_START:
        return _Torch(readers.read_torch_legacy(path.read_bytes(), budget))
    if start.startswith(b"PK"):
        return _read_zip(path, budget)
    if start.startswith(b"\x80"):
        return readers.read_pickle(path, budget)
    raise PickleError(f"is of no known format; known: {KNOWN_FORMATS}")


@dataclass
class _Torch:
    """Marks content that came from torch.save."""

    content: Any


def _read_zip(path: Path, budget: Budget) -> Any:
    with readers.open_zip(path) as archive:
        if "vector.npy" in archive.namelist():
            return _read_npz(archive, budget)
    return _Torch(readers.read_torch_zip(path, budget))


def _read_npz(archive: zipfile.ZipFile, budget: Budget) -> dict[str, Any]:
    names = set(archive.namelist()) & {f"{n}.npy" for n in ("vector", "sigma", "threshold", "gain")}
    return {
        name.removesuffix(".npy"): readers.read_npy(readers.read_entry(archive, name), budget)
        for name in names
    }


def _interpret(content: Any, path: Path) -> tuple[ForeignDirection, ...]:
    from_torch = isinstance(content, _Torch)
    content = content.content if isinstance(content, _Torch) else content
    if isinstance(content, _ARRAYS):
        raw = to_numpy(content)
        return (_from_torch(raw, path) if from_torch else _from_npy(raw, path),)
    if isinstance(content, dict):
        for keys, interpret in _DICTIONARIES:
            if keys <= content.keys():
                return interpret(content, path)
        shown = ", ".join(str(key)[:40] for key in list(content)[:8]) or "nothing"
        raise PickleError(f"is a dictionary of no known format, holding {shown}")
    raise PickleError(f"holds a {type(content).__name__}; expected an array or a dictionary")


def _from_npy(raw: NDArray[Any], path: Path) -> ForeignDirection:
    vector = _rows(raw)
    if len(vector) > 1:
        # Few-shot averages are saved with their batch axis, one row per layer without.
        kind = "few-shot" if raw.ndim == 3 else "stylegan-encoder"
        return ForeignDirection(vector, kind, path.stem, "w+")
    missing: tuple[str, ...] = (*_NO_STATISTICS, "layers")
    if raw.dtype == np.float64 and abs(np.linalg.norm(raw) - 1) < 1e-5:
        space = "w" if "_w_" in f"_{path.stem}_" else "z"
        held = re.findall(r"_c_([^_]+)", path.stem)
        missing = missing if space == "w" else _NO_STATISTICS
        return ForeignDirection(
            vector, "interfacegan", path.stem, space, missing=missing, conditioned_on=tuple(held)
        )
    if raw.dtype == np.float32 and raw.shape[:-1] == (1,):
        return ForeignDirection(vector, "higan", path.stem, "w", missing=missing)
    return ForeignDirection(vector, "npy", path.stem, missing=(*missing, "space"))


def _from_torch(raw: NDArray[Any], path: Path) -> ForeignDirection:
    vector = _rows(raw)
    if len(vector) > 1:
        return ForeignDirection(vector, "e4e", path.stem, "w+")
    return ForeignDirection(vector, "e4e", path.stem, "w", missing=(*_NO_STATISTICS, "layers"))


def _from_higan(content: dict[str, Any], path: Path) -> tuple[ForeignDirection, ...]:
    """HiGAN: the layers are a text such as "6-11", both ends included."""
    notes = _plain(content.get("meta_data"))
    vector, layers = _rows(to_numpy(content["boundary"])), None
    missing: tuple[str, ...] = (*_NO_STATISTICS, "layers")
    if "manipulate_layers" in notes:
        layers, missing = _parse_layers(str(notes["manipulate_layers"])), _NO_STATISTICS
    return (ForeignDirection(vector, "higan", path.stem, "w", layers, missing, metadata=notes),)


def _from_ganspace(content: dict[str, Any], path: Path) -> tuple[ForeignDirection, ...]:
    """GANSpace: a slider at x adds x * lat_stdev * lat_comp from edit_start to edit_end - 1."""
    notes = _plain(content)
    start, end, scale = (notes.get(key) for key in ("edit_start", "edit_end", "lat_stdev"))
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= MAX_LAYERS:
        raise PickleError(f"names the layers from {start!r} to {end!r}, which is no range")
    if not isinstance(scale, float) or not 0 < scale < np.inf:
        raise PickleError(f"has lat_stdev = {scale!r}; expected a positive number")
    space = str(notes.get("latent_space", "")).lower()
    return (
        ForeignDirection(
            _rows(to_numpy(content["lat_comp"])),
            "ganspace",
            str(notes.get("name", path.stem))[:100],
            space if space in ("z", "w") else None,
            tuple(range(start, end)),
            (*_NO_CALIBRATION, "mean") + (() if space in ("z", "w") else ("space",)),
            scale,
            metadata=notes,
        ),
    )


def _from_pca(content: dict[str, Any], path: Path) -> tuple[ForeignDirection, ...]:
    """encoder4editing: components (K, 1, D) of W around a mean, with their standard deviations."""
    components, deviations = to_numpy(content["comp"]), to_numpy(content["std"])
    n = len(deviations) if deviations.ndim == 1 else 0
    if components.ndim != 3 or components.shape[:2] != (n, 1) or not 0 < n <= MAX_COMPONENTS:
        raise PickleError(
            f"holds components of shape {components.shape} and deviations of shape "
            f"{deviations.shape}; expected (K, 1, D) and (K,)"
        )
    return tuple(
        ForeignDirection(
            _rows(components[i]),
            "e4e-pca",
            f"{path.stem} {i}",
            "w",
            missing=(*_NO_CALIBRATION, "layers"),
            shift_scale=float(deviations[i]),
            metadata={"component": i},
        )
        for i in range(n)
    )


def _from_npz(content: dict[str, Any], path: Path) -> tuple[ForeignDirection, ...]:
    """hublatent's own export; sigma and calibration belong to the model it came from."""
    raw = to_numpy(content["vector"])
    numbers = {key: to_numpy(value) for key, value in content.items() if key != "vector"}
    if any(number.ndim for number in numbers.values()):
        raise PickleError(f"holds lists where numbers are expected: {', '.join(numbers)}")
    notes = {key: float(number) for key, number in numbers.items()}
    vector = _rows(raw)
    space = "w+" if len(vector) > 1 else None
    missing = _NO_STATISTICS if space else (*_NO_STATISTICS, "space")
    return (ForeignDirection(vector, "npz", path.stem, space, missing=missing, metadata=notes),)


_DICTIONARIES: tuple[tuple[set[str], Any], ...] = (
    ({"lat_comp", "lat_stdev", "edit_start", "edit_end"}, _from_ganspace),
    ({"boundary"}, _from_higan),
    ({"comp", "std"}, _from_pca),
    ({"vector"}, _from_npz),
)


def _rows(raw: NDArray[Any]) -> NDArray[np.float32]:
    """An array of shape (D,), (1, D), (L, D) or (1, L, D) as rows (1, D) or (L, D)."""
    shape = raw.shape[1:] if raw.ndim == 3 and raw.shape[0] == 1 else raw.shape
    shape = (1, *shape) if len(shape) == 1 else shape
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_LAYERS or not 2 <= shape[1] <= MAX_WIDTH:
        raise PickleError(
            f"holds an array of shape {raw.shape}; expected a direction of shape (1, D), or (L, D) "
            "with one row per layer"
        )
    with np.errstate(over="ignore"):
        vector = np.array(raw.reshape(shape), dtype=np.float32, order="C")
    if raw.dtype.kind != "f" or not np.isfinite(vector).all() or not vector.any():
        raise PickleError("holds a direction that is zero, not finite, or not of real numbers")
    return vector


def _parse_layers(text: str) -> tuple[int, ...]:
    """ "6-11" or "0,2,4-6" as layer numbers; both ends of a range are included."""
    layers: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < MAX_LAYERS:
            raise PickleError(f"names the layers {text[:40]!r}; expected such as '6-11'")
        layers += range(first, last + 1)
    return tuple(sorted(set(layers)))


def _plain(values: Any) -> dict[str, str | int | float | bool]:
    """The texts and numbers of a dictionary."""
    items = values.items() if isinstance(values, dict) else ()
    return {str(k): v for k, v in items if isinstance(v, (str, int, float, bool))}
