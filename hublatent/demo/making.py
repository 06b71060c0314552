"""Directions that a visitor makes of faces sorted into two heaps, in several models at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from hublatent.demo.faces import SAMPLE_SEEDS, Face, drawn_face, latents_of, time_limit
from hublatent.demo.shelf import ModelShelf, OpenModel
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery.few_images import FewImages, discover_from_few
from hublatent.editing import edit
from hublatent.errors import DirectionError, HublatentError
from hublatent.figures import fit
from hublatent.images import to_pil
from hublatent.mapping import carry_to

MIN_FACES = 5
PREVIEW_STRENGTH, PREVIEW_SIDE = 3.0, 96


@dataclass(frozen=True, eq=False)
class Made:
    """What one model made of the two heaps.

    Attributes:
        model: its name.
        problem: why there is no direction; "" if there is one.
        found: the direction and its score.
        before: a few faces that the model draws.
        after: the same, moved by PREVIEW_STRENGTH.
    """

    model: str
    problem: str = ""
    found: FewImages | None = None
    before: tuple[Image.Image, ...] = ()
    after: tuple[Image.Image, ...] = ()


def make_directions(
    shelf: ModelShelf, name: str, with_it: Sequence[Face], without_it: Sequence[Face],
    models: Sequence[str],
) -> list[Made]:  # fmt: skip
    """Find the direction between two heaps of faces, in each of several models.

    Args:
        shelf: where the models come from.
        name: what to call the difference, such as "Dimples".
        with_it: faces that have it.
        without_it: faces that do not.
        models: names of the models.

    Returns:
        One answer per model; one that cannot answer says why.

    Raises:
        HublatentError: there is no name, or too few faces.
    """
    if not name.strip():
        raise HublatentError("Give the difference between the two heaps a name.")
    for heap, word in ((with_it, "with"), (without_it, "without")):
        if len(heap) < MIN_FACES:
            raise HublatentError(f"{len(heap)} faces {word} it; at least {MIN_FACES} are needed.")
    made = []
    check = time_limit(shelf.limits.request_seconds)
    for i, model in enumerate(models):
        try:
            check(i, len(models))
            made.append(_make(shelf.open(model), name.strip(), with_it, without_it))
        except HublatentError as error:
            made.append(Made(model, shelf.tell(error)))
    return made


@torch.inference_mode()
def _make(
    opened: OpenModel, name: str, with_it: Sequence[Face], without_it: Sequence[Face]
) -> Made:
    heaps = [
        torch.cat([latents_of(opened, face) for face in heap]) for heap in (with_it, without_it)
    ]
    found = discover_from_few(name, *heaps, model=opened.model)
    faces = [drawn_face(opened, seed) for seed in SAMPLE_SEEDS]
    latents = torch.cat([latents_of(opened, face) for face in faces])
    moved = opened.model.decode(edit(latents, found.direction, PREVIEW_STRENGTH))
    before, after = (
        tuple(fit(picture.convert("RGB"), PREVIEW_SIDE, PREVIEW_SIDE) for picture in pictures)
        for pictures in ([face.picture for face in faces], to_pil(moved))
    )
    return Made(opened.name, "", found, before, after)


def save_directions(shelf: ModelShelf, made: Sequence[Made], folder: Path) -> list[Path]:
    """Write a direction file for each model that found one; returns the files."""
    files = []
    for answer in made:
        if answer.found is not None:
            path = folder / f"{answer.found.direction.attribute}-{answer.model}.safetensors"
            model = shelf.open(answer.model).model
            DirectionSet.of(model, [answer.found.direction]).save(path.with_name(_plain(path.name)))
            files.append(path.with_name(_plain(path.name)))
    return files


def open_directions(shelf: ModelShelf, path: Path, models: Sequence[str]) -> list[Direction]:
    """Add the directions of a file to the model that they belong to, for this run of the app.

    Where a map leads to another of the models, they join that one too, carried across.

    Args:
        shelf: where the models come from.
        path: a direction file.
        models: names of the models that they may belong to.

    Returns:
        The directions.

    Raises:
        DirectionError: the file is damaged, or belongs to none of the models.
    """
    error: HublatentError | None = None
    for name in models:
        opened = shelf.open(name)
        try:
            found = DirectionSet.load(path, opened.model)
        except HublatentError as caught:
            error = caught
            continue
        for direction in found:
            shelf.add(name, direction)
            _carry(shelf, name, direction, models)
        return list(found)
    raise error or HublatentError("No model is open that directions could belong to.")


def _carry(shelf: ModelShelf, source: str, direction: Direction, models: Sequence[str]) -> None:
    for name in models:
        if name != source:
            with suppress(DirectionError):  # no map leads there: its row says what it lacks
                ends = shelf.open(source).model, shelf.open(name).model
                shelf.add(name, carry_to(direction, *ends, shelf.maps))


def _plain(name: str) -> str:
    """A file name of letters, digits and little else, whatever a visitor typed."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
