"""The page's HTML: templates/ filled in, with every picture inside the page and every text escaped.

A row's still parts are sent once. While the slider moves, `moves_of` sends only what it changes,
and static/page.js puts that into the rows with the same key.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from hublatent.demo.names import human_name
from hublatent.demo.session import Edit, EditRequest, Row, Still
from hublatent.demo.verdicts import FRAMES, SWEEP
from hublatent.figures import data_uri, fit, grid, png_uri

HERE = Path(__file__).parent
CSS = (HERE / "static" / "page.css").read_text(encoding="utf-8")


def script(name: str) -> str:
    """A script of the page."""
    return (HERE / "static" / f"{name}.js").read_text(encoding="utf-8")


PAGE_JS = script("page")
# Called by events of the page; see static/page.js.
MOVE_JS = "(moves) => hublatent.move(moves)"
LINK_JS = "(query) => hublatent.remember(query)"
# The page holds the default view; that of a link has to come first.
HEAD = "<script>document.documentElement.classList.toggle('hl-linked', !!location.search)</script>"
SHOW_JS = "() => document.documentElement.classList.remove('hl-linked')"
FIRST_JS = "(query) => { if (!location.search) hublatent.remember(query); }"
DOWNLOAD_JS = "(file) => hublatent.download(file)"
# An element that says something when it is clicked has it as JSON in data-say.
SAY_JS = """
element.addEventListener('click', (event) => {
  const said = event.target.closest('[data-say]');
  if (said && element.contains(said)) trigger('select', JSON.parse(said.dataset.say));
});
"""
BACK_JS = "window.addEventListener('popstate', () => trigger('change', {query: location.search}));"
# Once the typing has paused: 80 begins with 8.
BEYOND_JS = """
let later = null;
document.addEventListener('input', ({ target }) => {
  if (!target.closest('#strength')) return;
  clearTimeout(later);
  const { rangeOverflow, rangeUnderflow } = target.validity;
  if (rangeOverflow || rangeUnderflow) later = setTimeout(() => trigger('select', {}), 600);
});
"""

# Smallest and largest width at which pictures are sent; the browser shows them larger. What the
# slider moves is sent as the models draw it: an enlarged picture would take three times as long.
FACE_SIDES, EDITED_SIDES = (64, 256), (64, 512)
DOWNLOAD_SIDE = 128


def html(part: str, *given: Any) -> str:
    """A part of the page: "edit.shelf" is the macro `shelf` of the tab's template."""
    tab, _, name = part.partition(".")
    macros = TEMPLATES.get_template(f"{tab}.html.jinja").module
    return str(getattr(macros, name)(*given)).strip()


def sigmas(strength: float) -> str:
    """A strength as it is printed."""
    rounded = round(strength, 1)
    return f"{rounded:+g}σ" if rounded else "0"


def picture_uri(picture: Image.Image, low: int, high: int) -> str:
    """A picture as a `data:` address: JPEG, a quarter of a PNG's size and time; no loss is seen."""
    buffer, picture = io.BytesIO(), fit(picture, low, high)
    picture = picture if picture.mode == "L" else picture.convert("RGB")
    picture.save(buffer, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def shown(src: str, alt: str) -> Markup:
    """An element that shows an address."""
    # Decoded at once: while the slider moves, the picture would flicker otherwise.
    return Markup('<img src="{}" alt="{}" decoding="sync" draggable="false">').format(src, alt)


def image(picture: Image.Image, alt: str, sides: tuple[int, int] = FACE_SIDES) -> Markup:
    """An element that shows a picture, sent with a width between two."""
    return shown(picture_uri(picture, *sides), alt)


def say(**words: Any) -> Markup:
    """The attribute of an element that says these words when it is clicked."""
    return Markup('data-say="{}"').format(json.dumps(words))


TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, autoescape=True,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
TEMPLATES.filters["human_name"] = human_name
TEMPLATES.globals.update(
    human_name=human_name, sigmas=sigmas, uri=picture_uri, png_uri=png_uri, shown=shown,
    image=image, say=say, EDITED_SIDES=EDITED_SIDES,
)  # fmt: skip


@lru_cache(maxsize=64)
def _still_parts(still: Still) -> dict[str, Any]:
    """What of a row does not move with the slider: the unedited picture, frames, and the error."""
    low, high = still.sweep.safe
    told = "This model drew the face itself."
    if still.error is not None:
        found = "Projection" if still.projected else "Reconstruction"
        told = f"{found}: mean squared error {still.error:.4f}."
    frames = [
        (strength, low - 1e-6 <= strength <= high + 1e-6, picture_uri(frame, *FACE_SIDES))
        for strength, frame in zip(SWEEP[FRAMES].tolist(), still.frames, strict=True)
    ]
    unedited = picture_uri(still.reconstruction, *FACE_SIDES)
    return {"unedited": unedited, "frames": frames, "told": told}


def _moved_parts(made: Edit) -> dict[str, Any]:
    """What of a row the slider changes: its words and numbers, and the edit."""
    request, verdict, reading = made.request, made.verdict, made.reading
    name = human_name(request.attribute)
    method = made.opened.method_of(made.direction)
    numbers = [f"{sigmas(made.strength)} is α = {made.raw:+.2f} along {method}."]
    if reading is not None:
        change = f"{reading[0]:.0%} → {reading[1]:.0%}"
        numbers.append(f"The direction's own reading of {request.attribute}: {change}.")
    if request.held:
        left = made.direction.surviving_norm
        numbers.append(f"Holding still leaves {left:.0%} of the direction.")
    numbers.append(f"Mean change of the pixels {made.change:.3f}.")
    if verdict is not None and verdict.moved:
        numbers.append(f"Moved most beside it: {', '.join(verdict.moved)}.")
    text = verdict.text if verdict else f"{name} {sigmas(made.strength)}"
    if not made.reached:
        text += f"; {request.strength:g}% is out of its reach"
    return {
        "key": sha256(made.key.encode()).hexdigest()[:16],
        "verdict": text[:1].upper() + text[1:],
        "level": verdict.level if verdict else "none",
        "numbers": " ".join(numbers),
        "edited": {
            "src": picture_uri(made.picture, *EDITED_SIDES),
            "alt": f"The face with {name} {sigmas(made.strength)} in {made.model}",
        },
    }


def moves_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What a slider move sends, for MOVE_JS."""
    return [_moved_parts(row) for row in rows if isinstance(row, Edit)]


def results_html(rows: Sequence[Row], attribute: str) -> str:
    """All rows, or what to do when there is none."""
    parts = [
        (row, _moved_parts(row), _still_parts(row.still))
        if isinstance(row, Edit) else (row, None, None)
        for row in rows
    ]  # fmt: skip
    return html("edit.results", parts, human_name(attribute))


def download_of(rows: Sequence[Row], request: EditRequest) -> dict[str, str] | None:
    """The strips of all models as one PNG, for DOWNLOAD_JS; it needs no file on the server."""
    done = [row for row in rows if isinstance(row, Edit)]
    if not done:
        return None
    side, labels = DOWNLOAD_SIDE, [sigmas(s) for s in SWEEP[FRAMES].tolist()]
    frames = [[fit(frame, side, side) for frame in row.still.frames] for row in done]
    held = f", holding {', '.join(request.held)}" if request.held else ""
    moved = f", layers {request.layers}" if request.layers else ""
    title = f"{request.attribute} ({request.method}{held}{moved})"
    sheet = grid(frames, [row.model for row in done], labels, title)
    name = f"{request.attribute}-{request.method}.png".replace(" ", "-")
    return {"src": data_uri(sheet), "name": name}
