"""LabelledLatents: latents of images, with what is known about each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed as dist
from tqdm import tqdm

from hublatent.data import FaceDataset
from hublatent.direction import Origin
from hublatent.errors import DataError, unknown_name
from hublatent.model import LatentModel
from hublatent.stats import Bools, Floats, Ints

Latents = NDArray[np.float32]

BATCH = 64
BLOCK = 4096  # examples that a pass over the latents holds at once


@dataclass(frozen=True, eq=False)
class LabelledLatents:
    """Latents of images, with what is known about each image.

    Hardly any attribute has a side, so fits learn from the mirror images' latents too; scores are
    those of the images themselves.
    """

    latents: Latents  # (N, *latent_shape), float32
    labels: Bools  # (N, K), presence of each attribute
    attributes: tuple[str, ...]  # K names
    identities: Ints  # (N,), who is on each image
    origin: Origin | None = None  # where they come from
    preprocessing: str | None = None  # how images were cropped and resized
    mirrored: Latents | None = None  # (N, *latent_shape), of the mirror images
    targets: Floats | None = None  # (N, K), quantities behind the labels, such as logits

    def __post_init__(self) -> None:
        object.__setattr__(self, "latents", np.asarray(self.latents, np.float32))
        object.__setattr__(self, "labels", _as_bools(self.labels))
        if self.mirrored is not None:
            object.__setattr__(self, "mirrored", np.asarray(self.mirrored, np.float32))
            _check_alike("mirror images' latents", self.mirrored, "latents", self.latents)
        if self.targets is not None:
            _check_alike("targets", self.targets, "labels", self.labels)
        lengths = {len(self.latents), len(self.labels), len(self.identities)}
        if len(lengths) != 1 or self.labels.shape[1:] != (len(self.attributes),):
            raise DataError(
                f"{len(self.latents)} latents, labels of shape {self.labels.shape}, "
                f"{len(self.identities)} identities and {len(self.attributes)} attributes "
                "do not belong together."
            )
        for latents in (self.latents, self.mirrored):
            if latents is not None and not np.isfinite(latents.mean(axis=0, dtype=float)).all():
                raise DataError("The latents hold NaN or infinite values; the model is broken.")

    @cached_property
    def pooled_latents(self) -> Latents:
        """(N, D): the latents; those with layers (L, D) averaged over them, as in the paper."""
        return _pooled(self.latents)

    @cached_property
    def _pooled_mirrored(self) -> Latents | None:
        return None if self.mirrored is None else _pooled(self.mirrored)

    @cached_property
    def centre(self) -> Floats:
        """(D,): the mean of the pooled latents, which may be far larger than their spread.

        In float32's digits, so that latents less it lose none.
        """
        pooled = self._mean.reshape(-1, self._mean.shape[-1]).mean(axis=0)
        return np.asarray(pooled.astype(np.float32), float)

    @cached_property
    def _mean(self) -> Floats:
        """(*latent_shape): the mean of the latents."""
        return np.asarray(self.latents.mean(axis=0, dtype=float))

    def read(self, indices: Ints, rows: Floats) -> tuple[Floats, Floats]:
        """Read some images' latents along rows (R, *latent_shape), or pooled along rows (R, D).

        Returns:
            <z - c, row> (n, R), c the mean of all latents, and <c, row> (R,): a mean that is much
            larger than the spread would leave little of what differs in <z, row>.
        """
        latents = self.pooled_latents if rows.ndim == 2 else self.latents
        centre = self.centre if rows.ndim == 2 else self._mean
        columns = rows.reshape(len(rows), -1).T.astype(float)
        parts = (latents[indices[i : i + BLOCK]] for i in range(0, len(indices), BLOCK))
        readings = [(part - centre).reshape(len(part), -1) @ columns for part in parts]
        return np.concatenate(readings), centre.reshape(-1) @ columns

    def blocks(self, indices: Ints) -> Iterator[tuple[Ints, Latents]]:
        """Go over some images' pooled latents, then their mirror images', a block at a time.

        Yields:
            Indices (b,), and their pooled latents less `centre`, copied (b, D).
        """
        centre = self.centre.astype(np.float32)
        for latents in (self.pooled_latents, self._pooled_mirrored):
            for start in range(0, 0 if latents is None else len(indices), BLOCK):
                part = indices[start : start + BLOCK]
                yield part, latents[part] - centre  # type: ignore[index]

    def label(self, attribute: str) -> Bools:
        """(N,): presence of one attribute."""
        return np.asarray(self.labels[:, self.column(attribute)])

    def column(self, attribute: str) -> int:
        """Where an attribute stands among the K."""
        if attribute not in self.attributes:
            raise DataError(unknown_name("attribute", attribute, self.attributes))
        return self.attributes.index(attribute)


def encode(
    model: LatentModel, dataset: FaceDataset, partitions: Sequence[str] = ("train", "validation"),
    *, mirror: bool = True, progress: bool = False,
) -> LabelledLatents:  # fmt: skip
    """Encode a data set's images and, where asked, their mirror images.

    Processes of one torch.distributed group (`accelerate launch`) share the work, and all get it.
    """
    indices = dataset.indices(*partitions)
    if not len(indices):
        raise DataError(
            f"{dataset.name} has no {' or '.join(partitions)} images; directions need some."
        )
    n = len(indices)
    found = np.zeros(((1 + mirror) * n, *model.latent_shape), np.float32)
    shared = dist.is_available() and dist.is_initialized()
    rank, n_processes = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
    mine = range(0, n, BATCH)[rank::n_processes]
    for start in tqdm(mine, desc="encode", unit="batch", disable=not progress or rank > 0):
        images = dataset.batch(indices[start : start + BATCH])
        found[start : start + len(images)] = encode_images(model, images)
        if mirror:
            found[n + start : n + start + len(images)] = encode_images(model, images.flip(3))
    if shared:  # each process's share is zero in all others
        for start in range(0, len(found), BLOCK):
            part = torch.from_numpy(found[start : start + BLOCK]).to(model.latent_mean.device)
            dist.all_reduce(part)
            found[start : start + BLOCK] = part.cpu().numpy()
    origin = Origin("encoded", dataset.name, dataset.digest, n)
    return labelled(dataset, indices, found[:n], origin, found[n:] if mirror else None)


@torch.no_grad()
def encode_images(model: LatentModel, images: torch.Tensor) -> Latents:
    """(B, *latent_shape): the latents of images (B, C, H, W), on the CPU, in float32."""
    return model.encode(images.to(model.latent_mean)).float().cpu().numpy()


def labelled(
    dataset: FaceDataset, indices: Ints, latents: Latents, origin: Origin,
    mirrored: Latents | None = None,
) -> LabelledLatents:  # fmt: skip
    """Put the latents (n, *latent_shape) of some of a data set's images beside their labels."""
    return LabelledLatents(
        latents, dataset.labels[indices], dataset.attributes, dataset.identities[indices],
        origin, dataset.preprocessing, mirrored,
    )  # fmt: skip


def _pooled(latents: Latents) -> Latents:
    if latents.ndim < 3:
        return latents
    return latents.mean(axis=1, dtype=np.float64).astype(np.float32)


def _check_alike(
    what: str, given: NDArray[np.generic], beside: str, expected: NDArray[np.generic]
) -> None:
    if given.shape != expected.shape:
        raise DataError(
            f"The {what} have the shape {given.shape} and the {beside} {expected.shape}; expected "
            "the same."
        )


def _as_bools(labels: NDArray[np.generic]) -> Bools:
    if labels.dtype != bool and not np.isin(labels, (0, 1)).all():  # NaN is neither
        raise DataError(
            "The labels hold values other than 0 and 1 (or NaN); leave unlabelled images out, "
            "and say of each other one whether it shows the attribute."
        )
    return np.asarray(labels, bool)
