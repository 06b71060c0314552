"""The tab "Make a direction": sort faces into two heaps, find what tells them apart, keep it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from hublatent.demo.events import PageTab, served, warn_user
from hublatent.demo.faces import Face, Photo, time_limit
from hublatent.demo.making import (
    MAX_FACES,
    MIN_FACES,
    PART_STRENGTHS,
    PREVIEW_STRENGTH,
    Made,
    audit_page,
    make_directions,
    name_part,
    open_directions,
    part_strips,
    ready,
    save_directions,
    unzip_heaps,
    use_made,
)
from hublatent.demo.webpage import FACE_SIDES, SAY_JS, image, say, sigmas
from hublatent.direction_set import DirectionSet
from hublatent.errors import HublatentError

TITLE = "Make a direction"
N_OFFERED = 24
HELP = (
    f"Sort faces into two heaps, {MIN_FACES} to {MAX_FACES} each. **Click** a drawn face once for "
    "*with*, twice for *without*; or bring photos: of pairs, those after and those before it; or "
    "two folders as zip. Nothing is kept beyond this visit."
)
PARTS = {"Components of the latents (GANSpace)": "components",
         "Factors of the weights (SeFa)": "factorisation"}  # fmt: skip
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


class Maker(PageTab):
    """What the tab's events do; `_shown` is what tells of a direction: HTML, files, button."""

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
        brought = [self._pictures(files) for files in (with_files, without_files)]
        for heap in brought:  # both folders of a zip file may be given at either place
            for content in [c for c in heap if c.startswith(b"PK")]:
                heap.remove(content)
                for part, more in zip(
                    brought, unzip_heaps(content, self.shelf.limits), strict=True
                ):
                    part += more
        with_it, without_it = (
            [*self._drawn(source, seeds), *self._faces(pictures)]
            for seeds, pictures in zip(
                (event._data["with"], event._data["without"]), brought, strict=True
            )
        )
        made = make_directions(self.shelf, name, with_it, without_it, models)
        return start, gr.skip(), *self._shown(made)

    @warn_user
    def parts(self, source: str, method: str) -> str:
        """What a model's components do to a face of its own."""
        face = self.do.draw(source, 0)
        assert face is not None
        return parts_html(part_strips(self.shelf.open(source), method, face), source)

    @warn_user
    def pick_part(
        self, event: gr.EventData, name: str, source: str, method: str, models: list[str]
    ) -> tuple[Any, ...]:
        """A component was picked: it gets the name that was typed."""
        return self._shown(name_part(self.shelf, name, method, int(event.part), source, models))

    def _shown(self, made: Sequence[Made]) -> tuple[Any, ...]:
        paths = served(lambda folder: save_directions(self.shelf, made, folder))
        usable = bool(paths) and self.shelf.limits.local_paths
        files = gr.update(value=paths, visible=bool(paths))
        return made_html(made), files, gr.update(visible=usable), list(made)

    @warn_user
    def use(self, made: list[Made] | None, face: Face | None, *values: Any) -> tuple[Any, ...]:
        """The direction joins those of "Edit", and the page goes there."""
        return self._go_to(use_made(self.shelf, made), face, *values)

    @warn_user
    def restyle(
        self, made: list[Made] | None, style: int, face: Face | None, *values: Any
    ) -> tuple[Any, ...]:
        """Another style of the attribute, such as another kind of glasses, joins "Edit"."""
        attribute = use_made(self.shelf, made, style)
        return style + 1, *self._go_to(attribute, face, *values)

    @warn_user
    def open_file(
        self, path: str | None, repo: str, face: Face | None, *values: Any
    ) -> tuple[Any, ...]:
        """Directions of a file or of the Hub join those of "Edit"."""
        found = open_directions(self.shelf, path or repo.strip(), values[0])
        made = [Made(model, "", direction) for model, direction in found]
        return made, *self._go_to(found[0][1].attribute, face, *values)

    @warn_user
    def audit(self, made: list[Made] | None) -> str:
        """What the direction that was made or opened last does, costs and holds."""
        page = audit_page(self.shelf, *ready(made)[0])
        return f'<iframe class="hl-audit" title="Audit" srcdoc="{escape(page)}"></iframe>'

    @warn_user
    def push(self, made: list[Made] | None, repo: str, token: gr.OAuthToken | None) -> str:
        """Publish the direction of the first model; on a Space as the visitor who signed in."""
        name, direction = ready(made)[0]
        if token is None and not self.shelf.limits.local_paths:
            raise HublatentError("Sign in to the Hub first.")
        opened = self.shelf.open(name)
        directions = DirectionSet.of(opened.model, [direction])
        mine = {"token": token.token} if token else {}
        url = directions.push_to_hub(repo.strip(), model=opened.model, **mine)
        return f"Published: [{repo.strip()}]({url})"

    def _go_to(self, attribute: str, face: Face | None, *values: Any) -> tuple[Any, ...]:
        models, _, method, held, _, _, *layers = values
        shown = self.do.set_strength(
            face, models, attribute, method, held, "sigma", PREVIEW_STRENGTH, *layers
        )
        pills, chosen, *_ = self.do.choices(models, attribute, method, "")
        return gr.Tabs(selected="edit"), pills, chosen, *shown

    def _drawn(self, source: str, seeds: Sequence[int]) -> list[Face]:
        faces = (self.do.draw(source, seed) for seed in dict.fromkeys(seeds[:N_OFFERED]))
        return [face for face in faces if face is not None]

    def _pictures(self, files: Sequence[str] | None) -> list[bytes]:
        if len(files or ()) > MAX_FACES:
            raise HublatentError(f"{len(files or ())} files in a heap; at most {MAX_FACES}.")
        return [Path(file).read_bytes() for file in files or ()]

    def _faces(self, pictures: Sequence[bytes]) -> list[Face]:
        limits, detector = self.shelf.limits, self.shelf.judges.detector
        check, faces = time_limit(limits.request_seconds), []
        for i, picture in enumerate(pictures[: MAX_FACES + 1]):
            check(i, MAX_FACES)
            faces.append(Photo.open(picture, limits, detector).face(limits))
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


