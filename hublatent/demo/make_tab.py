"""The tab "Make a direction": sort faces into two heaps, find what tells them apart, keep it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from hublatent.demo.events import Callbacks, warn_user
from hublatent.demo.faces import Face, Photo, time_limit
from hublatent.demo.making import (
    MIN_FACES,
    PREVIEW_STRENGTH,
    Made,
    make_directions,
    open_directions,
    save_directions,
)
from hublatent.demo.webpage import FACE_SIDES, image
from hublatent.errors import HublatentError

TITLE = "Make a direction"
N_OFFERED = 24
MAX_FILES = 50
HELP = (
    f"Sort faces into two heaps: at least {MIN_FACES} that have something, and as many that do "
    "not. Click a drawn face once for *with*, twice for *without*; or bring photos of your own. "
    "Nothing of them is kept beyond this visit."
)
# Faces are sorted in the browser; the heaps are sent when something is asked for.
SORT_JS = """
element.addEventListener('click', (event) => {
  const face = event.target.closest('[data-seed]');
  if (face) {
    face.dataset.heap = { '': 'with', with: 'without', without: '' }[face.dataset.heap];
    face.setAttribute('aria-label', `face ${face.dataset.seed}: ${face.dataset.heap || 'neither'}`);
    return;
  }
  const asked = event.target.closest('[data-ask]');
  if (!asked) return;
  const faces = [...element.querySelectorAll('[data-seed]')];
  const heap = (name) =>
    faces.filter((f) => f.dataset.heap === name).map((f) => Number(f.dataset.seed));
  trigger('select', { ask: asked.dataset.ask, with: heap('with'), without: heap('without') });
});
"""


class Maker:
    """What the tab's events do.

    Args:
        do: the page's events.
    """

    def __init__(self, do: Callbacks) -> None:
        self.do = do
        self.shelf = do.shelf

    def warn(self, error: HublatentError) -> None:
        """Show an error on the page."""
        self.do.warn(error)

    @warn_user
    def offer(self, source: str | None, start: float, *_: Any) -> str:
        """Faces to sort."""
        faces = [self.do.draw(source, start + i) for i in range(N_OFFERED)]
        return sort_html([face for face in faces if face is not None])

    @warn_user
    def ask(
        self, event: gr.EventData, name: str, source: str, start: float, models: list[str],
        with_files: list[str] | None, without_files: list[str] | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Other faces are wanted, or the direction between the heaps."""
        if event.ask == "others":
            start += N_OFFERED
            return start, self.offer(source, start), *[gr.skip()] * 4
        with_it, without_it = (
            [*self._drawn(source, seeds), *self._brought(files)]
            for seeds, files in (
                (event._data["with"], with_files), (event._data["without"], without_files),
            )
        )  # fmt: skip
        made = make_directions(self.shelf, name, with_it, without_it, models)
        # Gradio copies the files to where it serves them from.
        folder = Path(tempfile.mkdtemp(prefix="hublatent-"))
        files = [str(path) for path in save_directions(self.shelf, made, folder)]
        usable = bool(files) and self.shelf.limits.local_paths
        return (
            start, gr.skip(), made_html(made), gr.update(value=files, visible=bool(files)),
            gr.update(visible=usable), made,
        )  # fmt: skip

    def use(self, made: list[Made] | None, face: Face | None, *values: Any) -> tuple[Any, ...]:
        """The direction joins those of "Edit", and the page goes there."""
        found = [(m.model, m.found.direction) for m in made or [] if m.found is not None]
        for model, direction in found:
            self.shelf.add(model, direction)
        return self._show([direction.attribute for _, direction in found], face, *values)

    @warn_user
    def open_file(self, path: str, face: Face | None, *values: Any) -> tuple[Any, ...]:
        """A direction file was brought: its directions join those of "Edit"."""
        found = open_directions(self.shelf, Path(path), values[0])
        return self._show([direction.attribute for direction in found], face, *values)

    def _show(self, attributes: Sequence[str], face: Face | None, *values: Any) -> tuple[Any, ...]:
        models, _, method, held, _, _, *layers = values
        shown = self.do.set_strength(
            face, models, attributes[0], method, held, "sigma", PREVIEW_STRENGTH, *layers
        )
        pills, attribute, *_ = self.do.choices(models, attributes[0], method, "")
        return gr.Tabs(selected="edit"), pills, attribute, *shown

    def _drawn(self, source: str, seeds: Sequence[int]) -> list[Face]:
        faces = (self.do.draw(source, seed) for seed in dict.fromkeys(seeds[:N_OFFERED]))
        return [face for face in faces if face is not None]

    def _brought(self, files: Sequence[str] | None) -> list[Face]:
        if len(files or ()) > MAX_FILES:
            raise HublatentError(f"{len(files or ())} files in a heap; at most {MAX_FILES}.")
        limits, detector = self.shelf.limits, self.shelf.judges.detector
        check = time_limit(limits.request_seconds)
        faces = []
        for i, file in enumerate(files or ()):
            check(i, MAX_FILES)
            faces.append(Photo.open(Path(file).read_bytes(), limits, detector).face(limits))
        return faces


