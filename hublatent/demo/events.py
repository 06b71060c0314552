"""What the events of the page do. Only page.py imports this module: it needs gradio."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, wraps
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from hublatent.demo.catalogue import offered_attributes, offered_layers, offered_methods
from hublatent.demo.faces import MAX_SEED, SAMPLE_SEEDS, Face, Photo, StoppedError, drawn_face
from hublatent.demo.hub_search import found_html, search_hub
from hublatent.demo.names import searchable_name
from hublatent.demo.scores import scores_html
from hublatent.demo.session import (
    AS_FOUND,
    MAX_ROWS,
    MODES,
    EditRequest,
    checked_names,
    checked_number,
    checked_text,
    compare_edits,
    first_request,
    project_missing,
    slider_range,
)
from hublatent.demo.shelf import Cache, ModelShelf
from hublatent.demo.webpage import (
    Search,
    crop_html,
    download_of,
    moves_of,
    original_html,
    pills_html,
    results_html,
    search_html,
    shelf_html,
    slider_label,
    waiting_html,
)
from hublatent.errors import HublatentError, find_name
from hublatent.evaluation.report import Summary

N_SHOWN_AT_FIRST = 5
EDIT_TAB, SCORES_TAB = "Edit", "Scores"
SECONDS_BETWEEN_PICTURES = 0.5
NO_PROGRESS = gr.Progress()  # gradio replaces it by the event's own


def warn_user(method: Callable[..., Any]) -> Callable[..., Any]:
    """A mistake becomes one visible sentence, and what is on the page stays."""

    @wraps(method)
    def wrapped(self: Any, *args: Any) -> Any:
        try:
            return method(self, *args)
        except HublatentError as error:
            self.warn(error)
            return gr.skip()

    return wrapped


class Callbacks:
    """What the page's events do; stateless but for the shelf of models.

    The controls of a request come in the order of EditRequest.of: models, attribute, method, held,
    mode, strength, layers. `view` is what shows it: slider, original, rows, query, and what is
    pending.
    """

    def __init__(
        self, shelf: ModelShelf, comparison: Summary | None = None, folder: Path | None = None
    ) -> None:
        self.shelf = shelf
        self.comparison = comparison
        self.folder = folder
        self._stopped = Cache(1000)  # faces and sessions that are waited for no longer

    def warn(self, error: HublatentError) -> None:
        """Show an error on the page."""
        gr.Warning(escape(self.shelf.tell(error), quote=False), duration=None)

    @cached_property
    def first(self) -> EditRequest:
        """What the page shows without a link."""
        compared = list(self.comparison.models) if self.comparison else []
        return first_request(self.shelf, N_SHOWN_AT_FIRST, compared)

    def warm_up(self) -> None:
        """Make what every visitor sees first."""
        if self.first.source:
            self.view(self.draw(self.first.source, self.first.seed), self.first)
            self.samples(self.first.source)

    # Restoring a view

    def load(self, request: gr.Request) -> tuple[Any, ...]:
        """Fill the page from the link's query string."""
        return self.restore(dict(request.query_params))

    def go_back(self, event: gr.EventData) -> tuple[Any, ...]:
        """Fill the page from an earlier query string, as Back and Forward of the browser ask."""
        return self.restore(dict(parse_qsl(str(event.query).lstrip("?"))))

    def restore(self, query: dict[str, str]) -> tuple[Any, ...]:
        """Everything that a query string says, for all controls of the page."""
        wanted = self.first
        try:
            wanted = EditRequest.from_query(query, wanted)
        except HublatentError as error:
            self.warn(error)
        updates = self.choices(list(wanted.models), wanted.attribute, wanted.method, wanted.source)
        _, attribute, method, hold, _, layers = updates
        for key, update in (("attribute", attribute), ("method", method)):
            if key in query:  # an unknown one is answered, not replaced
                update["value"] = getattr(wanted, key)
        hold["value"], layers["value"] = list(wanted.held), str(wanted.layers or AS_FOUND)
        face = None
        try:
            face = self.draw(wanted.source, wanted.seed)
        except HublatentError as error:
            self.warn(error)
        shown = replace(wanted, attribute=attribute["value"], method=method["value"])
        updates[0] = self.pills(shown.attribute)
        return (
            gr.update(value=list(wanted.models)), *updates, wanted.seed,
            self.faces(wanted.source, face), gr.update(value=wanted.mode), face,
            *self.view(face, shown, value=shown.strength),
        )  # fmt: skip

    def choices(self, names: list[str], attribute: str, method: str, source: str) -> list[Any]:
        """What the chosen models offer, keeping what was selected."""
        opened = self.shelf.open_all(names)
        attributes, methods = offered_attributes(opened), offered_methods(opened)
        sources = list(dict.fromkeys([*self.shelf.names, *(o.name for o in opened)]))
        layers = offered_layers(opened)
        named = [(searchable_name(name), name) for name in attributes]
        chosen = kept(attribute, attributes)
        return [
            pills_html(chosen, attributes),
            gr.update(choices=named, value=chosen),
            gr.update(choices=list(methods), value=kept(method, methods)),
            gr.update(choices=named),
            gr.update(choices=sources, value=source or next(iter(sources), None)),
            gr.update(choices=[AS_FOUND, *layers], visible=bool(layers)),
        ]

    def pills(self, attribute: str) -> str:
        """The favourite attributes of the models on offer."""
        return pills_html(attribute, offered_attributes(self.shelf.open_all(self.shelf.names)))

    def draw(self, source: str | None, seed: float | None) -> Face | None:
        """The face of a seed; None without a model to draw it."""
        if not source:
            return None
        whole = int(checked_number("seed", seed or 0, 0, MAX_SEED))
        return drawn_face(self.shelf.open(checked_text("model", source)), whole)

    def samples(self, source: str | None) -> list[Face]:
        """A few faces that a model draws."""
        return [face for seed in SAMPLE_SEEDS if (face := self.draw(source, seed))]

    def faces(self, source: str | None, face: Face | None) -> str:
        """The shelf of faces, with the one that is edited."""
        faces = self.samples(source)
        if face is not None and face.source and all(f.key != face.key for f in faces):
            faces = [face, *faces[:-1]]
        return shelf_html(faces, face)

    def view(self, face: Face | None, request: EditRequest, **changes: Any) -> tuple[Any, ...]:
        """The slider, the original, the rows, the query string, and what has yet to be projected.

        Args:
            face: the one that is edited.
            request: how.
            changes: the slider's `value`, where it is not the visitor who has set it.
        """
        rows = compare_edits(self.shelf, face, request) if face else []
        low, high = slider_range(rows, request)
        slider = gr.update(
            minimum=low, maximum=high, step=MODES[request.mode].step,
            label=slider_label(request.mode, request.attribute), **changes,
        )  # fmt: skip
        query = (request.seen(face) if face else request).to_query()
        waiting = waiting_html(rows, face.key) if face else ""
        return slider, original_html(face), results_html(rows, request), query, waiting

    # Controls

    @warn_user
    def redraw(self, face: Face | None, *values: Any) -> tuple[Any, ...]:
        """Any control but the slider was changed."""
        return self.view(face, EditRequest.of(*values))

    @warn_user
    def slide(self, face: Face | None, *values: Any) -> tuple[list[dict[str, Any]], str]:
        """The slider moved: what it does not change is neither made nor sent again."""
        if face is None:
            return gr.skip()
        request = EditRequest.of(*values)
        rows = compare_edits(self.shelf, face, request)
        return moves_of(rows, request), request.seen(face).to_query()

    @warn_user
    def change_attribute(self, face: Face | None, *values: Any) -> tuple[Any, ...]:
        """Another attribute was chosen, or typed as people call it."""
        request = EditRequest.of(*values)
        known = offered_attributes(self.shelf.open_all(list(request.models)))
        request = replace(request, attribute=find_name(request.attribute, known) or "")
        if not request.attribute:
            request = EditRequest.of(*values)  # the rows answer with the nearest names
        return self.pills(request.attribute), request.attribute, *self.view(face, request)

    @warn_user
    def pick_attribute(
        self, event: gr.EventData, face: Face | None, models: Any, _: str, *rest: Any
    ) -> tuple[Any, ...]:
        """One of the favourites was picked."""
        name = checked_text("attribute", event.attribute)
        return self.change_attribute(face, models, name, *rest)

    @warn_user
    def change_mode(self, face: Face | None, *values: Any) -> tuple[Any, ...]:
        """The slider is to mean something else; or is set back."""
        names, attribute, method, held, mode, _, *layers = values
        default = MODES.get(mode, MODES["sigma"]).default
        request = EditRequest.of(names, attribute, method, held, mode, default, *layers)
        return self.view(face, request, value=default)

    @warn_user
    def pick_frame(self, event: gr.EventData, face: Face | None, *values: Any) -> tuple[Any, ...]:
        """A frame was picked: all models are moved as far as it was, in standard deviations."""
        names, attribute, method, held, _, _, *layers = values
        return self.set_strength(
            face, names, attribute, method, held, "sigma", event.strength, *layers
        )

    @warn_user
    def set_strength(self, face: Face | None, *values: Any) -> tuple[Any, ...]:
        """The slider is set, whatever it meant before."""
        request = EditRequest.of(*values)
        return request.mode, *self.view(face, request, value=request.strength)

    @warn_user
    def change_models(
        self, face: Face | None, source: str, seed: float, *values: Any
    ) -> tuple[Any, ...]:
        """Other models were chosen."""
        request = EditRequest.of(*values)
        updates = self.choices(list(request.models), request.attribute, request.method, source)
        drawn_by = updates[4]["value"]
        shelf: Any = gr.skip()
        if face is None and drawn_by:
            face = self.draw(drawn_by, seed)
            shelf = self.faces(drawn_by, face)
        shown = replace(request, attribute=updates[1]["value"], method=updates[2]["value"])
        return (*updates, shelf, face, *self.view(face, shown))

    @warn_user
    def search(self, words: str) -> str:
        """Models of the Hub, as a stranger sees them in public."""
        return found_html(search_hub(words or "", None if self.shelf.limits.local_paths else False))

    @warn_user
    def add_model(
        self, event: gr.EventData, face: Face | None, source: str, seed: float, names: Any,
        *values: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        """A model of the Hub was picked: it is opened and joins the others."""
        name = checked_text("model", event.model)
        self.shelf.open(name)
        models = list(dict.fromkeys([*checked_names("models", names, MAX_ROWS), name]))
        changed = self.change_models(face, source, seed, models, *values)
        # What is wrong with the request was told already.
        return (gr.update(value=models), *changed) if isinstance(changed, tuple) else changed

    # Faces

    @warn_user
    def change_face(self, source: str, seed: float | None, *values: Any) -> tuple[Any, ...]:
        """Another face is drawn."""
        face = self.draw(source, seed)
        shelf = self.faces(source, face)
        return gr.update(value=seed), shelf, face, *self.view(face, EditRequest.of(*values))

    @warn_user
    def pick_face(self, event: gr.EventData, source: str, *values: Any) -> tuple[Any, ...]:
        """One of the faces was picked, or one more is asked for."""
        said = event._data or {}
        seed = random.randrange(MAX_SEED) if said.get("dice") else said.get("seed", 0)
        return self.change_face(source, seed, *values)

    @warn_user
    def upload(self, path: str | None, source: str, *values: Any) -> tuple[Any, ...]:
        """A photo came: its face is found, cut out as CelebA's are, and edited."""
        if not path:
            return gr.skip()
        # By its bytes: messages then name no path of this machine.
        photo = Photo.open(Path(path).read_bytes(), self.shelf.limits, self.shelf.judges.detector)
        if photo.crop is None:
            gr.Warning("No face was found in this picture. Place the square by hand, or use the "
                       "picture's centre.", duration=None)  # fmt: skip
            shown = crop_html(photo.picture, photo.corners)
            return photo, gr.update(visible=True), shown, *[gr.skip()] * 7
        return photo, gr.update(visible=True), *self._cut(photo, source, *values)

    @warn_user
    def adjust(
        self, photo: Photo | None, right: float, down: float, size: float, turn: float,
        source: str, *values: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        """The square is moved by hand; without a found face it starts at the centre."""
        if photo is None:
            return gr.skip()
        return self._cut(photo.adjusted(right, down, size, turn), source, *values)

    def _cut(self, photo: Photo, source: str, *values: Any) -> tuple[Any, ...]:
        face = photo.face(self.shelf.limits)
        shown = crop_html(photo.picture, photo.corners, face)
        return shown, self.faces(source, face), face, *self.view(face, EditRequest.of(*values))

    def project(
        self, face: Face | None, waiting: str, names: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """Find the face in the models that wait for it, and show how far that is; then redraw."""
        if face is None or not waiting:
            yield gr.skip(), ""
            return
        self._stopped.put(face.key, False)
        began, seen = time.monotonic(), Search()

        def say(done: int, total: int) -> None:
            if self._stopped.find(face.key) or self._stopped.find(request.session_hash):
                raise StoppedError("The search was stopped.")
            seen.done, seen.total = done, total

        def watch(picture: Image.Image) -> None:
            seen.picture = picture

        with ThreadPoolExecutor(1) as pool:
            wanted = EditRequest(models=checked_names("models", names, MAX_ROWS))
            search = pool.submit(project_missing, self.shelf, face, wanted, say, watch)
            try:
                while not futures.wait([search], timeout=SECONDS_BETWEEN_PICTURES).done:
                    yield gr.skip(), search_html(seen, time.monotonic() - began)
                search.result()
            except StoppedError:
                yield gr.skip(), ""
                return
            except HublatentError as error:
                self.warn(error)
            finally:  # its visitor may have left
                self._stopped.put(face.key, True)
        yield str(time.time_ns()), ""

    def stop(self, face: Face | None) -> str:
        """Look for the face no longer; picking it again begins anew."""
        self._stopped.put(face.key if face else "", True)
        return ""

    def leave(self, request: gr.Request) -> None:
        """A visitor has left: nothing more is done for them."""
        self._stopped.put(request.session_hash, True)

    # Other tabs, files and scripts

    @warn_user
    def scores(self, tab: str, names: list[str], attribute: str, method: str) -> str:
        """The tab "Scores", if it is the one that is seen; its figures take a moment."""
        if tab != SCORES_TAB:
            return gr.skip()
        opened = self.shelf.open_all(names)
        return scores_html(self.comparison, self.folder, opened, attribute, method)

    @warn_user
    def download(self, face: Face | None, *values: Any) -> dict[str, str] | None:
        """The strips of all models as one picture."""
        request = EditRequest.of(*values)
        return download_of(compare_edits(self.shelf, face, request), request) if face else None


def served(write: Callable[[Path], list[Path]]) -> list[str]:
    """Files that are written to a folder, moved to where Gradio serves and later deletes them."""
    with tempfile.TemporaryDirectory(prefix="hublatent-") as folder:
        cache = get_upload_folder()
        return [save_file_to_cache(path, cache) for path in write(Path(folder))]


class PageTab:
    """What the events of one of the other tabs do.

    Args:
        do: the page's events.
    """

    def __init__(self, do: Callbacks) -> None:
        self.do, self.shelf, self.warn = do, do.shelf, do.warn


def kept(value: str, offered: tuple[str, ...]) -> str:
    """A selection, or the first of what is offered where it is not among it."""
    return value if value in offered or not offered else offered[0]
