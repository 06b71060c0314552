"""Writers of others' file formats, for the importers' tests: small files, made from scratch."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SQRT2 = np.sqrt(2)


class EasyDict(dict):
    """Stands for NVIDIA's dictionary class while a pickle is written."""


class TensorFlowNetwork:
    """Stands for NVIDIA's TensorFlow network class while a pickle is written."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __getstate__(self) -> Any:
        return self.state


def _reconstruct_persistent_obj(meta: Any) -> None:
    raise AssertionError("a reader executed what it read")


@contextmanager
def nvidia_modules() -> Iterator[None]:
    """NVIDIA's module names, so that pickle can write them."""
    names = {
        "torch_utils.persistence": _reconstruct_persistent_obj,
        "dnnlib.util": EasyDict,
        "dnnlib.tflib.network": TensorFlowNetwork,
    }
    public = {TensorFlowNetwork: "Network"}
    made: dict[str, types.ModuleType] = {}
    before = {}
    for name, value in names.items():
        parts = name.split(".")
        for i in range(len(parts)):
            part = ".".join(parts[: i + 1])
            made.setdefault(part, types.ModuleType(part))
        before[value] = (value.__module__, value.__qualname__)
        value.__module__ = name
        value.__qualname__ = public.get(value, value.__name__)
        setattr(made[name], value.__qualname__, value)
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]
        for value, (module, qualname) in before.items():
            value.__module__, value.__qualname__ = module, qualname


class Persistent:
    """A module of NVIDIA's: pickled as its source text, class name and attributes."""

    def __init__(self, class_name: str, module_src: str, **attributes: Any) -> None:
        self.class_name = class_name
        self.module_src = module_src
        self.state: dict[str, Any] = {
            "training": False,
            "_parameters": OrderedDict(),
            "_buffers": OrderedDict(),
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict(),
            **attributes,
        }

    def child(self, name: str) -> Persistent:
        """The descendant of a dotted name."""
        module = self
        for part in name.split(".") if name else ():
            module = module.state["_modules"][part]
        return module

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.module_src,
            "class_name": self.class_name,
            "state": self.state,
        }
        return (_reconstruct_persistent_obj, (meta,), None)


