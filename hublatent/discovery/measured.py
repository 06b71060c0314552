"""Directions of what is measured on the pictures, and how exactly a requested change comes out.

Slot et al. 2021 (Neural Comput. & Appl. 33:1079) edit faces by a change of a quantity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.direction import Direction
from hublatent.discovery.directions import discover_all
from hublatent.discovery.labelled import encode, encode_images
from hublatent.discovery.quantities import face_quantities, with_quantities
from hublatent.editing import edit
from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.images import as_rgb
from hublatent.stats import Estimate, Floats, Ints, bootstrap_means, interval

if TYPE_CHECKING:
    from hublatent.model import LatentModel
    from hublatent.perception.faces import FaceDetector

QUANTITIES = ("Brightness", "Yaw", "Face_Length", "Mouth_Width")
METHOD = "supervised-pca"
CHANGES = np.array([-2.0, -1.0, 1.0, 2.0])  # requested, in deviations of the quantity
N_PICTURES = 200  # that are edited for each of the two scores
BATCH = 64


def find_measured(
    model: LatentModel,
    dataset: FaceDataset,
    detector: FaceDetector,
    quantities: Sequence[str] = QUANTITIES,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Iterator[Direction]:
    """Find the directions of measured quantities by supervised principal components.

    Args:
        model: with an encoder.
        dataset: faces; training and validation pictures are learnt from, test pictures edited.
        detector: finds the points that pose and shape are measured by.
        quantities: some of QUANTITIES.
        seed: of the folds, the pictures that are edited, and the bootstrap.
        progress: whether to show a bar while encoding.

    Yields:
        A direction for each. Beside how well it reads "above the median", its scores say what edits
        do: "effect", how many deviations of the quantity one sigma changes (so a change c takes
        the strength c / effect), and "R2 of changes", of those obtained against those requested by
        that rule, on people who took no part.

    Raises:
        DataError: there are too few pictures.
        HublatentError: a quantity is unknown, or the model has no encoder.
    """
    for name in quantities:
        if name not in QUANTITIES:
            raise HublatentError(unknown_name("measured quantity", name, QUANTITIES))
    data = encode(model, dataset, mirror=False, progress=progress)
    learnt, test = dataset.indices("train", "validation"), dataset.indices("test")
    if len(test) < 2:
        raise DataError(f"{dataset.name} has {len(test)} test pictures; changes are scored on two.")
    parts = [_measure(dataset.batch(part), detector) for part in _batches(learnt)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in quantities}
    data = with_quantities(data, values)
    rng = np.random.default_rng(seed)
    own = torch.from_numpy(data.latents[rng.permutation(len(learnt))[:N_PICTURES]])
    test = rng.permutation(test)[:N_PICTURES]
    others = torch.cat(
        [torch.from_numpy(encode_images(model, dataset.batch(part))) for part in _batches(test)]
    )
    for direction in discover_all(data, quantities, (METHOD,), model=model, seed=seed):
        deviation = float(values[direction.attribute].std())
        effect = _effect(_changes(model, detector, direction, own, CHANGES) / deviation)
        obtained = _changes(model, detector, direction, others, CHANGES / effect.value) / deviation
        score = _explained(obtained, dataset.identities[test], seed)
        yield replace(
            direction, scores={**direction.scores, "effect": effect, "R2 of changes": score}
        )


def _batches(indices: Ints) -> list[Ints]:
    return np.split(indices, range(BATCH, len(indices), BATCH))


@torch.inference_mode()
def _measure(images: Tensor, detector: FaceDetector) -> dict[str, Floats]:
    """QUANTITIES (B,) of aligned faces (B, C, H, H); brightness from 0 to 1."""
    points = detector.points(as_rgb(images.to(next(detector.parameters())))).double().cpu().numpy()
    brightness = ((images.double() + 1) / 2).mean(dim=(1, 2, 3)).cpu().numpy()
    return {"Brightness": brightness, **face_quantities(points)}


@torch.inference_mode()
def _changes(
    model: LatentModel,
    detector: FaceDetector,
    direction: Direction,
    latents: Tensor,
    strengths: Floats,
) -> Floats:
    """(S, n): how far edits by each strength change the quantity."""

    def measured(strength: float) -> Floats:
        moved = edit(latents.to(model.latent_mean), direction, strength)
        drawn = (model.decode(part) for part in moved.split(BATCH))
        return np.concatenate([_measure(images, detector)[direction.attribute] for images in drawn])

    start = measured(0.0)
    return np.stack([measured(float(strength)) - start for strength in strengths])


def _effect(obtained: Floats) -> Estimate:
    """The slope, by least squares, of changes (S, n) on CHANGES; its interval is over pictures."""
    slopes = CHANGES @ obtained / np.square(CHANGES).sum()  # (n,)
    return _mean(slopes, np.arange(len(slopes)))


def _explained(obtained: Floats, identities: Ints, seed: int) -> Estimate:
    """R^2 of changes (S, n) against CHANGES, with the bootstrap's interval over people."""
    wrong = np.square(obtained - CHANGES[:, None]).sum(axis=0)  # (n,)
    return _mean(1 - wrong / np.square(CHANGES).sum(), identities, seed)  # their mean is 0


def _mean(values: Floats, identities: Ints, seed: int = 0) -> Estimate:
    """Mean of values (n,), with the bootstrap's interval over people."""
    mean, drawn = bootstrap_means(values[:, None], identities, seed)
    return interval(drawn[:, 0], float(mean[0]))
