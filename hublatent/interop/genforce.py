"""StyleGAN, StyleGAN2 and ProGAN in genforce's names, and TensorFlow's variables under them.

genforce's ports of NVIDIA's TensorFlow networks name and keep each variable as it was, so that both
come down to the same table: what differs is the order of the axes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hublatent.interop.networks import (
    ForeignGenerator,
    Rules,
    Weights,
    channel_rule,
    dict_at,
    mapping_arguments,
    renamed,
    size,
)
from hublatent.interop.nvidia import from_state_dict
from hublatent.interop.untrusted import Module, UnreadableFileError
from hublatent.models.progan import ProGAN
from hublatent.models.stylegan import StyleGAN

GENFORCE = "genforce's format"
TENSORFLOW = "NVIDIA's TensorFlow format"
FUSED_FROM = 128  # StyleGAN's up-sampling is one transposed convolution from this height on
_CONDITIONAL = (
    "holds a class-conditional generator of TensorFlow's time, whose class cannot be fixed here"
)
# StyleGAN's layers as InterFaceGAN's port names them.
_INTERFACEGAN = (
    (r"dense(\d+)\.linear\.weight", r"dense\1.weight"),
    (r"dense(\d+)\.wscale\.bias", r"dense\1.bias"),
    (r"layer0\.first_layer", r"layer0.const"),
    (r"\.epilogue\.style_mod\.dense\.linear\.weight", r".style.weight"),
    (r"\.epilogue\.style_mod\.dense\.wscale\.bias", r".style.bias"),
    (r"\.epilogue\.", r"."),
    (r"\.conv\.(weight|bias)", r".\1"),
)
_STYLEGAN_NAMES: Rules = (
    (r"mapping\.dense(\d{1,2})\.(weight|bias)", r"mapping_network.\1.\2"),
    (r"synthesis\.layer0\.const", "const"),
    (r"synthesis\.layer(\d{1,2})\.style\.(weight|bias)", r"layers.\1.affine.\2"),
    (r"synthesis\.layer(\d{1,2})\.apply_noise\.weight", r"layers.\1.noise_strength"),
    (r"synthesis\.layer(\d{1,2})\.apply_noise\.noise", r"layers.\1.noise_const"),
    (r"synthesis\.layer(\d{1,2})\.(.+)", r"layers.\1.\2"),
    (r"truncation\.w_avg", "latent_mean"),
)


def from_genforce(weights: Weights) -> ForeignGenerator:
    """A state dict in genforce's or InterFaceGAN's names."""
    found = {}
    for name, value in weights.items():
        for pattern, replacement in _INTERFACEGAN:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    return _generator(found, GENFORCE, None)


def from_tensorflow(network: Module) -> ForeignGenerator:
    """A pickled network of NVIDIA's TensorFlow code: Gs of StyleGAN, StyleGAN2 or ProGAN."""
    variables = _variables(network)
    kinds = {"4x4/Const/StyleMod/weight": 0, "4x4/Conv/mod_weight": -1, "4x4/Dense/weight": 0}
    kind = next((name for name in kinds if name in variables), None)
    if kind is None:
        held = ", ".join(list(variables)[:5]) or "no variables"
        raise UnreadableFileError(
            f"holds no generator of StyleGAN, StyleGAN2 or ProGAN, or not all of it; there are "
            f"{ascii(held)[1:-1]}"
        )
    prefix = "" if kind == "4x4/Dense/weight" else "synthesis."
    n_blocks = (
        max(int(m[1]) for n in variables if (m := re.match(r"(\d{1,5})x", n))).bit_length() - 2
    )
    weights: Weights = {}
    for name, value in variables.items():
        new = _genforce_name(name, prefix, kinds[kind], n_blocks)
        if new is not None:
            weights[new] = _reordered(name, value)
    fused = None
    if kind == "4x4/Const/StyleMod/weight":
        fused = dict_at(network.state, "static_kwargs").get("fused_scale", "auto")
    elif kind == "4x4/Dense/weight":
        fused = any("/Conv0_up/" in name for name in variables)
    return _generator(weights, TENSORFLOW, fused)


