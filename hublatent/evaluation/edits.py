"""Edits of the same faces in every model, and what the judges see: images in, rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hublatent.direction import Direction
from hublatent.discovery.labelled import Latents
from hublatent.editing import edit, to_sigma
from hublatent.errors import DataError
from hublatent.evaluation import table
from hublatent.evaluation.judges import BATCH, BROKEN_BELOW, Judges, Reading, coherence
from hublatent.evaluation.outcomes import ABSENT
from hublatent.evaluation.subjects import Subject
from hublatent.model import LatentModel
from hublatent.stats import Bools, Floats

STRENGTHS = (0.0, 1.0, 2.0, 3.5, 5.0, 7.0, 10.0)
MAX_CLOSELY = 40  # faces that the judges from outside look at: they take longest
END = 0.95  # P(attribute | latent) at which the distance to the boundary is compared
SAMPLES_PER_FACE = 6  # of a model without an encoder, some of which lack the attribute
Progress = Callable[[int], object]


class Faces(NamedTuple):
    """Faces to edit: latents (n, *latent_shape), and names PERSON/PICTURE."""

    latents: Latents
    names: Sequence[str]

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
    """At most n faces of a partition, of those in a mask (N,): the same in every model."""
    indices = subject.dataset.indices(partition)
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

    Where the data have no label of it, the judge says which of them show it. DataError where fewer
    than two lack it, or none has it.
    """
    if subject.model.has_encoder:
        label = _label(subject, judges, attribute, partition)
        without, having = (
            test_faces(subject, kind, n, seed, partition) for kind in (~label, label)
        )
    else:
        pool, probabilities = sampled_faces(subject, judges, SAMPLES_PER_FACE * n, seed)
        shows = probabilities[:, judges.classifier.index(attribute)] >= ABSENT
        without, having = pool.parted(shows, n)
    if len(without.names) < 2 or not having.names:
        raise DataError(
            f"{subject.training}, {attribute}: {len(without.names)} faces lack it and "
            f"{len(having.names)} have it; editing takes at least two and one."
        )
    return without, having


def _label(subject: Subject, judges: Judges, attribute: str, partition: str) -> Bools:
    """(N,): which of the data's images show an attribute."""
    dataset = subject.dataset
    if attribute in dataset.attributes:
        return dataset.label(attribute)
    indices, label = dataset.indices(partition), np.zeros(len(dataset), bool)
    for start in range(0, len(indices), BATCH):
        part = indices[start : start + BATCH]
        images = dataset.batch(part).to(subject.model.latent_mean)
        probabilities = judges.read([images]).probabilities
        label[part] = probabilities[:, judges.classifier.index(attribute)] >= ABSENT
    return label


def edit_rows(
    subject: Subject, judges: Judges, attribute: str, directions: Sequence[Direction],
    faces: Faces, having: Faces, strengths: Sequence[float] = STRENGTHS,
    progress: Progress = lambda _: None,
) -> pd.DataFrame:  # fmt: skip
    """What the judges see on faces edited along directions with sigma, and on others `having` it.

    `strengths`, in standard deviations, grow from 0; `progress` is told how many were judged.

    Raises:
        DataError: the judges find no face in any of the unedited images.
    """
    column = judges.classifier.index(attribute)

    def look(model: LatentModel, moved: Tensor, n_closely: int = MAX_CLOSELY) -> Reading:
        progress(len(moved))
        return judges.read(drawn(model, moved), n_closely)

    start = on_device(subject.model, faces.latents)
    unedited = look(subject.model, start)
    if (coherence(unedited.condition, unedited.condition) < BROKEN_BELOW).all():
        raise DataError(
            f"{subject.training}, {attribute}: in none of its unedited images is a face found, so "
            "that nothing can be said of its edits."
        )
    best = look(subject.model, on_device(subject.model, having.latents), 0)
    about: dict[str, Any] = {"attribute": attribute, "method": table.CEILING}
    parts = [table.rows({"target": best.logits[:, column]}, face=having.names, **about)]
    names = list(map("P({})".format, judges.classifier.attribute_names))
    for direction in directions:
        about["method"] = direction.method
        model, latents = subject.space_of(direction, start)
        for strength in strengths:
            reading = look(model, edit(latents, direction, strength)) if strength else unedited
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
    """Each face's readings (n,) against its unedited image; NaN where nobody looked closely."""
    others = np.delete(np.arange(reading.logits.shape[1]), column)
    moved = np.abs(reading.probabilities - unedited.probabilities)[:, others]
    logits = np.abs(reading.logits - unedited.logits)[:, others] / judges.spread[others]
    distance = torch.linalg.vector_norm(reading.embedding - unedited.embedding, dim=1)
    left = coherence(reading.condition, unedited.condition, distance)
    missing = (0, len(moved) - len(distance))
    return {
        "target": reading.logits[:, column],
        "leakage": moved.mean(axis=1),
        "logit leakage": logits.mean(axis=1),
        "identity": np.pad(distance.numpy().astype(float), missing, constant_values=np.nan),
        "coherence": np.pad(left.numpy().astype(float), missing, constant_values=np.nan),
    }


def drawn(model: LatentModel, latents: Latents | Tensor) -> Iterator[Tensor]:
    """Images of latents, some at a time."""
    for part in on_device(model, latents).split(BATCH):
        with torch.inference_mode():
            yield model.decode(part)


def on_device(model: LatentModel, latents: Latents | Tensor) -> Tensor:
    """Latents on the model's device."""
    return torch.as_tensor(latents).to(model.latent_mean)
