"""The app's page: which tabs there are, what stands around them, and how it is served."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

from hublatent.demo import compose_tab, edit_tab, make_tab, map_tab, scores_tab, webpage
from hublatent.demo.api import Api
from hublatent.demo.edit_tab import Editor
from hublatent.demo.shelf import ModelShelf
from hublatent.demo.visitors import FairQueue
from hublatent.demo.wiring import Wiring, html_part
from hublatent.evaluation.report import Summary

# Of events of one kind so many run at once, the others wait; more in all are turned away.
N_AT_ONCE, MAX_WAITING = 2, 200


def build_app(
    shelf: ModelShelf, comparison: Summary | None = None, folder: Path | None = None
) -> gr.Blocks:
    """Lay out the page and connect it to what its events do; see `launch`."""
    compared = comparison.models if comparison else ()
    do, wire = Editor(shelf, compared, bool(os.environ.get("SPACE_ID"))), Wiring(shelf)
    kept_for = (3600, 86400) if shelf.limits.local_paths else (600, 3600)
    with gr.Blocks(title="hublatent", analytics_enabled=False, delete_cache=kept_for) as app:
        html_part("top", value=webpage.html("edit.top"))
        with gr.Tabs(elem_id="pages") as wire.parts.tabs:
            first = edit_tab.build(do, wire)
            compose_tab.build(wire, app)
            make_tab.build(do, wire)
            map_tab.build(do, wire)
            scores_tab.build(wire, first, comparison, folder)
        edit_tab.connect(do, wire, app)
        Api(shelf, do.first).connect()
    app.queue(max_size=MAX_WAITING, default_concurrency_limit=N_AT_ONCE)
    if not shelf.limits.local_paths:
        FairQueue(app._queue)
    return app


def launch(
    shelf: ModelShelf, comparison: Summary | None = None, folder: Path | None = None,
    **options: Any,
) -> gr.Blocks:  # fmt: skip
    """Serve the app; a comparison has its figures in a folder, the options are Blocks.launch's."""
    app = build_app(shelf, comparison, folder)
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