def parts_html(strips: Sequence[Sequence[Any]], source: str) -> str:
    """A row for each component, to click on."""
    rows = []
    for i, strip in enumerate(strips):
        pictures = "".join(
            image(picture, FACE_SIDES, sigmas(strength))
            for picture, strength in zip(strip, PART_STRENGTHS, strict=True)
        )
        label = f'aria-label="part {i + 1} of {escape(source)}"'
        rows.append(f'<button class="hl-part" {say(part=i)} {label}>{pictures}</button>')
    return f'<div class="hl-parts">{"".join(rows)}</div>'


def made_html(made: Sequence[Made]) -> str:
    """What each model made of it: a sentence, and faces before and after."""
    return f'<div class="hl-made-all">{"".join(map(_model_html, made))}</div>'


def _model_html(made: Made) -> str:
    if made.direction is None:
        return (
            f'<section class="hl-made"><h3>{escape(made.model)}</h3>'
            f'<p class="hl-problem">{escape(made.problem)}</p></section>'
        )
    rows = "".join(
        f'<div class="hl-strip">{"".join(image(p, FACE_SIDES, alt) for p in pictures)}</div>'
        for pictures, alt in (
            (made.before, "before"), (made.after, f"after +{PREVIEW_STRENGTH:g}σ"),
        )
    )  # fmt: skip
    level = "none" if made.found is None else "bad" if made.found.at_chance else "good"
    return (
        f'<section class="hl-made"><h3><i class="hl-dot" data-level="{level}"></i>'
        f"{escape(made.model)}</h3><p>{escape(_told(made))}</p>{rows}"
        f"<p>Above as drawn, below moved by +{PREVIEW_STRENGTH:g}σ.</p></section>"
    )


def _told(made: Made) -> str:
    if made.carried_from:
        return f"Carried across from {made.carried_from}."
    if made.found is None:
        return "Of the model's own parts; no label says what it does."
    accuracy = made.found.accuracy
    text = (
        f"{accuracy.value:.0%} of the faces are told apart, each read without itself "
        f"({accuracy.low:.0%} to {accuracy.high:.0%})."
    )
    if made.found.at_chance:
        text += " That is no better than guessing: bring more faces, or a clearer difference."
    return text


