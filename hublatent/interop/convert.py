"""Others' checkpoints into model folders, with nothing in them executed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hublatent.checkpoint import write_checkpoint
from hublatent.errors import CheckpointError
from hublatent.hub.publisher import publisher
from hublatent.interop.layouts import (
    LAYOUTS,
    NVIDIA,
    ROSINALITY,
    TENSORFLOW,
    ForeignGenerator,
    Layout,
    Weights,
    known_as,
    read_layout,
)
from hublatent.interop.nvidia import Network, dict_at, fix_class, read_nvidia, tensorflow_variables
from hublatent.interop.untrusted import Module, UnreadableFileError, read_untrusted
from hublatent.model import LatentModel
from hublatent.models.progan import ProGAN
from hublatent.models.style_generator import StyleGenerator

MAX_FILE_BYTES = 4 << 30
N_STATISTICS_SAMPLES = 10_000
# The part of a training's checkpoint that is the averaged generator, and what belongs to it.
AVERAGED = ("G_ema", "g_ema", "Gs", "generator_smooth", "ema", "state_dict", "GAN")
DECODER = "decoder."  # how e4e and pSp call the generator beside their encoder
# What no model here draws like, by how their weights' names begin.
_REFUSED = {
    ("S.net.", "SE.net.", "GE.", "G.initial_block"):
    "lucidrains' stylegan2-pytorch, whose network is another one (other layers, no equalised "
    "learning rate)",
    ("progression.",):
    "style-based-gan-pytorch, whose StyleGAN is another network (a bias before the noise, noise "
    "drawn anew)",
}  # fmt: skip
READABLE = (
    "pickles and torch.save of NVIDIA's StyleGAN2 and StyleGAN3, TensorFlow pickles of StyleGAN, "
    "StyleGAN2 and ProGAN, stylegan2-pytorch .pt, genforce .pth"
)


def convert(
    path: str | Path, out_folder: str | Path, *, class_index: int | None = None,
    n_samples: int = N_STATISTICS_SAMPLES, seed: int = 0,
) -> LatentModel:  # fmt: skip
    """Convert another program's generator into a model folder.

    Of a training's checkpoint the averaged generator is taken. Where the file holds the moving
    average of W, about which its program truncates, that is latent_mean; the covariance is that of
    `n_samples` mapped samples. ProGAN's latents are N(0, I).

    Args:
        path: one of what READABLE says, or an encoder's around it (e4e, pSp).
        out_folder: gets config.json, model.safetensors and README.md.
        class_index: the class that a class-conditional generator draws from now on.

    Raises:
        CheckpointError: the file is damaged, hostile, or of a network that is not supported; says
            why. Nothing is written then.
    """
    path = Path(path)
    try:
        foreign = read_generator(path, class_index)
        model = foreign.model
        if isinstance(model, StyleGenerator):
            model.measure_latents(n_samples, seed, keep_mean=foreign.has_mean)
        if not bool(torch.isfinite(model.latent_covariance).all()):
            raise UnreadableFileError("holds a mapping network whose outputs are not finite")
    except UnreadableFileError as error:
        raise CheckpointError(f"{path} {error}.") from error
    out_folder = Path(out_folder)
    readme = card(path.name, out_folder.name, model, foreign.origin, class_index)
    write_checkpoint(out_folder, model.config, model.state_dict(), {"README.md": readme})
    return model


def read_generator(path: Path, class_index: int | None = None) -> ForeignGenerator:
    """Read the generator of a checkpoint as data, or raise UnreadableFileError."""
    try:
        content = read_untrusted(path, MAX_FILE_BYTES, (*AVERAGED, "latent_avg"))
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{error}. Converted are {READABLE}") from error
    if content.form == "safetensors":
        raise UnreadableFileError(
            "is a safetensors file; a model of hublatent is a folder of it and config.json, which "
            f"hublatent.load reads. Converted are {READABLE}"
        )
    if content.form in ("npy", "npz"):
        raise UnreadableFileError(
            "is a file of NumPy and no checkpoint; `import-directions` reads directions"
        )
    value, mean = content.value, None
    if isinstance(value, dict):
        mean = value.get("latent_avg")
        value = next((value[key] for key in AVERAGED if value.get(key) is not None), value)
    if isinstance(value, list):
        value = _third(value)
    if isinstance(value, Module) and value.class_name == "Network":
        with known_as(TENSORFLOW):
            return _read_tensorflow(value, class_index)
    if isinstance(value, Module):
        with known_as(NVIDIA):
            network = Network.of(value)
            return read_nvidia(network, _layout_of(network.weights), class_index)
    weights = _weights(value)
    layout = _layout_of(weights)
    if layout.origin == ROSINALITY and isinstance(mean, np.ndarray) and mean.ndim:
        rows = mean.reshape(-1, mean.shape[-1])  # one, or one for each layer
        weights |= {"latent_avg": rows[0]} if np.allclose(rows, rows[0]) else {}
    with known_as(layout.origin):
        if layout.origin == NVIDIA:
            return read_nvidia(Network(weights, {}), layout, class_index)
        return _read_others(weights, layout, class_index)


def _read_tensorflow(network: Module, class_index: int | None) -> ForeignGenerator:
    """A pickled network of NVIDIA's TensorFlow code: Gs of StyleGAN, StyleGAN2 or ProGAN."""
    variables = tensorflow_variables(network)
    layout = _layout_of(variables)
    if layout.model_class is ProGAN:
        # Kernels of up-sampling layers, where these are fused, have the axes in and out swapped.
        fused = {n: v for n, v in variables.items() if "Conv0_up/" in n}
        for name, value in fused.items():
            del variables[name]
            kernel = value.swapaxes(2, 3) if value.ndim == 4 else value
            variables[name.replace("Conv0_up/", "Conv0/")] = kernel
        layout = replace(layout, fused=bool(fused))
    elif layout.fused:
        stated = dict_at(network.state, "static_kwargs").get("fused_scale", layout.fused)
        layout = replace(layout, fused=stated)
    return _read_others(variables, layout, class_index)