def nvidia_weights(
    image_size: int, width: int = 8, channel_base: int = 2048, channel_max: int = 8, depth: int = 2
) -> dict[str, Tensor]:
    """Seeded random weights of a skip generator, with the names of NVIDIA's state dict."""
    generator = torch.Generator().manual_seed(image_size)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    weights = {"mapping.w_avg": 0.1 * draw(width)}
    for i in range(depth):
        weights |= {
            f"mapping.fc{i}.weight": 100 * draw(width, width),
            f"mapping.fc{i}.bias": draw(width),
        }
    heights = [2**i for i in range(2, image_size.bit_length())]
    channels = {h: min(channel_base // h, channel_max) for h in heights}
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    resample_filter = torch.outer(taps, taps) / 64
    weights["synthesis.b4.const"] = draw(channels[4], 4, 4)
    for height in heights:
        n_out, block = channels[height], f"synthesis.b{height}"
        weights[f"{block}.resample_filter"] = resample_filter
        inputs = (
            {"conv1": n_out} if height == 4 else {"conv0": channels[height // 2], "conv1": n_out}
        )
        for name, n_in in inputs.items():
            weights |= {
                f"{block}.{name}.weight": draw(n_out, n_in, 3, 3),
                f"{block}.{name}.bias": draw(n_out),
                f"{block}.{name}.noise_strength": draw().abs(),
                f"{block}.{name}.noise_const": draw(height, height),
                f"{block}.{name}.resample_filter": resample_filter,
                f"{block}.{name}.affine.weight": draw(n_in, width),
                f"{block}.{name}.affine.bias": torch.ones(n_in),
            }
        weights |= {
            f"{block}.torgb.weight": draw(3, n_out, 1, 1),
            f"{block}.torgb.bias": draw(3),
            f"{block}.torgb.affine.weight": draw(n_out, width),
            f"{block}.torgb.affine.bias": torch.ones(n_out),
        }
    return weights


def nvidia_generator(
    weights: Mapping[str, Tensor],
    *,
    module_src: str = "",
    with_settings: bool = True,
    multiplier: float = 0.01,
    conv_clamp: float | None = None,
) -> Persistent:
    """NVIDIA's Generator around a state dict.

    Args:
        weights: names of NVIDIA's state dict, without a leading "G.".
        module_src: the source text that NVIDIA's own loader would execute.
        with_settings: whether the modules' plain attributes are written down.
        multiplier: the mapping network's learning-rate multiplier.
        conv_clamp: as in NVIDIA's layers.
    """
    buffers = ("w_avg", "noise_const", "resample_filter")
    root = Persistent("Generator", module_src)
    for full, value in weights.items():
        *parents, name = full.split(".")
        module = root
        for part in parents:
            children = module.state["_modules"]
            children.setdefault(part, Persistent(_class_name(part), module_src))
            module = children[part]
        if name in buffers:
            module.state["_buffers"][name] = value
        else:
            module.state["_parameters"][name] = torch.nn.Parameter(value.clone(), False)
    if with_settings:
        _write_settings(root, multiplier, conv_clamp)
    return root


def conditional_generator(n_classes: int = 3, width: int = 8) -> Persistent:
    """NVIDIA's Generator of some classes, whose label's embedding goes in beside z."""
    weights = nvidia_weights(32, width=width)
    generator = torch.Generator().manual_seed(1)
    fc0 = 100 * torch.randn(width, 2 * width, generator=generator)
    weights |= {
        "mapping.fc0.weight": fc0,
        "mapping.embed.weight": torch.randn(width, n_classes, generator=generator),
        "mapping.embed.bias": torch.randn(width, generator=generator),
    }
    network = nvidia_generator(weights)
    embed = network.child("mapping.embed")
    embed.state |= {"activation": "linear", "weight_gain": 1 / np.sqrt(n_classes), "bias_gain": 1}
    return network


def _write_settings(root: Persistent, multiplier: float, conv_clamp: float | None) -> None:
    mapping, synthesis = root.child("mapping"), root.child("synthesis")
    root.state |= {"c_dim": 0, "_init_args": (), "_init_kwargs": EasyDict(c_dim=0)}
    mapping.state |= {"c_dim": 0, "w_avg_beta": 0.995}
    for name, layer in mapping.state["_modules"].items():
        if name.startswith("fc"):
            _write_gains(layer, "lrelu", multiplier)
    for block in synthesis.state["_modules"].values():
        block.state |= {"architecture": "skip", "use_fp16": True}
        for name, layer in block.state["_modules"].items():
            layer.state["conv_clamp"] = conv_clamp
            _write_gains(layer.child("affine"), "linear", 1)
            if name == "torgb":
                n_in = layer.state["_parameters"]["weight"].shape[1]
                layer.state["weight_gain"] = 1 / np.sqrt(n_in)
            else:
                layer.state |= {"use_noise": True, "activation": "lrelu", "act_gain": SQRT2}


def _write_gains(layer: Persistent, activation: str, multiplier: float) -> None:
    n_in = layer.state["_parameters"]["weight"].shape[1]
    layer.state |= {
        "activation": activation,
        "weight_gain": multiplier / np.sqrt(n_in),  # a NumPy number, as in NVIDIA's
        "bias_gain": multiplier,
    }


def _class_name(part: str) -> str:
    known = {
        "mapping": "MappingNetwork",
        "synthesis": "SynthesisNetwork",
        "torgb": "ToRGBLayer",
        "affine": "FullyConnectedLayer",
    }
    if part.startswith("conv"):
        return "SynthesisLayer"
    return known.get(part, "SynthesisBlock" if part.startswith("b") else "FullyConnectedLayer")


def write_nvidia(path: Path, generator: Any, protocol: int = 4) -> Path:
    """NVIDIA's snapshot: a dictionary of networks and of the training set's arguments."""
    content = {
        "G": None,
        "D": None,
        "G_ema": generator,
        "augment_pipe": None,
        "training_set_kwargs": EasyDict(path="faces.zip", xflip=True),
    }
    with nvidia_modules():
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


class Call:
    """Pickles as a call of any global: what a hostile file does."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.opcode = f"c{module}\n{name}\n".encode()
        self.arguments = arguments

    def dumps(self) -> bytes:
        arguments = pickle.dumps(self.arguments, protocol=2)[2:-1]
        return b"\x80\x02" + self.opcode + arguments + b"R."


class Reduced:
    """Pickles as a call of an importable function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def tensor_claiming(
    tensor: Tensor, size: tuple[int, ...], stride: tuple[int, ...], count: int | None = None
) -> Reduced:
    """A flat tensor whose pickle claims another size, and a storage of another length."""
    buffer = io.BytesIO()
    storage = tensor.untyped_storage()
    torch.save(
        torch.storage.TypedStorage(wrap_storage=storage, dtype=tensor.dtype, _internal=True),
        buffer,
        _use_new_zipfile_serialization=False,
    )
    data = buffer.getvalue()
    if count is not None:
        honest = len(tensor)
        named = b"K" + honest.to_bytes(1, "little") + b"N"
        assert data.count(named) == 1 and data.count(honest.to_bytes(8, "little")) == 1
        data = data.replace(named, b"J" + count.to_bytes(4, "little") + b"N")
        data = data.replace(honest.to_bytes(8, "little"), count.to_bytes(8, "little"))
    load = Reduced(torch.storage._load_from_bytes, data)
    return Reduced(torch._utils._rebuild_tensor_v2, load, 0, size, stride, False, OrderedDict())


def array_claiming(array: np.ndarray, shape: tuple[int, ...]) -> Reduced:
    """An array whose pickle claims another shape."""
    function, arguments, state = array.__reduce__()
    return Reduced(function, *arguments, state=(state[0], shape, *state[2:]))


def torch_legacy(payload: bytes) -> bytes:
    """A torch file of the format before 1.6 whose object is a given pickle."""
    buffer = io.BytesIO()
    torch.save(torch.zeros(1), buffer, _use_new_zipfile_serialization=False)
    header = buffer.getvalue()
    end = header.index(b"ctorch._utils")  # the header's three pickles come first
    return header[: end - 2] + payload + pickle.dumps([], protocol=2)


def write_torch(path: Path, content: Any, device: str = "cpu") -> Path:
    """torch.save's zip, with the storages tagged as on a device."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                tag = b"X" + len(device).to_bytes(4, "little") + device.encode()
                assert b"X\x03\x00\x00\x00cpu" in data
                data = data.replace(b"X\x03\x00\x00\x00cpu", tag)
            target.writestr(entry.filename, data)
    return path


def write_higan(path: Path, boundary: np.ndarray, layers: Any) -> Path:
    """HiGAN's .npy: an object array without axes around a dictionary."""
    content = {
        "boundary": boundary,
        "meta_data": {"type": "attribute", "manipulate_layers": layers},
    }
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def write_ganspace(path: Path, component: np.ndarray, start: int, end: int, stdev: float) -> Path:
    """GANSpace's exported edit."""
    content = {
        "name": "Light direction",
        "sigma_range": np.float64(-2.8),
        "component_index": 15,
        "act_comp": component,
        "lat_comp": component,
        "latent_space": "W",
        "act_stdev": 1.0,
        "lat_stdev": stdev,
        "model_name": "StyleGAN2",
        "output_class": "ffhq",
        "decomposition": {"name": "ipca", "components": 80},
        "edit_type": "latent",
        "truncation": 0.9,
        "edit_start": start,
        "edit_end": end,
        "example_seed": 7,
    }
    path.write_bytes(pickle.dumps(content, protocol=3))
    return path


def nvidia_tree(weights: Mapping[str, Tensor], **init_kwargs: Any) -> Persistent:
    """Any network of NVIDIA's around a state dict, with its constructor's arguments alone."""
    buffers = ("w_avg", "freqs", "phases", "transform", "up_filter", "down_filter", "magnitude_ema")
    root = Persistent("Generator", "", _init_args=(), _init_kwargs=EasyDict(init_kwargs))
    for full, value in weights.items():
        *parents, name = full.split(".")
        module = root
        for part in parents:
            children = module.state["_modules"]
            children.setdefault(part, Persistent(_class_name(part), ""))
            module = children[part]
        kind = "_buffers" if name in buffers else "_parameters"
        module.state[kind][name] = value.clone()
    return root


def rosinality_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A skip generator's state dict in the names of stylegan2-pytorch."""
    ours = {
        "weight": "conv.weight", "affine.weight": "conv.modulation.weight",
        "affine.bias": "conv.modulation.bias", "noise_strength": "noise.weight",
    }  # fmt: skip
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        parts = name.split(".")
        if name.startswith("mapping.fc"):
            found[f"style.{int(parts[1][2:]) + 1}.{parts[2]}"] = value
        elif name == "synthesis.b4.const":
            found["input.input"] = value[None]
        elif parts[0] == "synthesis" and len(parts) > 3:
            block, rest = int(parts[1][1:]).bit_length() - 3, ".".join(parts[3:])
            i = 2 * block - 2 + (parts[2] == "conv1")
            rgb = "to_rgb1" if block == 0 else f"to_rgbs.{block - 1}"
            layer = rgb if parts[2] == "torgb" else "conv1" if i < 0 else f"convs.{i}"
            if rest == "noise_const":
                found[f"noises.noise_{i + 1}"] = value[None, None]
            elif rest == "bias":
                is_rgb = parts[2] == "torgb"
                bias = value[None, :, None, None] if is_rgb else value
                found[f"{layer}.bias" if is_rgb else f"{layer}.activate.bias"] = bias
            elif rest == "resample_filter" and parts[2] == "conv0":
                found[f"{layer}.conv.blur.kernel"] = value * 4
            elif rest in ours:
                value = value[None] if rest == "weight" else value
                value = value.reshape(1) if rest == "noise_strength" else value
                found[f"{layer}.{ours[rest]}"] = value
    return found


def genforce_stylegan2(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A skip generator's state dict in genforce's names."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        parts = name.split(".")
        if name.startswith("mapping.fc"):
            found[f"mapping.dense{parts[1][2:]}.{parts[2]}"] = value
        elif name == "mapping.w_avg":
            found["truncation.w_avg"] = value
        elif name == "synthesis.b4.const":
            found["synthesis.early_layer.const"] = value[None]
        elif len(parts) > 3 and parts[3] != "resample_filter":
            block, rest = int(parts[1][1:]).bit_length() - 3, ".".join(parts[3:])
            number = 2 * block - (parts[2] == "conv0")
            layer = f"output{block}" if parts[2] == "torgb" else f"layer{number}"
            if rest == "affine.bias":
                value = value - 1
            elif rest == "weight" and parts[2] == "conv0":
                value = value.flip(2, 3)
            elif rest == "noise_const":
                rest, value = "noise", value[None, None]
            found[f"synthesis.{layer}.{rest.replace('affine', 'style')}"] = value
    return found


def tensorflow_variables(weights: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A generator's state dict in genforce's names as the variables of NVIDIA's TensorFlow code."""
    is_progan = "layer0.weight" in weights
    offset = int("synthesis.early_layer.const" in weights)
    layers = [name.split(".")[-2] for name in weights if "output" in name]
    n_blocks = 1 + max(int(layer.removeprefix("output")) for layer in layers if "output" in layer)
    found: dict[str, np.ndarray] = {}
    for name, tensor in weights.items():
        value, parts = tensor.numpy(), name.removeprefix("synthesis.").split(".")
        if name.startswith("mapping.dense"):
            found[f"Dense{parts[1][5:]}/{parts[2]}"] = value.T
            continue
        if name == "truncation.w_avg" or name.endswith("lod"):
            found["lod" if name.endswith("lod") else "dlatent_avg"] = value
            continue
        if name.endswith("kernel"):
            continue
        rest = "/".join(parts[1:]).replace("apply_noise", "Noise")
        rest = rest.replace("style/", "mod_" if offset else "StyleMod/")
        if parts[0].startswith("output"):
            block = int(parts[0][6:])
            height = 4 * 2**block
            scope = f"{height}x{height}/ToRGB" if offset else f"ToRGB_lod{n_blocks - 1 - block}"
        elif parts[0] == "early_layer" or parts == ["layer0", "const"]:
            scope = "4x4/Const"
        else:
            number = int(parts[0][5:]) + offset
            height, second = 4 * 2 ** (number // 2), number % 2
            first = "Const" if height == 4 else "Conv0_up"
            first = {"Const": "Dense", "Conv0_up": "Conv0"}[first] if is_progan else first
            scope = f"{height}x{height}/{('Conv' if height == 4 else 'Conv1') if second else first}"
        if rest in ("noise", "Noise/noise"):
            found[f"noise{parts[0][5:]}"] = value
            continue
        if name == "layer0.weight":  # ProGAN's first layer is a matrix there
            value = value[:, :, ::-1, ::-1].transpose(1, 0, 2, 3).reshape(value.shape[1], -1)
        elif rest == "weight" and value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        elif rest.endswith("weight") and value.ndim == 2:
            value = value.T
        found[f"{scope}/{rest}"] = value.copy()
    return found


def write_tensorflow_networks(
    path: Path, variables: Mapping[str, np.ndarray], protocol: int = 2, **static_kwargs: Any
) -> Path:
    """The pickle (G, D, Gs) of NVIDIA's TensorFlow code; G and D are empty."""
    mapping = [(k, v) for k, v in variables.items() if k.startswith("Dense")]
    own = [(k, v) for k, v in variables.items() if k in ("lod", "dlatent_avg")]
    others = variables.keys() - dict(mapping).keys() - dict(own).keys()
    synthesis = [(k, v) for k, v in variables.items() if k in others]
    is_progan = "4x4/Dense/weight" in variables

    def network(name: str, pairs: list[Any], components: Any = None) -> TensorFlowNetwork:
        state = {
            "version": 3, "name": name, "static_kwargs": static_kwargs,
            "components": components or {}, "build_module_src": "raise SystemExit('executed')",
            "build_func_name": name, "variables": pairs,
        }  # fmt: skip
        return TensorFlowNetwork(state)

    if is_progan:
        averaged = network("Gs", [*variables.items()])
    else:
        parts = {"mapping": network("m", mapping), "synthesis": network("s", synthesis)}
        averaged = network("Gs", own, parts)
    with nvidia_modules():
        networks = (network("G", []), network("D", []), averaged)
        path.write_bytes(pickle.dumps(networks, protocol=protocol))
    return path
