"""Edits of the same faces in every model, ceilings and controls: pictures in, rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hublatent.direction import Direction
from hublatent.discovery import N_FOLDS, LabelledLatents
from hublatent.discovery.labelled import Latents
from hublatent.discovery.methods import METHODS, Population, Problem
from hublatent.discovery.unlabelled import unlabelled_direction
from hublatent.editing import edit, to_sigma
from hublatent.errors import DataError
from hublatent.evaluation import table
from hublatent.evaluation.coherence import coherence
from hublatent.evaluation.judges import BATCH, Judges, Reading
from hublatent.evaluation.subjects import Subject
from hublatent.model import LatentModel
from hublatent.stats import Bools, Floats, balanced_indices, identity_folds

STRENGTHS = (0.0, 1.0, 2.0, 3.5, 5.0, 7.0, 10.0)
MAX_CLOSELY = 40  # faces that the judges from outside look at: they take longest
END = 0.95  # P(attribute | latent) at which the distance to the boundary is compared
SAMPLES_PER_FACE = 6  # of a model without an encoder, some of which lack the attribute
ABSENT = 0.5  # a sample whose P is below lacks the attribute
CEILING, NULL = "ceiling", "null"  # "methods" that move nothing, and nothing in particular
MAX_NULL_DIRECTIONS, NULL_STRENGTHS, MAX_NULL_FACES = 20, (3.5, 7.0), 20
Progress = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces to edit: latents (n, *latent_shape) and names PERSON/PICTURE."""

    latents: Latents
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.latents)

    def parted(self, mask: Bools, n: int) -> tuple[Faces, Faces]:
        """At most n of those outside a mask (N,), and at most n of those in it."""
        names = np.asarray(self.names)
        outside, inside = (
            Faces(self.latents[kind][:n], list(names[kind][:n])) for kind in (~mask, mask)
        )
        return outside, inside


def test_faces(
    subject: Subject, mask: Bools | None, n: int, seed: int, partition: str = "test"
) -> Faces:
    """At most n faces of a partition, the same in every model.

    Args:
        mask: (N,), which of the data's pictures may be taken; None takes any.
    """
    dataset = subject.dataset
    indices = dataset.indices(partition)
    if mask is not None:
        indices = indices[mask[indices]]
    chosen = np.sort(np.random.default_rng(seed).permutation(indices)[:n])
    return Faces(subject.encode(chosen), subject.names(chosen))


def sampled_faces(subject: Subject, judges: Judges, n: int, seed: int) -> tuple[Faces, Floats]:
    """A model's own samples, and the judge's probabilities (n, K) of them."""
    generator = torch.Generator().manual_seed(seed)
    latents = subject.model.sample_latents(n, generator=generator)
    reading = judges.read(drawn(subject.model, latents))
    names = [f"sample-{i}/{subject.training}" for i in range(n)]
    return Faces(latents.cpu().numpy(), names), reading.probabilities


def faces_without(
    subject: Subject, judges: Judges, attribute: str, n: int, seed: int, partition: str = "test"
) -> tuple[Faces, Faces]:
    """Faces that lack an attribute, and others that have it; of a partition, or sampled.

    Raises:
        DataError: fewer than two lack it, or none has it.
    """
    if subject.model.has_encoder:
        label = subject.dataset.label(attribute)
        without, having = (
            test_faces(subject, kind, n, seed, partition) for kind in (~label, label)
        )
    else:
        pool, probabilities = sampled_faces(subject, judges, SAMPLES_PER_FACE * n, seed)
        has = probabilities[:, judges.classifier.index(attribute)] >= ABSENT
        without, having = pool.parted(has, n)
    if len(without) < 2 or not len(having):
        raise DataError(
            f"{subject.training}, {attribute}: {len(without)} faces lack it and {len(having)} have "
            "it; editing takes at least two and one."
        )
    return without, having


