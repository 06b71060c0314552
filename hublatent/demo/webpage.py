"""The rows of session.py as HTML, for the app; pictures are inside the page.

A row's still parts are sent once. While the slider moves, `moves_of` sends only what it changes,
and MOVE_JS puts that into the rows with the same key.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from html import escape
from typing import Any

from hublatent.comparison.plots import Plot
from hublatent.demo.session import MAX_STRENGTH, STRIP_STRENGTHS, EditRequest, Row, Still
from hublatent.figures import data_uri, fit, grid, png_uri, strip

# Smallest and largest width at which pictures are sent; the browser shows them larger. What the
# slider moves is sent as the models draw it: an enlarged picture would take three times as long.
INPUT_SIDES = FRAME_SIDES = (64, 256)
EDITED_SIDES, DIFFERENCE_SIDES = (64, 512), (32, 128)
DOWNLOAD_SIDE = 128
# Replaces the address without a new entry in the history; browsers limit how often that may be.
LINK_JS = """(query) => {
  try { history.replaceState(null, "", query || location.pathname); } catch (error) {}
  return new URL(query, location.href).href;
}"""
# An answer for rows that have been replaced meanwhile finds none of its key.
MOVE_JS = """(moves) => {
  for (const move of moves || []) {
    const row = document.querySelector(`.hl-row[data-key="${move.key}"]`);
    if (!row) continue;
    row.querySelector(".hl-numbers").textContent = move.numbers;
    for (const [name, picture] of Object.entries(move.pictures)) {
      const image = row.querySelector(`.hl-${name} img`);
      image.src = picture.src;
      image.alt = picture.alt;
      row.querySelector(`.hl-${name} figcaption`).textContent = picture.caption;
    }
  }
}"""
DOWNLOAD_JS = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  [link.href, link.download] = [file.src, file.name];
  link.click();
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
.hl-pictures { display: grid; gap: 10px 12px; align-items: start;
  grid-template: "inputs edited strip" auto "inputs edited difference" 1fr
    / 96px 200px minmax(0, 1fr); }
.hl-pictures figure { margin: 0; }
.hl-pictures figcaption { font-size: 0.78rem; line-height: 1.3; }
.hl-pictures img { display: block; width: 100%; border-radius: 4px; }
.hl-inputs { grid-area: inputs; display: flex; flex-direction: column; gap: 6px; }
.hl-edited { grid-area: edited; }
.hl-strip { grid-area: strip; }
.hl-difference { grid-area: difference; display: flex; align-items: center; gap: 10px; }
.hl-difference img { width: 96px; flex: none; }
.hl-ticks { display: grid; grid-template-columns: repeat(7, 1fr); text-align: center; }
#waiting .hl-pending { border-left: 3px solid var(--color-accent); padding: 6px 10px; margin: 0;
  min-height: 110px; }
#waiting:not(:has(.hl-pending)) { display: none; }
/* Its own width never widens the page. */
.hl-table { overflow-x: auto; contain: inline-size; margin: 0 0 18px; }
.hl-table table { border-collapse: collapse; font-size: 0.85rem; white-space: nowrap; }
.hl-table caption { text-align: left; font-weight: 600; padding: 0 0 6px; }
.hl-table th, .hl-table td { text-align: left; padding: 5px 18px 5px 0;
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important;
  font-variant-numeric: tabular-nums; }
.hl-plot { margin: 0 0 18px; }
.hl-plot img { max-width: 100%; height: auto; background: white; }
@media (max-width: 700px) {
  .hl-pictures { grid-template: "inputs edited" "strip strip" "difference difference"
    / 92px minmax(0, 1fr); }
}
"""


def sigmas(strength: float) -> str:
    """A strength as it is printed under a picture."""
    return f"{strength:+g}σ" if strength else "0"


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


def plot_html(plot: Plot) -> str:
    """A plot under its caption, as wide as the page at most."""
    return (
        f'<figure class="hl-plot"><figcaption>{escape(plot.caption)}</figcaption>'
        f'<img src="{png_uri(plot.png)}" alt="{escape(plot.title)}"></figure>'
    )


def figure(place: str, uri: str, alt: str, caption: str) -> str:
    """An HTML figure of a picture."""
    # Decoded at once: while the slider moves, the picture would flicker otherwise.
    image = f'<img src="{uri}" alt="{escape(alt)}" decoding="sync">'
    caption = f"<figcaption>{escape(caption)}</figcaption>"
    return f'<figure class="hl-{place}">{image}{caption}</figure>'


