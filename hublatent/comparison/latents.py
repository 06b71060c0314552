"""Latents of image sets and of samples, computed once per (weights, image set)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hublatent.comparison.judge import BATCH, read_in_batches
from hublatent.comparison.results import SAMPLES, TEST
from hublatent.data import FaceDataset
from hublatent.direction import Origin
from hublatent.direction_set import DirectionSet
from hublatent.discovery import LabelledLatents
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import Bools, Ints
from hublatent.storage import atomic_path

Latents = NDArray[np.float32]
ABSENT = 0.5  # a sample whose P is below lacks the attribute


@dataclass(frozen=True, eq=False)
class Projected:
    """Latents that were searched for pictures, for a model that cannot encode.

    Attributes:
        latents: (n, *latent_shape).
        indices: (n,), of the dataset's pictures.
    """

    latents: Latents
    indices: Ints


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces that are edited, reconstructed or referred to.

    Attributes:
        latents: (n, *latent_shape).
        identities: (n,); samples are all different people.
        names: file names; empty for samples.
    """

    latents: Latents
    identities: Ints
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, part: slice) -> Faces:
        return Faces(self.latents[part], self.identities[part], self.names[part])


@dataclass(frozen=True, eq=False)
class Pool:
    """A model's own samples, and what the judge says of them.

    Attributes:
        latents: (n, *latent_shape).
        probabilities: (n, K).
        features: (n, F).
    """

    latents: Latents
    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to be measured, with its pictures and directions.

    Attributes:
        name: of its folder.
        model: the model.
        fingerprint: of its weights.
        dataset: labelled pictures of its size.
        cache: folder of what was computed before.
        directions: its direction file, if it has a usable one.
        projected: latents of pictures, if it has no encoder and was given some.
        problem: why its directions are not usable.
        recipe: how it was trained, as far as its card says.
    """

    name: str
    model: LatentModel
    fingerprint: str
    dataset: FaceDataset
    cache: Path
    directions: DirectionSet | None = None
    projected: Projected | None = None
    problem: str = ""
    recipe: Mapping[str, float] = field(default_factory=dict)

    @property
    def has_latents(self) -> bool:
        """Whether latents of given pictures can be had."""
        return self.model.has_encoder or self.projected is not None

    @cached_property
    def known(self) -> LabelledLatents | None:
        """All training and validation pictures that have latents: what directions are found on."""
        indices = self.available("train", "validation")
        return self.labelled(indices, mirror=self.projected is None) if len(indices) else None

    @property
    def has_test_faces(self) -> bool:
        """Whether latents of test faces can be had; for an encoder the data decide."""
        return self.model.has_encoder or len(self.available("test")) > 0

    def available(self, *partitions: str) -> Ints:
        """Pictures of some partitions that have latents, ascending."""
        if not self.has_latents:
            return np.zeros(0, np.int64)
        indices = self.dataset.indices(*partitions)
        if self.projected is None:
            return indices
        return np.intersect1d(indices, self.projected.indices)

    def labelled(self, indices: Ints, mirror: bool) -> LabelledLatents:
        """Latents of pictures, and of their mirror images, with what is known about them."""
        return LabelledLatents(
            latents=self.encode(indices),
            labels=self.dataset.labels[indices],
            attributes=self.dataset.attributes,
            identities=self.dataset.identities[indices],
            origin=Origin(
                "encoded" if self.projected is None else "projected",
                "the compared pictures",
                self.dataset.digest,
                len(indices),
            ),
            preprocessing=self.dataset.preprocessing,
            mirrored=self.encode(indices, mirror=True) if mirror else None,
        )

    def encode(self, indices: Ints, mirror: bool = False) -> Latents:
        """Latents of some pictures, or of their mirror images: (n, *latent_shape)."""
        if self.projected is not None:
            order = np.argsort(self.projected.indices)
            place = np.searchsorted(self.projected.indices[order], indices)
            return self.projected.latents[order[place]]
        digest = hashlib.sha256(self.dataset.digest.encode())
        digest.update(np.asarray(indices, "<i8").tobytes())
        kind = "mirrored" if mirror else "latents"
        name = f"{kind}-{self.fingerprint[:16]}-{digest.hexdigest()[:16]}.npz"
        return _cached(self.cache / name, lambda: {kind: self._encode(indices, mirror)})[kind]

    @torch.inference_mode()
    def _encode(self, indices: Ints, mirror: bool) -> Latents:
        parts = [np.zeros((0, *self.model.latent_shape), np.float32)]
        for start in range(0, len(indices), BATCH):
            images = self.dataset.batch(indices[start : start + BATCH])
            images = images.flip(3) if mirror else images
            parts.append(self.model.encode(images).float().numpy())
        return np.concatenate(parts)

    def faces(self, indices: Ints) -> Faces:
        """Pictures of the dataset as faces."""
        names = tuple(self.dataset.names[i] for i in indices)
        return Faces(self.encode(indices), self.dataset.identities[indices], names)

    def choose(
        self, label: Bools, partition: str, n: int, seed: int, present: bool = False
    ) -> Ints:
        """Up to n pictures of a partition that lack an attribute, or have it.

        Args:
            label: (N,), the attribute on all pictures.
            partition: "train", "validation" or "test".
            n: how many are wanted.
            seed: of the draw; all models with an encoder get the same pictures.
            present: draw those that have it.
        """
        candidates = self.available(partition)
        candidates = candidates[label[candidates] == present]
        return np.sort(np.random.default_rng(seed).permutation(candidates)[:n])

    @torch.inference_mode()
    def pool(self, judge: AttributeClassifier, judge_id: str, n: int, seed: int) -> Pool:
        """Draw and judge n samples."""
        latents = self.model.sample_latents(n, generator=torch.Generator().manual_seed(seed))

        def measure() -> dict[str, np.ndarray]:
            probabilities, features = read_in_batches(
                judge, (self.model.decode(part) for part in latents.split(BATCH))
            )
            return {"probabilities": probabilities, "features": features}

        name = f"samples-{self.fingerprint[:16]}-{judge_id[:16]}-{n}-{seed}.npz"
        return Pool(latents=latents.numpy(), **_cached(self.cache / name, measure))


def sampled_faces(pool: Pool, column: int, n: int, present: bool = False) -> Faces:
    """The first n samples that the judge says lack an attribute, or have it."""
    has = pool.probabilities[:, column] >= ABSENT
    chosen = np.flatnonzero(has == present)[:n]
    return Faces(pool.latents[chosen], chosen)


def to_tensor(latents: Latents) -> Tensor:
    """Latents as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(latents))


def face_kinds(subject: Subject, samples_too: bool) -> tuple[str, ...]:
    """Which faces of a subject are edited.

    Args:
        subject: the model.
        samples_too: whether a model with an encoder edits its own samples too.
    """
    test = (TEST,) if subject.has_test_faces else ()
    # The paper edits samples of the model without an encoder.
    samples = (SAMPLES,) if samples_too or not subject.model.has_encoder else ()
    return (*test, *samples)


def _cached(path: Path, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays from a file, computed and written where it is missing."""
    if not path.is_file():
        arrays = compute()
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types its keywords as bool
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)
