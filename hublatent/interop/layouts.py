"""Generators of others as plain data: how each program names its weights, and what fits here.

A layout says what a weight of a model here is called in a program's file. The sizes that the model
needs follow from the shapes, so that a checkpoint without its settings is enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hublatent.checkpoint import init_parameters
from hublatent.errors import CheckpointError, shorten
from hublatent.interop.untrusted import UnreadableFileError
from hublatent.model import LatentModel
from hublatent.models.progan import ProGAN
from hublatent.models.stylegan import StyleGAN
from hublatent.models.stylegan2 import StyleGAN2
from hublatent.models.stylegan3 import StyleGAN3

Weights = dict[str, NDArray[Any]]
NVIDIA = "NVIDIA's PyTorch format"
TENSORFLOW = "NVIDIA's TensorFlow format"
ROSINALITY = "the layout of stylegan2-pytorch"
GENFORCE = "genforce's format"
MIN_HEIGHTS = 3  # 4, 8 and 16
FIRST_FUSED = 10  # the layer from which on StyleGAN's up-sampling is fused, at 128 pixels


@dataclass(frozen=True)
class ForeignGenerator:
    """Another program's generator as a model here, whose latent statistics are still to be set.

    `origin` is whose format it was in; with `has_mean` the file told the model's latent_mean.
    """

    model: LatentModel
    origin: str
    has_mean: bool


@dataclass(frozen=True)
class Layout:
    """How a program names and keeps a generator's weights.

    Attributes:
        origin: whose format it is, for messages and the card.
        model_class: the model that draws the same images.
        sign: how the name of a weight begins that only this layout has.
        layer, rgb, mapping: what stands before the names of the i-th convolution's weights, of the
            way to RGB at the i-th height, and of the mapping network's i-th layer.
        parts: what follows it, by "layer.", "rgb." or "mapping." and our name, where it differs.
        alone: the weights that belong to no layer, ours to theirs.
        noise: the name of the i-th noise map, where it does not belong to its layer.
        filters: a pattern of the names of resampling filters, which are checked.
        ignored: a pattern of names that are not needed.
        change: makes ours of an array of theirs, by our name.
        fused: whether the kernels of up-sampling layers are those of transposed convolutions:
            "auto" from 128 pixels on; None where their shapes tell.
    """

    origin: str
    model_class: type[LatentModel]
    sign: str
    layer: Callable[[int], str] = "layer{}.".format
    rgb: Callable[[int], str] = "output{}.".format
    mapping: Callable[[int], str] = "mapping.dense{}.".format
    parts: Mapping[str, str] = field(default_factory=dict)
    alone: Mapping[str, str] = field(default_factory=dict)
    noise: Callable[[int], str] | None = None
    filters: str = ""
    ignored: str = ""
    change: Callable[[str, NDArray[Any]], NDArray[Any]] = lambda name, value: value
    fused: bool | str | None = None

    def name(self, kind: str, i: int, part: str) -> str:
        """The program's name of a weight of the i-th "layer", "rgb" or "mapping"."""
        if part == "noise_const" and self.noise is not None:
            return self.noise(i)
        before = {"layer": self.layer, "rgb": self.rgb, "mapping": self.mapping}[kind](i)
        return before + self.parts.get(f"{kind}.{part}", part)

    def theirs(self, ours: str, n_heights: int) -> str:
        """The program's name of a weight of ours, in a generator with so many heights."""
        kind, i, part = _place(ours, n_heights)
        return self.name(kind, i, part) if kind else self.alone.get(ours, ours)


def _place(name: str, n_heights: int) -> tuple[str, int, str]:
    """Where a weight of ours belongs: the kind of layer ("" for none), its number, and its part."""
    if match := re.fullmatch(r"mapping_network\.(\d+)\.(.+)", name):
        return "mapping", int(match[1]), match[2]
    if match := re.fullmatch(r"layers\.(\d+)\.(.+)", name):  # of StyleGAN and ProGAN
        return "layer", int(match[1]), match[2]
    if match := re.fullmatch(r"to_rgb\.(.+)", name):
        return "rgb", n_heights - 1, match[1]
    if match := re.fullmatch(r"blocks\.(\d+)\.(?:conv([01])|to_rgb)\.(.+)", name):  # of StyleGAN2
        block = int(match[1]).bit_length() - 3
        return ("layer", 2 * block - 1 + int(match[2]), match[3]) if match[2] else (
            "rgb", block, match[3]
        )  # fmt: skip
    return "", 0, name


