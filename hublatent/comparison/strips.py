"""Pictures of edits, as the paper shows them: strips (Figs. 1-3) and 10x10 grids (Figs. 4, 5).

Nothing here writes a file: pictures of a model's own samples may be published, pictures of real
people may not, and only the caller knows which latents these are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from hublatent import figures
from hublatent.comparison.words import sigmas
from hublatent.direction import Direction
from hublatent.editing import edit
from hublatent.errors import HublatentError
from hublatent.images import to_pil
from hublatent.model import LatentModel

STRIP_STRENGTHS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0)
STRIP_SIDE = 96
GRID_SIDE = 64
N_GRID_COLUMNS = 10
GRID_STRENGTH = 4.0
OWN_SAMPLES = "samples that the model drew itself"
BATCH = 32


@dataclass(frozen=True)
class Picture:
    """A picture and the sentence below it.

    Attributes:
        name: for a file, without its ending.
        title: a few words.
        image: RGB.
        caption: what it shows, strengths included.
    """

    name: str
    title: str
    image: Image.Image
    caption: str


def edit_strips(
    model: LatentModel,
    direction: Direction,
    latents: Tensor,
    *,
    name: str = "",
    strengths: Sequence[float] = STRIP_STRENGTHS,
    row_labels: Sequence[str] | None = None,
    source: str = OWN_SAMPLES,
) -> Picture:
    """One row per latent, edited further from column to column (paper, Figs. 1-3).

    Args:
        model: draws the pictures.
        direction: what to change.
        latents: (B, *latent_shape).
        name: of the model, for title and caption.
        strengths: one per column, in standard deviations.
        row_labels: one per latent, such as its outcome; None leaves them out.
        source: what the latents are, for the caption.

    Returns:
        The sheet and its caption.

    Raises:
        HublatentError: no latents or no strengths, or the labels do not fit the latents.
    """
    _check_some(latents, strengths)
    direction = _with_sigma(direction, model)
    rows = [
        _draw(model, torch.cat([edit(z, direction, s) for s in strengths]), STRIP_SIDE)
        for z in latents.split(1)
    ]
    labels = [""] * len(rows) if row_labels is None else list(row_labels)
    title = f"{direction.attribute} along {direction.method}" + (f", {name}" if name else "")
    sheet = figures.grid(
        rows, labels, [_label(s) for s in strengths], f"{title} (standard deviations)"
    )
    caption = (
        f"{direction.attribute} along the {direction.method} direction{_of(name)}: "
        f"{_rows(len(rows))} of {source}, at {', '.join(map(sigmas, strengths))} "
        "(standard deviations of the coordinate; 0 is unedited)."
    )
    return Picture(_file("strips", name, direction), title, sheet, caption)


def before_and_after(
    model: LatentModel,
    direction: Direction,
    latents: Tensor,
    *,
    name: str = "",
    strength: float = GRID_STRENGTH,
    source: str = OWN_SAMPLES,
) -> Picture:
    """Two grids, unedited and edited, face by face in the same places (paper, Figs. 4, 5).

    Args:
        model: draws the pictures.
        direction: what to change.
        latents: (B, *latent_shape); 100 of them make the paper's 10x10.
        name: of the model, for the caption.
        strength: of the edit, in standard deviations.
        source: what the latents are, for the caption.

    Returns:
        Both grids in one picture, and the caption.

    Raises:
        HublatentError: no latents.
    """
    _check_some(latents, [strength])
    direction = _with_sigma(direction, model)
    columns = min(N_GRID_COLUMNS, len(latents))
    before = _mosaic(_draw(model, latents, GRID_SIDE), columns)
    after = _mosaic(_draw(model, edit(latents, direction, strength), GRID_SIDE), columns)
    image = _side_by_side(
        [before, after],
        ["unedited", f"{direction.attribute} at {_label(strength)} standard deviations"],
    )
    n_rows = -(-len(latents) // columns)
    model_words = f"{name}: " if name else ""
    caption = (
        f"{model_words}{columns}x{n_rows} {source}, unedited on the left; on the right each in the "
        f"same place, moved {sigmas(strength)} along the {direction.method} direction of "
        f"{direction.attribute}."
    )
    title = f"{direction.attribute} before and after" + (f", {name}" if name else "")
    return Picture(_file("grid", name, direction), title, image, caption)


def _draw(model: LatentModel, latents: Tensor, side: int) -> list[Image.Image]:
    """Decode latents batch by batch; pictures are `side` pixels wide."""
    with torch.no_grad():
        pictures = [
            picture for batch in latents.split(BATCH) for picture in to_pil(model.decode(batch))
        ]
    return [figures.fit(picture, side, side) for picture in pictures]


def _mosaic(pictures: Sequence[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """Pictures row by row, without labels; the last row may be shorter."""
    width, height = pictures[0].size
    n_rows = -(-len(pictures) // columns)
    size = (columns * (width + gap) - gap, n_rows * (height + gap) - gap)
    sheet = Image.new("RGB", size, figures.BACKGROUND)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        sheet.paste(picture, (column * (width + gap), row * (height + gap)))
    return sheet


def _side_by_side(sheets: Sequence[Image.Image], labels: Sequence[str]) -> Image.Image:
    """Sheets of one size with a label above each."""
    font = figures.label_font()
    line = figures.FONT_SIZE + 8
    margin, apart = figures.MARGIN, 2 * figures.MARGIN
    width, height = sheets[0].size
    size = (2 * margin + len(sheets) * (width + apart) - apart, 2 * margin + line + height)
    joined = Image.new("RGB", size, figures.BACKGROUND)
    draw = ImageDraw.Draw(joined)
    for i, (sheet, label) in enumerate(zip(sheets, labels, strict=True)):
        left = margin + i * (width + apart)
        draw.text((left, margin), label, fill=figures.INK, font=font)
        joined.paste(sheet, (left, margin + line))
    return joined


def _with_sigma(direction: Direction, model: LatentModel) -> Direction:
    return direction if direction.sigma is not None else direction.with_sigma(model)


def _check_some(latents: Tensor, strengths: Sequence[float]) -> None:
    if not len(latents) or not len(strengths):
        raise HublatentError(
            f"Pictures of edits need at least one latent and one strength; given: {len(latents)} "
            f"latents and {len(strengths)} strengths."
        )


def _label(strength: float) -> str:
    """A strength inside a picture, whose font has neither a sigma nor a minus sign."""
    return f"{strength:+g}" if strength else "0"


def _of(name: str) -> str:
    return f" of {name}" if name else ""


def _file(kind: str, name: str, direction: Direction) -> str:
    """A file name; attributes may hold spaces and other characters that few addresses like."""
    parts = [kind, name, direction.attribute, direction.method]
    return "-".join(re.sub(r"[^\w-]+", "_", part) for part in parts if part)


def _rows(n: int) -> str:
    return "one row" if n == 1 else f"{n} rows"
