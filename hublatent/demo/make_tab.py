"""The tab "Make a direction": sort faces into two heaps, find what tells them apart, keep it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from hublatent.demo import making
from hublatent.demo.edit_tab import Editor
from hublatent.demo.making import MAX_FACES, MIN_FACES, PART_STRENGTHS, PREVIEW_STRENGTH, Made
from hublatent.demo.session import Refusal
from hublatent.demo.shelf import is_hub_id
from hublatent.demo.webpage import SAY_JS, html, script
from hublatent.demo.wiring import ASKED, MADE, SHOWN, Changes, Wiring, html_part, served
from hublatent.direction_set import DirectionSet
from hublatent.errors import HublatentError

N_OFFERED = 24
HELP = (
    f"Sort faces into two heaps, {MIN_FACES} to {MAX_FACES} each. **Click** a drawn face once for "
    "*with*, twice for *without*; or bring photos: of pairs, those after and those before it; or "
    "two folders as zip. Nothing is kept beyond this visit."
)
PARTS = {"Components of the latents (GANSpace)": "components",
         "Factors of the weights (SeFa)": "factorisation"}  # fmt: skip


class Maker:
    """What the tab's events do."""

    def __init__(self, do: Editor) -> None:
        self.do, self.shelf = do, do.shelf

    def offer(self, asked: Any) -> Changes:
        """Faces to sort."""
        seeds = range(asked.start, asked.start + N_OFFERED)
        drawn = making.gather(self.shelf, asked.source, seeds, ())
        return {"heaps": html("make.sort", drawn), "start": asked.start}

    def ask(self, asked: Any) -> Changes:
        """Other faces are wanted, or the direction between the heaps."""
        if asked.said["ask"] == "others":
            asked.start += N_OFFERED
            return self.offer(asked)
        brought = [_counted(files) for files in (asked.with_files, asked.without_files)]
        for file in [file for part in brought for file in part]:
            content = Path(file).read_bytes()
            if content.startswith(b"PK"):  # both folders of a zip file may be given at either place
                more = making.unzip_heaps(content, self.shelf.limits)
                brought = [
                    [f for f in part if f is not file] + pictures
                    for part, pictures in zip(brought, more, strict=True)
                ]
        with_it, without_it = (
            making.gather(self.shelf, asked.source, asked.said[name][:N_OFFERED], pictures)
            for name, pictures in zip(("with", "without"), brought, strict=True)
        )
        name, models = asked.direction_name, asked.models
        return self._shown(making.make_directions(self.shelf, name, with_it, without_it, models))

    def offer_parts(self, asked: Any) -> Changes:
        """What a model's components do to a face of its own."""
        strips = making.part_strips(self.shelf.open(asked.source), asked.parts_of)
        return {"parts": html("make.parts", strips, PART_STRENGTHS, asked.source)}

    def pick_part(self, asked: Any) -> Changes:
        """A component was picked: it gets the name that was typed."""
        which = (asked.parts_of, int(asked.said["part"]), asked.source)
        return self._shown(making.name_part(self.shelf, asked.direction_name, *which, asked.models))

    def _shown(self, made: Sequence[Made | Refusal]) -> Changes:
        """What tells of a direction: HTML, files, and what can be done with it."""
        found = [(m.model, m.direction) for m in made if isinstance(m, Made)]
        paths = served(lambda folder: making.save_directions(self.shelf, found, folder))
        files = gr.update(value=paths, visible=bool(paths))
        shown = html("make.made", made, PREVIEW_STRENGTH)
        return {"made": shown, "files": files, **self.do.joined(found)}

    def use(self, asked: Any) -> Changes:
        """The direction joins those of "Edit", and the page goes there."""
        return self.do.try_direction(making.use_directions(self.shelf, asked.opened), asked)

    def restyle(self, asked: Any) -> Changes:
        """Another style of the attribute, such as another kind of glasses, joins "Edit"."""
        attribute = making.use_directions(self.shelf, asked.opened, asked.style)
        return {"style": asked.style + 1, **self.do.try_direction(attribute, asked)}

    def open_file(self, asked: Any) -> Changes:
        """Directions of a file or of the Hub join those of "Edit"."""
        where = asked.direction_file or asked.direction_repo.strip()
        return self.do.open_directions(where, asked)

    def audit(self, asked: Any) -> Changes:
        """What the direction that was made or opened last does, costs and holds."""
        return {"audit_page": html("make.audit", making.audit_page(self.shelf, *asked.opened[0]))}

    def push(self, asked: Any) -> Changes:
        """Publish the direction of the first model; on a Space as the visitor who signed in."""
        if asked.token is None and not self.shelf.limits.local_paths:
            raise HublatentError("Sign in to the Hub first.")
        (name, direction), repo = asked.opened[0], asked.push_repo.strip()
        model = self.shelf.open(name).model
        mine: Changes = {"token": asked.token.token} if asked.token else {}
        base = self.shelf.catalogue.get(name, name)
        mine |= {"base_model": base} if is_hub_id(base) and not Path(base).exists() else {}
        url = DirectionSet.of(model, [direction]).push_to_hub(repo, model=model, **mine)
        return {"pushed": f"Published: [{repo}]({url})"}


