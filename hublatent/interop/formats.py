"""Directions that others published, in the formats that their programs write.

A file says little: most hold a bare array. What a format is known to mean (its space, its layers,
its scale) is written down here; what neither the file nor its format says stays absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hublatent.errors import DirectionError
from hublatent.interop.untrusted import Content, UnreadableFileError, read_untrusted

MAX_FILE_BYTES = 64 << 20
MAX_WIDTH = 16_384
MAX_LAYERS = 64
MAX_COMPONENTS = 4096
KNOWN_FORMATS = (
    "InterFaceGAN, HiGAN, stylegan-encoder and few-shot .npy, encoder4editing .pt, GANSpace .pkl "
    "and .npz, SeFa's factor .pt, names with tensors in .pt or .safetensors, lists of "
    "StyleSpace channels"
)
# A row of this norm for each square root of its width is a latent: of StyleGAN's published
# directions the longest has 0.18, of its latents in W the shortest 0.3, in Z all have 1.
LATENT_NORM, MIN_LATENT_NORM = 0.25, 8.0
LATENT_NAMES = frozenset(
    ("w", "ws", "wp", "w+", "w_plus", "wplus", "z", "latent", "latents", "dlatents", "projected_w")
)
# What a single tensor is called by those who give it no name.
NO_NAMES = frozenset(("", "arr_0", "direction", "vector", "tensor", "data", "delta"))


@dataclass(frozen=True, eq=False)
class ForeignDirection:
    """A direction as its author published it.

    Attributes:
        vector: (1, D), or (L, D) with one row per layer; float32, with the file's norm.
        source_format: such as "interfacegan", "higan" or "ganspace".
        name: the file's stem, or the name that the file gives.
        space: "z", "w" or "w+"; None where neither the file nor its format says.
        layers: the layers its author moves; None where it does not say.
        shift_scale: its author's unit, one of which moves the latent by shift_scale * vector.
        conditioned_on: the attributes that its author held while forming it.
        is_component: whether it is one of several components, which have numbers and no names.
    """

    vector: NDArray[np.float32]
    source_format: str
    name: str
    space: str | None = None
    layers: tuple[int, ...] | None = None
    shift_scale: float | None = None
    conditioned_on: tuple[str, ...] = ()
    is_component: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """What the file lacks: "threshold", "gain", "sigma", "mean", "layers", "space"."""
        lacks = {
            "sigma": self.shift_scale is None,
            "mean": self.shift_scale is None or not self.is_component,
            "layers": self.layers is None and len(self.vector) == 1 and self.space != "z",
            "space": self.space is None,
        }
        return ("threshold", "gain", *(name for name, lacking in lacks.items() if lacking))


def read_foreign(path: str | Path) -> tuple[ForeignDirection, ...]:
    """Read every direction of a file in one of the published formats, recognised by its content.

    Returns:
        One direction, or one per component of a PCA, or per name in the file.

    Raises:
        DirectionError: the file is missing, damaged or hostile, of no known format, or holds
            latents; says which.
    """
    path = Path(path)
    try:
        return _interpret(read_untrusted(path, MAX_FILE_BYTES), path.stem)
    except UnreadableFileError as error:
        text = str(error)
        is_other = "no known format" in text or text.startswith(("is a picture", "is a folder"))
        known = f"; known: {KNOWN_FORMATS}" if is_other else ""
        raise DirectionError(f"{path} {text}{known}.") from error


def read_latents(path: str | Path, latent_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Read the one array of latents of a file, such as the projected_w.npz of NVIDIA's projector.

    Returns:
        (B, *latent_shape), float32; a row (1, D) is repeated for every layer.

    Raises:
        DirectionError: the file is missing, damaged or hostile, or holds no such latents.
    """
    path = Path(path)
    try:
        value = read_untrusted(path, MAX_FILE_BYTES).value
        if isinstance(value, dict):
            arrays = [v for v in value.values() if isinstance(v, np.ndarray)]
            value = arrays[0] if len(arrays) == 1 else value
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not value.size:
            raise UnreadableFileError("holds no single array of numbers; expected latents")
        return _as_latents(value, latent_shape)
    except UnreadableFileError as error:
        raise DirectionError(f"{path} {error}.") from error


