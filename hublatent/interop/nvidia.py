"""NVIDIA's networks of PyTorch (StyleGAN2, StyleGAN3), and pickles of TensorFlow's time.

A pickle or torch.save of a whole network tells its settings beside its weights; of a state dict
NVIDIA's defaults are assumed. What would not draw the same images here is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from hublatent.interop.layouts import (
    ForeignGenerator,
    Layout,
    Weights,
    mapping_arguments,
    read_layout,
)
from hublatent.interop.untrusted import Module, UnreadableFileError
from hublatent.models.layers import GAIN
from hublatent.models.stylegan3 import CLAMP, FILTER_SIZE, OUTPUT_SCALE, OVERSAMPLING, StyleGAN3

LR_MULTIPLIER = 0.01  # of the mapping network, NVIDIA's default
FIRST_RATE = 16  # samples along the width of StyleGAN3's first map, at NVIDIA's first stopband
MAX_MODULES, MAX_DEPTH = 5_000, 12
_KEYWORDS = ("synthesis_kwargs", "block_kwargs", "layer_kwargs")
_STYLEGAN3_FIXED = {
    "output_scale": OUTPUT_SCALE, "filter_size": FILTER_SIZE, "lrelu_upsampling": OVERSAMPLING,
    "conv_clamp": CLAMP,
}  # fmt: skip


@dataclass
class Network:
    """A network of PyTorch: its weights by the names of its state dict; and its modules by their
    dotted names, "" for itself, where it was pickled whole.
    """

    weights: Weights
    modules: dict[str, Module]

    @classmethod
    def of(cls, module: Module) -> Network:
        """A pickled network; refuses endless nesting."""
        network = cls({}, {})
        pending = [("", module)]
        while pending:
            prefix, current = pending.pop()
            if len(network.modules) > MAX_MODULES or prefix.count(".") > MAX_DEPTH:
                raise UnreadableFileError("holds modules nested without end")
            network.modules[prefix[:-1]] = current
            children = dict_at(current.state, "_modules").items()
            pending += [(f"{prefix}{n}.", c) for n, c in children if isinstance(c, Module)]
            for kind in ("_parameters", "_buffers"):
                for name, value in dict_at(current.state, kind).items():
                    if isinstance(value, np.ndarray):
                        network.weights[f"{prefix}{name}"] = value
        if not {"mapping", "synthesis"} <= network.modules.keys():
            raise UnreadableFileError(
                f"holds a {module.class_name[:60]}; expected a generator with mapping and synthesis"
            )
        return network

    def setting(self, module: str, name: str, default: Any) -> Any:
        """A setting as a module, or the nearest around it, has it; the default where none does.

        A writer may leave attributes out; then the constructors' arguments tell.
        """
        keywords = ("mapping_kwargs",) if module.startswith("mapping") else _KEYWORDS
        parts = module.split(".")
        for around in [".".join(parts[:n]) for n in range(len(parts), -1, -1)]:
            state = self.modules[around].state if around in self.modules else {}
            arguments = dict_at(state, "_init_kwargs")
            for source in (state, arguments, *(dict_at(arguments, key) for key in keywords)):
                if isinstance(source, dict) and name in source:
                    if not isinstance(source[name], (str, int, float, type(None))):
                        raise UnreadableFileError(f"holds a {module[:60]} with a strange {name}")
                    return source[name]
        return default

    def number(self, module: str, name: str, default: float) -> float:
        """A setting that has to be a positive number."""
        value = self.setting(module, name, default)
        if isinstance(value, str) or value is None or not 0 < value < math.inf:
            raise UnreadableFileError(f"holds a {module[:60]} with {name} = {str(value)[:40]}")
        return float(value)


def read_nvidia(network: Network, layout: Layout, class_index: int | None) -> ForeignGenerator:
    """NVIDIA's StyleGAN2 or StyleGAN3; of a state dict with NVIDIA's default settings."""
    for name in network.modules:
        if re.fullmatch(r"mapping\.\w+", name):
            _check_activation(network, name, ("lrelu", "linear"))
    default = network.number("mapping.fc0", "lr_multiplier", LR_MULTIPLIER)
    multiplier = network.number("mapping.fc0", "bias_gain", default)
    _fold_gains(network, multiplier)
    fix_class(network.weights, class_index)
    is_stylegan3 = layout.model_class is StyleGAN3
    arguments = _stylegan3(network, layout) if is_stylegan3 else _stylegan2(network)
    arguments["mapping_lr_multiplier"] = multiplier
    generator = read_layout(network.weights, layout, arguments)
    if is_stylegan3:
        _check_designed_filters(arguments, network.weights)
    return generator


def fix_class(weights: Weights, class_index: int | None) -> None:
    """Fold the class of a class-conditional generator into its mapping network's first layer.

    The network maps [z, y], z and y = embed(class) each normalised; with y fixed, W_y y is a part
    of the bias. Its average of W, over all classes, is not this class's and is left out.
    """
    embed, shift = (weights.pop(f"mapping.embed.{part}", None) for part in ("weight", "bias"))
    if embed is None:
        if class_index is None:
            return
        raise UnreadableFileError("holds a generator without classes, so that none can be chosen")
    if embed.ndim != 2 or shift is None or shift.shape != embed.shape[:1]:
        raise UnreadableFileError("holds a class embedding of a strange shape")
    n_embed, n_classes = embed.shape
    if class_index is None or not 0 <= class_index < n_classes:
        raise UnreadableFileError(
            f"holds a class-conditional generator with {n_classes} classes; choose one with "
            f"--class 0 to {n_classes - 1}"
        )
    weight, bias = (weights.get(f"mapping.fc0.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim != 2 or weight.shape[1] <= n_embed:
        raise UnreadableFileError("holds a class-conditional generator without an input z")
    y = embed[:, class_index].astype(np.float64) / math.sqrt(n_classes) + shift
    y = y / np.sqrt(np.mean(y**2) + 1e-8)
    n_in = weight.shape[1]
    n_z = n_in - n_embed
    weights["mapping.fc0.bias"] = bias + weight[:, n_z:] @ y / math.sqrt(n_in)
    weights["mapping.fc0.weight"] = weight[:, :n_z] * math.sqrt(n_z / n_in)
    weights.pop("mapping.w_avg", None)


def _stylegan2(network: Network) -> dict[str, Any]:
    """What its settings add to StyleGAN2's arguments, after a check that it would draw the same."""
    weights = network.weights
    heights = {int(m[1]) for n in weights if (m := re.match(r"synthesis\.b(\d{1,5})\.", n))}
    with_rgb = {h for h in heights if f"synthesis.b{h}.torgb.weight" in weights}
    if any(name.endswith(".skip.weight") for name in weights):
        _refuse_architecture("resnet")
    if with_rgb == {max(heights)} != heights:
        _refuse_architecture("orig")
    clamps = set()
    for name in network.modules:
        if match := re.fullmatch(r"synthesis\.b\d+\.(conv[01]|torgb)", name):
            if (kind := network.setting(name, "architecture", "skip")) != "skip":
                _refuse_architecture(kind)
            if match[1] != "torgb":
                _check_activation(network, name, ("lrelu",))
                gain = network.number(name, "act_gain", GAIN)
                if not math.isclose(gain, GAIN, rel_tol=1e-5):
                    raise UnreadableFileError(
                        f"holds a {name} with the gain {gain:g}; only the square root of 2 is "
                        "supported"
                    )
            unset = network.setting(name, "conv_clamp", None) is None
            clamps.add(0.0 if unset else network.number(name, "conv_clamp", 0.0))
    if len(clamps) > 1:
        raise UnreadableFileError("holds layers with different conv_clamp, which is not supported")
    for name in list(weights):  # a layer that was made without noise has no map and no strength
        match = re.fullmatch(r"(synthesis\.b(\d{1,4})\.conv[01]\.)weight", name)
        if match and f"{match[1]}noise_strength" not in weights:
            weights[f"{match[1]}noise_strength"] = np.zeros(())
            # A view of one number: a name alone may claim any height.
            weights[f"{match[1]}noise_const"] = np.broadcast_to(0.0, (int(match[2]),) * 2)
    return {"conv_clamp": clamps.pop() if clamps else 0.0}


