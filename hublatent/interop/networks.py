"""Generators of others as plain data: their weights by name, their settings, and what fits here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hublatent.errors import CheckpointError, shorten
from hublatent.interop.untrusted import Module, UnreadableFileError
from hublatent.model import LatentModel

Weights = dict[str, NDArray[Any]]
Rules = tuple[tuple[str, str], ...]  # a pattern of whole names, and what they become
MAX_MODULES = 5_000
MAX_DEPTH = 12
_KEYWORDS = ("synthesis_kwargs", "block_kwargs", "layer_kwargs")


@dataclass(frozen=True)
class ForeignGenerator:
    """A generator of another program, in the names and arguments of a model here.

    Attributes:
        model_class: the model that draws the same images.
        arguments: of its __init__.
        weights: by its names; without latent_covariance, and without latent_mean where unknown.
        origin: whose format it was, for the card.
    """

    model_class: type[LatentModel]
    arguments: Mapping[str, Any]
    weights: Mapping[str, NDArray[Any]]
    origin: str

    def build(self) -> LatentModel:
        """The model, in evaluation mode; its latent statistics are still to be set.

        Raises:
            UnreadableFileError: a weight is missing, too many, of another shape or not finite, or
                an argument is out of range.
        """
        name = self.model_class.__name__
        try:
            with torch.device("meta"):  # no memory yet: a few small tensors can claim a huge model
                model = self.model_class(**self.arguments)
        except CheckpointError as error:
            why = str(error).rstrip(".")
            raise UnreadableFileError(f"does not fit {name} here: {why}") from error
        expected = model.state_dict()
        width = model.latent_shape[-1]
        statistics = {"latent_mean": torch.zeros(width), "latent_covariance": torch.eye(width)}
        weights = statistics | {k: _tensor(k, value) for k, value in self.weights.items()}
        missing, extra = expected.keys() - weights.keys(), weights.keys() - expected.keys()
        if missing or extra:
            first = min(missing or extra)[:200]
            what = f"lacks the weight {first}" if missing else f"holds the extra weight {first}"
            raise UnreadableFileError(f"does not fit {name}: it {what}")
        for key, tensor in weights.items():
            if tensor.shape != expected[key].shape:
                found, wanted = tuple(tensor.shape), tuple(expected[key].shape)
                raise UnreadableFileError(
                    f"does not fit {name}: {key} has shape {found}, expected {wanted}"
                )
        model.load_state_dict(weights, strict=True, assign=True)
        return model.eval()


@contextmanager
def known_as(origin: str) -> Iterator[None]:
    """Let a complaint inside the block say in whose format the file is."""
    try:
        yield
    except UnreadableFileError as error:
        raise UnreadableFileError(f"is a checkpoint in {origin} that {error}") from error
    except CheckpointError as error:
        why = f"but out of range: {str(error).rstrip('.')}"
        raise UnreadableFileError(f"is a checkpoint in {origin}, {why}") from error
    except (ValueError, IndexError) as error:
        why = f"with weights of strange shapes ({shorten(str(error))})"
        raise UnreadableFileError(f"is a checkpoint in {origin} {why}") from error


def channel_rule(widths: Mapping[int, int]) -> tuple[int, int]:
    """channel_base and channel_max with width = min(channel_base // height, channel_max)."""
    maximum = max(widths.values())
    base = max(height * width for height, width in widths.items())
    if any(min(base // height, maximum) != width for height, width in widths.items()):
        shown = ", ".join(f"{width} at {height}" for height, width in widths.items())
        raise UnreadableFileError(f"has channels that do not follow NVIDIA's rule: {shown}")
    return base, maximum


def heights_without_gap(found: set[int]) -> list[int]:
    """The heights 4, 8, 16, ..., after checking that there is no other."""
    heights = [4 * 2**i for i in range(len(found))]
    if not found or sorted(found) != heights:
        raise UnreadableFileError(
            f"holds a generator with layers of the heights {sorted(found)[:20]}; expected 4, 8, "
            "16, ..."
        )
    return heights


def size(weights: Mapping[str, NDArray[Any]], name: str, axis: int) -> int:
    """The length of a weight along an axis; both have to be there."""
    if name not in weights or weights[name].ndim <= axis or not weights[name].shape[axis]:
        raise UnreadableFileError(f"lacks the weight {name}, or it is empty")
    return int(weights[name].shape[axis])


def mapping_arguments(weights: Mapping[str, NDArray[Any]], name: str) -> dict[str, int]:
    """The arguments of a mapping network with the weights NAME0.weight, NAME1.weight, ..."""
    found = [n for n in weights if re.fullmatch(rf"{re.escape(name)}\d{{1,2}}\.weight", n)]
    depth = max(len(found), 1)
    return {
        "latent_dim": size(weights, f"{name}{depth - 1}.weight", 0),
        "z_dim": size(weights, f"{name}0.weight", 1),
        "mapping_layers": depth,
    }


def renamed(weights: Weights, rules: Rules) -> Weights:
    """The weights by our names, without those renamed ""; an unknown name stays, to be reported."""
    found = {}
    for name, value in weights.items():
        for pattern, replacement in rules:
            if re.fullmatch(pattern, name):
                name = re.sub(pattern, replacement, name)
                break
        if name:
            found[name] = value
    return found


def children(module: Module) -> dict[str, Module]:
    """A module's direct sub-modules by name."""
    found = dict_at(module.state, "_modules").items()
    return {str(name): child for name, child in found if isinstance(child, Module)}


def walk(module: Module) -> Iterator[tuple[str, Module]]:
    """Every module with its prefix, parents first; refuses endless nesting."""
    pending, seen = [("", 0, module)], 0
    while pending:
        prefix, depth, current = pending.pop()
        seen += 1
        if seen > MAX_MODULES or depth > MAX_DEPTH:
            raise UnreadableFileError("holds modules nested without end")
        yield prefix, current
        pending += [(f"{prefix}{name}.", depth + 1, c) for name, c in children(current).items()]


def weights_of(module: Module) -> Weights:
    """A network's parameters and buffers, by the names of its state dict."""
    return {
        f"{prefix}{name}": value
        for prefix, current in walk(module)
        for kind in ("_parameters", "_buffers")
        for name, value in dict_at(current.state, kind).items()
        if isinstance(value, np.ndarray)
    }


def setting(name: str, owners: tuple[Module, ...], default: Any) -> Any:
    """A setting as the nearest module has it; the default where no writer put it down."""
    for owner in owners:
        arguments = dict_at(owner.state, "_init_kwargs")
        nested = [dict_at(arguments, key) for key in _KEYWORDS]
        for source in (owner.state, arguments, *nested):
            if isinstance(source, dict) and name in source:
                value = source[name]
                if not isinstance(value, (str, int, float, type(None))):
                    raise UnreadableFileError(f"holds a {owner.class_name} with a strange {name}")
                return value
    return default


def number(name: str, owners: tuple[Module, ...], default: float) -> float:
    """A setting that has to be a positive number."""
    value = setting(name, owners, default)
    if isinstance(value, str) or value is None or not (0 < value < math.inf):
        raise UnreadableFileError(f"holds a {owners[0].class_name} with {name} = {str(value)[:40]}")
    return float(value)


def dict_at(owner: Any, key: str) -> dict[str, Any]:
    """A dictionary in a dictionary; an empty one where there is none."""
    value = owner.get(key) if isinstance(owner, dict) else None
    return value if isinstance(value, dict) else {}


def _tensor(name: str, value: NDArray[Any]) -> Tensor:
    with np.errstate(over="ignore"):
        values = np.array(value, dtype=np.float32, order="C")
    if not np.isfinite(values).all():
        raise UnreadableFileError(f"holds NaN or infinite values in {name[:100]}")
    return torch.from_numpy(values)
