"""The networks inside NVIDIA's pickles, as names, settings and tensors that were never executed.

A pickle of stylegan2-ada-pytorch or stylegan3 rebuilds each module by a function that executes the
source text stored beside its attributes. Here the source is never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hublatent.errors import CheckpointError
from hublatent.interop import readers
from hublatent.interop.unpickle import Budget, Buildable, Global, PickleError, Resolver

MAX_PICKLE_BYTES = 2 << 30
MAX_MODULES = 5_000
MAX_DEPTH = 12
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
EASY_DICTS = ("dnnlib.util.EasyDict", "dnnlib.EasyDict")
TENSORFLOW = ("dnnlib.tflib.", "tfutil.")
PYTORCH_MODULES = "torch.nn.modules."
KEYWORDS = ("synthesis_kwargs", "block_kwargs", "layer_kwargs")


@dataclass
class Network(Buildable):
    """A module of a pickled network: its class's name and its attributes, as data."""

    class_name: str
    state: dict[str, Any] = field(default_factory=dict)

    def build(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise PickleError(f"is damaged: a {self.class_name} in it has no attributes")
        self.state = state

    @property
    def children(self) -> dict[str, Network]:
        """The direct sub-modules by name."""
        found = dict_at(self.state, "_modules").items()
        return {name: child for name, child in found if isinstance(child, Network)}

    def child(self, name: str) -> Network:
        """A direct sub-module that has to be there."""
        if name not in self.children:
            raise PickleError(f"holds a {self.class_name} without the module {name!r}")
        return self.children[name]

    def weights(self) -> dict[str, Any]:
        """Parameters and buffers, not yet decoded, by NVIDIA's names."""
        return {
            f"{prefix}{name}": value
            for prefix, module in walk(self)
            for kind in ("_parameters", "_buffers")
            for name, value in dict_at(module.state, kind).items()
            if value is not None
        }


def read_generator(path: Path) -> Network:
    """Read the averaged generator of NVIDIA's pickle as data.

    Raises:
        PickleError: the file is damaged, hostile or another kind of pickle.
        CheckpointError: there is no such file, or it is too large.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; expected NVIDIA's .pkl.")
    if path.stat().st_size > MAX_PICKLE_BYTES:
        raise CheckpointError(f"{path} is larger than {MAX_PICKLE_BYTES >> 30} GiB.")
    budget = Budget()
    content = readers.read_pickle(path, budget, _resolver(budget))
    if isinstance(content, dict) and isinstance(content.get("G_ema"), Network):
        content = content["G_ema"]
    if not isinstance(content, Network):
        held = ", ".join(map(str, content)) if isinstance(content, dict) else "no networks"
        raise PickleError(f"holds {held[:200]}; expected NVIDIA's G_ema")
    return content


def walk(network: Network) -> Iterator[tuple[str, Network]]:
    """Every module with its prefix, parents first; refuses endless nesting."""
    pending, seen = [("", 0, network)], 0
    while pending:
        prefix, depth, module = pending.pop()
        seen += 1
        if seen > MAX_MODULES or depth > MAX_DEPTH:
            raise PickleError("holds modules nested without end")
        yield prefix, module
        pending += [(f"{prefix}{name}.", depth + 1, c) for name, c in module.children.items()]


def synthesis_blocks(synthesis: Network) -> dict[int, Network]:
    """The synthesis blocks by height: 4, 8, 16, ... without a gap."""
    found = {
        int(name[1:]): block
        for name, block in synthesis.children.items()
        if name[:1] == "b" and name[1:].isdecimal() and len(name) <= 6
    }
    heights = [4 * 2**i for i in range(len(found))]
    if not found or sorted(found) != heights:
        raise PickleError(
            f"holds a synthesis network with blocks of the heights {sorted(found)}; "
            "expected 4, 8, 16, ..."
        )
    return {height: found[height] for height in heights}


def conv_layers(
    generator: Network, *, with_rgb: bool = False
) -> Iterator[tuple[Network, tuple[Network, ...]]]:
    """Each styled convolution, with the modules whose settings it inherits, nearest first."""
    synthesis = generator.child("synthesis")
    for height, block in synthesis_blocks(synthesis).items():
        names = ("conv1",) if height == 4 else ("conv0", "conv1")
        for name in (*names, "torgb") if with_rgb else names:
            layer = block.child(name)
            yield layer, (layer, block, synthesis, generator)


def mapping_layers(mapping: Network) -> list[Network]:
    names = {name for name in mapping.children if name.startswith("fc")}
    return [mapping.child(f"fc{i}") for i in range(max(len(names), 1))]


def setting(name: str, owners: tuple[Network, ...], default: Any) -> Any:
    """A setting as the nearest module has it; NVIDIA's default where no writer put it down."""
    for owner in owners:
        arguments = dict_at(owner.state, "_init_kwargs")
        nested = [dict_at(arguments, key) for key in KEYWORDS]
        for source in (owner.state, arguments, *nested):
            if name in source:
                value = source[name]
                if not isinstance(value, (str, int, float, type(None))):
                    raise PickleError(f"holds a {owner.class_name} with a strange {name}")
                return value
    return default


def number(name: str, owners: tuple[Network, ...], default: float) -> float:
    value = setting(name, owners, default)
    if isinstance(value, str) or value is None or not (0 < value < math.inf):
        raise PickleError(f"holds a {owners[0].class_name} with {name} = {str(value)[:40]}")
    return float(value)


def _resolver(budget: Budget) -> Resolver:
    resolve_array = readers.resolver(budget)

    def resolve(name: str) -> Global | None:
        if name.startswith(TENSORFLOW):
            raise PickleError(
                "is of the TensorFlow-era StyleGAN; convert it first with legacy.py of "
                "stylegan2-ada-pytorch"
            )
        if name == PERSISTENT:
            return Global(name, _persistent_network)
        if name in EASY_DICTS:
            return Global(name, readers.empty_dict)
        if name.startswith(PYTORCH_MODULES):
            return Global(name, lambda: Network(name.rsplit(".", 1)[-1]))
        return resolve_array(name)

    return resolve


def _persistent_network(meta: Any) -> Network:
    name = meta.get("class_name") if isinstance(meta, dict) else None
    if not isinstance(name, str) or not isinstance(meta.get("state"), dict):
        raise PickleError("is damaged: it holds a network without class name and state")
    return Network(name[:100], meta["state"])


def dict_at(owner: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = owner.get(key)
    return value if isinstance(value, dict) else {}
