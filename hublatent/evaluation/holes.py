"""Holes: is what lies between two samples, or beyond them, less of a face than the samples are?

The midpoint of two Gaussian samples has norm 1/sqrt(2), nearer the mean, where pictures are better
in every model. So it is moved out to the distance of the samples themselves, all distances being
those of Mahalanobis; and beyond the samples all models are looked at equally far out.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from hublatent.evaluation import table
from hublatent.evaluation.coherence import Condition, coherence
from hublatent.evaluation.edits import Progress, drawn
from hublatent.evaluation.judges import Judges
from hublatent.evaluation.subjects import Subject

SAMPLES, BETWEEN, BEYOND = "samples", "between", "beyond"
FAR = 2.0  # times as far from the mean as the samples


def hole_rows(
    subject: Subject, judges: Judges, n: int, seed: int, progress: Progress = lambda _: None
) -> pd.DataFrame:
    """Rows `coherence` of n pairs of samples, of the points between them, and of those beyond."""
    model = subject.model
    generator = torch.Generator().manual_seed(seed)
    latents = model.sample_latents(2 * n, generator=generator).double().cpu()
    centre = model.latent_mean.double().cpu()
    first, second = (latents - centre).split(n)
    middle = (first + second) / 2
    wanted = (distance(subject, first) + distance(subject, second)) / 2
    middle = middle * _stretch(wanted / distance(subject, middle), middle)
    seen = {}
    for method, offsets in (
        (SAMPLES, latents - centre), (BETWEEN, middle), (BEYOND, FAR * first)
    ):  # fmt: skip
        seen[method] = judges.read(drawn(model, (centre + offsets).float()), len(offsets)).condition
        progress(len(offsets))
    ends = seen[SAMPLES]
    pairs = {
        SAMPLES: coherence(ends, ends).reshape(2, n).mean(dim=0),
        BETWEEN: coherence(seen[BETWEEN], Condition(*(c.reshape(2, n).mean(dim=0) for c in ends))),
        BEYOND: coherence(seen[BEYOND], Condition(*(c[:n] for c in ends))),
    }
    names = [f"pair-{i}/" for i in range(n)]
    return pd.concat(
        [
            table.rows({"coherence": values.numpy()}, method=method, face=names)
            for method, values in pairs.items()
        ],
        ignore_index=True,
    )


def distance(subject: Subject, offsets: Tensor) -> Tensor:
    """Mahalanobis distance (n,) of offsets (n, *latent_shape) from the mean, over all layers."""
    covariance = subject.model.latent_covariance.double().cpu()
    ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    flat = offsets.reshape(-1, offsets.shape[-1])  # (n * L, D)
    squared = (flat * torch.linalg.solve(covariance + ridge, flat.T).T).sum(dim=1)
    return squared.reshape(len(offsets), -1).sum(dim=1).sqrt()


def _stretch(factors: Tensor, like: Tensor) -> Tensor:
    return factors.reshape(-1, *[1] * (like.ndim - 1))
