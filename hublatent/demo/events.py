"""What the events of the page do. Only page.py and the tabs import this module: it needs gradio.

Handlers take what the page says (an object with a value for each of the parts in ASKED) and return
what they change, by the names of the parts; Wiring connects both to Gradio.
"""

from __future__ import annotations

import inspect
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from hublatent.demo import session, webpage
from hublatent.demo.faces import MAX_SEED, SAMPLE_SEEDS, Face, Photo, StoppedError, drawn_face
from hublatent.demo.hub_search import base_models, found_html, holds_model, search_hub
from hublatent.demo.making import PREVIEW_STRENGTH, open_directions
from hublatent.demo.names import searchable_name
from hublatent.demo.scores import scores_html
from hublatent.demo.session import AS_FOUND, MAX_ROWS, MODES, EditRequest
from hublatent.demo.shelf import (
    JUDGE,
    Cache,
    ModelShelf,
    is_hub_id,
    offered_attributes,
    offered_layers,
    offered_methods,
)
from hublatent.direction import Direction
from hublatent.errors import HublatentError, find_name
from hublatent.evaluation.report import Summary

N_SHOWN_AT_FIRST = 5
EDIT_TAB, SCORES_TAB = "Edit", "Scores"
SECONDS_BETWEEN_PICTURES = 0.5
ON_SPACE = bool(os.environ.get("SPACE_ID"))
# The parts of the page that say what is asked for, and those that show it.
CONTROLS = ("models", "attribute", "method", "hold", "mode", "strength", "layers")
ASKED = ("face", "photo", "source", "seed", *CONTROLS)
VIEW = ("strength", "original", "results", "query", "waiting")
SHOWN = (
    "models", "pills", "attribute", "method", "hold", "source", "layers", "seed", "shelf", "mode",
    "face", *VIEW,
)  # fmt: skip
Changes = dict[str, Any]


# What Gradio gives a handler that has a parameter of such a name.
SPECIAL = {
    "event": gr.EventData, "request": gr.Request, "token": gr.OAuthToken | None,
    "progress": gr.Progress,
}  # fmt: skip
# What can be done with directions that were made or opened.
MADE = ("opened", "use", "restyle", "audit", "push_row")


