"""The rows of session.py as HTML, for the app; pictures are inside the page.

A row's still parts are sent once. While the slider moves, `moves_of` sends only what it changes,
and static/page.js puts that into the rows with the same key. Every text is escaped.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from hublatent.demo.faces import Face
from hublatent.demo.names import FAVOURITES, human_name
from hublatent.demo.session import FRAMES, MODES, EditRequest, Row, Still
from hublatent.demo.verdicts import SWEEP
from hublatent.figures import data_uri, fit, grid, png_uri

STATIC = Path(__file__).parent / "static"
CSS = (STATIC / "page.css").read_text(encoding="utf-8")


def script(name: str) -> str:
    """A script of the page."""
    return (STATIC / f"{name}.js").read_text(encoding="utf-8")


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

# Smallest and largest width at which pictures are sent; the browser shows them larger. What the
# slider moves is sent as the models draw it: an enlarged picture would take three times as long.
FACE_SIDES, EDITED_SIDES = (64, 256), (64, 512)
DOWNLOAD_SIDE = 128


def sigmas(strength: float) -> str:
    """A strength as it is printed."""
    rounded = round(strength, 1)
    return f"{rounded:+g}σ" if rounded else "0"


def picture_uri(picture: Image.Image) -> str:
    """A picture as a `data:` address: JPEG, a quarter of a PNG's size and time; no loss is seen."""
    buffer = io.BytesIO()
    picture = picture if picture.mode == "L" else picture.convert("RGB")
    picture.save(buffer, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def say(**words: Any) -> str:
    """The attribute of an element that says these words when it is clicked."""
    return f'data-say="{escape(json.dumps(words))}"'


def image(picture: Image.Image, sides: tuple[int, int], alt: str) -> str:
    """A picture as an element."""
    # Decoded at once: while the slider moves, the picture would flicker otherwise.
    uri = picture_uri(fit(picture, *sides))
    return f'<img src="{uri}" alt="{escape(alt)}" decoding="sync" draggable="false">'


def shelf_html(faces: Sequence[Face], chosen: Face | None) -> str:
    """The row of faces to choose from, the visitor's own first, and what brings others."""
    if chosen is not None and not chosen.source:
        faces = [chosen, *faces]
    buttons = []
    for face in faces:
        here = chosen is not None and chosen.key == face.key
        name = f"face {face.seed}, drawn by {face.source}" if face.source else "your picture"
        words = say(seed=face.seed) if face.source else ""
        buttons.append(
            f'<button class="hl-face" aria-pressed="{str(here).lower()}" title="{escape(name)}" '
            f"{words}>{image(face.picture, FACE_SIDES, name)}</button>"
        )
    return (
        '<div class="hl-shelf">'
        f'<div class="hl-faces" role="group" aria-label="Faces">{"".join(buttons)}</div>'
        '<button class="hl-tool" data-toggle="upload-panel" aria-expanded="false">'
        "<b>+</b>Your photo</button>"
        f'<button class="hl-tool" {say(dice=True)}><b>⚄</b>Another</button>'
        '<button class="hl-tool" data-toggle="shelf-menu" aria-expanded="false" '
        'aria-label="Seed and the model that draws"><b>⋯</b>More</button></div>'
    )


def pills_html(attribute: str, offered: Sequence[str]) -> str:
    """The favourite attributes; the one that is chosen is always among them."""
    shown = [name for name in FAVOURITES if name in offered] or list(offered[:6])
    if attribute and attribute not in shown:
        shown = [attribute, *shown[:5]]
    pills = "".join(
        f'<button class="hl-pill" aria-pressed="{str(name == attribute).lower()}" '
        f"{say(attribute=name)}>{escape(human_name(name))}</button>"
        for name in shown
    )
    return f'<div class="hl-pills" role="group" aria-label="Attribute">{pills}</div>'


def original_html(face: Face | None) -> str:
    """The face that is edited, once for all models."""
    if face is None:
        return ""
    caption = f"drawn by {face.source}, seed {face.seed}" if face.source else "your picture"
    picture = image(face.picture, FACE_SIDES, "The face that is edited")
    return (
        f'<figure class="hl-original">{picture}<figcaption><b>Original</b> {escape(caption)}'
        "</figcaption></figure>"
    )


@lru_cache(maxsize=64)
def still_html(still: Still, name: str, attribute: str) -> tuple[str, str, str]:
    """What of a row does not move with the slider: unedited picture, frames, and its error."""
    unedited = image(still.reconstruction, FACE_SIDES, f"{name}'s unedited picture")
    low, high = still.sweep.safe
    frames = []
    for strength, frame in zip(SWEEP[FRAMES].tolist(), still.frames, strict=True):
        unsafe = "" if low - 1e-6 <= strength <= high + 1e-6 else " hl-unsafe"
        alt = f"{attribute} {sigmas(strength)} in {name}"
        frames.append(
            f'<button class="hl-frame{unsafe}" {say(strength=strength)}>'
            f"{image(frame, FACE_SIDES, alt)}<span>{sigmas(strength)}</span></button>"
        )
    if still.error is None:
        error = "This model drew the face itself."
    else:
        found = "Projection" if still.projected else "Reconstruction"
        error = f"{found}: mean squared error {still.error:.4f}."
    return unedited, "".join(frames), error


def moved_parts(row: Row, request: EditRequest) -> dict[str, Any]:
    """What of a row the slider changes: its words and numbers, the edit and the difference."""
    assert row.edited is not None
    name = human_name(request.attribute)
    numbers = [f"{sigmas(row.strength)} is α = {row.raw:+.2f}."]
    if row.before is not None and row.after is not None:
        change = f"{row.before:.0%} → {row.after:.0%}"
        numbers.append(f"The direction's own reading of {request.attribute}: {change}.")
    if request.held:
        numbers.append(f"Holding still leaves {row.surviving_norm:.0%} of the direction.")
    numbers.append(f"Mean change of the pixels {row.change:.3f}.")
    verdict = row.verdict
    if verdict is not None and verdict.moved:
        numbers.append(f"Moved most beside it: {', '.join(verdict.moved)}.")
    text = verdict.text if verdict else f"{name} {sigmas(row.strength)}"
    if not row.reached:
        text += f"; {request.strength:g}% is out of its reach"
    return {
        "key": _short(row.key),
        "verdict": text[:1].upper() + text[1:],
        "level": verdict.level if verdict else "none",
        "numbers": " ".join(numbers),
        "strength": row.strength,
        "edited": {
            "src": picture_uri(fit(row.edited, *EDITED_SIDES)),
            "alt": f"The face with {name} {sigmas(row.strength)} in {row.name}",
        },
    }


def moves_of(rows: Sequence[Row], request: EditRequest) -> list[dict[str, Any]]:
    """What a slider move sends, for MOVE_JS."""
    return [moved_parts(row, request) for row in rows if row.still is not None]


def row_html(row: Row, request: EditRequest) -> str:
    """One model's row."""
    name = escape(row.name)
    if row.still is None:
        text = "Looking for this face …" if row.pending else row.problem
        return (
            f'<section class="hl-row" data-model="{name}"><header><h3>{name}</h3></header>'
            f'<p class="hl-problem">{escape(text)}</p></section>'
        )
    moved = moved_parts(row, request)
    unedited, frames, error = still_html(row.still, row.name, human_name(request.attribute))
    src, alt = moved["edited"]["src"], escape(moved["edited"]["alt"])
    edited = f'<img src="{src}" alt="{alt}" decoding="sync" draggable="false">'
    return (
        f'<section class="hl-row" data-model="{name}" data-key="{moved["key"]}">'
        f'<header><h3><i class="hl-dot" data-level="{moved["level"]}"></i>{name}</h3>'
        f'<p class="hl-verdict">{escape(moved["verdict"])}</p></header>'
        f'<figure class="hl-unedited">{unedited}<figcaption>unedited</figcaption></figure>'
        f'<figure class="hl-edited" tabindex="0" title="Hold to see the unedited picture">{edited}'
        "</figure>"
        f'<div class="hl-frames">{frames}</div>'
        '<details class="hl-details"><summary>Details</summary><div>'
        '<figure class="hl-difference"><canvas role="img" aria-label="Where the edit is brighter '
        '(red) or darker (blue)"></canvas><figcaption>brighter red, darker blue'
        f'</figcaption></figure><p><span class="hl-numbers">{escape(moved["numbers"])}</span> '
        f"{escape(error)}</p></div></details></section>"
    )


def waiting_html(rows: Sequence[Row], face_key: str) -> str:
    """Which models have yet to find the face; another face makes another text."""
    names = [row.name for row in rows if row.pending]
    if not names:
        return ""
    return (
        f'<p class="hl-pending" data-face="{escape(face_key)}">Looking for this face in the latent '
        f"space of {escape(', '.join(names))}, which has no encoder.</p>"
    )


@dataclass
class Search:
    """How far a face has been found: steps taken and in all, and what is found so far."""

    done: int = 0
    total: int = 0
    picture: Image.Image | None = None


def search_html(search: Search, seconds: float) -> str:
    """How a search goes, after so many seconds, and how long it will take."""
    shown = ""
    if search.picture is not None:
        shown = image(search.picture, FACE_SIDES, "What is found so far")
    left = ""
    if search.done:
        left = f", about {seconds * (search.total / search.done - 1):.0f} s left"
    return (
        f'<div class="hl-search">{shown}<div><progress max="{max(1, search.total)}" '
        f'value="{search.done}" aria-label="Search"></progress><p>Step {search.done} of '
        f"{search.total}{left}</p></div></div>"
    )


def _short(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:16]


def results_html(rows: Sequence[Row], request: EditRequest) -> str:
    """All rows, or what to do when there is none."""
    if rows:
        tabs = "".join(
            f'<button data-tab="{escape(row.name)}">{escape(row.name)}</button>' for row in rows
        )
        body = "".join(row_html(row, request) for row in rows)
        return f'<nav class="hl-tabs" aria-label="Models">{tabs}</nav>{body}'
    return (
        '<div class="hl-empty"><h3>Choose a model to begin</h3>'
        "<p>Pick one under <b>Models</b>, or type a Hub id such as <code>user/btcvae-celeba</code> "
        "there and press Enter.</p><p>No model is listed? Put a model folder into "
        "<code>model_cards/</code>, or start the app with "
        "<code>python app.py --models FOLDER_OR_HUB_ID</code>.</p></div>"
    )


def crop_html(
    photo: Image.Image, corners: Sequence[tuple[float, float]], face: Face | None = None
) -> str:
    """A photo with the square that is cut out of it, and the face once it is."""
    width, height = photo.size
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    cut = image(face.picture, FACE_SIDES, "The face that was cut out") if face else ""
    return (
        '<div class="hl-crop"><div class="hl-photo">'
        f"{image(photo, (1, 320), 'Your photo')}"
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true"><polygon points="{points}"/></svg>'
        f"</div>{cut}</div>"
    )


def download_of(rows: Sequence[Row], request: EditRequest) -> dict[str, str] | None:
    """The strips of all models as one PNG, for DOWNLOAD_JS; it needs no file on the server."""
    done = [(row.name, row.still) for row in rows if row.still is not None]
    if not done:
        return None
    frames = [[fit(f, DOWNLOAD_SIDE, DOWNLOAD_SIDE) for f in still.frames] for _, still in done]
    held = f", holding {', '.join(request.held)}" if request.held else ""
    moved = f", layers {request.layers}" if request.layers else ""
    title = f"{request.attribute} ({request.method}{held}{moved})"
    labels = [sigmas(s) for s in SWEEP[FRAMES].tolist()]
    sheet = grid(frames, [name for name, _ in done], labels, title)
    return {"src": data_uri(sheet), "name": f"{request.attribute}-{request.method}.png"}


def numbers_of(row: Row) -> dict[str, Any]:
    """A row's numbers for the API."""
    if row.still is None:
        return {"model": row.name, "problem": row.problem}
    return {
        "model": row.name,
        "verdict": row.verdict.text if row.verdict else None,
        "strength_sigma": row.strength,
        "alpha": row.raw,
        "reached": row.reached,
        "reconstruction_mse": row.still.error,
        "projected": row.still.projected,
        "mean_change": row.change,
        "probability_before": row.before,
        "probability_after": row.after,
    }


def slider_label(mode: str, attribute: str) -> str:
    """What the slider asks for, in words."""
    return f"{human_name(attribute)} {MODES[mode].asks}"


def table_html(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls in its own box where it is wider than the page; "" without rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="hl-table"><table><caption>{escape(title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def plot_html(title: str, png: bytes) -> str:
    """A plot under its title, as wide as the page at most."""
    return (
        f'<figure class="hl-plot"><figcaption>{escape(title)}</figcaption>'
        f'<img src="{png_uri(png)}" alt="{escape(title)}"></figure>'
    )
