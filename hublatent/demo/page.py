"""The app's page: what stands where, and which event calls what. It alone lays out Gradio.

Pictures and numbers come from session.py, HTML from webpage.py, what an event does from events.py.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from hublatent.demo import compose_tab, make_tab, map_tab
from hublatent.demo.api import Api
from hublatent.demo.events import EDIT_TAB, SCORES_TAB, Callbacks
from hublatent.demo.faces import MAX_SEED
from hublatent.demo.session import AS_FOUND, MODES
from hublatent.demo.shelf import ModelShelf
from hublatent.demo.visitors import FairQueue
from hublatent.demo.webpage import BACK_JS, CSS, DOWNLOAD_JS, LINK_JS, MOVE_JS, PAGE_JS, SAY_JS
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
        gr.HTML(TOP, elem_id="top", apply_default_css=False)
        with gr.Tabs(elem_id="pages") as tabs:
            with gr.Tab(EDIT_TAB, id="edit") as edit_tab:
                # The bar is reached first by keyboard; page.css shows it below the faces.
                c = SimpleNamespace(**_bar(do), **_faces(), **_matrix(do), **_unseen())
                c.controls = [c.models, c.attribute, c.method, c.hold, c.mode, c.strength, c.layers]
                c.view = [c.strength, c.original, c.results, c.query, c.waiting]
            compose_tab.build(do, c, app)
            make_tab.build(do, c, tabs)
            map_tab.build(do, c, tabs)
            with gr.Tab(SCORES_TAB, id="scores", elem_id="scores-tab") as scores_tab:
                scores = _html("scores")
        _connect(app, do, c)
        _connect_scores(do, c, scores, edit_tab, scores_tab)
    app.queue(max_size=MAX_WAITING, default_concurrency_limit=N_AT_ONCE)
    if not do.shelf.limits.local_paths:
        FairQueue(app._queue)
    return app


def _faces() -> dict[str, Any]:
    """The row of faces, and the panels that it opens."""
    c: dict[str, Any] = {"shelf": _html("shelf", SAY_JS)}
    with gr.Row(elem_id="shelf-menu"):
        c["source"] = _dropdown("Drawn by", "source")
        c["seed"] = gr.Number(
            0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed"
        )
    with gr.Row(elem_id="upload-panel"):
        with gr.Column(scale=1, min_width=200):
            c["upload"] = gr.File(
                label="A photo of a face, of any size", file_types=["image"], height=130,
                elem_id="upload",
            )  # fmt: skip
            gr.Markdown("It is kept for this visit alone, and is not part of the link.")
        with gr.Column(scale=1, min_width=200):
            c["webcam"] = gr.Image(
                label="Or from the camera", sources=["webcam"], type="filepath", height=130,
                elem_id="webcam",
            )  # fmt: skip
        with gr.Column(scale=2, min_width=300, visible=False) as c["crop_panel"]:
            c["crop"] = _html("crop")
            with gr.Row():
                c["right"] = _nudge("Left – right", -0.5, 0.5, 0)
                c["down"] = _nudge("Up – down", -0.5, 0.5, 0)
                c["size"] = _nudge("Size", 0.5, 2, 1)
                c["turn"] = _nudge("Turn", -45, 45, 0)
            c["centre"] = gr.Button("Use the square as it is", size="sm", elem_id="use-square")
    c["photo"] = gr.State(None, time_to_live=3600)
    return c


def _bar(do: Callbacks) -> dict[str, Any]:
    """The controls that stay in sight: attribute and slider."""
    mode = MODES[do.first.mode]
    with gr.Row(elem_id="bar"):
        return {
            "pills": _html("pills", SAY_JS),
            "attribute": gr.Dropdown(
                [], allow_custom_value=True, show_label=False, label="All attributes",
                elem_id="attribute",
            ),
            "strength": gr.Slider(
                mode.low, mode.high, mode.default, step=mode.step, elem_id="strength",
                label="Strength", buttons=[],
            ),
            "actions": _html("actions", SAY_JS, ACTIONS),
        }  # fmt: skip


def _matrix(do: Callbacks) -> dict[str, Any]:
    """The original beside a row for each model, and what is rarely changed."""
    c: dict[str, Any] = {}
    with gr.Row(elem_id="matrix"):
        with gr.Column(elem_id="side", min_width=120):
            c["original"] = _html("original")
            with gr.Accordion("Options", open=True, elem_id="options"):
                c["mode"] = gr.Dropdown(
                    [(mode.label, name) for name, mode in MODES.items()], value=do.first.mode,
                    label="The slider means", elem_id="mode",
                )  # fmt: skip
                c["hold"] = gr.Dropdown(
                    [], multiselect=True, allow_custom_value=True, label="Hold still",
                    elem_id="hold",
                )  # fmt: skip
                c["method"] = _dropdown("Method", "method")
                c["layers"] = _dropdown("Layers", "layers", value=AS_FOUND, visible=False)
                c["models"] = gr.Dropdown(
                    list(do.shelf.names), value=[], multiselect=True, allow_custom_value=True,
                    label="Models", elem_id="models", info="Or a Hub id, and Enter",
                )  # fmt: skip
                c["download"] = gr.Button("Save the strips", size="sm", elem_id="download-strip")
        with gr.Column(elem_id="rows", min_width=200):
            c["waiting"] = gr.HTML(elem_id="waiting")
            c["search"] = gr.HTML(elem_id="search", apply_default_css=False)
            c["stop"] = gr.Button("Stop looking", size="sm", elem_id="stop")
            c["results"] = _html("results", SAY_JS)
    with gr.Accordion("Find models on the Hub", open=False, elem_id="hub"):
        with gr.Row():
            c["words"] = gr.Textbox(
                show_label=False, label="Words of the name", placeholder="celeba", scale=4,
                max_length=100, elem_id="hub-words",
            )  # fmt: skip
            c["look"] = gr.Button("Search", size="sm", scale=1, elem_id="hub-search")
        c["found_models"] = _html("hub-found", SAY_JS)
    return c


def _unseen() -> dict[str, Any]:
    """What the page keeps, and what its script is told."""
    return {
        "face": gr.State(None, time_to_live=3600),
        "query": gr.Textbox(visible="hidden", elem_id="query", label="Query"),
        "found": gr.Textbox(visible="hidden", elem_id="found", label="Found"),
        "back": _html("back", BACK_JS),
        "moves": gr.JSON(visible=False),
        "file": gr.JSON(visible=False),
    }


def _html(elem_id: str, script: str | None = None, value: str = "") -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, js_on_load=script, apply_default_css=False)


def _dropdown(label: str, elem_id: str, **options: Any) -> gr.Dropdown:
    # Free text is checked by hublatent, which offers the nearest names.
    return gr.Dropdown([], label=label, elem_id=elem_id, allow_custom_value=True, **options)


def _nudge(label: str, low: float, high: float, value: float) -> gr.Slider:
    return gr.Slider(low, high, value, step=0.01, label=label, buttons=[], min_width=110)


def _connect(app: gr.Blocks, do: Callbacks, c: SimpleNamespace) -> None:
    """What happens when something is touched."""
    controls, views = c.controls, c.view
    shown = [c.face, *controls]
    offers = [c.pills, c.attribute, c.method, c.hold, c.source, c.layers]
    page = [c.models, *offers, c.seed, c.shelf, c.mode, c.face, *views]
    # Its range changes with its mode; what it sends is checked by EditRequest instead.
    c.strength.preprocess = lambda value: value
    private: dict[str, Any] = {
        "api_visibility": "private", "concurrency_id": "page", "show_progress": "hidden",
    }  # fmt: skip
    # A slow download of one visitor's model does not stop the others' sliders.
    opening = {**private, "concurrency_id": "opening"}
    latest = {"trigger_mode": "always_last"}
    app.load(do.load, None, page, **{**opening, "show_progress": "minimal"})
    c.back.change(do.go_back, None, page, **opening)
    # At home without the queue's two requests per move; strangers take turns.
    c.strength.input(
        do.slide, shown, [c.moves, c.query], queue=not do.shelf.limits.local_paths,
        **latest, **private,
    ).then(None, c.moves, None, js=MOVE_JS)  # fmt: skip
    for control in (c.method, c.hold, c.layers):
        control.input(do.redraw, shown, views, **latest, **private)
    attributes = [c.pills, c.attribute, *views]
    c.attribute.input(do.change_attribute, shown, attributes, **latest, **private)
    c.pills.select(do.pick_attribute, shown, attributes, **latest, **private)
    gr.on([c.mode.input, c.actions.select], do.change_mode, shown, views, **private)
    c.results.select(do.pick_frame, shown, [c.mode, *views], **private)
    c.models.input(
        do.change_models, [c.face, c.source, c.seed, *controls],
        [*offers, c.shelf, c.face, *views], **latest, **opening,
    )  # fmt: skip
    gr.on([c.look.click, c.words.submit], do.search, c.words, c.found_models, **opening)
    c.found_models.select(
        do.add_model, [c.face, c.source, c.seed, *controls],
        [c.models, *offers, c.shelf, c.face, *views], **opening,
    )  # fmt: skip
    faces = [c.seed, c.shelf, c.face, *views]
    gr.on(
        [c.source.input, c.seed.input, c.upload.clear], do.change_face,
        [c.source, c.seed, *controls], faces, **latest, **private,
    )  # fmt: skip
    c.shelf.select(do.pick_face, [c.source, *controls], faces, **private)
    cut = [c.crop, c.shelf, c.face, *views]
    for brought, event in ((c.upload, c.upload.upload), (c.webcam, c.webcam.input)):
        event(do.upload, [brought, c.source, *controls], [c.photo, c.crop_panel, *cut], **private)
    nudges = [c.right, c.down, c.size, c.turn]
    gr.on(
        [c.centre.click, *(nudge.input for nudge in nudges)], do.adjust,
        [c.photo, *nudges, c.source, *controls], cut, **latest, **private,
    )  # fmt: skip
    c.waiting.change(
        do.project, [c.face, c.waiting, c.models], [c.found, c.search],
        trigger_mode="always_last", concurrency_limit=1,
        **{**private, "concurrency_id": "projection"},
    )  # fmt: skip
    c.stop.click(do.stop, c.face, c.waiting, **{**private, "concurrency_id": "stop"})
    app.unload(do.leave)
    c.found.change(do.redraw, shown, views, **latest, **private)
    c.download.click(do.download, shown, c.file, **private).then(None, c.file, None, js=DOWNLOAD_JS)
    c.query.change(None, c.query, None, js=LINK_JS, api_visibility="private")
    Api(do).connect()


def _connect_scores(
    do: Callbacks, c: SimpleNamespace, shown: gr.HTML, edit_tab: gr.Tab, scores_tab: gr.Tab
) -> None:
    """The scores follow the chosen models and attribute while they are seen."""
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "page"}
    tab = gr.State(EDIT_TAB)
    asked = {"fn": do.scores, "inputs": [tab, c.models, c.attribute, c.method], "outputs": shown}
    edit_tab.select(lambda: EDIT_TAB, None, tab, **private)
    scores_tab.select(lambda: SCORES_TAB, None, tab, **private).then(**asked, **private)
    gr.on([c.models.input, c.attribute.change], **asked, **private, trigger_mode="always_last")


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
    do = Callbacks(shelf, comparison, folder)
    app = build_app(do)
    blocks = not options.pop("prevent_thread_lock", False)
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
        theme=theme, css=CSS, js=PAGE_JS, max_file_size=shelf.limits.upload_bytes,
        run_history=False, enable_monitoring=False, state_session_capacity=200, ssr_mode=False,
        prevent_thread_lock=True, **options,
    )  # fmt: skip
    if blocks:
        threading.Thread(target=do.warm_up, daemon=True).start()
        app.block_thread()
    return app
