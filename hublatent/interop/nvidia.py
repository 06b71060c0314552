"""NVIDIA's StyleGAN2 pickles (stylegan2-ada-pytorch, stylegan3's stylegan2) into our folders.

The file is read as data (nvidia_pickle.py); here its generator is rebuilt as hublatent's StyleGAN2,
or refused where that would not give the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hublatent.checkpoint import write_checkpoint
from hublatent.errors import CheckpointError
from hublatent.interop.nvidia_names import rename_weights
from hublatent.interop.nvidia_pickle import (
    Network,
    conv_layers,
    dict_at,
    mapping_layers,
    number,
    read_generator,
    setting,
    synthesis_blocks,
    walk,
)
from hublatent.interop.tensors import to_numpy
from hublatent.interop.unpickle import PickleError
from hublatent.models.layers import GAIN
from hublatent.models.stylegan2 import StyleGAN2

N_STATISTICS_SAMPLES = 10_000


def convert(
    pickle_path: str | Path,
    out_folder: str | Path,
    *,
    n_samples: int = N_STATISTICS_SAMPLES,
    seed: int = 0,
) -> StyleGAN2:
    """Convert NVIDIA's pickle into a model folder, executing nothing in it.

    The generator is the pickle's G_ema. Its latent_mean is NVIDIA's moving average of W, about
    which NVIDIA truncates; the covariance is that of `n_samples` mapped samples.

    Args:
        pickle_path: a .pkl of stylegan2-ada-pytorch or of stylegan3's stylegan2 configuration.
        out_folder: gets config.json, model.safetensors and README.md; made where it is missing.
        n_samples: how many samples of W the latent statistics are taken from.
        seed: of these samples.

    Returns:
        The converted model, in evaluation mode.

    Raises:
        CheckpointError: the file is damaged, hostile, or of an architecture that is not supported;
            says why. Nothing is written then.
    """
    path = Path(pickle_path)
    try:
        generator = read_generator(path)
        model = build_model(generator)
        set_statistics(model, n_samples, seed, keep_mean="mapping.w_avg" in generator.weights())
    except PickleError as error:
        raise CheckpointError(f"{path} {error}.") from error
    texts = {"README.md": card(path.name, model)}
    write_checkpoint(Path(out_folder), model.config, model.state_dict(), texts)
    return model


def build_model(generator: Network) -> StyleGAN2:
    """Rebuild a generator here.

    Args:
        generator: NVIDIA's Generator, read as data.

    Returns:
        The model, in evaluation mode; its latent statistics are still to be set.

    Raises:
        PickleError: the architecture is not StyleGAN2 with skip connections.
        CheckpointError: a size is out of range.
    """
    check_architecture(generator)
    found = {name: to_numpy(value) for name, value in generator.weights().items()}
    _check_filters(found)
    arguments = read_arguments(generator, found)
    model = _skeleton(arguments)
    _fold_gains(generator, found, arguments["mapping_lr_multiplier"])
    weights = {name: _tensor(name, value) for name, value in found.items()}
    _fill_absent(generator, weights, model)
    _load(model, rename_weights(weights))
    return model.eval()


def check_architecture(generator: Network) -> None:
    """Refuse generators whose pictures StyleGAN2 here would not reproduce."""
    synthesis, mapping = generator.child("synthesis"), generator.child("mapping")
    if "input" in synthesis.children:
        raise PickleError("holds an alias-free StyleGAN3 generator; only StyleGAN2 is supported")
    if "embed" in mapping.children or setting("c_dim", (mapping, generator), 0):
        raise PickleError("holds a class-conditional generator, which is not supported")
    found = synthesis_blocks(synthesis)
    for block in found.values():
        kind = setting("architecture", (block, synthesis, generator), "skip")
        if "skip" in block.children:
            kind = "resnet"
        elif "torgb" not in block.children:
            kind = "orig"
        if kind != "skip":
            raise PickleError(
                f"holds a generator of the architecture {kind!r}; only 'skip' is supported"
            )
    for layer, owners in conv_layers(generator):
        activation = setting("activation", owners, "lrelu")
        gain = number("act_gain", owners, GAIN)
        if activation != "lrelu" or not math.isclose(gain, GAIN, rel_tol=1e-5):
            raise PickleError(
                f"holds a {layer.class_name} with the activation {activation!r} and gain {gain:g}; "
                "only 'lrelu' with the square root of 2 is supported"
            )
    for layer in mapping_layers(mapping):
        activation = setting("activation", (layer,), "lrelu")
        if activation != "lrelu":
            raise PickleError(
                f"holds a mapping network with the activation {activation!r}; "
                "only 'lrelu' is supported"
            )


def read_arguments(generator: Network, weights: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of StyleGAN2, from the shapes of the weights; claims are not needed.

    Raises:
        PickleError: the shapes or the clamps contradict one another.
    """
    found = synthesis_blocks(generator.child("synthesis"))
    widths = {r: _size(weights, f"synthesis.b{r}.conv1.weight", 0) for r in found}
    depth = len(mapping_layers(generator.child("mapping")))
    base, maximum = channel_rule(widths)
    clamps = {_conv_clamp(owners) for _, owners in conv_layers(generator, with_rgb=True)}
    if len(clamps) != 1:
        raise PickleError("holds layers with different conv_clamp, which is not supported")
    first = generator.child("mapping").child("fc0")
    return {
        "image_size": max(found),
        "channels": _size(weights, f"synthesis.b{max(found)}.torgb.weight", 0),
        "latent_dim": _size(weights, f"mapping.fc{depth - 1}.weight", 0),
        "z_dim": _size(weights, "mapping.fc0.weight", 1),
        "mapping_layers": depth,
        "mapping_lr_multiplier": _mapping_multiplier(generator, first),
        "channel_base": base,
        "channel_max": maximum,
        "channel_min": 1,
        "conv_clamp": clamps.pop(),
    }


