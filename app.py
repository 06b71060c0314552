"""The app: one face, one attribute, one slider, several models. Run: python app.py

Every picture and number comes from hublatent/demo/session.py, what happens when something is
touched from hublatent/demo/events.py; this file only lays the page out.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import tyro

from hublatent.comparison.results import Comparison
from hublatent.demo.catalogue import collect_models
from hublatent.demo.events import EDIT_TAB, SCORES_TAB, Callbacks
from hublatent.demo.faces import MAX_SEED, store_sample_codes
from hublatent.demo.scores import find_comparison
from hublatent.demo.session import AS_FOUND, MAX_STRENGTH
from hublatent.demo.shelf import LOCAL, PUBLIC, ModelShelf
from hublatent.demo.webpage import CSS, DOWNLOAD_JS, LINK_JS, MOVE_JS
from hublatent.errors import HublatentError

CARDS = Path(__file__).resolve().parent / "model_cards"
CLASSIFIER = CARDS / "attributes-celeba"
# Of events of one kind so many run at once, the others wait; more in all are turned away.
N_AT_ONCE, MAX_WAITING = 2, 200


@dataclass(frozen=True)
class Arguments:
    """Edit faces in several generative models, side by side.

    Attributes:
        port: where the app listens; the first free one from 7860 unless given.
        share: also open a temporary public address; implies --public.
        models: further model folders or Hub ids, beside those in model_cards/.
        public: serve strangers: no local paths, small uploads and downloads. On a Space always so.
        prepare: find the sample faces in models without an encoder beforehand, store their codes
            beside the weights, and stop.
    """

    port: int | None = None
    share: bool = False
    models: tuple[str, ...] = ()
    public: bool = False
    prepare: bool = False


def build_app(shelf: ModelShelf, comparison: Comparison | None = None) -> gr.Blocks:
    """Lay out the page and connect its events.

    Args:
        shelf: the models on offer.
        comparison: of models, for the tab of scores.
    """
    do = Callbacks(shelf, comparison)
    kept_for = (3600, 86400) if shelf.limits.local_paths else (600, 3600)
    with gr.Blocks(title="hublatent", analytics_enabled=False, delete_cache=kept_for) as app:
        gr.Markdown(
            "# hublatent\nOne face, one slider: the same edit in several generative models."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                choices = _choices(do)
            with gr.Column(scale=3, min_width=320), gr.Tabs():
                with gr.Tab(EDIT_TAB) as edit_tab:
                    shown = _results(do)
                with gr.Tab(SCORES_TAB, elem_id="scores-tab") as scores_tab:
                    scores = _scores()
        c = SimpleNamespace(**choices, **shown)
        _connect(app, do, c)
        _connect_scores(do, c, SimpleNamespace(**scores), edit_tab, scores_tab)
    app.queue(max_size=MAX_WAITING, default_concurrency_limit=N_AT_ONCE)
    return app


def _choices(do: Callbacks) -> dict[str, Any]:
    """The controls beside the results."""
    names = list(do.shelf.names)
    c: dict[str, Any] = {}
    c["models"] = gr.Dropdown(
        names, value=list(do.first.models), multiselect=True, allow_custom_value=True,
        label="Models", elem_id="models",
        info="Pick some, or type a Hub id such as user/btcvae-celeba",
    )  # fmt: skip
    c["attribute"] = _dropdown("Attribute", "attribute")
    with gr.Tabs():
        with gr.Tab("Drawn face"):
            c["source"] = _dropdown("Drawn by", "source")
            c["samples"] = gr.Gallery(
                label="Samples", show_label=False, columns=4, height=180, format="png",
                buttons=[], allow_preview=False, interactive=False, elem_id="samples",
            )  # fmt: skip
            c["seed"] = gr.Number(
                0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed"
            )
        with gr.Tab("Your picture", elem_id="upload-tab"):
            c["upload"] = gr.File(
                label="A picture of a face, of any size", file_types=["image"], height=150,
                elem_id="upload",
            )  # fmt: skip
            gr.Markdown("Its central square is used. It is not part of the link.")
    c["layers"] = _dropdown(
        "Layers", "layers", "coarse to fine, such as 0-2", value=AS_FOUND, visible=False
    )
    with gr.Accordion("Method and what to hold still", open=False):
        c["method"] = _dropdown(
            "Method", "method", "joint moves the attribute alone; svm is the paper's"
        )
        c["hold"] = gr.Dropdown(
            [], multiselect=True, allow_custom_value=True, label="Hold still", elem_id="hold",
            info="Their svm readings stay where they are",
        )  # fmt: skip
    return c


def _results(do: Callbacks) -> dict[str, Any]:
    """The slider, what it changes, and what no one sees."""
    return {
        "strength": gr.Slider(
            -MAX_STRENGTH, MAX_STRENGTH, do.first.strength, step=0.1, elem_id="strength",
            label="Strength in σ", buttons=[],
        ),
        "waiting": gr.HTML(elem_id="waiting"),
        "results": gr.HTML(elem_id="results"),
        "download": gr.Button("Download the strips (PNG)", size="sm", elem_id="download-strip"),
        "link": gr.Textbox(
            label="Link to this view", interactive=False, buttons=["copy"], elem_id="link"
        ),
        "face": gr.State(None, time_to_live=3600),
        "query": gr.Textbox(visible="hidden", elem_id="query", label="Query"),
        "found": gr.Textbox(visible="hidden", elem_id="found", label="Found"),
        "moves": gr.JSON(visible=False),
        "file": gr.JSON(visible=False),
    }  # fmt: skip


def _scores() -> dict[str, Any]:
    """How well the chosen attribute is read and edited."""
    return {
        "note": gr.Markdown(elem_id="scores-note"),
        "tables": gr.HTML(elem_id="scores"),
        "plots": gr.HTML(elem_id="plots"),
    }


def _dropdown(label: str, elem_id: str, info: str | None = None, **options: Any) -> gr.Dropdown:
    # Free text is checked by hublatent, which offers the nearest names.
    return gr.Dropdown(
        [], label=label, elem_id=elem_id, info=info, allow_custom_value=True, **options
    )


def _connect(app: gr.Blocks, do: Callbacks, c: SimpleNamespace) -> None:
    """What happens when something is touched."""
    controls = [c.models, c.attribute, c.method, c.hold, c.strength, c.layers]
    views = [c.results, c.query, c.waiting]
    offers = [c.attribute, c.method, c.hold, c.source, c.layers]
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "page"}
    # A slow download of one visitor's model does not stop the others' sliders.
    opening = {**private, "concurrency_id": "opening"}
    latest = {"trigger_mode": "always_last", "show_progress": "hidden"}
    app.load(
        do.restore, None,
        [c.models, *offers, c.seed, c.samples, c.strength, c.face, *views], **opening,
    )  # fmt: skip
    # At home without the queue's two requests per move; strangers take turns.
    c.strength.input(
        do.slide, [c.face, *controls], [c.moves, c.query], queue=not do.shelf.limits.local_paths,
        **latest, **private,
    ).then(None, c.moves, None, js=MOVE_JS)  # fmt: skip
    for control in (c.attribute, c.method, c.hold, c.layers):
        control.input(do.redraw, [c.face, *controls], views, **latest, **private)
    c.models.input(
        do.change_models, [c.face, c.source, c.seed, *controls],
        [*offers, c.samples, c.face, *views], **latest, **opening,
    )  # fmt: skip
    c.source.input(
        do.change_source, [c.source, c.seed, *controls], [c.samples, c.upload, c.face, *views],
        **private,
    )  # fmt: skip
    c.samples.select(
        do.pick_sample, [c.source, *controls], [c.seed, c.upload, c.face, *views], **private
    )
    gr.on(
        [c.seed.input, c.upload.clear], do.change_seed, [c.source, c.seed, *controls],
        [c.upload, c.face, *views], **latest, **private,
    )  # fmt: skip
    c.upload.upload(do.upload, [c.upload, *controls], [c.face, *views], **private)
    c.waiting.change(
        do.project, [c.face, c.waiting, *controls], c.found, show_progress_on=c.waiting,
        trigger_mode="always_last", concurrency_limit=1,
        **{**private, "concurrency_id": "projection"},
    )  # fmt: skip
    c.found.change(do.redraw, [c.face, *controls], views, **latest, **private)
    c.download.click(do.download, [c.face, *controls], c.file, **private).then(
        None, c.file, None, js=DOWNLOAD_JS
    )
    c.query.change(None, c.query, c.link, js=LINK_JS, api_visibility="private")
    _add_api(do, [c.upload, c.source, c.seed, *controls])


def _connect_scores(
    do: Callbacks, c: SimpleNamespace, s: SimpleNamespace, edit_tab: gr.Tab, scores_tab: gr.Tab
) -> None:
    """The scores follow the chosen models and attribute while they are seen."""
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "page"}
    tab = gr.State(EDIT_TAB)
    shown = [s.note, s.tables, s.plots]
    edit_tab.select(lambda: EDIT_TAB, None, tab, **private)
    scores_tab.select(lambda: SCORES_TAB, None, tab, **private).then(
        do.scores, [tab, c.models, c.attribute], shown, **private
    )
    gr.on(
        [c.models.input, c.attribute.change], do.scores, [tab, c.models, c.attribute], shown,
        trigger_mode="always_last", **private,
    )  # fmt: skip


def _add_api(do: Callbacks, inputs: list[Any]) -> None:
    """The endpoint /edit; nothing of it is seen on the page."""
    button = gr.Button(visible=False)
    pictures, numbers = gr.Gallery(visible=False, format="png"), gr.JSON(visible=False)
    button.click(do.edit, inputs, [pictures, numbers], api_name="edit")


def launch(shelf: ModelShelf, comparison: Comparison | None = None, **options: Any) -> gr.Blocks:
    """Serve the app; options go to Blocks.launch."""
    app = build_app(shelf, comparison)
    theme = gr.themes.Soft(primary_hue="indigo", secondary_hue="amber", neutral_hue="slate")
    app.launch(
        theme=theme, css=CSS, max_file_size=shelf.limits.upload_bytes, run_history=False,
        enable_monitoring=False, state_session_capacity=200, ssr_mode=False, **options,
    )  # fmt: skip
    return app


def main(arguments: Arguments) -> None:
    """Open what was named at launch, then serve."""
    public = arguments.public or arguments.share or bool(os.environ.get("SPACE_ID"))
    catalogue = collect_models(arguments.models, CARDS)
    shelf = ModelShelf(catalogue, limits=PUBLIC if public else LOCAL, classifier=CLASSIFIER)
    for name, source in catalogue.items():
        if source in arguments.models:
            shelf.open(name)
    if arguments.prepare:
        for path in store_sample_codes(shelf, shelf.names, print):
            print(f"wrote {path}")
        return
    comparison = find_comparison(CARDS / "comparison")
    launch(shelf, comparison, server_port=arguments.port, share=arguments.share)


if __name__ == "__main__":
    try:
        main(tyro.cli(Arguments, description=__doc__))
    except (HublatentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
