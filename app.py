"""The app: one face, one attribute, one slider, several models. Run: python app.py

Every picture and number comes from hublatent/session.py; this file only lays them out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import tyro

from hublatent.errors import HublatentError
from hublatent.figures import fit
from hublatent.images import MAX_BYTES
from hublatent.session import (
    MAX_SEED,
    MAX_STRENGTH,
    EditRequest,
    Face,
    compare_edits,
    drawn_face,
    uploaded_face,
)
from hublatent.shelf import (
    ModelShelf,
    collect_models,
    offered_attributes,
    offered_methods,
)
from hublatent.webpage import CSS, LINK_JS, download_html, numbers_of, results_html

CARDS = Path(__file__).resolve().parent / "model_cards"
N_SHOWN_AT_FIRST = 4
SAMPLE_SEEDS = tuple(range(8))
SAMPLE_SIDE = 128


@dataclass(frozen=True)
class Arguments:
    """Edit faces in several generative models, side by side.

    Attributes:
        port: where the app listens; the first free one from 7860 unless given.
        share: also open a temporary public address.
        models: further model folders or Hub ids, beside those in model_cards/.
    """

    port: int | None = None
    share: bool = False
    models: tuple[str, ...] = ()


def warn_user(method: Callable[..., Any]) -> Callable[..., Any]:
    """A mistake becomes one visible sentence, and what is on the page stays."""

    @wraps(method)
    def wrapped(*args: Any) -> Any:
        try:
            return method(*args)
        except HublatentError as error:
            gr.Warning(escape(str(error), quote=False), duration=None)
            return gr.skip()

    return wrapped


class Callbacks:
    """What the page's events do; stateless but for the shelf of models."""

    def __init__(self, shelf: ModelShelf) -> None:
        self.shelf = shelf

    def first_request(self) -> EditRequest:
        """What the page shows without a link."""
        names = self.shelf.names[:N_SHOWN_AT_FIRST]
        return EditRequest(models=names, source=names[0] if names else "")

    def restore(self, request: gr.Request) -> tuple[Any, ...]:
        """Fill the page from the link's query string."""
        wanted = self.first_request()
        try:
            wanted = EditRequest.from_query(dict(request.query_params), wanted)
        except HublatentError as error:
            gr.Warning(escape(str(error), quote=False), duration=None)
        updates = self.choices(list(wanted.models), wanted.attribute, wanted.method, wanted.source)
        attribute, method, hold, source = updates
        for key, update in (("attribute", attribute), ("method", method)):
            if key in request.query_params:  # an unknown one is answered, not replaced
                update["value"] = getattr(wanted, key)
        face, samples = None, []
        try:
            face, samples = self.draw(wanted.source, wanted.seed), self.samples(wanted.source)
        except HublatentError as error:
            gr.Warning(escape(str(error), quote=False), duration=None)
        shown = replace(wanted, attribute=attribute["value"], method=method["value"])
        hold["value"] = list(wanted.held)
        return (
            gr.update(value=list(wanted.models)), source, wanted.seed, samples, attribute, method,
            hold, wanted.strength, face, *self.view(face, shown),
        )  # fmt: skip

    def choices(self, names: list[str], attribute: str, method: str, source: str) -> list[Any]:
        """What the chosen models offer, keeping what was selected."""
        opened = self.shelf.open_all(names)
        attributes, methods = offered_attributes(opened), offered_methods(opened)
        sources = list(dict.fromkeys([*self.shelf.names, *(o.name for o in opened)]))
        return [
            gr.update(choices=list(attributes), value=kept(attribute, attributes)),
            gr.update(choices=list(methods), value=kept(method, methods)),
            gr.update(choices=list(attributes)),
            gr.update(choices=sources, value=source or next(iter(sources), None)),
        ]

    def draw(self, source: str | None, seed: float | None) -> Face | None:
        """The face of a seed; None without a model to draw it."""
        return drawn_face(self.shelf.open(source), int(seed or 0)) if source else None

    def samples(self, source: str | None) -> list[tuple[Any, str]]:
        """A few faces that a model draws, as captioned pictures."""
        faces = [self.draw(source, seed) for seed in SAMPLE_SEEDS]
        return [(fit(f.picture, SAMPLE_SIDE, SAMPLE_SIDE), f"seed {f.seed}") for f in faces if f]

    def view(self, face: Face | None, request: EditRequest) -> tuple[str, str, str]:
        """The rows, the download and the query string."""
        if face is None:
            return results_html([], request), "", request.to_query()
        request = replace(request, source=face.source, seed=face.seed)
        rows = compare_edits(self.shelf, face, request)
        return results_html(rows, request), download_html(rows, request), request.to_query()

    @warn_user
    def redraw(self, face: Face | None, *values: Any) -> tuple[str, str, str]:
        """Any control but the slider was changed."""
        return self.view(face, EditRequest.of(*values))

    @warn_user
    def slide(self, face: Face | None, *values: Any) -> tuple[str, str]:
        """The slider moved: what it does not change is not made again."""
        if face is None:
            return gr.skip()  # type: ignore[no-any-return, unused-ignore]
        request = replace(EditRequest.of(*values), source=face.source, seed=face.seed)
        return results_html(compare_edits(self.shelf, face, request), request), request.to_query()

    @warn_user
    def change_models(
        self, face: Face | None, source: str, seed: float, *values: Any
    ) -> tuple[Any, ...]:
        """Other models were chosen."""
        request = EditRequest.of(*values)
        updates = self.choices(list(request.models), request.attribute, request.method, source)
        drawn_by = updates[-1]["value"]
        samples: Any = gr.skip()
        if face is None and drawn_by:
            face, samples = self.draw(drawn_by, seed), self.samples(drawn_by)
        shown = replace(request, attribute=updates[0]["value"], method=updates[1]["value"])
        return (*updates, samples, face, *self.view(face, shown))

    @warn_user
    def change_source(self, source: str, seed: float, *values: Any) -> tuple[Any, ...]:
        """Another model draws the face."""
        face = self.draw(source, seed)
        return self.samples(source), None, face, *self.view(face, EditRequest.of(*values))

    @warn_user
    def change_seed(self, source: str, seed: float | None, *values: Any) -> tuple[Any, ...]:
        """Another face is drawn, or the uploaded one is taken away."""
        face = self.draw(source, seed)
        return None, face, *self.view(face, EditRequest.of(*values))

    def pick_sample(self, event: gr.SelectData, source: str, *values: Any) -> tuple[Any, ...]:
        """One of the samples was picked."""
        seed = SAMPLE_SEEDS[event.index]
        changes = self.change_seed(source, seed, *values)
        return (seed, *changes) if isinstance(changes, tuple) else changes

    @warn_user
    def upload(self, path: str, *values: Any) -> tuple[Any, ...]:
        """A face was uploaded."""
        # By its bytes: messages then name no path of this machine.
        face = uploaded_face(Path(path).read_bytes())
        return face, *self.view(face, EditRequest.of(*values))

    def edit(
        self, image: str | None, source: str | None, seed: float, models: list[str],
        attribute: str, method: str, hold: list[str], strength: float,
    ) -> tuple[list[tuple[Any, str]], list[dict[str, Any]]]:  # fmt: skip
        """The API: edit an uploaded picture, or without one the face of a seed.

        Returns:
            The edited pictures with their models' names, and each model's numbers or problem.
        """
        try:
            request = EditRequest.of(models, attribute, method, hold, strength)
            face = uploaded_face(Path(image).read_bytes()) if image else self.draw(source, seed)
            if face is None:
                raise HublatentError("No face: send an image, or the model that draws the seed.")
            rows = compare_edits(self.shelf, face, request)
        except HublatentError as error:
            raise gr.Error(escape(str(error), quote=False), print_exception=False) from error
        pictures = [(row.edited, row.name) for row in rows if row.edited is not None]
        return pictures, [numbers_of(row) for row in rows]


