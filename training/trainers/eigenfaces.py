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
from hublatent.evaluation.rate import rate_and_distortion
from hublatent.models import Eigenfaces
from training.trainers.commands import DataArguments, command_of, run_script
from training.trainers.loop import batches, described
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
    from scipy.sparse.linalg import eigsh  # type: ignore[import-untyped, unused-ignore]

    def rows(what: str) -> Iterable[Tensor]:  # (B, C*H*W) each
        for images in tqdm(batches(dataset, indices), desc=what, unit="batch"):
            yield images.contiguous().flatten(1)

    _, height, _, channels = dataset.images.shape
    model = Eigenfaces(height, channels, latent_dim)
    n_pixels = model.mean.numel()
    if len(indices) <= latent_dim or n_pixels <= latent_dim:
        raise DataError(
            f"{latent_dim} components need more images and more pixel values than that; there "
            f"are {len(indices)} and {n_pixels}."
        )
    total = torch.zeros(n_pixels, dtype=torch.float64)
    for pixels in rows("mean"):
        total += pixels.sum(dim=0, dtype=torch.float64)
    mean = (total / len(indices)).float()
    scatter = torch.zeros(n_pixels, n_pixels)
    for pixels in rows("covariance"):
        scatter.addmm_((pixels - mean).T, pixels - mean)
    # ARPACK's start is random unless it is given, and so would be the last digits.
    start = np.random.default_rng(0).normal(size=n_pixels).astype(np.float32)
    _, columns = eigsh(scatter.numpy(), k=latent_dim, v0=start)  # by rising eigenvalues
    vectors = torch.from_numpy(columns.T[::-1].copy())  # (D, C*H*W)
    # An eigenvector's sign is arbitrary; its largest entry is made positive.
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    model.mean.copy_(mean)
    model.components.copy_(vectors * largest.sign())
    return model.eval()


@torch.no_grad()
def run(arguments: Arguments) -> None:
    """Fit, measure and save."""
    dataset = arguments.load(arguments.image_size)
    started = time.monotonic()
    model = fit(dataset, dataset.indices("train"), arguments.latent_dim)
    known = batches(dataset, dataset.indices("train", "validation"))
    model.set_latent_statistics(torch.cat([model.encode(images) for images in known]))
    seconds = time.monotonic() - started
    folder, test, measured = arguments.out / MODEL_FOLDER, dataset.indices("test"), None
    if len(test):
        measured = {"n_images": len(test), **rate_and_distortion(model, dataset, test)}
    model.save_pretrained(folder)
    out = f"runs/{arguments.out.name}"
    results = {
        "command": command_of("training/trainers/eigenfaces.py", arguments, out=out),
        "fingerprint": model.fingerprint(),
        **described(dataset, model.mean.numel() + model.components.numel()),
        "seconds": round(seconds, 1),
        "test": measured,
    }
    Run(arguments.out).save_results(results)
    print(f"{folder}: {json.dumps(measured)}")


if __name__ == "__main__":
    run_script(Arguments, run)