def sort_html(faces: Sequence[Face]) -> str:
    """Faces that a click puts on a heap, and what may be asked for."""
    offered = "".join(
        f'<button class="hl-sorted" data-seed="{face.seed}" data-heap="" '
        f'aria-label="face {face.seed}: neither">{image(face.picture, FACE_SIDES, "")}</button>'
        for face in faces
    )
    return (
        f'<div class="hl-sort">{offered}</div><div class="hl-actions">'
        '<button class="hl-action" data-ask="others">Other faces</button>'
        '<button class="hl-action hl-main" data-ask="find">Find the direction</button></div>'
    )


def made_html(made: Sequence[Made]) -> str:
    """What each model made of the heaps: a sentence, and faces before and after."""
    return "".join(map(_model_html, made))


def _model_html(made: Made) -> str:
    if made.found is None:
        return (
            f'<section class="hl-made"><h3>{escape(made.model)}</h3>'
            f'<p class="hl-problem">{escape(made.problem)}</p></section>'
        )
    accuracy = made.found.accuracy
    score = (
        f"{accuracy.value:.0%} of the faces are told apart, each read without itself "
        f"({accuracy.low:.0%} to {accuracy.high:.0%})."
    )
    if made.found.at_chance:
        score += " That is no better than guessing: bring more faces, or a clearer difference."
    rows = "".join(
        f'<div class="hl-strip">{"".join(image(p, FACE_SIDES, alt) for p in pictures)}</div>'
        for pictures, alt in (
            (made.before, "before"), (made.after, f"after +{PREVIEW_STRENGTH:g}σ"),
        )
    )  # fmt: skip
    level = "bad" if made.found.at_chance else "good"
    return (
        f'<section class="hl-made"><h3><i class="hl-dot" data-level="{level}"></i>'
        f"{escape(made.model)}</h3><p>{escape(score)}</p>{rows}"
        f"<p>Above as drawn, below moved by +{PREVIEW_STRENGTH:g}σ.</p></section>"
    )


def build(do: Callbacks, c: Any, tabs: gr.Tabs) -> None:
    """Lay the tab out, and connect its events.

    Args:
        do: the page's events.
        c: the controls of the tab "Edit".
        tabs: of the page.
    """
    maker = Maker(do)
    with gr.Tab(TITLE, id="make", elem_id="make-tab") as tab:
        start, made = gr.State(0), gr.State(None, time_to_live=3600)
        gr.Markdown(HELP)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                name = gr.Textbox(label="What is it called?", max_length=60, elem_id="made-name")
                heaps = gr.HTML(elem_id="sort", js_on_load=SORT_JS, apply_default_css=False)
            with gr.Column(scale=2, min_width=280):
                photos: dict[str, Any] = {
                    "file_count": "multiple", "file_types": ["image"], "height": 130,
                }  # fmt: skip
                with_files = gr.File(label="Photos with it", elem_id="with-files", **photos)
                without_files = gr.File(label="Photos without", elem_id="without-files", **photos)
                opened = gr.File(
                    label="Or open a direction file", file_types=[".safetensors"], height=110,
                    visible=do.shelf.limits.local_paths, elem_id="open-directions",
                )  # fmt: skip
        result = gr.HTML(elem_id="made", apply_default_css=False)
        with gr.Row():
            files = gr.File(
                label="The direction, a file for each model", file_count="multiple",
                interactive=False, visible=False, elem_id="made-files",
            )  # fmt: skip
            use = gr.Button("Use it in Edit", visible=False, variant="primary", elem_id="use-made")
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "page"}
    edit = [tabs, c.pills, c.attribute, c.mode, *c.view]
    tab.select(maker.offer, [c.source, start], heaps, show_progress="hidden", **private)
    heaps.select(
        maker.ask, [name, c.source, start, c.models, with_files, without_files],
        [start, heaps, result, files, use, made], show_progress_on=result, **private,
    )  # fmt: skip
    use.click(maker.use, [made, c.face, *c.controls], edit, **private)
    opened.upload(maker.open_file, [opened, c.face, *c.controls], edit, **private)
