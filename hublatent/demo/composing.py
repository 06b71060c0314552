"""Several edits of one face at once, a mix with another face, and the way there as an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from hublatent.demo.faces import Face, latents_of, time_limit
from hublatent.demo.session import MAX_ROWS, SHOWN_SIDE
from hublatent.demo.shelf import ModelShelf, OpenModel
from hublatent.demo.verdicts import Judges, describe_change
from hublatent.editing import edit
from hublatent.errors import HublatentError
from hublatent.figures import fit, strip
from hublatent.images import to_pil

N_CHANGES = 5  # sliders of the page
MAX_CHANGES = 8
# Shares of the whole change, there and back, that an animation shows.
WAY = tuple(i / 12 for i in (*range(13), *range(11, 0, -1)))
FRAME_SIDE, FRAME_MILLISECONDS = 160, 80


@dataclass(frozen=True)
class Composition:
    """What is to be done to a face.

    Attributes:
        changes: attributes, and by how many standard deviations.
        method: how their directions were found.
        mix: the share of the other face, from 0 to 1.
    """

    changes: tuple[tuple[str, float], ...] = ()
    method: str = ""
    mix: float = 0.0


@dataclass(frozen=True, eq=False)
class Composed:
    """One model's answer.

    Attributes:
        model: its name.
        problem: why there is none; "" if there is one.
        unedited: its picture of the face.
        edited: with all changes.
        words: what the judges read of it.
    """

    model: str
    problem: str = ""
    unedited: Image.Image | None = None
    edited: Image.Image | None = None
    words: str = ""


@torch.inference_mode()
def compose(
    shelf: ModelShelf, face: Face, other: Face | None, models: Sequence[str], what: Composition
) -> list[Composed]:
    """Change a face in several ways at once, in several models.

    Args:
        shelf: where the models come from.
        face: what to change.
        other: the face to mix in; None for none.
        models: names of the models.
        what: the changes.

    Returns:
        One answer per model; one that cannot answer says why.
    """
    answers = []
    check = time_limit(shelf.limits.request_seconds)
    for i, name in enumerate(models[:MAX_ROWS]):
        try:
            check(i, len(models))
            opened = shelf.open(name)
            start, end = _ends(opened, face, other, what)
            pair = opened.model.decode(torch.cat([start, end]))
            unedited, edited = (fit(p.convert("RGB"), 1, SHOWN_SIDE) for p in to_pil(pair))
            words = _words(shelf.judges, what, pair[:1], pair[1:])
            answers.append(Composed(name, "", unedited, edited, words))
        except HublatentError as error:
            answers.append(Composed(name, shelf.tell(error)))
    return answers


@torch.inference_mode()
def animate(
    shelf: ModelShelf, face: Face, other: Face | None, models: Sequence[str], what: Composition
) -> bytes:
    """A GIF of the way from the face to the changed one and back, the models side by side.

    Raises:
        HublatentError: no model can answer.
    """
    columns = []
    error = HublatentError("No model is chosen.")
    check = time_limit(shelf.limits.request_seconds)
    for i, name in enumerate(models[:MAX_ROWS]):
        try:
            check(i, len(models))
            opened = shelf.open(name)
            start, end = _ends(opened, face, other, what)
        except HublatentError as caught:
            error = caught
            continue
        pictures = [
            picture.convert("RGB")
            for share in WAY
            for picture in to_pil(opened.model.decode(start + share * (end - start)))
        ]
        columns.append([fit(picture, FRAME_SIDE, FRAME_SIDE) for picture in pictures])
    if not columns:
        raise error
    first, *rest = (strip(frame) for frame in zip(*columns, strict=True))
    buffer = io.BytesIO()
    first.save(
        buffer, "GIF", save_all=True, append_images=rest, duration=FRAME_MILLISECONDS, loop=0
    )
    return buffer.getvalue()


def _ends(
    opened: OpenModel, face: Face, other: Face | None, what: Composition
) -> tuple[Tensor, Tensor]:
    """The face's latent (1, *latent_shape), and the changed one."""
    start = end = latents_of(opened, face)
    if other is not None and what.mix:
        end = torch.lerp(start, latents_of(opened, other), what.mix)
    for attribute, strength in what.changes:
        end = edit(end, opened.find(attribute, what.method), strength)
    return start, end


def _words(judges: Judges, what: Composition, unedited: Tensor, edited: Tensor) -> str:
    """What the classifier reads of the changed attributes, and whether it is the same person."""
    parts = []
    pair = judges.attributes(torch.cat([unedited, edited]))
    if pair is not None and judges.classifier is not None:
        names = judges.classifier.attribute_names
        parts = [
            describe_change(name, *pair[:, names.index(name)])
            for name, _ in what.changes
            if name in names
        ]
    person = judges.person(unedited, edited)
    text = ", ".join([*parts, *([person] if person else [])])
    return text[:1].upper() + text[1:]
