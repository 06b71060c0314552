"""How the page's parts and what happens to them are put together; the tabs are built with it.

Handlers take what the page says, an object with a value for each part that they ask for, and
return what they change, by the names of the parts; Wiring connects both to Gradio.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from hublatent.demo.shelf import ModelShelf
from hublatent.errors import HublatentError

# The parts of the page that say what is asked for, and those that show it.
CONTROLS = ("models", "attribute", "method", "hold", "mode", "strength", "layers")
ASKED = ("face", "photo", "source", "seed", *CONTROLS)
VIEW = ("strength", "original", "results", "query", "waiting")
SHOWN = (
    "models", "pills", "attribute", "method", "hold", "source", "layers", "seed", "shelf", "mode",
    "face", *VIEW,
)  # fmt: skip
# What can be done with directions that were made or opened.
MADE = ("opened", "use", "restyle", "audit", "push_row")
LATEST: dict[str, Any] = {"trigger_mode": "always_last"}  # of events that come in quick succession
Changes = dict[str, Any]


def _nearest(slider: gr.Slider, given: Any) -> Any:
    """What a slider was set to: beyond its range, the nearer end; else handlers check it."""
    number = isinstance(given, (int, float))
    return min(max(given, slider.minimum), slider.maximum) if number else given


# When its range changes, Gradio makes a session's slider anew of its class: what was set on one is
# lost. And it writes a .pyi file beside the source of each class that is derived from its own.
gr.Slider.preprocess = _nearest  # type: ignore[method-assign, assignment]


class Wiring:
    """Connects the parts of the page with handlers; a mistake becomes one visible sentence."""

    def __init__(self, shelf: ModelShelf) -> None:
        self.shelf = shelf  # it knows how an error may be told
        self.parts = SimpleNamespace()  # components by their names; the tabs add theirs

    def on(
        self, triggers: Any, handler: Callable[[Any], Changes], asked: Sequence[str] = ASKED,
        changed: Sequence[str] = SHOWN, lane: str = "page", with_progress: bool = False,
        **options: Any,
    ) -> Any:  # fmt: skip
        """Let a handler answer events.

        Args:
            triggers: one, such as button.click or the `then` of an earlier event, or several.
            handler: takes the values of the parts in `asked`, and beside them `said`, what the
                event says, and Gradio's `request` and `token`, or `progress`; returns what changes.
            changed: names of the parts that it may change.
            lane: events of one lane wait for each other.
            options: of Gradio's events.
        """

        def run(given: Sequence[Any], **about: Any) -> Any:
            try:
                changes = handler(SimpleNamespace(**dict(zip(asked, given, strict=True)), **about))
            except HublatentError as error:
                warn(self.shelf, error)
                return gr.skip()
            return {getattr(self.parts, key): new for key, new in changes.items()} or gr.skip()

        # Gradio finds out by the annotations what a function takes beside the parts' values.
        def answer(
            event: gr.EventData, request: gr.Request, token: gr.OAuthToken | None, *given: Any
        ) -> Any:
            said = event._data if isinstance(event._data, dict) else {}
            return run(given, said=said, request=request, token=token)

        def answer_with_progress(progress: Any = gr.Progress(), *given: Any) -> Any:  # noqa: B008
            return run(given, progress=progress)

        function = answer_with_progress if with_progress else answer
        function.__name__ = getattr(handler, "__name__", "answer")
        options = {"show_progress": "hidden", "concurrency_id": lane, **options}
        listen = triggers if callable(triggers) else partial(gr.on, triggers)
        inputs, outputs = ([getattr(self.parts, n) for n in names] for names in (asked, changed))
        return listen(function, inputs, outputs, api_visibility="private", **options)


def warn(shelf: ModelShelf, error: HublatentError) -> None:
    """Show an error on the page for a while; what a visitor uploaded has its own name there."""
    folder = re.escape(get_upload_folder().rstrip("/"))
    gr.Warning(escape(re.sub(rf"{folder}/\w+/", "", shelf.tell(error)), quote=False))


def html_part(elem_id: str, script: str | None = None, value: str = "", **options: Any) -> gr.HTML:
    """A part of the page that is HTML."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=script, apply_default_css=False, **options)


def dropdown(label: str, elem_id: str, choices: Sequence[Any] = (), **options: Any) -> gr.Dropdown:
    """A list that takes any text: hublatent checks it, and offers the nearest names."""
    return gr.Dropdown(
        list(choices), label=label, elem_id=elem_id, allow_custom_value=True, **options
    )


def served(write: Callable[[Path], list[Path]]) -> list[str]:
    """Files that are written to a folder, moved to where Gradio serves and later deletes them."""
    with tempfile.TemporaryDirectory(prefix="hublatent-") as folder:
        return [save_file_to_cache(path, get_upload_folder()) for path in write(Path(folder))]


def kept(value: str, offered: Sequence[str]) -> str:
    """A selection, or the first of what is offered where it is not among it."""
    return value if value in offered or not offered else offered[0]
