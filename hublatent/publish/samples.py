"""The picture of a card: a model's own samples, and the same ones edited along its directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from hublatent import figures
from hublatent.direction import Direction
from hublatent.editing import edit
from hublatent.images import to_pil
from hublatent.model import LatentModel

SAMPLE_COLUMNS = 8
UNEDITED_ROWS = 3  # where there is nothing to edit along
SAMPLE_STRENGTH = 3.0
SAMPLE_WIDTH = 128  # pixels; smaller images are enlarged by a whole factor


@torch.no_grad()
def draw_samples(
    model: LatentModel, directions: Sequence[Direction] = (), seed: int = 0, n_rows: int = 1
) -> tuple[Image.Image, str]:
    """Draw a model's own samples, and the same ones edited along each of some directions.

    Args:
        model: the model.
        directions: one per row, each with its sigma; without any there are more samples instead.
        seed: of the samples.
        n_rows: rows of samples; the last is edited.

    Returns:
        The picture, and a sentence that says what it shows.
    """
    draws = torch.Generator().manual_seed(seed)
    latents = model.sample_latents(SAMPLE_COLUMNS, generator=draws)
    more = [model.sample_latents(SAMPLE_COLUMNS, generator=draws) for _ in range(n_rows - 1)]
    rows = [*(("", others) for others in more), ("samples", latents)]
    for direction in directions:
        label = f"{direction.name} at +{SAMPLE_STRENGTH:g} standard deviations"
        rows.append((label, edit(latents, direction, SAMPLE_STRENGTH)))
    caption = "Samples, and the same ones edited along the directions that the rows name."
    if not directions:
        extra = range(max(UNEDITED_ROWS - n_rows, 0))
        rows += [("", model.sample_latents(SAMPLE_COLUMNS, generator=draws)) for _ in extra]
        caption = "Samples."
    elif n_rows > 1:
        caption = (
            "Samples; those of the row with that name edited along the directions named below."
        )
    scale = max(1, SAMPLE_WIDTH // model.image_size)
    pictures = [to_pil(model.decode(latents), scale) for _, latents in rows]
    return figures.grid(pictures, [label for label, _ in rows], [""] * SAMPLE_COLUMNS), caption