def channel_rule(widths: Mapping[int, int]) -> tuple[int, int]:
    """channel_base and channel_max with width = min(channel_base // height, channel_max).

    Args:
        widths: height -> channels.

    Raises:
        PickleError: no such pair gives these widths.
    """
    maximum = max(widths.values())
    base = max(height * width for height, width in widths.items())
    if any(min(base // height, maximum) != width for height, width in widths.items()):
        shown = ", ".join(f"{width} at {height}" for height, width in widths.items())
        raise PickleError(f"has channels that do not follow NVIDIA's rule: {shown}")
    return base, maximum


@torch.no_grad()
def set_statistics(model: StyleGAN2, n_samples: int, seed: int, *, keep_mean: bool) -> None:
    """Set the latent statistics from mapped samples; with keep_mean, only the covariance."""
    mean = model.latent_mean.clone()
    z = torch.randn(n_samples, model.z_dim, generator=torch.Generator().manual_seed(seed))
    w = torch.cat([model.mapping(part)[:, 0] for part in z.split(1000)])  # (n, D)
    if not bool(torch.isfinite(w).all()):
        raise PickleError("holds a mapping network whose outputs are not finite")
    model.set_latent_statistics(w)
    if keep_mean:
        model.latent_mean.copy_(mean)


def card(source: str, model: StyleGAN2) -> str:
    """The converted model's README.md, with the note on NVIDIA's licence."""
    size, (n_layers, width) = model.image_size, model.latent_shape
    return f"""---
library_name: hublatent
pipeline_tag: unconditional-image-generation
license: other
license_name: nvidia-source-code-license
license_link: https://github.com/NVlabs/stylegan2-ada-pytorch/blob/main/LICENSE.txt
tags: [stylegan2]
---
# StyleGAN2, {size}x{size}

Converted by hublatent from `{source}`, a checkpoint in NVIDIA's format (its averaged generator
G_ema; {n_layers} layers of width {width}).

## Licence

Weights that NVIDIA published with stylegan2-ada-pytorch or stylegan3 are under NVIDIA's Source Code
License: for research and evaluation only, **no commercial use**; this folder carries the same
terms. If the checkpoint is somebody else's, replace this section by the terms its authors gave.
"""


def _conv_clamp(owners: tuple[Network, ...]) -> float:
    unset = setting("conv_clamp", owners, None) is None
    return 0.0 if unset else number("conv_clamp", owners, 0.0)


def _mapping_multiplier(generator: Network, layer: Network) -> float:
    mapping_arguments = dict_at(dict_at(generator.state, "_init_kwargs"), "mapping_kwargs")
    asked = Network("MappingNetwork", mapping_arguments)
    default = number("lr_multiplier", (layer, generator.child("mapping"), asked), 0.01)
    return number("bias_gain", (layer,), default)


def _fold_gains(generator: Network, weights: dict[str, Any], multiplier: float) -> None:
    """Multiply unusual gains into the weights, so that the forward pass uses the standard ones.

    A layer of NVIDIA's computes with weight * weight_gain and bias * bias_gain; the standard gains
    are multiplier / sqrt(inputs) and multiplier (Karras et al. 2018, section 4.1).
    """
    for prefix, module in walk(generator):
        weight = f"{prefix}weight"
        own = prefix.startswith("mapping.fc") or prefix.endswith((".affine.", ".torgb."))
        if not own or weight not in weights:
            continue
        ours = multiplier if prefix.startswith("mapping.") else 1.0
        gain = ours / math.sqrt(max(math.prod(weights[weight].shape[1:]), 1))
        factors = {weight: number("weight_gain", (module,), gain) / gain}
        if not prefix.endswith(".torgb."):
            factors[f"{prefix}bias"] = number("bias_gain", (module,), ours) / ours
        for name, factor in factors.items():
            if name in weights and not math.isclose(factor, 1, rel_tol=1e-6):
                weights[name] = weights[name] * np.float64(factor)


def _check_filters(weights: Mapping[str, Any]) -> None:
    taps = np.array([1.0, 3.0, 3.0, 1.0])
    expected = np.outer(taps, taps) / 64
    for name, value in weights.items():
        if name.endswith("resample_filter"):
            kernel = np.outer(value, value) if value.ndim == 1 else value
            if kernel.shape != expected.shape or not np.allclose(kernel, expected, atol=1e-6):
                raise PickleError(
                    f"resamples by {name} and not by [1, 3, 3, 1], which is not supported"
                )


def _fill_absent(generator: Network, weights: dict[str, Tensor], model: StyleGAN2) -> None:
    """Add what a layer without noise, or a mapping network without an average, lacks."""
    for height, block in synthesis_blocks(generator.child("synthesis")).items():
        for name in ("conv0", "conv1"):
            layer, prefix = block.children.get(name), f"synthesis.b{height}.{name}."
            if layer and not setting("use_noise", (layer, block, generator), True):
                weights[f"{prefix}noise_strength"] = torch.zeros(())
                weights.setdefault(f"{prefix}noise_const", torch.zeros(height, height))
    weights.setdefault("mapping.w_avg", torch.zeros(model.latent_dim))
    weights["latent_covariance"] = torch.eye(model.latent_dim)


def _skeleton(arguments: Mapping[str, Any]) -> StyleGAN2:
    """The model without memory for its weights: a few small tensors can claim a huge one."""
    try:
        with torch.device("meta"):
            return StyleGAN2(**arguments)
    except CheckpointError as error:
        raise PickleError(f"does not fit StyleGAN2 here: {str(error).rstrip('.')}") from error


def _load(model: StyleGAN2, weights: Mapping[str, Tensor]) -> None:
    """Fill the model; every tensor is expected, no other, and each has its shape."""
    expected = model.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    extra = sorted(weights.keys() - expected.keys())
    if missing or extra:
        what = f"lacks the weight {missing[0]}" if missing else f"holds the extra weight {extra[0]}"
        raise PickleError(f"does not fit StyleGAN2: it {what[:200]}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise PickleError(
                f"does not fit StyleGAN2: {name} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(expected[name].shape)}"
            )
    model.load_state_dict(dict(weights), strict=True, assign=True)


def _tensor(name: str, value: Any) -> Tensor:
    with np.errstate(over="ignore"):
        values = np.array(value, dtype=np.float32, order="C")
    if not np.isfinite(values).all():
        raise PickleError(f"holds NaN or infinite values in {name[:100]}")
    return torch.from_numpy(values)


def _size(weights: Mapping[str, Any], name: str, axis: int) -> int:
    if name not in weights or weights[name].ndim <= axis or not weights[name].shape[axis]:
        raise PickleError(f"does not fit StyleGAN2: it lacks the weight {name}, or it is empty")
    return int(weights[name].shape[axis])