def _variables(network: Module) -> dict[str, NDArray[Any]]:
    """The variables of a network and of its components."""
    if not isinstance(network.state, dict):
        raise UnreadableFileError("holds a TensorFlow network without its variables")
    found: dict[str, NDArray[Any]] = {}
    for part in (*dict_at(network.state, "components").values(), network):
        pairs = part.state.get("variables") if isinstance(part, Module) else None
        for pair in pairs if isinstance(pairs, list) else ():
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str):
                found[pair[0]] = np.asarray(pair[1]) if _is_numeric(pair[1]) else np.zeros(0)
    return found


def _is_numeric(value: Any) -> bool:
    return isinstance(value, (int, float, np.ndarray))


def _genforce_name(name: str, prefix: str, offset: int, n_blocks: int) -> str | None:
    """genforce's name of a TensorFlow variable; None for one that is not needed.

    Args:
        name: such as "8x8/Conv0_up/StyleMod/weight".
        prefix: "synthesis.", or "" for ProGAN.
        offset: of the first layer's number; StyleGAN2's constant is no layer of its own.
        n_blocks: how many heights there are.
    """
    if match := re.fullmatch(r"Dense(\d+)/(weight|bias)", name):
        return f"mapping.dense{match[1]}.{match[2]}"
    if match := re.fullmatch(r"noise(\d+)", name):
        return f"{prefix}layer{match[1]}.{'noise' if offset else 'apply_noise.noise'}"
    if match := re.fullmatch(r"ToRGB_lod(\d+)/(weight|bias)", name):
        return f"{prefix}output{n_blocks - 1 - int(match[1])}.{match[2]}"
    match = re.fullmatch(r"(\d{1,5})x\d+/(\w+)/(.+)", name)
    if match is None:
        known = {"dlatent_avg": "truncation.w_avg", "lod": f"{prefix}lod"}
        return known.get(name) if "LabelConcat" not in name else "mapping.label_weight"
    block, part, rest = int(match[1]).bit_length() - 3, match[2], match[3]
    rest = {"StyleMod/weight": "style.weight", "StyleMod/bias": "style.bias",
            "mod_weight": "style.weight", "mod_bias": "style.bias",
            "Noise/weight": "apply_noise.weight"}.get(rest, rest)  # fmt: skip
    if part == "ToRGB":
        return f"{prefix}output{block}.{rest}"
    if rest == "const":
        return f"{prefix}{'early_layer' if offset else 'layer0'}.const"
    second = part in ("Conv", "Conv1")
    return f"{prefix}layer{2 * block + second + offset}.{rest}"


