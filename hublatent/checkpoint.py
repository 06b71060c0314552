"""A model's folder: config.json and model.safetensors, read strictly and written atomically."""

from __future__ import annotations

import inspect
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hublatent.errors import CheckpointError, shorten
from hublatent.storage import (
    atomic_folder_update,
    naming,
    open_safetensors,
    parse_json,
    save_safetensors,
)

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1 << 20
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
RUN_FOLDERS = ("model", "best", "latest")  # what training calls a model within its run's folder
FLOATS = {"F64", "F32", "F16", "BF16"}  # in safetensors' words; each is cast to what is expected
MAX_NAME = 100

Number = TypeVar("Number", bound=float)
Model = TypeVar("Model", bound=nn.Module)

logger = logging.getLogger("hublatent")


def folder_name(folder: Path) -> str:
    """What a model's folder is called: its own name, or its run's, as of runs/NAME/model."""
    folder = folder.expanduser().resolve()
    return folder.parent.name if folder.name in RUN_FOLDERS else folder.name


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's config.json, with at least `architecture` and `format_version`.

    Raises:
        CheckpointError: it is missing, malformed, or of a newer format.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no {CONFIG_NAME}; expected a hublatent model folder. "
            f"It holds: {_listing(folder)}."
        )
    size = path.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path} has {size:,} bytes; expected at most {MAX_CONFIG_BYTES:,}.")
    try:
        config = parse_json(path.read_text(encoding="utf-8-sig"))  # some editors write a BOM
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if not (isinstance(architecture, str) and _is_showable(architecture)):
        raise CheckpointError(
            f"{path} names no architecture; expected a JSON object with the key 'architecture'. "
            "It may be a model of another library."
        )
    version = config.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {shorten(version)}; this hublatent reads 1 to "
            f"{FORMAT_VERSION}. For a newer one, run: pip install --upgrade hublatent"
        )
    return config


def check_arguments(model_class: type, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The arguments for a model's `__init__`, whose signature is the format of its config.

    Raises:
        CheckpointError: in `where` a key is unknown or missing, or a value is no finite scalar.
    """
    parameters = init_parameters(model_class)
    arguments = {k: v for k, v in config.items() if k not in ("architecture", "format_version")}
    unknown = sorted(set(arguments) - set(parameters))
    if unknown:
        raise CheckpointError(
            f"{where} has unknown keys: {_some(unknown)}. "
            f"{model_class.__name__} takes: {', '.join(parameters)}."
        )
    needed = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
    if missing := sorted(needed - arguments.keys()):
        raise CheckpointError(f"{where} lacks: {', '.join(missing)}.")
    for name, value in arguments.items():
        is_finite = isinstance(value, float) and math.isfinite(value)
        if not is_finite and not isinstance(value, (bool, int, str)):
            raise CheckpointError(
                f"{where} has {name} = {shorten(value)}; expected a number, a text or true/false."
            )
    return arguments


def init_parameters(model_class: type) -> dict[str, inspect.Parameter]:
    """The named arguments of a class's `__init__`, without `self`."""
    return dict(list(inspect.signature(model_class.__init__).parameters.items())[1:])  # type: ignore[misc]


def check_number(name: str, value: Number, low: float, high: float, kind: type = int) -> Number:
    """Refuse an argument of another type (float accepts an int, too) or outside its range."""
    fits_type = type(value) in ((int,) if kind is int else (int, float))
    if not fits_type or not low <= value <= high:
        noun = "an integer" if kind is int else "a number"
        raise CheckpointError(f"{name} = {shorten(value)}; expected {noun} from {low} to {high}.")
    return value


def build(model_class: type[Model], arguments: Mapping[str, Any], path: Path) -> Model:
    """A model of these arguments, filled from a safetensors file.

    The file's tensors are compared with the model's before memory is taken for either.

    Raises:
        CheckpointError: an argument is out of range, or as in `load_weights`.
    """
    with torch.device("meta"):
        expected = model_class(**arguments).state_dict()
    with _fitting(path, expected, model_class):
        pass
    model = model_class(**arguments)
    load_weights(model, path)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model from a safetensors file: every tensor expected, no other, all finite.

    Weights in another floating-point format are cast, with a word in the log.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit. The model is then as it was.
    """
    expected, cast = model.state_dict(), set()
    with _fitting(path, expected, type(model)) as file:
        tensors = {name: file.get_tensor(name) for name in expected}
    for name, tensor in tensors.items():
        if tensor.dtype != expected[name].dtype:
            cast.add(str(tensor.dtype))
            tensors[name] = tensor = tensor.to(expected[name].dtype)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: the weight {name} holds NaN or infinite values.")
    if cast:
        names = ", ".join(sorted(cast))
        logger.warning("%s: weights in %s were cast to %s.", path, names, torch.float32)
    model.load_state_dict(tensors, strict=True)


def write_checkpoint(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor],
    texts: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write config.json, model.safetensors and further texts by name, all or nothing."""
    texts = {CONFIG_NAME: json.dumps(config, indent=2) + "\n", **(texts or {})}
    with atomic_folder_update(folder, (WEIGHTS_NAME, *texts)) as temporary:
        with naming(folder / WEIGHTS_NAME):
            save_safetensors(weights, temporary[WEIGHTS_NAME], {"format": "pt"})
        for name, text in texts.items():
            with naming(folder / name):
                temporary[name].write_text(text, encoding="utf-8")


@contextmanager
def _fitting(path: Path, expected: Mapping[str, Tensor], model_class: type) -> Iterator[Any]:
    """A file of weights that fit: each expected name, no other, and the same shapes and types."""
    if not path.is_file():
        pickles = sorted(p.name for p in path.parent.glob("*") if p.suffix in PICKLE_SUFFIXES)
        hint = f" Not read, since a pickle can run code: {', '.join(pickles)}." if pickles else ""
        raise CheckpointError(f"{path.parent} holds no {path.name}.{hint}")
    with open_safetensors(path, CheckpointError) as file:
        names = set(file.keys())
        missing, extra = sorted(set(expected) - names), sorted(names - set(expected))
        if missing or extra:
            parts = [f"lacks {_some(missing)}"] * bool(missing)
            parts += [f"has extra {_some(extra)}"] * bool(extra)
            how = f"it {' and '.join(parts)}"
            raise CheckpointError(f"{path} does not fit {model_class.__name__}: {how}.")
        for name, tensor in expected.items():
            piece = file.get_slice(name)
            shape, dtype = tuple(piece.get_shape()), piece.get_dtype()
            wanted = _SAFETENSORS_DTYPES[tensor.dtype]
            castable = {dtype, wanted} <= FLOATS
            if shape != tuple(tensor.shape) or not (dtype == wanted or castable):
                raise CheckpointError(
                    f"{path}: {name} has shape {shape} and type {dtype}; "
                    f"the config asks for {tuple(tensor.shape)} and {wanted}."
                )
        yield file


_SAFETENSORS_DTYPES = {
    torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def _some(names: list[str], limit: int = 3) -> str:
    shown = ", ".join(n if _is_showable(n) else shorten(n) for n in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _is_showable(name: str) -> bool:
    return len(name) <= MAX_NAME and name.isprintable()


def _listing(folder: Path, limit: int = 8) -> str:
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    return _some(names, limit) if names else "nothing"