@lru_cache(maxsize=64)
def still_html(still: Still, name: str, attribute: str) -> tuple[str, str]:
    """The parts of a row that do not move with the slider: the inputs and the strip."""
    found = "projection" if still.projected else "reconstruction"
    own = still.error is None
    caption = "its own drawing" if own else f"{found}, MSE {still.error:.4f}"
    inputs = figure(
        "original",
        data_uri(fit(still.original, *INPUT_SIDES)),
        f"The face as {name} sees it",
        "original",
    )
    inputs += figure(
        "unedited",
        data_uri(fit(still.reconstruction, *INPUT_SIDES)),
        f"{name}'s unedited picture",
        caption,
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


def moved_parts(row: Row, request: EditRequest) -> dict[str, Any]:
    """What of a row the slider changes: its numbers, the edited picture and the difference."""
    assert row.edited is not None and row.difference is not None
    numbers = f"{request.strength:+.1f}σ is α = {row.raw:+.2f}"
    if row.before is not None and row.after is not None:
        change = f"{row.before:.0%} → {row.after:.0%}"
        numbers += f"; the model's own reading of {request.attribute}: {change}"
    edited = {
        "src": data_uri(fit(row.edited, *EDITED_SIDES)),
        "alt": f"The face with {request.attribute} {request.strength:+.1f} sigma in {row.name}",
        "caption": "edited",
    }
    difference = {
        "src": data_uri(fit(row.difference, *DIFFERENCE_SIDES)),
        "alt": f"Where the edit in {row.name} is brighter (red) or darker (blue)",
        "caption": f"edited minus unedited: red is brighter, blue darker; mean {row.change:.3f}",
    }
    pictures = {"edited": edited, "difference": difference}
    return {"key": _short(row.key), "numbers": numbers, "pictures": pictures}


def moves_of(rows: Sequence[Row], request: EditRequest) -> list[dict[str, Any]]:
    """What a slider move sends, for MOVE_JS."""
    return [moved_parts(row, request) for row in rows if row.still is not None]


def row_html(row: Row, request: EditRequest) -> str:
    """One model's row."""
    head = f"<h3>{escape(row.name)}</h3>"
    if row.still is None:
        problem = f'<p class="hl-problem">{escape(row.problem)}</p>'
        return f'<section class="hl-row">{head}{problem}</section>'
    moved = moved_parts(row, request)
    inputs, frames = still_html(row.still, row.name, request.attribute)
    edits = "".join(figure(place, *part.values()) for place, part in moved["pictures"].items())
    return (
        f'<section class="hl-row" data-key="{moved["key"]}">{head}'
        f'<p class="hl-numbers">{escape(moved["numbers"])}</p>'
        f'<div class="hl-pictures">{inputs}{edits}{frames}</div></section>'
    )


def waiting_html(rows: Sequence[Row], face_key: str) -> str:
    """Which models have yet to find the face; another face makes another text."""
    names = [row.name for row in rows if row.pending]
    if not names:
        return ""
    return (
        f'<p class="hl-pending" data-face="{escape(face_key)}">Looking for this face in the latent '
        f"space of {escape(', '.join(names))}; it has no encoder.</p>"
    )


def _short(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:16]


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


def download_of(rows: Sequence[Row], request: EditRequest) -> dict[str, str] | None:
    """The strips of all models as one PNG, for DOWNLOAD_JS; it needs no file on the server."""
    done = [(row.name, row.still) for row in rows if row.still is not None]
    if not done:
        return None
    frames = [[fit(f, DOWNLOAD_SIDE, DOWNLOAD_SIDE) for f in still.frames] for _, still in done]
    held = f", holding {', '.join(request.held)}" if request.held else ""
    moved = f", layers {request.layers}" if request.layers else ""
    title = f"{request.attribute} ({request.method}{held}{moved})"
    sheet = grid(frames, [name for name, _ in done], [sigmas(s) for s in STRIP_STRENGTHS], title)
    return {"src": data_uri(sheet), "name": f"{request.attribute}-{request.method}.png"}


def numbers_of(row: Row) -> dict[str, Any]:
    """A row's numbers for the API."""
    if row.still is None:
        return {"model": row.name, "problem": row.problem}
    return {
        "model": row.name,
        "reconstruction_mse": row.still.error,
        "projected": row.still.projected,
        "mean_change": row.change,
        "alpha": row.raw,
        "probability_before": row.before,
        "probability_after": row.after,
    }
