"""Fit the linear baseline: python training/trainers/eigenfaces.py --data DATA --out runs/NAME

Images are streamed, so that memory holds the covariance of the pixels and no more.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.models import Eigenfaces
from training.trainers.commands import DataArguments, command_of, run_script
from training.trainers.loop import batches, described, reconstruction_error
from training.trainers.run import MODEL_FOLDER, Run


@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """Fit eigenfaces to the training partition."""

    out: Path  # folder for the model and its results
    latent_dim: int = 128  # how many components
    image_size: int = 64  # height and width of the images, in pixels


@torch.no_grad()
def fit(dataset: FaceDataset, indices: np.ndarray, latent_dim: int) -> Eigenfaces:
    """Principal components of the pixels (Turk & Pentland 1991) of some images of a dataset.

    Returns:
        The model; its D components are orthonormal, in order of falling variance.
    """
    _, height, _, channels = dataset.images.shape
    model = Eigenfaces(height, channels, latent_dim)
    n_pixels = model.mean.numel()
    if len(indices) <= latent_dim or n_pixels <= latent_dim:
        raise DataError(
            f"{latent_dim} components need more images and more pixel values than that; there "
            f"are {len(indices)} and {n_pixels}."
        )
    total = torch.zeros(n_pixels, dtype=torch.float64)
    for pixels in _pixels(dataset, indices, "mean"):
        total += pixels.sum(dim=0, dtype=torch.float64)
    mean = (total / len(indices)).float()
    scatter = torch.zeros(n_pixels, n_pixels)
    for pixels in _pixels(dataset, indices, "covariance"):
        centred = pixels - mean  # (B, C*H*W)
        scatter.addmm_(centred.T, centred)
    model.mean.copy_(mean)
    model.components.copy_(_leading_eigenvectors(scatter, latent_dim))
    return model.eval()


def _pixels(dataset: FaceDataset, indices: np.ndarray, what: str) -> Iterable[Tensor]:
    """Images as rows (B, C*H*W)."""
    for images in tqdm(batches(dataset, indices), desc=what, unit="batch"):
        yield images.contiguous().flatten(1)


def _leading_eigenvectors(matrix: Tensor, n: int) -> Tensor:
    """The n eigenvectors (n, D) of a symmetric matrix (D, D) with the largest eigenvalues."""
    from scipy.sparse.linalg import eigsh  # type: ignore[import-untyped, unused-ignore]

    # ARPACK's start is random unless it is given, and so would be the last digits.
    start = np.random.default_rng(0).normal(size=len(matrix)).astype(np.float32)
    _, columns = eigsh(matrix.numpy(), k=n, v0=start)  # in order of rising eigenvalues
    vectors = torch.from_numpy(columns.T[::-1].copy())
    # An eigenvector's sign is arbitrary; its largest entry is made positive.
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * largest.sign()


@torch.no_grad()
def run(arguments: Arguments) -> None:
    """Fit, measure and save."""
    dataset = arguments.load(arguments.image_size)
    started = time.monotonic()
    training = dataset.indices("train")
    model = fit(dataset, training, arguments.latent_dim)
    known = batches(dataset, dataset.indices("train", "validation"))
    latents = [model.encode(images) for images in known]
    model.set_latent_statistics(torch.cat(latents))
    seconds = time.monotonic() - started
    test = dataset.indices("test")
    model.save_pretrained(arguments.out / MODEL_FOLDER)
    command = command_of(
        "training/trainers/eigenfaces.py", arguments, out=f"runs/{arguments.out.name}"
    )
    measured = None
    if len(test):
        measured = {"n_images": len(test), "mse": reconstruction_error(model, dataset, test)}
    results = {
        "command": command,
        "fingerprint": model.fingerprint(),
        **described(dataset, model.mean.numel() + model.components.numel()),
        "seconds": round(seconds, 1),
        "test": measured,
    }
    Run(arguments.out).save_results(results)
    print(f"{arguments.out / MODEL_FOLDER}: {json.dumps(measured)}")


if __name__ == "__main__":
    run_script(Arguments, run)