def _reordered(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """A TensorFlow variable with the axes of PyTorch."""
    if name == "4x4/Dense/weight" and value.ndim == 2 and value.shape[1] % 16 == 0:
        # A convolution with padding 3 sees the 4x4 kernel mirrored.
        kernel = value.reshape(len(value), -1, 4, 4).transpose(1, 0, 2, 3)
        return kernel[:, :, ::-1, ::-1]
    if name.endswith(("weight", "mod_weight")) and value.ndim == 2:
        return value.T
    if name.endswith("weight") and value.ndim == 4:
        return value.transpose(3, 2, 0, 1)  # height, width, in, out
    return value


def _generator(weights: Weights, origin: str, fused: Any) -> ForeignGenerator:
    """A generator of weights in genforce's names.

    Args:
        fused: whether up-sampling is a transposed convolution; "auto" from 128 pixels on; None
            where nothing says.
    """
    if any(name.endswith("label_weight") for name in weights):
        raise UnreadableFileError(_CONDITIONAL)
    weights = {n: v for n, v in weights.items() if not n.endswith((".kernel", "blur.kernel"))}
    for name in ("lod", "synthesis.lod"):
        lod = weights.pop(name, np.zeros(()))
        if lod.size != 1 or float(lod.reshape(())) != 0:
            raise UnreadableFileError(
                "holds a generator that has not grown to its full size (its lod is not 0)"
            )
    if "synthesis.early_layer.const" in weights:
        return _stylegan2(weights, origin)
    if "synthesis.layer0.const" in weights:
        return _stylegan(weights, origin, "auto" if fused is None else fused)
    return _progan(weights, origin, fused)


def _stylegan(weights: Weights, origin: str, fused: Any) -> ForeignGenerator:
    n_blocks = _count_blocks(weights, r"synthesis\.layer(\d{1,2})\.bias")
    found = renamed(weights, (*_STYLEGAN_NAMES, *_to_rgb("synthesis.output", n_blocks)))
    for block in range(1, n_blocks):
        if fused is True or (fused == "auto" and 4 * 2**block >= FUSED_FROM):
            _mirror(found, f"layers.{2 * block}.weight")
    base, maximum = channel_rule(
        {4 * 2**b: size(found, f"layers.{2 * b + 1}.weight", 0) for b in range(n_blocks)}
    )
    arguments = {
        "image_size": 4 * 2 ** (n_blocks - 1),
        "channels": size(found, "to_rgb.weight", 0),
        **mapping_arguments(found, "mapping_network."),
        "channel_base": base,
        "channel_max": maximum,
    }
    return ForeignGenerator(StyleGAN, arguments, found, origin)


def _stylegan2(weights: Weights, origin: str) -> ForeignGenerator:
    """By way of NVIDIA's names of PyTorch."""
    found: Weights = {}
    for name, value in weights.items():
        if match := re.fullmatch(r"mapping\.dense(\d{1,2})\.(weight|bias)", name):
            found[f"mapping.fc{match[1]}.{match[2]}"] = value
        elif match := re.fullmatch(r"synthesis\.(layer|output)(\d{1,2})\.(.+)", name):
            kind, number, rest = match[1], int(match[2]), match[3].replace("style.", "affine.")
            block = number if kind == "output" else (number + 1) // 2
            part = "torgb" if kind == "output" else f"conv{(number + 1) % 2}"
            if rest == "affine.bias":
                value = value + 1  # added by the layer there
            elif rest == "weight" and part == "conv0":
                value = value[..., ::-1, ::-1]  # turned round by the layer there
            elif rest == "noise":
                rest, value = "noise_const", value.reshape(value.shape[-2:])
            found[f"synthesis.b{4 * 2**block}.{part}.{rest}"] = value
        elif name == "synthesis.early_layer.const":
            found["synthesis.b4.const"] = value.reshape(value.shape[-3:])
        else:
            found[{"truncation.w_avg": "mapping.w_avg"}.get(name, name)] = value
    return replace(from_state_dict(found), origin=origin)


def _progan(weights: Weights, origin: str, fused: bool | None) -> ForeignGenerator:
    n_blocks = _count_blocks(weights, r"layer(\d{1,2})\.bias")
    layers = (r"layer(\d{1,2})\.(weight|bias)", r"layers.\1.\2")
    found = renamed(weights, (layers, *_to_rgb("output", n_blocks)))
    widths = [size(found, f"layers.{2 * b + 1}.weight", 0) for b in range(n_blocks)]
    if fused is None:  # only the shape of a kernel tells; of equal widths the default is taken
        fused = any(
            found[f"layers.{2 * b}.weight"].shape[:2] == (widths[b - 1], widths[b])
            for b in range(1, n_blocks)
            if widths[b] != widths[b - 1] and f"layers.{2 * b}.weight" in found
        )
    for block in range(1, n_blocks) if fused else ():
        name = f"layers.{2 * block}.weight"
        _mirror(found, name)
        if name in found and found[name].ndim == 4:
            found[name] = found[name].transpose(1, 0, 2, 3)  # a transposed convolution's order
    base, maximum = channel_rule({4 * 2**b: width for b, width in enumerate(widths)})
    arguments = {
        "image_size": 4 * 2 ** (n_blocks - 1),
        "channels": size(found, "to_rgb.weight", 0),
        "latent_dim": size(found, "layers.0.weight", 1),
        "channel_base": base,
        "channel_max": maximum,
    }
    return ForeignGenerator(ProGAN, arguments, found, origin)


def _to_rgb(output: str, n_blocks: int) -> Rules:
    """Of the outputs at each height only the last one draws."""
    name = re.escape(output)
    return ((rf"{name}{n_blocks - 1}\.(weight|bias)", r"to_rgb.\1"), (rf"{name}\d{{1,2}}\..+", ""))


def _count_blocks(weights: Weights, pattern: str) -> int:
    numbers = {int(match[1]) for name in weights if (match := re.fullmatch(pattern, name))}
    if not numbers or numbers != set(range(len(numbers))) or len(numbers) % 2:
        raise UnreadableFileError(
            f"holds a generator with the layers {sorted(numbers)[:40]}; expected 0, 1, 2, ..., two "
            "for each height"
        )
    return len(numbers) // 2


def _mirror(weights: Weights, name: str) -> None:
    """A transposed convolution's kernel as that of the convolution after doubling the pixels."""
    if name in weights and weights[name].ndim == 4:
        weights[name] = weights[name][..., ::-1, ::-1]
