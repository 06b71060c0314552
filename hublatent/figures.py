"""Pictures made of pictures: strips and labelled grids."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hublatent.errors import HublatentError

GAP = 4
MARGIN = 12
FONT_SIZE = 13
BACKGROUND = "white"
INK = "#1f2430"


def strip(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """Set pictures of one size side by side.

    Args:
        pictures: at least one, all of the same size.
        gap: white pixels between two of them.

    Returns:
        One RGB picture.
    """
    width, height = _common_size(pictures)
    joined = Image.new("RGB", (len(pictures) * (width + gap) - gap, height), BACKGROUND)
    for i, picture in enumerate(pictures):
        joined.paste(picture, (i * (width + gap), 0))
    return joined


def grid(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str = "",
) -> Image.Image:
    """Set pictures in rows and columns, with a label above each row and below each column.

    Args:
        rows: equally many pictures each, all of the same size.
        row_labels: one per row.
        column_labels: one per column.
        title: a line at the top.

    Returns:
        One RGB picture on white.
    """
    width, height = _common_size([picture for row in rows for picture in row])
    n_columns = len(column_labels)
    if len(row_labels) != len(rows) or any(len(row) != n_columns for row in rows):
        raise HublatentError(
            f"A grid of {len(rows)} rows got {len(row_labels)} row labels, {n_columns} column "
            f"labels and rows of {sorted({len(row) for row in rows})} pictures."
        )
    font = label_font()
    line = FONT_SIZE + 8
    top = MARGIN + (line if title else 0)
    pitch = line + height + GAP
    size = (
        2 * MARGIN + n_columns * (width + GAP) - GAP,
        top + len(rows) * pitch + line + MARGIN - GAP,
    )
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=font)
    for r, (row, label) in enumerate(zip(rows, row_labels, strict=True)):
        draw.text((MARGIN, top + r * pitch + 2), label, fill=INK, font=font)
        for c, picture in enumerate(row):
            sheet.paste(picture, (MARGIN + c * (width + GAP), top + r * pitch + line))
    for c, label in enumerate(column_labels):
        centre = MARGIN + c * (width + GAP) + width // 2
        draw.text((centre, size[1] - MARGIN), label, fill=INK, font=font, anchor="md")
    return sheet


def fit(picture: Image.Image, low: int, high: int) -> Image.Image:
    """Resize a picture, with LANCZOS, if its width is not between `low` and `high` pixels."""
    width = min(max(picture.width, low), high)
    if width == picture.width:
        return picture
    height = max(1, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def data_uri(picture: Image.Image) -> str:
    """The picture as a PNG inside a `data:` address, for HTML that refers to no other file."""
    buffer = io.BytesIO()
    # The fastest compression: these are sent once, over a connection that is usually local.
    picture.save(buffer, format="PNG", compress_level=1)
    return png_uri(buffer.getvalue())


def png_uri(png: bytes) -> str:
    """The bytes of a PNG inside a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


@cache
def label_font() -> ImageFont.FreeTypeFont:
    """Matplotlib's own font: Pillow's has no σ."""
    import matplotlib  # takes a while, and pictures without labels do not need it

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, FONT_SIZE)


def _common_size(pictures: Sequence[Image.Image]) -> tuple[int, int]:
    sizes = {picture.size for picture in pictures}
    if len(sizes) != 1:
        raise HublatentError(
            f"Pictures of one size are needed; given: {len(pictures)} of sizes {sorted(sizes)}."
        )
    return sizes.pop()