def read_layout(
    weights: Weights, layout: Layout, arguments: Mapping[str, Any] | None = None
) -> ForeignGenerator:
    """The generator of weights in a layout.

    Args:
        arguments: of the model's __init__: all of them, or those that no shape tells.

    Raises:
        UnreadableFileError: a weight is missing, too many, of another shape or not finite, or
            the channels are such as no model here has.
        CheckpointError: an argument is out of range.
    """
    weights = dict(weights)
    for name in [name for name in weights if re.fullmatch(layout.filters, name)]:
        _check_filter(name, weights.pop(name))
    arguments = dict(arguments or {})
    if "image_size" not in arguments:
        arguments |= _arguments(weights, layout)
    with torch.device("meta"):  # no memory yet: a few small tensors can claim a huge model
        model = layout.model_class(**arguments)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    covariance = torch.eye(*expected.pop("latent_covariance"))
    n_heights = model.image_size.bit_length() - 2
    names = {ours: layout.theirs(ours, n_heights) for ours in expected}
    mean = names["latent_mean"]
    has_mean = mean in weights
    weights.setdefault(mean, np.zeros(model.latent_dim))
    missing = [name for name in names.values() if name not in weights]
    extra = [n for n in weights if n not in names.values() and not re.fullmatch(layout.ignored, n)]
    if missing or extra:
        what = f"lacks the weight {missing[0]}" if missing else f"holds the extra weight {extra[0]}"
        raise UnreadableFileError(f"does not fit {type(model).__name__}: it {what[:200]}")
    found = {ours: layout.change(ours, weights[theirs]) for ours, theirs in names.items()}
    _unfuse(found, expected, layout.fused)
    tensors = {ours: _tensor(names[ours], found[ours], expected[ours]) for ours in names}
    tensors["latent_covariance"] = covariance
    model.load_state_dict(tensors, strict=True, assign=True)
    return ForeignGenerator(model.eval(), layout.origin, has_mean)


def _arguments(weights: Weights, layout: Layout) -> dict[str, int]:
    """The arguments of a model's __init__ that the shapes of its weights tell."""
    n = max(_count(weights, layout, "layer"), 1)
    # StyleGAN2's first height has one convolution, all others two: of each height the last counts.
    lasts = sorted(range(n - 1, -1, -2))
    if len(lasts) < MIN_HEIGHTS:
        _size(weights, layout.name("layer", n, "bias"))  # what is missing is named
    widths = {4 * 2**i: _size(weights, layout.name("layer", last, "bias"))
              for i, last in enumerate(lasts)}  # fmt: skip
    base, maximum = channel_rule(widths)
    found = {
        "image_size": max(widths), "channel_base": base, "channel_max": maximum,
        "channels": _size(weights, layout.name("rgb", len(lasts) - 1, "bias")),
    }  # fmt: skip
    takes = init_parameters(layout.model_class)
    if "channel_min" in takes:
        found["channel_min"] = 1  # no others follow NVIDIA's rule
    if "mapping_layers" in takes:
        return found | mapping_arguments(weights, layout)
    return found | {
        "latent_dim": _size(weights, layout.name("layer", 0, "weight")) // 16 // widths[4]
    }


def mapping_arguments(weights: Weights, layout: Layout) -> dict[str, int]:
    """The arguments of the mapping network."""
    depth = max(_count(weights, layout, "mapping"), 1)
    n_first = _size(weights, layout.name("mapping", 0, "bias"))
    return {
        "mapping_layers": depth,
        "z_dim": _size(weights, layout.name("mapping", 0, "weight")) // n_first,
        "latent_dim": _size(weights, layout.name("mapping", depth - 1, "bias")),
    }


def _count(weights: Weights, layout: Layout, kind: str) -> int:
    return next(i for i in count() if layout.name(kind, i, "bias") not in weights)


def _size(weights: Weights, name: str) -> int:
    if name not in weights or not weights[name].size:
        raise UnreadableFileError(f"lacks the weight {name}, or it is empty")
    return weights[name].size


