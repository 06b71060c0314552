"""The app's page: what stands where, and which event calls what. It alone lays out Gradio.

Pictures and numbers come from session.py, HTML from webpage.py, what an event does from events.py.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from hublatent.demo import compose_tab, make_tab, map_tab, webpage
from hublatent.demo.api import Api
from hublatent.demo.events import (
    CONTROLS,
    EDIT_TAB,
    MADE,
    SCORES_TAB,
    SHOWN,
    VIEW,
    Callbacks,
    Changes,
    Wiring,
    html_part,
)
from hublatent.demo.faces import MAX_SEED
from hublatent.demo.session import AS_FOUND, MODES
from hublatent.demo.shelf import ModelShelf
from hublatent.demo.visitors import FairQueue
from hublatent.evaluation.report import Summary

# Of events of one kind so many run at once, the others wait; more in all are turned away.
N_AT_ONCE, MAX_WAITING = 2, 200
TOP = (
    '<div class="hl-top"><strong>hublatent</strong>'
    "<span>one slider, the same edit in several models</span>"
    '<button class="hl-action" data-action="theme" aria-label="Dark or light">◐</button></div>'
)
ACTIONS = (
    '<div class="hl-actions"><button class="hl-action" data-say="{&quot;reset&quot;: true}">Reset'
    '</button><button class="hl-action" data-action="play">Play</button>'
    '<button class="hl-action" data-action="undo" aria-label="Undo">↶</button>'
    '<button class="hl-action" data-action="redo" aria-label="Redo">↷</button>'
    '<button class="hl-action" data-action="share">Share</button></div>'
)


def build_app(do: Callbacks) -> gr.Blocks:
    """Lay out the page and connect it to what its events do."""
    kept_for = (3600, 86400) if do.shelf.limits.local_paths else (600, 3600)
    with gr.Blocks(title="hublatent", analytics_enabled=False, delete_cache=kept_for) as app:
        html_part("top", value=TOP)
        c = SimpleNamespace()
        wire = Wiring(c, do.warn)
        with gr.Tabs(elem_id="pages") as c.tabs:
            with gr.Tab("Edit", id="edit") as edit_tab:
                # The bar is reached first by keyboard; page.css shows it above the matrix.
                _add_bar(c)
                _add_faces(c)
                _add_matrix(c, do)
                _add_unseen(c)
            compose_tab.build(do, wire, app)
            make_tab.build(do, wire)
            map_tab.build(do, wire)
            with gr.Tab("Scores", id="scores", elem_id="scores-tab") as scores_tab:
                c.scores, c.tab = html_part("scores"), gr.State(EDIT_TAB)
        _fill(c, do.restore({}))
        _connect(app, do, wire)
        here: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "page"}
        edit_tab.select(lambda: EDIT_TAB, None, c.tab, **here)
        shown = scores_tab.select(lambda: SCORES_TAB, None, c.tab, **here)
        for event in (shown.then, c.models.input, c.attribute.change):
            wire.on(
                event, do.scores, ("tab", "models", "attribute", "method"), ("scores",),
                trigger_mode="always_last", show_progress="full",
            )  # fmt: skip
        Api(do).connect()
    app.queue(max_size=MAX_WAITING, default_concurrency_limit=N_AT_ONCE)
    if not do.shelf.limits.local_paths:
        FairQueue(app._queue)
    return app


def _add_bar(c: SimpleNamespace) -> None:
    """The controls that stay in sight: attribute and slider."""
    with gr.Row(elem_id="bar"):
        c.pills = html_part("pills", webpage.SAY_JS)
        c.attribute = _dropdown("All attributes", "attribute", show_label=False)
        c.strength = gr.Slider(0, 1, 0, elem_id="strength", label="Strength", buttons=[])
        c.actions = html_part("actions", webpage.SAY_JS, ACTIONS)


def _add_faces(c: SimpleNamespace) -> None:
    """The row of faces, and the panels that it opens."""
    c.shelf = html_part("shelf", webpage.SAY_JS)
    with gr.Row(elem_id="shelf-menu"):
        c.source = _dropdown("Drawn by", "source")
        c.seed = gr.Number(
            0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed"
        )
    with gr.Row(elem_id="upload-panel"):
        with gr.Column(scale=1, min_width=200):
            c.upload = gr.File(
                label="A photo of a face, of any size", file_types=["image"], height=130,
                elem_id="upload",
            )  # fmt: skip
            gr.Markdown("It is kept for this visit alone, and is not part of the link.")
        with gr.Column(scale=1, min_width=200):
            c.webcam = gr.Image(
                label="Or from the camera", sources=["webcam"], type="filepath", height=130,
                elem_id="webcam",
            )  # fmt: skip
        with gr.Column(scale=2, min_width=300, visible=False) as c.crop_panel:
            c.crop = html_part("crop")
            with gr.Row():
                c.right = _nudge("Left – right", -0.5, 0.5, 0)
                c.down = _nudge("Up – down", -0.5, 0.5, 0)
                c.size = _nudge("Size", 0.5, 2, 1)
                c.turn = _nudge("Turn", -45, 45, 0)
            c.centre = gr.Button("Use the square as it is", size="sm", elem_id="use-square")
    c.photo, c.face = (gr.State(None, time_to_live=3600) for _ in range(2))


def _add_matrix(c: SimpleNamespace, do: Callbacks) -> None:
    """The original beside a row for each model, and what is rarely changed."""
    modes = [(mode.label, name) for name, mode in MODES.items()]
    with gr.Row(elem_id="matrix"):
        with gr.Column(elem_id="side", min_width=120):
            c.original = html_part("original")
            with gr.Accordion("Options", open=True, elem_id="options"):
                c.mode = gr.Dropdown(modes, label="The slider means", elem_id="mode")
                c.hold = _dropdown("Hold still", "hold", multiselect=True)
                c.method = _dropdown("Method", "method")
                c.layers = _dropdown("Layers", "layers", value=AS_FOUND, visible=False)
                c.models = _dropdown(
                    "Models", "models", list(do.shelf.names), value=[], multiselect=True,
                    info="Or a Hub id, and Enter",
                )  # fmt: skip
                c.download = gr.Button("Save the strips", size="sm", elem_id="download-strip")
        with gr.Column(elem_id="rows", min_width=200):
            c.waiting, c.search = html_part("waiting"), html_part("search")
            c.stop = gr.Button("Stop looking", size="sm", elem_id="stop")
            c.results = html_part("results", webpage.SAY_JS)
    with gr.Accordion("Find models and directions on the Hub", open=False, elem_id="hub"):
        with gr.Row():
            c.words = gr.Textbox(
                show_label=False, label="Words of the name, or an id", scale=4, max_length=200,
                placeholder="celeba, or an id such as user/btcvae-celeba", elem_id="hub-words",
            )  # fmt: skip
            c.look = gr.Button("Search", size="sm", scale=1, elem_id="hub-search")
        c.found_repos = html_part("hub-found", webpage.SAY_JS)


def _add_unseen(c: SimpleNamespace) -> None:
    """What the page keeps, and what its script is told."""
    c.query, c.found = (
        gr.Textbox(visible="hidden", elem_id=name, label=name) for name in ("query", "found")
    )
    c.back = html_part("back", webpage.BACK_JS)
    c.moves, c.file = gr.JSON(visible=False), gr.JSON(visible=False)
    # Directions that were made or opened last, each after the name of its model.
    c.opened = gr.State([], time_to_live=3600)


def _dropdown(label: str, elem_id: str, choices: Any = (), **options: Any) -> gr.Dropdown:
    # Free text is checked by hublatent, which offers the nearest names.
    return gr.Dropdown(
        list(choices), label=label, elem_id=elem_id, allow_custom_value=True, **options
    )


def _nudge(label: str, low: float, high: float, value: float) -> gr.Slider:
    return gr.Slider(low, high, value, step=0.01, label=label, buttons=[], min_width=110)


def _fill(c: SimpleNamespace, changes: Changes) -> None:
    """Put what a page shows first into the page itself: no request has to be waited for."""
    for name, change in changes.items():
        part = getattr(c, name)
        update = change if isinstance(change, dict) else {"value": change}
        for key, value in update.items():
            if key == "choices":
                value = [
                    choice if isinstance(choice, tuple) else (choice, choice) for choice in value
                ]
            if key != "__type__":
                setattr(part, key, value)
                part.constructor_args[key] = value  # a session's copy is made of these


def _connect(app: gr.Blocks, do: Callbacks, wire: Wiring) -> None:
    """What happens when something is touched."""
    c, latest = wire.parts, {"trigger_mode": "always_last"}
    # Its range changes with its mode; what it sends is checked by EditRequest instead.
    c.strength.preprocess = lambda value: value
    # A slow download of one visitor's model does not stop the others' sliders.
    slow = {"lane": "opening"}
    wire.on(app.load, do.load, **slow).then(None, None, None, js=webpage.SHOW_JS)
    app.load(None, c.query, None, js=webpage.FIRST_JS, api_visibility="private")
    c.query.change(None, c.query, None, js=webpage.LINK_JS, api_visibility="private")
    wire.on(c.back.change, do.go_back, **slow)
    # At home without the queue's two requests per move; strangers take turns.
    wire.on(
        c.strength.input, do.slide, ("face", *CONTROLS), ("moves", "query"),
        queue=not do.shelf.limits.local_paths, **latest,
    ).then(None, c.moves, None, js=webpage.MOVE_JS)  # fmt: skip
    wire.on([c.method.input, c.hold.input, c.layers.input, c.found.change], do.redraw, **latest)
    wire.on(c.attribute.input, do.change_attribute, **latest)
    wire.on(c.pills.select, do.pick_attribute, **latest)
    wire.on([c.mode.input, c.actions.select], do.change_mode)
    wire.on(c.results.select, do.pick_frame)
    wire.on(c.models.input, do.change_models, **latest, **slow)
    asked, hub = ("face", "source", "seed", *CONTROLS), (*SHOWN, "tabs", "found_repos", *MADE)
    wire.on([c.look.click, c.words.submit], do.search, ("words", *asked), hub, **slow)
    wire.on(c.found_repos.select, do.pick_repo, asked, hub, **slow)
    wire.on([c.source.input, c.seed.input, c.upload.clear], do.change_face, **latest)
    wire.on(c.shelf.select, do.pick_face)
    brought = ("photo", "crop_panel", "crop", "shelf", "face", *VIEW)
    wire.on(c.upload.upload, do.upload, ("upload", "source", *CONTROLS), brought)
    wire.on(c.webcam.input, do.take, ("webcam", "source", *CONTROLS), brought)
    nudges = ("right", "down", "size", "turn")
    wire.on(
        [c.centre.click, *(getattr(c, name).input for name in nudges)], do.adjust,
        ("photo", *nudges, "source", *CONTROLS), brought, **latest,
    )  # fmt: skip
    c.waiting.change(
        do.project, [c.face, c.waiting, c.models], [c.found, c.search], concurrency_limit=1,
        concurrency_id="projection", show_progress="hidden", api_visibility="private", **latest,
    )  # fmt: skip
    wire.on(c.stop.click, do.stop, ("face",), ("waiting",), lane="stop")
    app.unload(do.leave)
    wire.on(c.download.click, do.download, ("face", *CONTROLS), ("file",)).then(
        None, c.file, None, js=webpage.DOWNLOAD_JS
    )


def launch(
    shelf: ModelShelf, comparison: Summary | None = None, folder: Path | None = None,
    **options: Any,
) -> gr.Blocks:  # fmt: skip
    """Serve the app.

    Args:
        shelf: the models on offer.
        comparison: of models, for the tab of scores.
        folder: that it was read from, with its figures.
        options: of Blocks.launch.
    """
    app = build_app(Callbacks(shelf, comparison, folder))
    theme = gr.themes.Soft(
        primary_hue="indigo", secondary_hue="amber", neutral_hue="slate",
        font=["Inter", "system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"],
    ).set(
        block_title_background_fill="transparent", block_title_text_color="*body_text_color",
        block_title_text_weight="500", block_title_padding="0",
        block_label_background_fill="transparent", block_label_text_color="*body_text_color",
        input_border_width="1px", input_border_color="*border_color_primary", input_shadow="none",
    )  # fmt: skip
    app.launch(
        theme=theme, css=webpage.CSS, js=webpage.PAGE_JS, head=webpage.HEAD,
        max_file_size=shelf.limits.upload_bytes,
        run_history=False, enable_monitoring=False, state_session_capacity=200, ssr_mode=False,
        **options,
    )  # fmt: skip
    return app