def kept(value: str, offered: tuple[str, ...]) -> str:
    """A selection, or the first of what is offered where it is not among it."""
    return value if value in offered or not offered else offered[0]


def build_app(shelf: ModelShelf) -> gr.Blocks:
    """Lay out the page and connect its events.

    Args:
        shelf: the models on offer.
    """
    do = Callbacks(shelf)
    first = do.first_request()
    with gr.Blocks(title="hublatent", analytics_enabled=False, delete_cache=(3600, 86400)) as app:
        gr.Markdown(
            "# hublatent\nOne face, one slider: the same edit in several generative models."
        )
        face = gr.State(None, time_to_live=3600)
        query = gr.Textbox(visible="hidden", elem_id="query", label="Query")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                models = gr.Dropdown(
                    list(shelf.names), value=list(first.models), multiselect=True,
                    allow_custom_value=True, label="Models", elem_id="models",
                    info="Pick some, or type a Hub id such as user/btcvae-celeba",
                )  # fmt: skip
                attribute = _dropdown("Attribute", "attribute")
                with gr.Tabs():
                    with gr.Tab("Drawn face"):
                        source = _dropdown("Drawn by", "source")
                        samples = gr.Gallery(
                            label="Samples", show_label=False, columns=4,
                            height=180, format="png", buttons=[],
                            allow_preview=False, interactive=False, elem_id="samples",
                        )  # fmt: skip
                        seed = gr.Number(
                            0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED,
                            elem_id="seed",
                        )  # fmt: skip
                    with gr.Tab("Your picture", elem_id="upload-tab"):
                        upload = gr.File(
                            label="A picture of a face, of any size", file_types=["image"],
                            height=150, elem_id="upload",
                        )  # fmt: skip
                        gr.Markdown("Its central square is used. It is not part of the link.")
                with gr.Accordion("Method and what to hold still", open=False):
                    method = _dropdown("Method", "method", "joint moves the attribute alone; "
                                       "svm is the paper's")  # fmt: skip
                    hold = gr.Dropdown(
                        [], multiselect=True, allow_custom_value=True, label="Hold still",
                        elem_id="hold", info="Their svm readings stay where they are",
                    )  # fmt: skip
            with gr.Column(scale=3, min_width=320):
                strength = gr.Slider(
                    -MAX_STRENGTH, MAX_STRENGTH, first.strength, step=0.1, elem_id="strength",
                    label="Strength in σ", buttons=[],
                )  # fmt: skip
                results = gr.HTML(elem_id="results")
                download = gr.HTML(elem_id="download")
                link = gr.Textbox(
                    label="Link to this view", interactive=False, buttons=["copy"], elem_id="link"
                )
        controls = [models, attribute, method, hold, strength]
        views = [results, download, query]
        private: dict[str, Any] = {"api_visibility": "private"}
        app.load(
            do.restore, None,
            [models, source, seed, samples, attribute, method, hold, strength, face, *views],
            **private,
        )  # fmt: skip
        latest: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
        # Without the queue's two requests per move; a page sends its next move after the answer.
        strength.input(
            do.slide, [face, *controls], [results, query], queue=False, **latest, **private
        )
        for control in (attribute, method, hold):
            control.input(do.redraw, [face, *controls], views, **latest, **private)
        models.input(
            do.change_models, [face, source, seed, *controls],
            [attribute, method, hold, source, samples, face, *views], **latest, **private,
        )  # fmt: skip
        source.input(
            do.change_source, [source, seed, *controls], [samples, upload, face, *views],
            **private,
        )  # fmt: skip
        samples.select(do.pick_sample, [source, *controls], [seed, upload, face, *views], **private)
        gr.on(
            [seed.input, upload.clear], do.change_seed, [source, seed, *controls],
            [upload, face, *views], **latest, **private,
        )  # fmt: skip
        upload.upload(do.upload, [upload, *controls], [face, *views], **private)
        query.change(None, query, link, js=LINK_JS, **private)
        _add_api(do, [upload, source, seed, *controls])
    return app


