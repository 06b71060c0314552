"""Contact sheets: many images in one picture."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from hublatent.images import to_pil


def contact_sheet(images: Tensor, n_columns: int) -> Image.Image:
    """Lay images out in rows, from the top left.

    Args:
        images: (B, C, H, W) in [-1, 1].
        n_columns: images per row.

    Returns:
        A picture of ceil(B / n_columns) rows; the last row may end in black.
    """
    pictures = to_pil(images)
    width, height = pictures[0].size
    n_rows = -(-len(pictures) // n_columns)
    sheet = Image.new("RGB", (n_columns * width, n_rows * height))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % n_columns * width, i // n_columns * height))
    return sheet
