"""NVIDIA's StyleGAN2 and StyleGAN3 generators of PyTorch.

What counts are the names and shapes of the weights. A pickle or torch.save of the whole network
also tells its settings; of a state dict NVIDIA's defaults are assumed. What would not draw the same
images here is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hublatent.interop.networks import (
    ForeignGenerator,
    Weights,
    channel_rule,
    children,
    dict_at,
    heights_without_gap,
    mapping_arguments,
    number,
    renamed,
    setting,
    size,
    walk,
    weights_of,
)
from hublatent.interop.untrusted import Module, UnreadableFileError
from hublatent.models.layers import GAIN
from hublatent.models.stylegan2 import StyleGAN2
from hublatent.models.stylegan3 import CLAMP, FILTER_SIZE, OUTPUT_SCALE, OVERSAMPLING, StyleGAN3

NVIDIA = "NVIDIA's PyTorch format"
LR_MULTIPLIER = 0.01  # of the mapping network, NVIDIA's default
FIRST_RATE = 16  # samples along the width of StyleGAN3's first map, at NVIDIA's first stopband
_EMPTY = Module("Generator", {})
_STYLEGAN3_FIXED = {
    "output_scale": OUTPUT_SCALE,
    "filter_size": FILTER_SIZE,
    "lrelu_upsampling": OVERSAMPLING,
    "conv_clamp": CLAMP,
}
_STYLEGAN2_NAMES = (
    (r"mapping\.fc(\d+)\.(weight|bias)", r"mapping_network.\1.\2"),
    (r"mapping\.w_avg", r"latent_mean"),
    (r"synthesis\.b4\.const", r"const"),
    (r"synthesis\.b(\d+)\.(conv[01])\.(.+)", r"blocks.\1.\2.\3"),
    (r"synthesis\.b(\d+)\.torgb\.(.+)", r"blocks.\1.to_rgb.\2"),
)


def from_network(generator: Module, class_index: int | None = None) -> ForeignGenerator:
    """A pickled network of NVIDIA's, of StyleGAN2 or StyleGAN3."""
    parts = children(generator)
    if not {"mapping", "synthesis"} <= parts.keys():
        raise UnreadableFileError(
            f"holds a {generator.class_name[:60]}; expected a generator with mapping and synthesis"
        )
    weights = weights_of(generator)
    for layer in children(parts["mapping"]).values():
        activation = setting("activation", (layer,), "lrelu")
        if layer.class_name != "Embed" and activation not in ("lrelu", "linear"):
            raise UnreadableFileError(
                f"holds a mapping network with the activation {activation!r}; only 'lrelu' is "
                "supported"
            )
    multiplier = _mapping_multiplier(generator)
    _fold_gains(generator, weights, multiplier)
    if _is_stylegan3(weights):
        return _stylegan3(weights, generator, multiplier, class_index)
    _check_stylegan2(generator)
    return _stylegan2(weights, multiplier, _conv_clamp(generator), class_index)


def from_state_dict(weights: Weights, class_index: int | None = None) -> ForeignGenerator:
    """A state dict in NVIDIA's names, of StyleGAN2 or StyleGAN3 with NVIDIA's default settings."""
    if _is_stylegan3(weights):
        return _stylegan3(dict(weights), _EMPTY, LR_MULTIPLIER, class_index)
    return _stylegan2(dict(weights), LR_MULTIPLIER, 0.0, class_index)


def _stylegan2(
    weights: Weights, multiplier: float, conv_clamp: float, class_index: int | None
) -> ForeignGenerator:
    """StyleGAN2 of weights with NVIDIA's names and standard gains."""
    for name in [name for name in weights if name.endswith("resample_filter")]:
        check_filter(name, weights.pop(name))
    _fix_class(weights, class_index)
    blocks = [re.match(r"synthesis\.b(\d{1,5})\.", name) for name in weights]
    heights = heights_without_gap({int(match[1]) for match in blocks if match})
    if any(f"synthesis.b{height}.skip.weight" in weights for height in heights):
        _refuse_architecture("resnet")
    with_rgb = [height for height in heights if f"synthesis.b{height}.torgb.weight" in weights]
    if with_rgb == heights[-1:] != heights:
        _refuse_architecture("orig")
    _add_zero_noise(weights, heights)
    widths = {h: size(weights, f"synthesis.b{h}.conv1.weight", 0) for h in heights}
    base, maximum = channel_rule(widths)
    arguments = {
        "image_size": heights[-1],
        "channels": size(weights, f"synthesis.b{heights[-1]}.torgb.weight", 0),
        **mapping_arguments(weights, "mapping.fc"),
        "mapping_lr_multiplier": multiplier,
        "channel_base": base,
        "channel_max": maximum,
        "channel_min": 1,
        "conv_clamp": conv_clamp,
    }
    return ForeignGenerator(StyleGAN2, arguments, renamed(weights, _STYLEGAN2_NAMES), NVIDIA)