def _stylegan3(network: Network, layout: Layout) -> dict[str, Any]:
    """StyleGAN3's arguments; what a state dict does not tell is the default."""
    weights = network.weights
    found: dict[int, tuple[str, int, int]] = {}
    for name in weights:
        if match := re.fullmatch(r"synthesis\.(L(\d{1,2})_(\d{1,4})_(\d{1,4}))\.weight", name):
            found[int(match[2])] = (match[1], int(match[3]), int(match[4]))
    n_layers = len(found) - 1
    if sorted(found) != list(range(n_layers + 1)) or n_layers < 1:
        raise UnreadableFileError("holds a StyleGAN3 generator without its layers L0, L1, ...")
    image_size, (first, first_size, _) = found[n_layers][1], found[0]

    def number(name: str, default: float) -> float:
        return network.number("synthesis", name, default)

    for name, only in _STYLEGAN3_FIXED.items():
        if not math.isclose(number(name, only), only):
            raise UnreadableFileError(
                f"holds a StyleGAN3 generator with {name} {number(name, only):g}; only {only:g} is "
                "supported"
            )
    # The last layer's cutoff is half the image's rate, so that it has channel_base / image_size.
    base = found[n_layers - 1][2] * image_size
    maximum = max(channels for _, _, channels in found.values())
    margin = network.setting("synthesis", "margin_size", (first_size - FIRST_RATE) // 2)
    kernel, down = (weights.get(f"synthesis.{first}.{n}") for n in ("weight", "down_filter"))
    return mapping_arguments(weights, layout) | {
        "image_size": image_size,
        "channels": found[n_layers][2],
        "synthesis_layers": n_layers,
        "critical_layers": int(number("num_critical", 2)),
        "channel_base": int(number("channel_base", base)),
        "channel_max": int(number("channel_max", maximum)),
        "first_cutoff": number("first_cutoff", 2),
        "first_stopband": number("first_stopband", 2**2.1),
        "last_stopband_rel": number("last_stopband_rel", 2**0.3),
        "margin_size": int(margin or 0),
        "kernel_size": kernel.shape[-1] if kernel is not None and kernel.ndim else 3,
        "radial_filters": down is not None and down.ndim == 2,
    }


def _check_designed_filters(arguments: Mapping[str, Any], weights: Weights) -> None:
    """Refuse stored filters that are not those of the arguments: some setting is then unknown."""
    for name, designed in StyleGAN3(**arguments).state_dict().items():
        if name.endswith("_filter") and not np.allclose(weights[name], designed.numpy(), atol=1e-4):
            raise UnreadableFileError(
                f"holds filters ({name}) of other frequencies than its settings say; convert the "
                "whole network, not its state dict"
            )


def _check_activation(network: Network, module: str, known: tuple[str, ...]) -> None:
    activation = network.setting(module, "activation", "lrelu")
    if activation not in known:
        raise UnreadableFileError(
            f"holds a {module[:60]} with the activation {activation!r}; only 'lrelu' is supported"
        )


def _refuse_architecture(kind: Any) -> NoReturn:
    raise UnreadableFileError(
        f"holds a generator of the architecture {str(kind)[:20]!r}; only 'skip' is supported"
    )


def _fold_gains(network: Network, multiplier: float) -> None:
    """Multiply unusual gains into the weights, so that the forward pass uses the standard ones.

    A layer of NVIDIA's computes with weight * weight_gain and bias * bias_gain; the standard gains
    are multiplier / sqrt(inputs) and multiplier (Karras et al. 2018, section 4.1).
    """
    weights = network.weights
    for module in network.modules:
        name = f"{module}.weight"
        is_mapping = module.startswith("mapping.fc")
        own = is_mapping or module.endswith((".embed", ".affine", ".torgb"))
        if not own or name not in weights:
            continue
        usual = multiplier if is_mapping else 1.0
        gain = usual / math.sqrt(max(math.prod(weights[name].shape[1:]), 1))
        factors = {name: network.number(module, "weight_gain", gain) / gain}
        if not module.endswith(".torgb"):
            factors[f"{module}.bias"] = network.number(module, "bias_gain", usual) / usual
        for key, factor in factors.items():
            if key in weights and not math.isclose(factor, 1, rel_tol=1e-6):
                weights[key] = weights[key] * np.float64(factor)


def tensorflow_variables(network: Module) -> Weights:
    """The variables of a pickled network of TensorFlow and of its components."""
    found: Weights = {}
    for part in (*dict_at(network.state, "components").values(), network):
        pairs = part.state.get("variables") if isinstance(part, Module) else None
        for pair in pairs if isinstance(pairs, list) else ():
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str):
                is_numeric = isinstance(pair[1], (int, float, np.ndarray))
                found[pair[0]] = np.asarray(pair[1]) if is_numeric else np.zeros(0)
    return found


def dict_at(owner: Any, key: str) -> dict[str, Any]:
    """A dictionary in a dictionary; an empty one where there is none."""
    value = owner.get(key) if isinstance(owner, dict) else None
    return value if isinstance(value, dict) else {}