def channel_rule(widths: Mapping[int, int]) -> tuple[int, int]:
    """channel_base and channel_max with width = min(channel_base // height, channel_max)."""
    maximum = max(widths.values())
    base = max(height * width for height, width in widths.items())
    if any(min(base // height, maximum) != width for height, width in widths.items()):
        shown = ", ".join(f"{width} at {height}" for height, width in widths.items())
        raise UnreadableFileError(f"has channels that do not follow NVIDIA's rule: {shown[:200]}")
    return base, maximum


def _check_filter(name: str, value: NDArray[Any]) -> None:
    taps = np.array([1.0, 3.0, 3.0, 1.0])
    kernel = (np.outer(value, value) if value.ndim == 1 else value).astype(np.float64)
    if kernel.shape != (4, 4) or not np.allclose(
        kernel * 64, np.outer(taps, taps) * kernel.sum(), atol=1e-3
    ):
        raise UnreadableFileError(
            f"resamples by {name[:100]} and not by [1, 3, 3, 1], which is not supported"
        )


def _unfuse(
    found: Weights, expected: Mapping[str, tuple[int, ...]], fused: bool | str | None
) -> None:
    """Transposed convolutions' kernels as those of convolutions after doubling the pixels."""
    names = [f"layers.{i}.weight" for i in range(2, len(found), 2)]
    names = [name for name in names if name in found and found[name].ndim == 4]
    swapped = [n for n in names if found[n].shape[:2] != expected[n][:2] == found[n].shape[1::-1]]
    if fused is None and swapped:  # where all widths are equal, nothing tells: the usual is taken
        found |= {name: found[name].swapaxes(0, 1) for name in names}
    elif fused == "auto":
        names = [n for n in names if int(n.split(".")[1]) >= FIRST_FUSED]
    elif not fused:
        return
    found |= {name: found[name][..., ::-1, ::-1] for name in names}


def _tensor(name: str, value: NDArray[Any], shape: tuple[int, ...]) -> Tensor:
    """A weight in float32 and in the shape that is expected, axes of length 1 aside."""
    if [n for n in value.shape if n != 1] != [n for n in shape if n != 1]:
        raise UnreadableFileError(
            f"does not fit: {name[:100]} has shape {value.shape}, expected {tuple(shape)}"
        )
    with np.errstate(over="ignore"):
        values = np.array(value, dtype=np.float32, order="C").reshape(shape)
    if not np.isfinite(values).all():
        raise UnreadableFileError(f"holds NaN or infinite values in {name[:100]}")
    return torch.from_numpy(values)


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
    except (ValueError, IndexError, OverflowError) as error:
        why = f"with weights of strange shapes ({shorten(str(error))})"
        raise UnreadableFileError(f"is a checkpoint in {origin} {why}") from error


def _nvidia_layer(i: int) -> str:
    block, second = divmod(i + 1, 2)
    return f"synthesis.b{4 * 2**block}.conv{second}."


def _tensorflow_layer(i: int, first: str = "Const", up: str = "Conv0_up") -> str:
    block, second = divmod(i, 2)
    height = 4 * 2**block
    part = (up, "Conv1")[second] if block else (first, "Conv")[second]
    return f"{height}x{height}/{part}/"


def _from_tensorflow(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """A variable with the axes of PyTorch."""
    if name == "layers.0.weight" and value.ndim == 2:  # ProGAN's first layer is a matrix there
        # A convolution with padding 3 sees the 4x4 kernel mirrored.
        kernel = value.reshape(len(value), -1, 4, 4).transpose(1, 0, 2, 3)
        return kernel[:, :, ::-1, ::-1]
    if name.endswith("weight") and value.ndim == 4:
        return value.transpose(3, 2, 0, 1)  # height, width, in, out
    return value.T if name.endswith("weight") else value


def _from_stylegan2(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """A weight of TensorFlow's StyleGAN2, or genforce's: what a layer did there is done here."""
    if name.endswith("affine.bias"):
        return value + 1
    return value[..., ::-1, ::-1] if name.endswith("conv0.weight") else value


_AFFINE = [(kind, part) for kind in ("layer", "rgb") for part in ("weight", "bias")]
_STYLES = {f"{kind}.affine.{part}": f"style.{part}" for kind, part in _AFFINE}
_TRUNCATION = {"latent_mean": "truncation.w_avg"}
_DLATENT_AVG = {"const": "4x4/Const/const", "latent_mean": "dlatent_avg"}
_NO_LAYER = r"(?!\d+x\d+/).*"  # variables of TensorFlow that belong to no height
LAYOUTS = (
    Layout(
        NVIDIA, StyleGAN3, "synthesis.input.", mapping="mapping.fc{}.".format,
        alone={"latent_mean": "mapping.w_avg"},
    ),
    Layout(
        NVIDIA, StyleGAN2, "synthesis.b4.", _nvidia_layer,
        lambda i: f"synthesis.b{4 * 2**i}.torgb.", "mapping.fc{}.".format,
        alone={"const": "synthesis.b4.const", "latent_mean": "mapping.w_avg"},
        filters=r".*resample_filter",
    ),
    # The decoders of e4e and pSp, and PTI's generators, too; latent_avg lies beside the weights.
    Layout(
        ROSINALITY, StyleGAN2, "input.input",
        lambda i: f"convs.{i - 1}." if i else "conv1.",
        lambda i: f"to_rgbs.{i - 1}." if i else "to_rgb1.",
        lambda i: f"style.{i + 1}.",  # style.0 normalises z
        parts={
            "layer.weight": "conv.weight", "layer.bias": "activate.bias",
            "layer.noise_strength": "noise.weight", "rgb.weight": "conv.weight",
            **{f"{kind}.affine.{part}": f"conv.modulation.{part}" for kind, part in _AFFINE},
        },
        alone={"const": "input.input", "latent_mean": "latent_avg"},
        noise="noises.noise_{}".format, filters=r".*\.kernel", ignored=r"noises\.dummy",
    ),
    Layout(
        GENFORCE, StyleGAN2, "synthesis.early_layer.",
        "synthesis.layer{}.".format, "synthesis.output{}.".format,
        parts={**_STYLES, "layer.noise_const": "noise"},
        alone={"const": "synthesis.early_layer.const", **_TRUNCATION},
        ignored=r".*kernel", change=_from_stylegan2,
    ),
    Layout(
        GENFORCE, StyleGAN, "synthesis.layer0.const",
        "synthesis.layer{}.".format, "synthesis.output{}.".format,
        parts={
            **_STYLES, "layer.noise_strength": "apply_noise.weight",
            "layer.noise_const": "apply_noise.noise",
        },
        alone={"const": "synthesis.layer0.const", **_TRUNCATION},
        ignored=r".*kernel|synthesis\.output\d+\..*", fused="auto",
    ),
    Layout(  # InterFaceGAN's port
        GENFORCE, StyleGAN, "synthesis.layer0.first_layer",
        "synthesis.layer{}.".format, "synthesis.output{}.".format,
        parts={
            "mapping.weight": "linear.weight", "mapping.bias": "wscale.bias",
            "layer.weight": "conv.weight", "layer.bias": "epilogue.bias",
            "layer.noise_strength": "epilogue.apply_noise.weight",
            "layer.noise_const": "epilogue.apply_noise.noise",
            "layer.affine.weight": "epilogue.style_mod.dense.linear.weight",
            "layer.affine.bias": "epilogue.style_mod.dense.wscale.bias",
            "rgb.weight": "conv.weight", "rgb.bias": "conv.bias",
        },
        alone={"const": "synthesis.layer0.first_layer", **_TRUNCATION},
        ignored=r".*kernel|synthesis\.output\d+\..*", fused="auto",
    ),
    Layout(GENFORCE, ProGAN, "output0.", ignored=r"output\d+\..*"),
    Layout(
        TENSORFLOW, StyleGAN2, "4x4/Conv/mod_weight", lambda i: _tensorflow_layer(i + 1),
        lambda i: f"{4 * 2**i}x{4 * 2**i}/ToRGB/", "Dense{}/".format,
        parts={f"{kind}.affine.{part}": f"mod_{part}" for kind, part in _AFFINE},
        alone=_DLATENT_AVG, noise="noise{}".format, ignored=_NO_LAYER,
        change=lambda name, value: _from_stylegan2(name, _from_tensorflow(name, value)),
    ),
    Layout(
        TENSORFLOW, StyleGAN, "4x4/Const/StyleMod/", _tensorflow_layer,
        lambda i: "ToRGB_lod0/", "Dense{}/".format,
        parts={
            "layer.affine.weight": "StyleMod/weight", "layer.affine.bias": "StyleMod/bias",
            "layer.noise_strength": "Noise/weight",
        },
        alone=_DLATENT_AVG, noise="noise{}".format, ignored=_NO_LAYER,
        change=_from_tensorflow, fused="auto",
    ),
    Layout(
        TENSORFLOW, ProGAN, "4x4/Dense/", lambda i: _tensorflow_layer(i, "Dense", "Conv0"),
        lambda i: "ToRGB_lod0/", ignored=_NO_LAYER, change=_from_tensorflow,
    ),
)  # fmt: skip
