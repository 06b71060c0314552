"""Measured quantities in the place of labels: brightness, pose, the shape of a face, any column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hublatent.data.tables import read_table
from hublatent.discovery.labelled import LabelledLatents
from hublatent.errors import DataError
from hublatent.stats import Floats

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

    Raises:
        DataError: there are none, or one has another length, is constant or not finite.
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
    return replace(data, labels=labels, attributes=tuple(quantities), targets=targets,
                   mirrored=None)  # fmt: skip


def read_quantities(path: Path, names: Sequence[str]) -> dict[str, Floats]:
    """Read a table of numbers about images, such as CelebA's landmarks or bounding boxes.

    Args:
        path: the file, with a column of the images' file names; it may hold more images.
        names: the N images that are wanted.

    Returns:
        Each other column's name -> (N,); of CelebA's landmarks the `face_quantities`.

    Raises:
        DataError: the file is malformed, lacks an image, or a field is no number.
    """
    table = read_table(path)
    wanted = table.columns.iloc[table.rows_of(names)]
    found = {name: _numbers(wanted[name], path, name) for name in wanted}
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
    left, right, nose, mouth_left, mouth_right = np.moveaxis(np.asarray(points, float), 1, 0)
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    axis = right - left  # along the eyes, so that a tilted head changes nothing
    squared = np.square(axis).sum(axis=1)
    down = np.stack([-axis[:, 1], axis[:, 0]], axis=1)
    return {
        "Yaw": ((nose - eyes) * axis).sum(axis=1) / squared,
        "Face_Length": ((mouth - eyes) * down).sum(axis=1) / squared,
        "Mouth_Width": np.linalg.norm(mouth_right - mouth_left, axis=1) / np.sqrt(squared),
    }


def _numbers(texts: Iterable[str], path: Path, column: str) -> Floats:
    try:
        return np.array([float(text) for text in texts])
    except ValueError as error:
        raise DataError(f"{path}: a field of the column {column} is no number: {error}.") from error