def build(do: Any, c: Any, tabs: gr.Tabs) -> None:
    """Lay the tab out, and connect its events.

    Args:
        do: the page's events.
        c: the controls of the tab "Edit".
        tabs: of the page.
    """
    maker, at_home = Maker(do), do.shelf.limits.local_paths
    on_space = bool(os.environ.get("SPACE_ID"))
    hidden: dict[str, Any] = {"size": "sm", "visible": False, "min_width": 120}
    with gr.Tab(TITLE, id="make", elem_id="make-tab") as tab:
        start, made = gr.State(0), gr.State(None, time_to_live=3600)
        style = gr.State(0)
        gr.Markdown(HELP)
        with gr.Row():
            with gr.Column(scale=3, min_width=300, elem_classes="hl-plain"):
                name = gr.Textbox(
                    label="What is it called?", placeholder="Dimples", max_length=60,
                    elem_id="made-name",
                )  # fmt: skip
                heaps = gr.HTML(elem_id="sort", js_on_load=SORT_JS, apply_default_css=False)
            with gr.Column(scale=2, min_width=280):
                photos: dict[str, Any] = {
                    "file_count": "multiple", "file_types": ["image", ".zip"], "height": 120,
                }  # fmt: skip
                with_files = gr.File(
                    label="Photos with it", elem_id="with-files",
                    **photos,
                )  # fmt: skip
                without_files = gr.File(label="Photos without", elem_id="without-files", **photos)
        with gr.Accordion("Or begin without faces", open=False, elem_id="parts-panel") as panel:
            method = gr.Radio(
                list(PARTS.items()), value="components", label="Parts of the model that draws",
                info="Type a name above, then click the row that shows it.", elem_id="parts-of",
            )  # fmt: skip
            parts = gr.HTML(elem_id="parts", js_on_load=SAY_JS, apply_default_css=False)
        with gr.Accordion("Or open a direction", open=False, visible=at_home), gr.Row():
            opened = gr.File(
                label="A direction file", file_types=[".safetensors"], height=120,
                elem_id="open-directions",
            )  # fmt: skip
            with gr.Column():
                repo = gr.Textbox(
                    label="Or of the Hub", placeholder="user/directions", max_length=100,
                    elem_id="open-repo",
                )  # fmt: skip
                fetch = gr.Button("Open", size="sm", elem_id="fetch-directions")
        result = gr.HTML(elem_id="made", apply_default_css=False)
        files = gr.File(
            label="The direction, a file for each model", file_count="multiple", interactive=False,
            visible=False, elem_id="made-files",
        )  # fmt: skip
        with gr.Row(elem_classes="hl-buttons"):
            use = gr.Button("Use it in Edit", variant="primary", elem_id="use-made", **hidden)
            restyle = gr.Button("Another style", size="sm", visible=at_home, elem_id="restyle")
            audit = gr.Button("Audit (some minutes)", size="sm", visible=at_home, elem_id="audit")
            target = gr.Textbox(
                placeholder="user/my-direction", show_label=False, label="Repository", scale=2,
                max_length=100, visible=at_home or on_space, elem_id="push-repo",
            )  # fmt: skip
            push = gr.Button("Push to the Hub", size="sm", visible=at_home or on_space)
            if on_space:
                gr.LoginButton(size="sm")
        told = gr.Markdown(elem_id="pushed")
        page = gr.HTML(elem_id="audit-page", apply_default_css=False)
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "page"}
    slow = {**private, "concurrency_id": "opening"}
    edit = [tabs, c.pills, c.attribute, c.mode, *c.view]
    shown = [result, files, use, made]
    tab.select(maker.offer, [c.source, start], heaps, show_progress="hidden", **private)
    heaps.select(
        maker.ask, [name, c.source, start, c.models, with_files, without_files],
        [start, heaps, *shown], show_progress_on=result, **private,
    )  # fmt: skip
    gr.on([panel.expand, method.input], maker.parts, [c.source, method], parts, **private)
    parts.select(maker.pick_part, [name, c.source, method, c.models], shown, **private)
    use.click(maker.use, [made, c.face, *c.controls], edit, **private)
    restyle.click(maker.restyle, [made, style, c.face, *c.controls], [style, *edit], **private)
    gr.on(
        [opened.upload, fetch.click, repo.submit], maker.open_file,
        [opened, repo, c.face, *c.controls], [made, *edit], **slow,
    )  # fmt: skip
    audit.click(maker.audit, made, page, **slow)
    push.click(maker.push, [made, target], told, **slow)