def _dropdown(label: str, elem_id: str, info: str | None = None) -> gr.Dropdown:
    # Free text is checked by hublatent, which offers the nearest names.
    return gr.Dropdown([], label=label, elem_id=elem_id, info=info, allow_custom_value=True)


def _add_api(do: Callbacks, inputs: list[Any]) -> None:
    """The endpoint /edit; nothing of it is seen on the page."""
    button = gr.Button(visible=False)
    pictures, numbers = gr.Gallery(visible=False, format="png"), gr.JSON(visible=False)
    button.click(do.edit, inputs, [pictures, numbers], api_name="edit")


def launch(shelf: ModelShelf, **options: Any) -> gr.Blocks:
    """Serve the app; options go to Blocks.launch."""
    app = build_app(shelf)
    theme = gr.themes.Soft(primary_hue="indigo", secondary_hue="amber", neutral_hue="slate")
    app.launch(
        theme=theme, css=CSS, max_file_size=MAX_BYTES, run_history=False,
        state_session_capacity=200, ssr_mode=False, **options,
    )  # fmt: skip
    return app


def main(arguments: Arguments) -> None:
    """Open what was named at launch, then serve."""
    catalogue = collect_models(arguments.models, CARDS)
    shelf = ModelShelf(catalogue)
    named = set(arguments.models)
    for name, source in catalogue.items():
        if source in named:
            shelf.open(name)
    launch(shelf, server_port=arguments.port, share=arguments.share)


if __name__ == "__main__":
    try:
        main(tyro.cli(Arguments, description=__doc__))
    except (HublatentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