class Wiring:
    """Connects the parts of the page with handlers; a mistake becomes one visible sentence.

    Args:
        parts: the page's components by their names; the tabs add theirs.
        warn: shows an error, after which what is on the page stays.
    """

    def __init__(self, parts: SimpleNamespace, warn: Callable[[HublatentError], None]) -> None:
        self.parts, self.warn = parts, warn

    def on(
        self, triggers: Any, handler: Callable[..., Changes], asked: Sequence[str] = ASKED,
        changed: Sequence[str] = SHOWN, lane: str = "page", **options: Any,
    ) -> Any:  # fmt: skip
        """Let a handler answer events.

        Args:
            triggers: one, such as button.click or the `then` of an earlier event, or several.
            handler: takes one of SPECIAL, if it has a parameter of that name, then what is asked;
                returns what changes.
            asked: names of the parts whose values it takes.
            changed: names of the parts that it may change.
            lane: events of one lane wait for each other.
            options: of Gradio's events.
        """
        options = {"show_progress": "hidden", "concurrency_id": lane, **options}
        listen = triggers if callable(triggers) else partial(gr.on, triggers)
        inputs, outputs = ([getattr(self.parts, n) for n in names] for names in (asked, changed))
        answer = self._answer(handler, asked)
        return listen(answer, inputs, outputs, api_visibility="private", **options)

    def _answer(self, handler: Callable[..., Changes], asked: Sequence[str]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            n = len(given) - len(asked)
            says = SimpleNamespace(**dict(zip(asked, given[n:], strict=True)))
            try:
                changes = handler(*given[:n], says)
            except HublatentError as error:
                self.warn(error)
                return gr.skip()
            return {
                getattr(self.parts, name): value for name, value in changes.items()
            } or gr.skip()

        wanted = [name for name in SPECIAL if name in inspect.signature(handler).parameters]
        if not wanted:
            answer = run
        else:

            def answer(special: Any = None, *given: Any) -> Any:
                return run(special, *given)

            answer.__annotations__ = {"special": SPECIAL[wanted[0]]}
            if wanted == ["progress"]:
                answer.__defaults__ = (gr.Progress(),)
        answer.__name__ = getattr(handler, "__name__", "answer")
        return answer


def html_part(elem_id: str, script: str | None = None, value: str = "", **options: Any) -> gr.HTML:
    """A part of the page that is HTML."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=script, apply_default_css=False, **options)


class Callbacks:
    """What the page's events do; stateless but for the shelf of models."""

    def __init__(
        self, shelf: ModelShelf, comparison: Summary | None = None, folder: Path | None = None
    ) -> None:
        self.shelf, self.comparison, self.folder = shelf, comparison, folder
        self._stopped = Cache(1000)  # faces and sessions that are waited for no longer

    def warn(self, error: HublatentError) -> None:
        """Show an error on the page."""
        gr.Warning(escape(self.shelf.tell(error), quote=False), duration=None)

    @cached_property
    def first(self) -> EditRequest:
        """What the page shows without a link."""
        compared = list(self.comparison.models) if self.comparison else []
        return session.first_request(self.shelf, N_SHOWN_AT_FIRST, compared)

    # Restoring a view

    def load(self, request: gr.Request, _: Any) -> Changes:
        """Fill the page from the link's query string; without one it shows `first` already."""
        query = dict(request.query_params)
        return self.restore(query) if query else {}

    def go_back(self, event: gr.EventData, _: Any) -> Changes:
        """Fill the page from an earlier query string, as Back and Forward of the browser ask."""
        return self.restore(dict(parse_qsl(str(event.query).lstrip("?"))))

    def restore(self, query: dict[str, str]) -> Changes:
        """Everything that a query string says."""
        wanted = self.first
        try:
            wanted = EditRequest.from_query(query, wanted)
        except HublatentError as error:
            self.warn(error)
        offers = self.offers(wanted.models, wanted.attribute, wanted.method, wanted.source)
        for key in ("attribute", "method"):
            if key in query:  # an unknown one is answered, not replaced
                offers[key]["value"] = getattr(wanted, key)
        offers["hold"]["value"] = list(wanted.held)
        offers["layers"]["value"] = str(wanted.layers or AS_FOUND)
        face = None
        try:
            face = self.draw(wanted.source, wanted.seed)
        except HublatentError as error:
            self.warn(error)
        attribute, method = (offers[key]["value"] for key in ("attribute", "method"))
        shown = replace(wanted, attribute=attribute, method=method)
        return {
            **offers, "models": gr.update(value=list(wanted.models)),
            "pills": self.pills(attribute), "seed": wanted.seed, "face": face,
            "shelf": self.faces(wanted.source, face), "mode": gr.update(value=wanted.mode),
            **self.view(face, shown, value=shown.strength),
        }  # fmt: skip

    def offers(self, names: Sequence[str], attribute: str, method: str, source: str) -> Changes:
        """What the chosen models offer, keeping what was selected."""
        opened = self.shelf.open_all(names)
        attributes, methods = offered_attributes(opened), offered_methods(opened)
        sources = list(dict.fromkeys([*self.shelf.names, *(o.name for o in opened)]))
        layers = offered_layers(opened)
        named = [(searchable_name(name), name) for name in attributes]
        chosen = kept(attribute, attributes)
        return {
            "pills": webpage.pills_html(chosen, attributes),
            "attribute": gr.update(choices=named, value=chosen),
            "method": gr.update(choices=list(methods), value=kept(method, methods)),
            "hold": gr.update(choices=named),
            "source": gr.update(choices=sources, value=source or next(iter(sources), None)),
            "layers": gr.update(choices=[AS_FOUND, *layers], visible=bool(layers)),
        }

    def pills(self, attribute: str) -> str:
        """The favourite attributes of the models on offer."""
        return webpage.pills_html(
            attribute, offered_attributes(self.shelf.open_all(self.shelf.names))
        )

    def draw(self, source: str | None, seed: float | None) -> Face | None:
        """The face of a seed; None without a model to draw it."""
        if not source:
            return None
        whole = int(session.checked_number("seed", seed or 0, 0, MAX_SEED))
        return drawn_face(self.shelf.open(session.checked_text("model", source)), whole)

    def faces(self, source: str | None, face: Face | None) -> str:
        """The shelf: a few faces that a model draws, with the one that is edited."""
        faces = [drawn for seed in SAMPLE_SEEDS if (drawn := self.draw(source, seed))]
        if face is not None and face.source and all(f.key != face.key for f in faces):
            faces = [face, *faces[:-1]]
        return webpage.shelf_html(faces, face)

    def view(self, face: Face | None, request: EditRequest, **slider: Any) -> Changes:
        """A face and its edits; `slider` has the `value` where it is not the visitor who set it."""
        rows = session.compare_edits(self.shelf, face, request) if face else []
        low, high = session.slider_range(rows, request)
        return {
            "strength": gr.update(
                minimum=low, maximum=high, step=MODES[request.mode].step,
                label=webpage.slider_label(request.mode, request.attribute), **slider,
            ),
            "original": webpage.original_html(face),
            "results": webpage.results_html(rows, request),
            "query": (request.seen(face) if face else request).to_query(),
            "waiting": webpage.waiting_html(rows, face.key) if face else "",
        }  # fmt: skip

    # Controls

    def redraw(self, asked: Any) -> Changes:
        """Any control but the slider was changed."""
        return self.view(asked.face, request_of(asked))

    def slide(self, asked: Any) -> Changes:
        """The slider moved: what it does not change is neither made nor sent again."""
        if asked.face is None:
            return {}
        request = request_of(asked)
        rows = session.compare_edits(self.shelf, asked.face, request)
        return {
            "moves": webpage.moves_of(rows, request),
            "query": request.seen(asked.face).to_query(),
        }

    def change_attribute(self, asked: Any) -> Changes:
        """Another attribute was chosen, or typed as people call it."""
        request = request_of(asked)
        known = offered_attributes(self.shelf.open_all(list(request.models)))
        # The rows of one that is unknown answer with the nearest names.
        name = find_name(request.attribute, known) or request.attribute
        request = replace(request, attribute=name)
        return {"pills": self.pills(name), "attribute": name, **self.view(asked.face, request)}

    def pick_attribute(self, event: gr.EventData, asked: Any) -> Changes:
        """One of the favourites was picked."""
        asked.attribute = session.checked_text("attribute", event.attribute)
        return self.change_attribute(asked)

    def change_mode(self, asked: Any) -> Changes:
        """The slider is to mean something else; or is set back."""
        default = MODES.get(asked.mode, MODES["sigma"]).default
        return self.view(asked.face, request_of(asked, strength=default), value=default)

    def pick_frame(self, event: gr.EventData, asked: Any) -> Changes:
        """A frame was picked: all models are moved as far as it was, in standard deviations."""
        request = request_of(asked, mode="sigma", strength=event.strength)
        return {"mode": "sigma", **self.view(asked.face, request, value=request.strength)}

    def change_models(self, asked: Any, **slider: Any) -> Changes:
        """Other models were chosen."""
        request, face = request_of(asked), asked.face
        offers = self.offers(request.models, request.attribute, request.method, asked.source)
        source = offers["source"]["value"]
        if face is None and source:
            face = self.draw(source, asked.seed)
            offers["shelf"] = self.faces(source, face)
        attribute, method = (offers[key]["value"] for key in ("attribute", "method"))
        shown = replace(request, attribute=attribute, method=method)
        return {**offers, "face": face, **self.view(face, shown, **slider)}

    # The Hub, and directions that join those of the models

    def search(self, asked: Any) -> Changes:
        """What the Hub has of these words; an id is opened at once."""
        words = (asked.words or "").strip()
        if is_hub_id(words):
            return {"found_repos": "", **self.open_repo(words, asked)}
        return {"found_repos": found_html(search_hub(words, self.token))}

    @property
    def token(self) -> bool | None:
        """At home the stored one; in public none, so that all see what a stranger may see."""
        return None if self.shelf.limits.local_paths else False

    def pick_repo(self, event: gr.EventData, asked: Any) -> Changes:
        """One of those that were found was picked."""
        return self.open_repo(session.checked_text("repository", event.repo), asked)

    def open_repo(self, repo: str, asked: Any) -> Changes:
        """A model of the Hub joins the others; directions join those of their model."""
        names = session.checked_names("models", asked.models, MAX_ROWS)
        if not holds_model(repo, self.token):
            return self.open_directions(repo, asked)
        self.shelf.open(repo)
        asked.models = list(dict.fromkeys([*names, repo]))
        return {"models": gr.update(value=asked.models), **self.change_models(asked)}

    def open_directions(self, where: str, asked: Any) -> Changes:
        """Directions of a file or of the Hub join those of their model, and are tried."""
        if not self.shelf.limits.local_paths:
            raise HublatentError("Directions are opened in an app of one's own, not in public.")
        names = session.checked_names("models", asked.models, MAX_ROWS)
        others = [*self.shelf.names, *(base_models(where) if is_hub_id(where) else ())]
        found = open_directions(self.shelf, where, names, others)
        asked.models = list(dict.fromkeys([found[0][0], *names]))[:MAX_ROWS]
        return {**self.joined(found), **self.try_direction(found[0][1].attribute, asked)}

    def joined(self, found: Sequence[tuple[str, Direction]]) -> Changes:
        """What can be done with directions, each after the name of its model."""
        at_home, judge = self.shelf.limits.local_paths, (self.shelf.cards or Path()) / JUDGE
        reads = judge.is_dir() and any(self.shelf.judges.reads(d.attribute) for _, d in found)
        styles = any(direction.styles is not None for _, direction in found)
        may = {
            "use": at_home, "restyle": at_home and styles, "audit": at_home and reads,
            "push_row": at_home or ON_SPACE,
        }  # fmt: skip
        shown = {name: gr.update(visible=bool(found) and can) for name, can in may.items()}
        return {"opened": list(found), **shown}

    def try_direction(self, attribute: str, asked: Any) -> Changes:
        """Edit along a direction that has just joined the others."""
        asked.attribute, asked.mode, asked.strength = attribute, "sigma", PREVIEW_STRENGTH
        changes = self.change_models(asked, value=PREVIEW_STRENGTH)
        return {
            **changes, "models": gr.update(value=asked.models), "mode": "sigma",
            "tabs": gr.Tabs(selected="edit"),
        }  # fmt: skip

    # Faces

    def change_face(self, asked: Any) -> Changes:
        """Another face is drawn."""
        face = self.draw(asked.source, asked.seed)
        return {"seed": asked.seed, **self.show_face(face, asked)}

    def show_face(self, face: Face | None, asked: Any) -> Changes:
        """A face is edited as the last one was."""
        shelf = self.faces(asked.source, face)
        return {"shelf": shelf, "face": face, **self.view(face, request_of(asked))}

    def pick_face(self, event: gr.EventData, asked: Any) -> Changes:
        """One of the faces was picked, or one more is asked for."""
        said = event._data or {}
        asked.seed = random.randrange(MAX_SEED) if said.get("dice") else said.get("seed", 0)
        return self.change_face(asked)

    def upload(self, asked: Any) -> Changes:
        """A photo came: its face is found, cut out as CelebA's are, and edited."""
        path = asked.upload
        if not path:
            return {}
        # By its bytes: messages then name no path of this machine.
        photo = Photo.open(Path(path).read_bytes(), self.shelf.limits, self.shelf.judges.detector)
        changes = {"photo": photo, "crop_panel": gr.update(visible=True)}
        if photo.crop is None:
            gr.Warning("No face was found in this picture. Place the square by hand, or use the "
                       "picture's centre.", duration=None)  # fmt: skip
            return {**changes, "crop": webpage.crop_html(photo.picture, photo.corners)}
        return {**changes, **self._cut(photo, asked)}

    def take(self, asked: Any) -> Changes:
        """The camera took a photo."""
        asked.upload = asked.webcam
        return self.upload(asked)

    def adjust(self, asked: Any) -> Changes:
        """The square is moved by hand; without a found face it starts at the centre."""
        if asked.photo is None:
            return {}
        moved = asked.photo.adjusted(asked.right, asked.down, asked.size, asked.turn)
        return self._cut(moved, asked)

    def _cut(self, photo: Photo, asked: Any) -> Changes:
        face = photo.face(self.shelf.limits)
        shown = webpage.crop_html(photo.picture, photo.corners, face)
        return {"crop": shown, **self.show_face(face, asked)}

    def project(
        self, face: Face | None, waiting: str, names: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """Find the face in the models that wait for it, and show how far that is; then redraw."""
        if face is None or not waiting:
            yield gr.skip(), ""
            return
        self._stopped.put(face.key, False)
        began, seen = time.monotonic(), webpage.Search()

        def say(done: int, total: int) -> None:
            if self._stopped.find(face.key) or self._stopped.find(request.session_hash):
                raise StoppedError("The search was stopped.")
            seen.done, seen.total = done, total

        def watch(picture: Image.Image) -> None:
            seen.picture = picture

        with ThreadPoolExecutor(1) as pool:
            wanted = EditRequest(models=session.checked_names("models", names, MAX_ROWS))
            search = pool.submit(session.project_missing, self.shelf, face, wanted, say, watch)
            try:
                while not futures.wait([search], timeout=SECONDS_BETWEEN_PICTURES).done:
                    yield gr.skip(), webpage.search_html(seen, time.monotonic() - began)
                search.result()
            except StoppedError:
                yield gr.skip(), ""
                return
            except HublatentError as error:
                self.warn(error)
            finally:  # its visitor may have left
                self._stopped.put(face.key, True)
        yield str(time.time_ns()), ""

    def stop(self, asked: Any) -> Changes:
        """Look for the face no longer; picking it again begins anew."""
        self._stopped.put(asked.face.key if asked.face else "", True)
        return {"waiting": ""}

    def leave(self, request: gr.Request) -> None:
        """A visitor has left: nothing more is done for them."""
        self._stopped.put(request.session_hash, True)

    # Other tabs and files

    def scores(self, asked: Any) -> Changes:
        """The tab "Scores", if it is the one that is seen; its figures take a moment."""
        if asked.tab != SCORES_TAB:
            return {}
        opened, about = self.shelf.open_all(asked.models), (asked.attribute, asked.method)
        return {"scores": scores_html(self.comparison, self.folder, opened, *about)}

    def download(self, asked: Any) -> Changes:
        """The strips of all models as one picture."""
        if asked.face is None:
            return {}
        request = request_of(asked)
        return {
            "file": webpage.download_of(
                session.compare_edits(self.shelf, asked.face, request), request
            )
        }


def request_of(asked: Any, **changes: Any) -> EditRequest:
    """What the page's controls ask for."""
    return EditRequest.of(*(changes.get(name, getattr(asked, name)) for name in CONTROLS))


def served(write: Callable[[Path], list[Path]]) -> list[str]:
    """Files that are written to a folder, moved to where Gradio serves and later deletes them."""
    with tempfile.TemporaryDirectory(prefix="hublatent-") as folder:
        cache = get_upload_folder()
        return [save_file_to_cache(path, cache) for path in write(Path(folder))]


def kept(value: str, offered: tuple[str, ...]) -> str:
    """A selection, or the first of what is offered where it is not among it."""
    return value if value in offered or not offered else offered[0]