def _as_latents(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        latents = array.astype(np.float32)
    if latents.shape[-len(shape) :] == shape:
        latents = latents.reshape(-1, *shape)
    elif latents.shape[-1] == shape[-1] and (latents.ndim < 3 or latents.shape[1] == 1):
        rows = latents.reshape(-1, 1, shape[-1])  # a code of W, for every layer
        latents = np.repeat(rows, shape[0], axis=1)
    else:
        raise UnreadableFileError(
            f"holds an array of shape {array.shape}; the model's latents have {shape}"
        )
    if not np.isfinite(latents).all():
        raise UnreadableFileError("holds latents with NaN or infinite values")
    return latents


def _interpret(content: Content, stem: str) -> tuple[ForeignDirection, ...]:
    value = content.value
    if isinstance(value, np.ndarray):
        from_array = _from_torch if content.form == "torch" else _from_npy
        return (_no_latent(from_array(value, stem)),)
    if isinstance(value, dict):
        for keys, interpret in _DICTIONARIES:
            if keys <= value.keys():
                return interpret(value, stem)
        return _from_names(value, stem)
    kind = "a list" if isinstance(value, list) else f"one {type(value).__name__}"
    raise UnreadableFileError(f"holds {kind}; expected an array or a dictionary")


def _from_npy(raw: NDArray[Any], stem: str) -> ForeignDirection:
    vector = _rows(raw)
    if len(vector) > 1:
        # Few-shot averages are saved with their batch axis, one row per layer without.
        kind = "few-shot" if raw.ndim == 3 else "stylegan-encoder"
        return ForeignDirection(vector, kind, stem, "w+")
    is_unit = abs(np.linalg.norm(raw.astype(np.float64)) - 1) < 1e-5
    if is_unit and raw.dtype == np.float64 and stem.endswith("_boundary"):
        # InterFaceGAN's own names: its boundaries are in Z unless "_w_" says otherwise.
        held = tuple(re.findall(r"_c_([^_]+)", stem))
        space = "w" if "_w_" in stem else "z"
        return ForeignDirection(vector, "interfacegan", stem, space, conditioned_on=held)
    if raw.dtype == np.float32 and re.fullmatch(r"stylegan2?_[^_]+_.+_boundary", stem):
        return ForeignDirection(vector, "higan", stem, "w")
    return ForeignDirection(vector, "npy", stem)


def _from_torch(raw: NDArray[Any], stem: str) -> ForeignDirection:
    vector = _rows(raw)
    return ForeignDirection(vector, "e4e", stem, "w+" if len(vector) > 1 else None)


def _from_higan(content: dict[str, Any], stem: str) -> tuple[ForeignDirection, ...]:
    """HiGAN and In-Domain Inversion: the layers are a text such as "6-11", or a list."""
    notes = content.get("meta_data")
    notes = notes if isinstance(notes, dict) else {}
    layers = _parse_layers(notes["manipulate_layers"]) if "manipulate_layers" in notes else None
    vector = _rows(content["boundary"])
    space = "w" if len(vector) == 1 else "w+"
    return (ForeignDirection(vector, "higan", stem, space, layers),)


def _from_ganspace(content: dict[str, Any], stem: str) -> tuple[ForeignDirection, ...]:
    """GANSpace: a slider at x adds x * lat_stdev * lat_comp from edit_start to edit_end - 1."""
    start, end, scale = (content[key] for key in ("edit_start", "edit_end", "lat_stdev"))
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= MAX_LAYERS:
        raise UnreadableFileError(f"names the layers from {start!r} to {end!r}, which is no range")
    if not isinstance(scale, float) or not 0 < scale < np.inf:
        raise UnreadableFileError(f"has lat_stdev = {scale!r}; expected a positive number")
    space = {"z": "z", "w": "w"}.get(str(content.get("latent_space", "")).lower())
    vector, name = _rows(content["lat_comp"]), str(content.get("name", stem))[:100]
    return (ForeignDirection(vector, "ganspace", name, space, tuple(range(start, end)), scale),)


def _from_components(content: dict[str, Any], stem: str) -> tuple[ForeignDirection, ...]:
    """Components (K, 1, D) and their standard deviations.

    Of encoder4editing they are in W; in GANSpace's own cache, where its name ends with "_w".
    """
    if "comp" in content:
        components, deviations, kind, space = content["comp"], content["std"], "e4e-pca", "w"
    else:
        components, deviations, kind = content["lat_comp"], content["lat_stdev"], "ganspace"
        space = "w" if stem.endswith("_w") else ""
    found = [v.shape if isinstance(v, np.ndarray) else None for v in (components, deviations)]
    n = len(deviations) if found[1] else 0
    if found != [(n, 1, components.shape[-1] if found[0] else 0), (n,)] or n > MAX_COMPONENTS:
        raise UnreadableFileError(
            f"holds components of shape {found[0]} and deviations of shape {found[1]}; expected "
            "(K, 1, D) and (K,)"
        )
    rows = _numbered(components, kind, stem, space or None)
    return tuple(replace(r, shift_scale=float(s)) for r, s in zip(rows, deviations, strict=True))


def _from_factor(content: dict[str, Any], stem: str) -> tuple[ForeignDirection, ...]:
    """SeFa, as stylegan2-pytorch writes it: the columns of `eigvec` (D, K) are directions of W."""
    vectors = content["eigvec"]
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise UnreadableFileError("holds an `eigvec` that is no matrix")
    is_short = vectors.shape[1] <= min(vectors.shape[0], MAX_COMPONENTS)
    if not is_short or not np.allclose(np.linalg.norm(vectors, axis=0), 1, atol=1e-3):
        raise UnreadableFileError("holds an `eigvec` whose columns are no unit vectors")
    return _numbered(vectors.T, "sefa", stem, "w")


def _numbered(
    rows: NDArray[Any], source_format: str, stem: str, space: str | None
) -> tuple[ForeignDirection, ...]:
    return tuple(
        ForeignDirection(_rows(row), source_format, f"{stem} {i}", space, is_component=True)
        for i, row in enumerate(rows)
    )


def _from_names(content: dict[Any, Any], stem: str) -> tuple[ForeignDirection, ...]:
    """Names with arrays: one direction for each name."""
    arrays = {str(key): v for key, v in content.items() if isinstance(v, np.ndarray) and v.ndim}
    held = ascii(", ".join(str(key)[:40] for key in list(content)[:8]) or "nothing")[1:-1]
    unknown = f"is a dictionary of no known format, holding {held}"
    if any(name.endswith(".vector") for name in arrays):
        raise UnreadableFileError("is a direction file of hublatent; DirectionSet.load reads it")
    if not arrays or not all(
        isinstance(v, (str, int, float, np.ndarray)) for v in content.values()
    ):
        raise UnreadableFileError(unknown)
    if len(arrays) > MAX_COMPONENTS:
        raise UnreadableFileError(
            f"holds {len(arrays):,} arrays; at most {MAX_COMPONENTS:,} are read as directions"
        )
    if latents := sorted(arrays.keys() & LATENT_NAMES):
        raise UnreadableFileError(_latents_text(f"it names them {latents[0]!r}"))
    try:
        rows = {name: _rows(value) for name, value in arrays.items()}
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{unknown}: {error}" if len(arrays) == 1 else unknown) from error
    return tuple(
        _no_latent(
            ForeignDirection(
                vector, "named", stem if len(rows) == 1 and name in NO_NAMES else name,
                "w+" if len(vector) > 1 else None,
            )
        )
        for name, vector in rows.items()
    )  # fmt: skip


_DICTIONARIES: tuple[tuple[set[str], Any], ...] = (
    ({"lat_comp", "lat_stdev", "edit_start", "edit_end"}, _from_ganspace),
    ({"lat_comp", "lat_stdev", "lat_mean"}, _from_components),
    ({"boundary"}, _from_higan),
    ({"comp", "std"}, _from_components),
    ({"eigvec"}, _from_factor),
)


def _no_latent(found: ForeignDirection) -> ForeignDirection:
    """The direction, unless it is as long as only latents are."""
    norm = float(np.linalg.norm(found.vector, axis=1).mean())
    if norm > max(LATENT_NORM * found.vector.shape[1] ** 0.5, MIN_LATENT_NORM):
        raise UnreadableFileError(_latents_text(f"their rows have the norm {norm:.1f}"))
    return found


def _latents_text(why: str) -> str:
    return (
        f"holds latents and no direction ({why}): `edit` takes them in the place of a picture; if "
        "they are directions after all, scale them to norm 1"
    )


def _rows(raw: Any) -> NDArray[np.float32]:
    """An array of shape (D,), (1, D), (L, D) or (1, L, D) as rows (1, D) or (L, D)."""
    if not isinstance(raw, np.ndarray):
        raise UnreadableFileError(f"holds a {type(raw).__name__} where an array is expected")
    shape = raw.shape[1:] if raw.ndim == 3 and raw.shape[0] == 1 else raw.shape
    shape = (1, *shape) if len(shape) == 1 else shape
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_LAYERS or not 2 <= shape[1] <= MAX_WIDTH:
        raise UnreadableFileError(
            f"holds an array of shape {raw.shape}; expected a direction of shape (1, D), or (L, D) "
            "with one row per layer"
        )
    with np.errstate(over="ignore"):
        vector = np.array(raw.reshape(shape), dtype=np.float32, order="C")
    if raw.dtype.kind != "f" or not np.isfinite(vector).all() or not vector.any():
        raise UnreadableFileError(
            "holds a direction that is zero, not finite, or not of real numbers"
        )
    return vector


def _parse_layers(layers: Any) -> tuple[int, ...]:
    """ "6-11", "0,2,4-6" (both ends of a range are included) or [0, 1, 2] as layer numbers."""
    if isinstance(layers, np.ndarray):
        layers = layers.ravel().tolist()
    parts = layers if isinstance(layers, list) else str(layers).replace(" ", "").split(",")
    found: set[int] = set()
    for part in parts:
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", str(part))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < MAX_LAYERS:
            shown = ascii(layers)[:40]
            raise UnreadableFileError(f"names the layers {shown}; expected such as '6-11'")
        found |= set(range(first, last + 1))
    if not found:
        raise UnreadableFileError("names no layers, which its author says the edit moves")
    return tuple(sorted(found))
