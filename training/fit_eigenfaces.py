"""Fit the linear baseline: python training/fit_eigenfaces.py --data DATA --out runs/NAME"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import tyro
from torch import Tensor

from hublatent.errors import DataError
from hublatent.files import write_text
from hublatent.models import Eigenfaces
from training.data import FaceDataset, load_dataset
from training.objectives import pixel_mse
from training.run import exit_on_user_error

RESULTS_NAME = "results.json"
MODEL_FOLDER = "model"
BATCH = 512


@dataclass(frozen=True)
class Arguments:
    """Fit eigenfaces to the training partition.

    Attributes:
        data: folder or Hub dataset of faces.
        out: folder for the model and its results.
        latent_dim: how many components.
        image_size: height and width of the images, in pixels.
        cache: folder of the decoded images; by default ~/.cache/hublatent/datasets.
    """

    data: str
    out: Path
    latent_dim: int = 128
    image_size: int = 64
    cache: Path | None = None


@torch.no_grad()
def fit(images: Tensor, latent_dim: int) -> Eigenfaces:
    """Principal components of the pixels (Turk & Pentland 1991).

    Args:
        images: (N, C, H, W), in [-1, 1].
        latent_dim: D, how many components.

    Returns:
        The model; its components are orthonormal, in order of falling variance.

    Raises:
        DataError: there are fewer images than components.
    """
    n, channels, height, _ = images.shape
    if n <= latent_dim:
        raise DataError(f"{latent_dim} components need more than {n} images.")
    model = Eigenfaces(height, channels, latent_dim)
    pixels = images.contiguous().flatten(1)  # (N, C*H*W)
    mean = pixels.mean(dim=0)
    centred = pixels - mean
    # The smaller of the two Gram matrices has the same spectrum and is cheaper to decompose.
    if n < pixels.shape[1]:
        _, vectors = torch.linalg.eigh((centred @ centred.T).double())
        components = (vectors[:, -latent_dim:].flip(1).T.float() @ centred).double()
    else:
        _, vectors = torch.linalg.eigh((centred.T @ centred).double())
        components = vectors[:, -latent_dim:].flip(1).T
    components = components / components.norm(dim=1, keepdim=True)
    # An eigenvector's sign is arbitrary; the largest entry's sign fixes it.
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    model.mean.copy_(mean)
    model.components.copy_(components * largest.sign())
    return model.eval()


@torch.no_grad()
def encode(model: Eigenfaces, dataset: FaceDataset, indices: np.ndarray) -> Tensor:
    """Latents (N, D) of some images of a dataset."""
    parts = np.array_split(indices, max(1, len(indices) // BATCH))
    return torch.cat([model.encode(dataset.batch(part)) for part in parts])


@torch.no_grad()
def run(arguments: Arguments) -> None:
    """Fit, measure and save."""
    dataset = load_dataset(arguments.data, arguments.image_size, cache=arguments.cache)
    model = fit(dataset.batch(dataset.indices("train")), arguments.latent_dim)
    known = dataset.indices("train", "validation")
    model.set_latent_statistics(encode(model, dataset, known))
    test = dataset.indices("test")
    error = None
    if len(test):
        images = dataset.batch(test)
        error = {"mse": float(pixel_mse(model.decode(model.encode(images)), images))}
    model.save_pretrained(arguments.out / MODEL_FOLDER)
    results = {
        "data": dataset.digest,
        "preprocessing": dataset.preprocessing,
        "n_train": len(dataset.indices("train")),
        "fingerprint": model.fingerprint(),
        "test": error,
    }
    write_text(arguments.out / RESULTS_NAME, json.dumps(results, indent=2) + "\n")
    print(f"{arguments.out / MODEL_FOLDER}: {json.dumps(error)}")


def main() -> None:
    """Fit what the command line asks for."""
    run(tyro.cli(Arguments))


if __name__ == "__main__":
    exit_on_user_error(main)