def _stylegan3(
    weights: Weights, generator: Module, multiplier: float, class_index: int | None
) -> ForeignGenerator:
    """StyleGAN3; what a state dict does not tell follows from its shapes, or is the default."""
    _fix_class(weights, class_index)
    found: dict[int, tuple[str, int, int]] = {}
    for name in weights:
        if match := re.fullmatch(r"synthesis\.(L(\d{1,2})_(\d{1,4})_(\d{1,4}))\.weight", name):
            found[int(match[2])] = (match[1], int(match[3]), int(match[4]))
    n_layers = len(found) - 1
    if sorted(found) != list(range(n_layers + 1)) or n_layers < 1:
        raise UnreadableFileError("holds a StyleGAN3 generator without its layers L0, L1, ...")
    image_size, (first, first_size, _) = found[n_layers][1], found[0]
    own = (children(generator).get("synthesis", _EMPTY), generator)
    for name, only in _STYLEGAN3_FIXED.items():
        if not math.isclose(number(name, own, only), only):
            raise UnreadableFileError(
                f"holds a StyleGAN3 generator with {name} {number(name, own, only):g}; only "
                f"{only:g} is supported"
            )
    # The last layer's cutoff is half the image's rate, so that it has channel_base / image_size.
    base = found[n_layers - 1][2] * image_size
    maximum = max(channels for _, _, channels in found.values())
    arguments = {
        "image_size": image_size,
        "channels": found[n_layers][2],
        **mapping_arguments(weights, "mapping.fc"),
        "mapping_lr_multiplier": multiplier,
        "synthesis_layers": n_layers,
        "critical_layers": int(number("num_critical", own, 2)),
        "channel_base": int(number("channel_base", own, base)),
        "channel_max": int(number("channel_max", own, maximum)),
        "first_cutoff": number("first_cutoff", own, 2),
        "first_stopband": number("first_stopband", own, 2**2.1),
        "last_stopband_rel": number("last_stopband_rel", own, 2**0.3),
        "margin_size": int(setting("margin_size", own, (first_size - FIRST_RATE) // 2) or 0),
        "kernel_size": size(weights, f"synthesis.{first}.weight", 2),
        "radial_filters": weights.get(f"synthesis.{first}.down_filter", np.zeros(1)).ndim == 2,
    }
    found_here = renamed(weights, _STYLEGAN2_NAMES[:2])
    result = ForeignGenerator(StyleGAN3, arguments, found_here, NVIDIA)
    _check_designed_filters(result)
    return result


def _check_designed_filters(generator: ForeignGenerator) -> None:
    """Refuse stored filters that are not those of the arguments: some setting is then unknown."""
    designed = StyleGAN3(**generator.arguments).state_dict()
    for name, value in designed.items():
        stored = generator.weights.get(name)
        if not name.endswith("_filter") or stored is None or stored.shape != tuple(value.shape):
            continue
        if not np.allclose(stored, value.numpy(), atol=1e-4):
            raise UnreadableFileError(
                f"holds filters ({name}) of other frequencies than its settings say; convert the "
                "whole network, not its state dict"
            )


def _fix_class(weights: Weights, class_index: int | None) -> None:
    """Fold the class into the mapping network's first layer.

    The network maps [z, y], z and y = embed(class) each normalised; with y fixed, W_y y is a part
    of the bias. Its average of W, over all classes, is not this class's and is left out.
    """
    embed = weights.pop("mapping.embed.weight", None)
    shift = weights.pop("mapping.embed.bias", None)
    if embed is None:
        if class_index is not None:
            raise UnreadableFileError(
                "holds a generator without classes, so that none can be chosen"
            )
        return
    if embed.ndim != 2 or shift is None or shift.shape != embed.shape[:1]:
        raise UnreadableFileError("holds a class embedding of a strange shape")
    n_embed, n_classes = embed.shape
    if class_index is None or not 0 <= class_index < n_classes:
        raise UnreadableFileError(
            f"holds a class-conditional generator with {n_classes} classes; choose one with "
            f"--class 0 to {n_classes - 1}"
        )
    y = embed[:, class_index].astype(np.float64) / math.sqrt(n_classes) + shift
    y = y / np.sqrt(np.mean(y**2) + 1e-8)
    weight, n_in = weights.get("mapping.fc0.weight"), size(weights, "mapping.fc0.weight", 1)
    n_z = n_in - n_embed
    if weight is None or n_z < 1 or "mapping.fc0.bias" not in weights:
        raise UnreadableFileError("holds a class-conditional generator without an input z")
    root = math.sqrt(n_in)
    weights["mapping.fc0.bias"] = weights["mapping.fc0.bias"] + weight[:, n_z:] @ y / root
    weights["mapping.fc0.weight"] = weight[:, :n_z] * (math.sqrt(n_z) / root)
    weights.pop("mapping.w_avg", None)


def _check_stylegan2(generator: Module) -> None:
    """Refuse settings with which StyleGAN2 here would draw other images."""
    synthesis = children(generator)["synthesis"]
    for block in children(synthesis).values():
        kind = setting("architecture", (block, synthesis, generator), "skip")
        if kind != "skip":
            _refuse_architecture(kind)
        for name, layer in children(block).items():
            owners = (layer, block, synthesis, generator)
            if name not in ("conv0", "conv1"):
                continue
            activation = setting("activation", owners, "lrelu")
            gain = number("act_gain", owners, GAIN)
            if activation != "lrelu" or not math.isclose(gain, GAIN, rel_tol=1e-5):
                raise UnreadableFileError(
                    f"holds a {layer.class_name} with the activation {activation!r} and gain "
                    f"{gain:g}; only 'lrelu' with the square root of 2 is supported"
                )


def _refuse_architecture(kind: Any) -> NoReturn:
    raise UnreadableFileError(
        f"holds a generator of the architecture {str(kind)[:20]!r}; only 'skip' is supported"
    )


def _conv_clamp(generator: Module) -> float:
    """The clamp of all layers; 0 where they have none."""
    synthesis = children(generator)["synthesis"]
    clamps = set()
    for block in children(synthesis).values():
        for name in children(block).keys() & {"conv0", "conv1", "torgb"}:
            owners = (children(block)[name], block, synthesis, generator)
            unset = setting("conv_clamp", owners, None) is None
            clamps.add(0.0 if unset else number("conv_clamp", owners, 0.0))
    if len(clamps) > 1:
        raise UnreadableFileError("holds layers with different conv_clamp, which is not supported")
    return clamps.pop() if clamps else 0.0


def _mapping_multiplier(generator: Module) -> float:
    mapping = children(generator)["mapping"]
    layer = children(mapping).get("fc0", _EMPTY)
    asked = Module(
        "MappingNetwork", dict_at(dict_at(generator.state, "_init_kwargs"), "mapping_kwargs")
    )
    default = number("lr_multiplier", (layer, mapping, asked), LR_MULTIPLIER)
    return number("bias_gain", (layer,), default)


def _fold_gains(generator: Module, weights: Weights, multiplier: float) -> None:
    """Multiply unusual gains into the weights, so that the forward pass uses the standard ones.

    A layer of NVIDIA's computes with weight * weight_gain and bias * bias_gain; the standard gains
    are multiplier / sqrt(inputs) and multiplier (Karras et al. 2018, section 4.1).
    """
    for prefix, module in walk(generator):
        weight = f"{prefix}weight"
        own = prefix.startswith(("mapping.fc", "mapping.embed")) or prefix.endswith(
            (".affine.", ".torgb.")
        )
        if not own or weight not in weights:
            continue
        ours = multiplier if prefix.startswith("mapping.fc") else 1.0
        gain = ours / math.sqrt(max(math.prod(weights[weight].shape[1:]), 1))
        factors = {weight: number("weight_gain", (module,), gain) / gain}
        if not prefix.endswith(".torgb."):
            factors[f"{prefix}bias"] = number("bias_gain", (module,), ours) / ours
        for name, factor in factors.items():
            if name in weights and not math.isclose(factor, 1, rel_tol=1e-6):
                weights[name] = weights[name] * np.float64(factor)


def check_filter(name: str, value: NDArray[Any]) -> None:
    taps = np.array([1.0, 3.0, 3.0, 1.0])
    kernel = (np.outer(value, value) if value.ndim == 1 else value).astype(np.float64)
    total = kernel.sum()
    if kernel.shape != (4, 4) or not np.allclose(
        kernel * 64, np.outer(taps, taps) * total, atol=1e-3
    ):
        raise UnreadableFileError(
            f"resamples by {name[:100]} and not by [1, 3, 3, 1], which is not supported"
        )


def _add_zero_noise(weights: Weights, heights: list[int]) -> None:
    """A layer that NVIDIA made without noise has neither a map nor a strength."""
    for height in heights:
        for part in ("conv0", "conv1"):
            prefix = f"synthesis.b{height}.{part}."
            names = (f"{prefix}noise_strength", f"{prefix}noise_const")
            if f"{prefix}weight" in weights and names[0] not in weights:
                weights[names[0]] = np.zeros((), np.float32)
                weights.setdefault(names[1], np.zeros((height, height), np.float32))


def _is_stylegan3(weights: Mapping[str, Any]) -> bool:
    return "synthesis.input.freqs" in weights