def edit_rows(
    subject: Subject,
    judges: Judges,
    attribute: str,
    directions: Sequence[Direction],
    faces: Faces,
    having: Faces,
    strengths: Sequence[float] = STRENGTHS,
    progress: Progress = lambda _: None,
) -> pd.DataFrame:
    """What the judges see on faces edited along directions, and on unedited wearers.

    Args:
        attribute: to be added.
        directions: along which; with sigma.
        faces: that lack it.
        having: that have it: what the model can draw at best.
        strengths: in standard deviations, growing from 0.
        progress: told of the pictures that were judged.
    """
    column = judges.classifier.index(attribute)

    def look(model: LatentModel, moved: Tensor, n_closely: int = MAX_CLOSELY) -> Reading:
        progress(len(moved))
        return judges.read(drawn(model, moved), n_closely)

    start = on_device(subject.model, faces.latents)
    unedited = look(subject.model, start)
    best = look(subject.model, on_device(subject.model, having.latents), 0)
    parts = [
        table.rows({"target": best.logits[:, column]}, attribute=attribute, method=CEILING,
                   face=having.names)
    ]  # fmt: skip
    names = list(map("P({})".format, judges.classifier.attribute_names))
    for direction in directions:
        about: Any = {"attribute": attribute, "method": direction.method}
        model, latents = subject.space_of(direction, start)
        for strength in strengths:
            moved = edit(latents, direction, strength)
            reading = look(model, moved) if strength else unedited
            found = changes(reading, unedited, judges, column)
            parts.append(table.rows(found, face=faces.names, strength=strength, **about))
            shifts = (reading.probabilities - unedited.probabilities).mean(axis=0)  # (K,)
            whole = dict(zip(names, shifts, strict=True))
            parts.append(table.rows(whole, strength=strength, **about))
        norm = (direction.sigma or np.nan) * direction.squared_norm**0.5
        parts.append(table.rows({"step": norm}, **about))
        if direction.method == "svm" and direction.gain is not None:
            # At a fixed step a farther start would end lower by construction.
            way = to_sigma(latents, direction, END, "probability").cpu().numpy()
            moved = edit(latents, direction, END, "probability")
            end = look(model, moved, 0).logits[:, column]
            parts.append(table.rows({"way": way, "end target": end}, face=faces.names, **about))
    return pd.concat(parts, ignore_index=True)


def changes(reading: Reading, unedited: Reading, judges: Judges, column: int) -> dict[str, Floats]:
    """Each face's readings (n,) against its unedited picture; NaN where nobody looked closely."""
    others = np.delete(np.arange(reading.logits.shape[1]), column)
    moved = np.abs(reading.probabilities - unedited.probabilities)[:, others]
    logits = np.abs(reading.logits - unedited.logits)[:, others] / judges.spread[others]
    n = len(reading.logits)
    close = {name: np.full(n, np.nan) for name in ("identity", "coherence")}
    distance = torch.linalg.vector_norm(reading.embedding - unedited.embedding, dim=1)
    left = coherence(reading.condition, unedited.condition, distance)
    for name, values in (("identity", distance), ("coherence", left)):
        close[name][: len(values)] = values.numpy()
    return {
        "target": reading.logits[:, column],
        "leakage": moved.mean(axis=1),
        "logit leakage": logits.mean(axis=1),
        **close,
    }


def null_rows(
    subject: Subject,
    judges: Judges,
    attributes: Sequence[str],
    n: int,
    seed: int,
    progress: Progress = lambda _: None,
) -> pd.DataFrame:
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
            progress(len(some))
            for attribute in attributes:
                effect = float(change[:, judges.classifier.index(attribute)].mean())
                parts.append(table.rows({"change": effect}, attribute=attribute, method=NULL,
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
) -> list[Direction]:
    """Half by the SVM, half by class means, of labels dealt out at random."""
    rng = np.random.default_rng(seed)
    directions = []
    for i in range(n):
        some = rng.permutation(len(data.latents))[:1000]
        dealt = LabelledLatents(
            data.latents[some], (rng.random((len(some), 1)) < 0.5), ("shuffled",),
            data.identities[some],
        )  # fmt: skip
        folds = identity_folds(dealt.identities, N_FOLDS, seed)
        chosen = balanced_indices(dealt.labels[:, 0], seed)
        problem = Problem(Population(dealt, folds, N_FOLDS), "shuffled", chosen)
        fits = METHODS[("svm", "mean-difference")[i % 2]](problem)
        directions.append(_direction(fits.rows[-1], model, f"shuffled-{i}"))
    return directions


def _direction(row: Floats, model: LatentModel, name: str) -> Direction:
    """A row at norm 1 in every layer that directions of this model move."""
    return replace(unlabelled_direction(model, torch.from_numpy(row), name), attribute="nothing")


def drawn(model: LatentModel, latents: Latents | Tensor) -> Iterator[Tensor]:
    """Images of latents, some at a time."""
    for part in on_device(model, latents).split(BATCH):
        with torch.inference_mode():
            yield model.decode(part)


def on_device(model: LatentModel, latents: Latents | Tensor) -> Tensor:
    """Latents on the model's device."""
    return torch.as_tensor(latents).to(model.latent_mean)
