"""Write the two judges of faces.py from the packages that ship their weights:

pip download --no-deps facenet-pytorch==2.6.0 face-recognition-models==0.3.0
python training/judges/extract_judges.py facenet_pytorch-2.6.0-*.whl \\
    face_recognition_models-0.3.0.tar.gz
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
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


@dataclass(frozen=True)
class Arguments:
    """Write face-detector and face-identity from the packages that ship their weights."""

    detector: Annotated[Path, tyro.conf.Positional]  # facenet-pytorch's wheel, as pip downloads it
    identity: Annotated[Path, tyro.conf.Positional]  # face-recognition-models' source archive
    out: Path = Path("model_cards")  # the folder that gets both models' folders


def run(arguments: Arguments) -> None:
    """Write both models that the command line asks for."""
    read_detector(arguments.detector).save_pretrained(arguments.out / "face-detector")
    read_identity(arguments.identity).save_pretrained(arguments.out / "face-identity")


def read_detector(wheel: Path) -> FaceDetector:
    """MTCNN from facenet-pytorch's three state dicts."""
    detector = FaceDetector()
    with zipfile.ZipFile(wheel) as archive:
        for name, file in NETWORKS.items():
            content = archive.read(f"facenet_pytorch/data/{file}.pt")
            state = torch.load(io.BytesIO(content), weights_only=True)
            network = getattr(detector, name)
            expected = network.state_dict()
            found = [_rows_first(tensor) for tensor in _with_one_head(state, HEADS[name])]
            network.load_state_dict(dict(zip(expected, found, strict=True)), strict=True)
    return detector.eval()


def read_identity(archive: Path) -> FaceIdentity:
    """dlib's network from face-recognition-models' archive."""
    with tarfile.open(archive) as opened:
        member = next(m for m in opened.getmembers() if m.name.endswith(IDENTITY_FILE))
        content = opened.extractfile(member).read()  # type: ignore[union-attr]
    tensors = list(_dlib_tensors(content))
    identity = FaceIdentity()
    expected = identity.network.state_dict()
    weights = [name for name in expected if name.endswith("weight")]
    *convolutions, last = weights
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
        if layer.group() == b"fc_2":  # says its numbers of outputs and inputs first
            _, position = _dlib_integer(content, position)
            _, position = _dlib_integer(content, position)
        version, position = _dlib_integer(content, position)
        if version != TENSOR_VERSION:
            raise CheckpointError(f"a tensor has the version {version}; expected {TENSOR_VERSION}.")
        count = 1
        for _ in range(4):
            length, position = _dlib_integer(content, position)
            count *= length
        yield torch.from_numpy(np.frombuffer(content, "<f4", count, position).copy())


def _dlib_integer(content: bytes, position: int) -> tuple[int, int]:
    """An integer of dlib's format, a byte that counts its bytes and those; and where it ends."""
    end = position + 1 + content[position]
    return int.from_bytes(content[position + 1 : end], "little"), end


if __name__ == "__main__":
    run_script(Arguments, run)
