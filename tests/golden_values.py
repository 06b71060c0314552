"""Golden values: weights of tiny generators, and what the original code computed from them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hublatent.model import LatentModel


def read(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The original's arguments, and the tensors: weights G.* and values io.*."""
    with safe_open(shared / "golden" / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["config"]), tensors


def fill(
    model: LatentModel, tensors: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]
) -> None:
    """Load the weights G.*; a rule renames what it matches, and other names are left out."""
    weights = {"latent_mean": model.latent_mean, "latent_covariance": model.latent_covariance}
    for name, tensor in tensors.items():
        for pattern, ours in rules:
            if re.fullmatch(r"G\." + pattern, name):
                weights[re.sub(r"G\." + pattern, ours, name)] = tensor
    model.load_state_dict(weights, strict=True)
    model.eval()


def assert_golden(found: Tensor, expected: Tensor) -> None:
    """To 1e-4, as far as single precision goes."""
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-4
