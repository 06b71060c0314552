"""Measured quantities in the place of labels, such as brightness, pose and the shape of a face.

Supervised principal components give a direction of each; how exactly a requested change comes out
is measured, as Slot et al. 2021 edit faces (Neural Comput. & Appl. 33:1079).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.data.listing import read_table
from hublatent.direction import Direction
from hublatent.discovery.directions import discover_all
from hublatent.discovery.labelled import LabelledLatents, encode, encode_images
from hublatent.editing import edit
from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.images import as_rgb
from hublatent.model import LatentModel
from hublatent.perception.faces import FaceDetector
from hublatent.stats import Estimate, Floats, Ints, bootstrap_means, interval

QUANTITIES = ("Brightness", "Yaw", "Face_Length", "Mouth_Width")
CHANGES = np.array([-2.0, -1.0, 1.0, 2.0])  # requested, in deviations of the quantity
N_PICTURES = 200  # that are edited for each of the two scores
BATCH = 64
# The columns of CelebA's list_landmarks_align_celeba: left and right as seen.
LANDMARKS = tuple(
    f"{point}_{axis}"
    for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    for axis in "xy"
)


def with_quantities(data: LabelledLatents, quantities: Mapping[str, Floats]) -> LabelledLatents:
    """The same latents with quantities as attributes; the label of each is "above its median".

    Args:
        data: N latents; their labels are left out, and the mirror images too: pose has a side.
        quantities: name -> (N,).
    """
    for name, values in quantities.items():
        if values.shape != (len(data.latents),):
            raise DataError(
                f"{name} has the shape {values.shape}; expected ({len(data.latents)},)."
            )
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            raise DataError(f"{name} is the same everywhere, or not finite, so nothing follows it.")
    if not quantities:
        raise DataError("No quantities were given.")
    targets = np.column_stack([*quantities.values()]).astype(np.float64)
    labels = targets > np.median(targets, axis=0)
    return replace(
        data, labels=labels, attributes=tuple(quantities), targets=targets, mirrored=None
    )


def read_quantities(path: Path, names: Sequence[str]) -> dict[str, Floats]:
    """Read a table of numbers about N named images, such as CelebA's landmarks or bounding boxes.

    The file may hold more images. Returns each column's name -> (N,); of CelebA's landmarks the
    `face_quantities`.
    """
    table = read_table(path)
    wanted = table.columns.iloc[table.rows_of(names)]
    found = {}
    for column in wanted:
        try:
            found[column] = np.array([float(text) for text in wanted[column]])
        except ValueError as error:
            raise DataError(
                f"{path}: a field of the column {column} is no number: {error}."
            ) from error
    if set(LANDMARKS) <= set(found):
        points = np.column_stack([found[name] for name in LANDMARKS])  # (N, 10)
        return face_quantities(points.reshape(-1, 5, 2))
    return found


def face_quantities(points: Floats) -> dict[str, Floats]:
    """How a face is turned and shaped, from five points, in distances between the eyes.

    Args:
        points: (N, 5, 2), x and y of the left and right eye, the nose, the left and right corner of
            the mouth, as seen; such as CelebA's landmarks or those of FaceDetector.

    Returns:
        "Yaw": the nose's offset from between the eyes, to the right; "Face_Length": the mouth's
        distance below the eyes; "Mouth_Width"; each (N,).
    """
    left, right, nose, mouth_left, mouth_right = (points @ (1, 1j)).T  # in complex numbers
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    axis = right - left  # along the eyes: divided by it, a tilted head changes nothing
    return {
        "Yaw": ((nose - eyes) / axis).real,
        "Face_Length": ((mouth - eyes) / axis).imag,
        "Mouth_Width": np.abs((mouth_right - mouth_left) / axis),
    }


def find_measured(
    model: LatentModel, dataset: FaceDataset, detector: FaceDetector,
    quantities: Sequence[str] = QUANTITIES, *, seed: int = 0, progress: bool = False,
) -> Iterator[Direction]:  # fmt: skip
    """Find the directions of measured quantities by supervised principal components.

    Args:
        model: with an encoder.
        dataset: faces; training and validation pictures are learnt from, test pictures edited.
        detector: finds the points that pose and shape are measured by.
        seed: of the folds, the pictures that are edited, and the bootstrap.

    Yields:
        A direction for each. Beside how well it reads "above the median", its scores say what edits
        do: "effect", how many deviations of the quantity one sigma changes (so a change c takes
        the strength c / effect), and "R2 of changes", of those obtained against those requested by
        that rule, on people who took no part.
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
    for direction in discover_all(data, quantities, ("supervised-pca",), model=model, seed=seed):
        deviation = float(values[direction.attribute].std())
        obtained = _changes(model, detector, direction, own, CHANGES) / deviation  # (S, n)
        # The slope on the changes by least squares; its interval is over pictures.
        slopes = CHANGES @ obtained / np.square(CHANGES).sum()  # (n,)
        effect = _mean(slopes, np.arange(len(slopes)))
        obtained = _changes(model, detector, direction, others, CHANGES / effect.value) / deviation
        wrong = np.square(obtained - CHANGES[:, None]).sum(axis=0)  # (n,)
        explained = 1 - wrong / np.square(CHANGES).sum()  # R^2: the changes' mean is 0
        score = _mean(explained, dataset.identities[test], seed)
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
    model: LatentModel, detector: FaceDetector, direction: Direction, latents: Tensor,
    strengths: Floats,
) -> Floats:  # fmt: skip
    """(S, n): how far edits by each strength change the quantity."""

    def measured(strength: float) -> Floats:
        moved = edit(latents.to(model.latent_mean), direction, strength)
        drawn = (model.decode(part) for part in moved.split(BATCH))
        return np.concatenate([_measure(images, detector)[direction.attribute] for images in drawn])

    start = measured(0.0)
    return np.stack([measured(float(strength)) - start for strength in strengths])


def _mean(values: Floats, identities: Ints, seed: int = 0) -> Estimate:
    """Mean of values (n,), with the bootstrap's interval over people."""
    mean, drawn = bootstrap_means(values[:, None], identities, seed)
    return interval(drawn[:, 0], float(mean[0]))
