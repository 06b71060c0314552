"""Controls: directions that mean nothing, and faces between a model's samples and beyond them.

A hole is where what lies between two samples, or beyond them, is less of a face than the samples
are. The midpoint of two Gaussian samples has norm 1/sqrt(2), nearer the mean, where images are
better in every model. So it is moved out to the distance of the samples themselves, all distances
being those of Mahalanobis; and beyond the samples all models are looked at equally far out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hublatent.direction import Direction
from hublatent.discovery import LabelledLatents
from hublatent.discovery.cross_validation import pose
from hublatent.discovery.methods import METHODS
from hublatent.discovery.unlabelled import unlabelled_direction
from hublatent.editing import edit
from hublatent.evaluation import table
from hublatent.evaluation.edits import Progress, drawn, on_device, sampled_faces, test_faces
from hublatent.evaluation.judges import Condition, Judges, coherence
from hublatent.evaluation.subjects import Subject
from hublatent.model import LatentModel
from hublatent.stats import Floats

MAX_NULL_DIRECTIONS, NULL_STRENGTHS, MAX_NULL_FACES = 20, (3.5, 7.0), 20
FAR = 2.0  # times as far from the mean as the samples


def null_rows(
    subject: Subject, judges: Judges, attributes: Sequence[str], n: int, seed: int,
    progress: Progress = lambda _: None,
) -> pd.DataFrame:  # fmt: skip
    """Mean change of P along directions that mean nothing: random ones, and of shuffled labels.

    Their number grows with the faces asked for, up to 20 of each kind.
    """
    n_directions, n_some = null_sizes(n)
    directions = list(random_directions(subject.model, n_directions, seed))
    if subject.model.has_encoder:
        some = test_faces(subject, None, n_some, seed)
        directions += _shuffled_directions(subject.known, subject.model, n_directions, seed)
    else:
        some = sampled_faces(subject, judges, n_some, seed)[0]
    latents = on_device(subject.model, some.latents)
    unedited = judges.read(drawn(subject.model, latents)).probabilities
    parts = []
    for direction in directions:
        for strength in NULL_STRENGTHS:
            moved = edit(latents, direction, strength)
            change = judges.read(drawn(subject.model, moved)).probabilities - unedited
            progress(len(latents))
            for attribute in attributes:
                effect = change[:, judges.classifier.index(attribute)].mean()
                parts.append(table.rows({"change": effect}, attribute=attribute, method=table.NULL,
                                        face=direction.method, strength=strength))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def null_sizes(n_faces: int) -> tuple[int, int]:
    """How many directions of each kind, and how many faces, the null band rests on."""
    n = max(2, n_faces // 5)
    return min(MAX_NULL_DIRECTIONS, n), min(MAX_NULL_FACES, n)


def random_directions(model: LatentModel, n: int, seed: int) -> Iterator[Direction]:
    """Directions of a model that were found in nothing, with sigma."""
    rng = np.random.default_rng(seed)
    for i, row in enumerate(rng.standard_normal((n, model.latent_shape[-1]))):
        yield _direction(row, model, f"random-{i}")


def _shuffled_directions(
    data: LabelledLatents, model: LatentModel, n: int, seed: int
) -> Iterator[Direction]:
    """Half by the SVM, half by class means, of labels dealt out at random."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        some = rng.permutation(len(data.latents))[:1000]
        labels, who = rng.random((len(some), 1)) < 0.5, data.identities[some]
        dealt = LabelledLatents(data.latents[some], labels, ("shuffled",), who)
        (problem,) = pose(dealt, ["shuffled"], seed=seed)
        fits = METHODS[("svm", "mean-difference")[i % 2]](problem)
        yield _direction(fits.rows[-1], model, f"shuffled-{i}")


def _direction(row: Floats, model: LatentModel, name: str) -> Direction:
    """A row at norm 1 in every layer that directions of this model move."""
    return replace(unlabelled_direction(model, torch.from_numpy(row), name), attribute="nothing")


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
    wanted = (distance(model, first) + distance(model, second)) / 2
    stretch = wanted / distance(model, middle)
    middle = middle * stretch.reshape(-1, *[1] * (middle.ndim - 1))

    def condition(offsets: Tensor) -> Condition:
        progress(len(offsets))
        return judges.read(drawn(model, (centre + offsets).float()), len(offsets)).condition

    ends, between, beyond = map(condition, (latents - centre, middle, FAR * first))
    pairs = {
        table.SAMPLES: coherence(ends, ends).reshape(2, n).mean(dim=0),
        table.BETWEEN: coherence(between, Condition(*(c.reshape(2, n).mean(dim=0) for c in ends))),
        table.BEYOND: coherence(beyond, Condition(*(c[:n] for c in ends))),
    }
    names = [f"pair-{i}/" for i in range(n)]
    parts = [
        table.rows({"coherence": values.numpy()}, method=method, face=names)
        for method, values in pairs.items()
    ]
    return pd.concat(parts, ignore_index=True)


def distance(model: LatentModel, offsets: Tensor) -> Tensor:
    """Mahalanobis distance (n,) of offsets (n, *latent_shape) from the mean, over all layers."""
    covariance = model.latent_covariance.double().cpu()
    ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    flat = offsets.reshape(-1, offsets.shape[-1])  # (n * L, D)
    squared = (flat * torch.linalg.solve(covariance + ridge, flat.T).T).sum(dim=1)
    return squared.reshape(len(offsets), -1).sum(dim=1).sqrt()