def _counted(files: Sequence[Any] | None) -> list[Any]:
    """The files of a heap; their names are told where one cannot be read."""
    if len(files or ()) > MAX_FACES:
        raise HublatentError(f"{len(files or ())} files in a heap; at most {MAX_FACES}.")
    return list(files or ())


def build(do: Editor, wire: Wiring) -> None:
    """Lay the tab out, and connect its events."""
    maker, at_home, c = Maker(do), do.shelf.limits.local_paths, wire.parts
    small: dict[str, Any] = {"size": "sm", "min_width": 120}
    with gr.Tab("Make a direction", id="make", elem_id="make-tab") as tab:
        c.start, c.style = gr.State(0), gr.State(0)
        gr.Markdown(HELP, elem_id="make-help")
        with gr.Row():
            with gr.Column(scale=3, min_width=300, elem_classes="hl-plain"):
                c.direction_name = gr.Textbox(
                    label="What is it called?", placeholder="Dimples", max_length=60,
                    elem_id="made-name",
                )  # fmt: skip
                c.heaps = html_part("sort", script("sort"))
            with gr.Column(scale=2, min_width=280):
                photos: dict[str, Any] = {
                    "file_count": "multiple", "file_types": ["image", ".zip"], "height": 120,
                }  # fmt: skip
                c.with_files = gr.File(label="Photos with it", elem_id="with-files", **photos)
                c.without_files = gr.File(label="Photos without", elem_id="without-files", **photos)
        with gr.Accordion("Or begin without faces", open=False, elem_id="parts-panel") as panel:
            c.parts_of = gr.Radio(
                list(PARTS.items()), value="components", label="Parts of the model that draws",
                info="Type a name above, then click the row that shows it.", elem_id="parts-of",
            )  # fmt: skip
            c.parts = html_part("parts", SAY_JS)
        with gr.Accordion("Or open a direction", open=False, visible=at_home), gr.Row():
            c.direction_file = gr.File(
                label="A direction file", file_types=[".safetensors"], height=120,
                elem_id="open-directions",
            )  # fmt: skip
            with gr.Column():
                c.direction_repo = gr.Textbox(
                    label="Or of the Hub", placeholder="user/directions", max_length=100,
                    elem_id="open-repo",
                )  # fmt: skip
                fetch = gr.Button("Open", size="sm", elem_id="fetch-directions")
        c.made = html_part("made")
        c.files = gr.File(
            label="The direction, a file for each model", file_count="multiple", interactive=False,
            visible=False, elem_id="made-files",
        )  # fmt: skip
        with gr.Row(elem_classes="hl-buttons", elem_id="made-actions"):
            c.use = gr.Button(
                "Use it in Edit", variant="primary", elem_id="use-made", visible=False, **small
            )
            c.restyle = gr.Button("Another style", elem_id="restyle", visible=False, **small)
            c.audit = gr.Button("Audit (some minutes)", elem_id="audit", visible=False, **small)
        with gr.Row(elem_classes="hl-buttons", elem_id="push-row", visible=False) as c.push_row:
            c.push_repo = gr.Textbox(
                placeholder="user/my-direction", show_label=False, label="Repository", scale=2,
                max_length=100, elem_id="push-repo",
            )  # fmt: skip
            push = gr.Button("Push to the Hub", elem_id="push", **small)
            if do.on_space:
                gr.LoginButton(size="sm")
        c.pushed = gr.Markdown(elem_id="pushed")
        c.audit_page = html_part("audit-page")
    slow: dict[str, Any] = {"lane": "opening", "show_progress": "full"}
    faces, shown = ("source", "start"), ("made", "files", *MADE)
    edit, edited = ("opened", "style", *ASKED), ("style", "tabs", *SHOWN)
    wire.on(tab.select, maker.offer, faces, ("heaps", "start"))
    wire.on(
        c.heaps.select, maker.ask,
        ("direction_name", "models", "with_files", "without_files", *faces),
        ("heaps", "start", *shown), show_progress="full", show_progress_on=c.made,
    )  # fmt: skip
    wire.on([panel.expand, c.parts_of.input], maker.offer_parts, ("source", "parts_of"), ("parts",))
    part = ("direction_name", "source", "parts_of", "models")
    wire.on(c.parts.select, maker.pick_part, part, shown, show_progress="full")
    wire.on(c.use.click, maker.use, edit, edited)
    wire.on(c.restyle.click, maker.restyle, edit, edited)
    wire.on(
        [c.direction_file.upload, fetch.click, c.direction_repo.submit], maker.open_file,
        ("direction_file", "direction_repo", *ASKED), (*SHOWN, "tabs", *MADE), lane="opening",
    )  # fmt: skip
    wire.on(c.audit.click, maker.audit, ("opened",), ("audit_page",), **slow)
    wire.on(push.click, maker.push, ("opened", "push_repo"), ("pushed",), **slow)
