"""The rows of hublatent/session.py as HTML, for the app; pictures are inside the page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

from hublatent.figures import data_uri, fit, grid, strip
from hublatent.session import MAX_STRENGTH, STRIP_STRENGTHS, EditRequest, Row, Still

# Smallest and largest width at which pictures are sent; the browser shows them larger. Small ones
# keep a slider move quick: all rows are sent again.
INPUT_SIDES, EDITED_SIDES, FRAME_SIDES = (64, 256), (128, 512), (64, 128)
DOWNLOAD_SIDE = 128
# Replaces the address without a new entry in the history; browsers limit how often that may be.
LINK_JS = """(query) => {
  try { history.replaceState(null, "", query || location.pathname); } catch (error) {}
  return new URL(query, location.href).href;
}"""
CSS = """
:root, .dark { --block-info-text-color: var(--body-text-color); }
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
/* Captions stay as the samples' alternative texts; on small pictures they would hide the face. */
#samples .caption-label { display: none; }
#samples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 6px;
  grid-template-rows: auto !important; grid-auto-rows: min-content !important; }
#samples .thumbnail-item, #samples .gallery-item { min-width: 0; width: 100%;
  height: auto !important; aspect-ratio: 1; }
/* The slider stays in sight, which a hidden overflow around it would prevent. */
.gradio-container { overflow: clip !important; }
.form:has(> #strength) { position: sticky; top: 0; z-index: 5; overflow: visible; }
.hl-row { border-top: 1px solid var(--border-color-primary); padding: 12px 0; }
.hl-row h3 { margin: 0 0 2px; font-size: 1.05rem; overflow-wrap: anywhere; }
.hl-row p { margin: 0 0 8px; }
.hl-row p.hl-problem, .hl-empty { border-left: 3px solid var(--color-accent); padding-left: 10px; }
.hl-pictures { display: grid; grid-template-columns: 96px 200px minmax(0, 1fr); gap: 12px; }
.hl-pictures figure { margin: 0; }
.hl-pictures figcaption { font-size: 0.78rem; }
.hl-pictures img { display: block; width: 100%; border-radius: 4px; }
.hl-inputs { display: flex; flex-direction: column; gap: 6px; }
.hl-strip { align-self: center; }
.hl-ticks { display: grid; grid-template-columns: repeat(7, 1fr); text-align: center; }
.hl-download { display: inline-block; padding: 6px 14px; border-radius: 6px;
  border: 1px solid var(--border-color-primary); text-decoration: none; }
@media (max-width: 700px) {
  .hl-pictures { grid-template-columns: 92px minmax(0, 1fr); }
  .hl-strip { grid-column: 1 / -1; }
}
"""


def sigmas(strength: float) -> str:
    """A strength as it is printed under a picture."""
    return f"{strength:+g}σ" if strength else "0"


def figure(uri: str, alt: str, caption: str) -> str:
    """An HTML figure of a picture."""
    # Decoded at once: while the slider moves, the picture would flicker otherwise.
    image = f'<img src="{uri}" alt="{escape(alt)}" decoding="sync">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


@lru_cache(maxsize=64)
def still_html(still: Still, name: str, attribute: str) -> tuple[str, str]:
    """The parts of a row that do not move with the slider: the inputs and the strip."""
    own = still.error is None
    caption = "its own drawing" if own else f"reconstruction, MSE {still.error:.4f}"
    inputs = figure(
        data_uri(fit(still.original, *INPUT_SIDES)), f"The face as {name} sees it", "original"
    )
    inputs += figure(
        data_uri(fit(still.reconstruction, *INPUT_SIDES)), f"{name}'s unedited picture", caption
    )
    ticks = "".join(f"<span>{sigmas(s)}</span>" for s in STRIP_STRENGTHS)
    alt = f"{attribute} in {name} from -{MAX_STRENGTH:g} to +{MAX_STRENGTH:g} sigma"
    frames = strip([fit(frame, *FRAME_SIDES) for frame in still.frames])
    image = f'<img src="{data_uri(frames)}" alt="{escape(alt)}" decoding="sync">'
    scale = f'<figcaption class="hl-ticks">{ticks}</figcaption>'
    return (
        f'<div class="hl-inputs">{inputs}</div>',
        f'<figure class="hl-strip">{image}{scale}</figure>',
    )


def row_html(row: Row, request: EditRequest) -> str:
    """One model's row."""
    head = f'<section class="hl-row"><h3>{escape(row.name)}</h3>'
    if row.still is None or row.edited is None:
        return f'{head}<p class="hl-problem">{escape(row.problem)}</p></section>'
    numbers = f"{request.strength:+.1f}σ is α = {row.raw:+.2f}"
    if row.before is not None and row.after is not None:
        change = f"{row.before:.0%} → {row.after:.0%}"
        numbers += f"; the model's own reading of {request.attribute}: {change}"
    inputs, frames = still_html(row.still, row.name, request.attribute)
    alt = f"The face with {request.attribute} {request.strength:+.1f} sigma in {row.name}"
    edited = figure(data_uri(fit(row.edited, *EDITED_SIDES)), alt, "edited")
    pictures = f'<div class="hl-pictures">{inputs}{edited}{frames}</div>'
    return f"{head}<p>{escape(numbers)}</p>{pictures}</section>"


def results_html(rows: Sequence[Row], request: EditRequest) -> str:
    """All rows, or what to do when there is none."""
    if rows:
        return "".join(row_html(row, request) for row in rows)
    return (
        '<div class="hl-empty"><h3>Choose a model to begin</h3>'
        "<p>Pick one under <b>Models</b>, or type a Hub id such as <code>user/btcvae-celeba</code> "
        "there and press Enter.</p><p>No model is listed? Put a model folder into "
        "<code>model_cards/</code>, or start the app with "
        "<code>python app.py --models FOLDER_OR_HUB_ID</code>.</p></div>"
    )


def download_html(rows: Sequence[Row], request: EditRequest) -> str:
    """A link that holds the strips of all models as one PNG; it needs no file on the server."""
    done = [row for row in rows if row.still is not None]
    if not done:
        return ""
    frames = [
        [fit(frame, DOWNLOAD_SIDE, DOWNLOAD_SIDE) for frame in row.still.frames]
        for row in done
        if row.still is not None
    ]
    held = f", holding {', '.join(request.held)}" if request.held else ""
    title = f"{request.attribute} ({request.method}{held})"
    sheet = grid(frames, [r.name for r in done], [sigmas(s) for s in STRIP_STRENGTHS], title)
    name = escape(f"{request.attribute}-{request.method}.png")
    return (
        f'<a class="hl-download" id="download-strip" download="{name}" '
        f'href="{data_uri(sheet)}">Download the strips (PNG)</a>'
    )


def numbers_of(row: Row) -> dict[str, Any]:
    """A row's numbers for the API."""
    if row.still is None:
        return {"model": row.name, "problem": row.problem}
    return {
        "model": row.name,
        "reconstruction_mse": row.still.error,
        "alpha": row.raw,
        "probability_before": row.before,
        "probability_after": row.after,
    }