def _read_others(weights: Weights, layout: Layout, class_index: int | None) -> ForeignGenerator:
    """A generator of TensorFlow's time, or a port of one."""
    if any("LabelConcat" in name or name.endswith("label_weight") for name in weights):
        raise UnreadableFileError(
            "holds a class-conditional generator of TensorFlow's time, whose class cannot be fixed "
            "here"
        )
    fix_class(weights, class_index)
    for name in ("lod", "synthesis.lod"):
        lod = weights.pop(name, np.zeros(()))
        if lod.size != 1 or float(lod.reshape(())) != 0:
            raise UnreadableFileError(
                "holds a generator that has not grown to its full size (its lod is not 0)"
            )
    return read_layout(weights, layout)


def _third(networks: list[Any]) -> Module:
    """The averaged generator of NVIDIA's tuple (G, D, Gs)."""
    names = [n.class_name if isinstance(n, Module) else type(n).__name__ for n in networks[:4]]
    if len(networks) != 3 or not isinstance(networks[2], Module):
        raise UnreadableFileError(
            f"holds a list of {len(networks)} ({', '.join(names)[:100]}); expected a network, or "
            "the tuple (G, D, G_ema)"
        )
    return networks[2]


def _weights(value: Any) -> Weights:
    """A state dict's arrays, without the prefixes that wrappers of networks add."""
    items = value.items() if isinstance(value, dict) else ()
    found = {str(name): v for name, v in items if isinstance(v, np.ndarray)}
    if not found:
        held = ", ".join(str(name) for name, _ in items) or type(value).__name__
        raise UnreadableFileError(
            f"holds {ascii(held[:200])[1:-1]}; expected a generator. Converted are {READABLE}"
        )
    if any(name.startswith(DECODER) for name in found):  # e4e, pSp: an encoder and a generator
        return {n.removeprefix(DECODER): v for n, v in found.items() if n.startswith(DECODER)}
    for prefix in ("module.", "G_ema.", "G.", "generator."):
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): v for name, v in found.items()}
    return found


def _layout_of(weights: Weights) -> Layout:
    """The layout that weights have, by their names."""
    for beginnings, what in _REFUSED.items():
        if any(name.startswith(beginnings) for name in weights):
            raise UnreadableFileError(f"is a checkpoint of {what}, so that it cannot be converted")
    for layout in LAYOUTS:
        if any(name.startswith(layout.sign) for name in weights):
            return layout
    held = ascii(", ".join(list(weights)[:5])[:200])[1:-1]
    raise UnreadableFileError(
        f"holds weights of an unknown network, or not all of it ({held}, ...). Converted are "
        f"{READABLE}"
    )


def card(
    source: str, name: str, model: LatentModel, origin: str, class_index: int | None = None
) -> str:
    """The converted model's README.md, with a word on whose licence it is under."""
    licence, link, terms = _TERMS.get(origin, _UNKNOWN_TERMS)
    notes = [
        f"Converted by hublatent from {source}, a checkpoint in {origin}: its averaged "
        f"generator, whose latents have the shape {model.latent_shape}."
    ]
    if class_index is not None:
        notes.append(f"Its class is fixed to number {class_index}.")
    if isinstance(model, ProGAN):
        notes.append(
            "The network reads only the direction of a latent z, not its length: latents lie on a "
            "sphere, and an edit turns them."
        )
    terms += (
        " If the checkpoint is somebody else's, replace this section by the terms its authors gave."
    )
    return publisher().converted_card(model, name, " ".join(notes), licence, link, terms)


_TERMS = {
    NVIDIA: (
        "nvidia-source-code-license",
        "https://github.com/NVlabs/stylegan2-ada-pytorch/blob/main/LICENSE.txt",
        "Weights that NVIDIA published with stylegan2-ada-pytorch or stylegan3 are under NVIDIA's "
        "Source Code License: for research and evaluation only, **no commercial use**; this folder "
        "carries the same terms.",
    ),
    TENSORFLOW: (
        "nvidia-noncommercial",
        "https://github.com/NVlabs/stylegan/blob/master/LICENSE.txt",
        "Weights that NVIDIA published with ProGAN and StyleGAN are under Creative Commons BY-NC "
        "4.0, those of StyleGAN2 under NVIDIA's Source Code License: **no commercial use**; this "
        "folder carries the same terms.",
    ),
}
_UNKNOWN_TERMS = (
    "unknown",
    "https://github.com/NVlabs/stylegan2/blob/master/LICENSE.txt",
    "The file says nothing about its terms. Weights that were NVIDIA's, in whatever format, allow "
    "**no commercial use**.",
)
