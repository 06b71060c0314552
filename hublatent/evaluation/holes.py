"""Holes: is what lies between two samples, or beyond them, less of a face than the samples are?

The midpoint of two Gaussian samples has norm 1/sqrt(2), nearer the mean, where pictures are better
in every model. So it is moved out to the distance of the samples themselves, all distances being
those of Mahalanobis; and beyond the samples all models are looked at equally far out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hublatent.evaluation import table
from hublatent.evaluation.edits import Progress, _drawn
from hublatent.evaluation.judges import Judges
from hublatent.evaluation.subjects import Subject

SAMPLES, BETWEEN, BEYOND = "samples", "between", "beyond"
FAR = 2.0  # times as far from the mean as the samples


def hole_rows(
    subject: Subject, judges: Judges, n: int, seed: int, progress: Progress = lambda _: None
) -> pd.DataFrame:
    """Rows `coherence` of n pairs of samples, of the points between them, and of those beyond.

    Args:
        subject: draws.
        judges: say whether it is a face.
        n: pairs.
        seed: of the samples.
        progress: told of the pictures that were judged.
    """
    model = subject.model
    generator = torch.Generator().manual_seed(seed)
    latents = model.sample_latents(2 * n, generator=generator).double().cpu()
    centre = model.latent_mean.double().cpu()
    first, second = (latents - centre).split(n)
    middle = (first + second) / 2
    wanted = (distance(subject, first) + distance(subject, second)) / 2
    middle = middle * _stretch(wanted / distance(subject, middle), middle)
    parts = []
    for method, offsets in ((SAMPLES, first), (BETWEEN, middle), (BEYOND, FAR * first)):
        reading = judges.read(_drawn(model, (centre + offsets).float()))
        progress(n)
        names = [f"pair-{i}/" for i in range(n)]
        parts.append(table.rows({"coherence": reading.coherence}, method=method, face=names))
    return pd.concat(parts, ignore_index=True)


def distance(subject: Subject, offsets: Tensor) -> Tensor:
    """Mahalanobis distance (n,) of offsets (n, *latent_shape) from the mean, over all layers."""
    covariance = subject.model.latent_covariance.double().cpu()
    ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    flat = offsets.reshape(-1, offsets.shape[-1])  # (n * L, D)
    squared = (flat * torch.linalg.solve(covariance + ridge, flat.T).T).sum(dim=1)
    return squared.reshape(len(offsets), -1).sum(dim=1).sqrt()


def _stretch(factors: Tensor, like: Tensor) -> Tensor:
    return factors.reshape(-1, *[1] * (like.ndim - 1))


def whole(coherence: np.ndarray, threshold: float) -> np.ndarray:
    """Which pictures are faces: as sure as all but 5% of the model's unedited ones."""
    return np.asarray(coherence >= threshold, float)
