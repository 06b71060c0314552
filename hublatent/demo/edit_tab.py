"""The tab "Edit": a face, an attribute, a slider, and a row of pictures for each model."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
from PIL import Image

from hublatent.demo import faces, hub_search, session, shelf, webpage, wiring
from hublatent.demo.faces import MAX_SEED, Face, Photo, StoppedError
from hublatent.demo.making import PREVIEW_STRENGTH, open_directions
from hublatent.demo.names import favourites, human_name, searchable
from hublatent.demo.session import AS_FOUND, MAX_ROWS, MODES, EditRequest
from hublatent.demo.shelf import Cache, ModelShelf, is_hub_id
from hublatent.demo.webpage import SAY_JS, html
from hublatent.demo.wiring import CONTROLS, LATEST, MADE, SHOWN, VIEW, Changes, Wiring, html_part
from hublatent.direction import Direction
from hublatent.errors import HublatentError, find_name

N_SHOWN_AT_FIRST = 5
SECONDS_BETWEEN_PICTURES = 0.5
NUDGES = {  # of the square that is cut out of a photo: label, and the slider's ends and value
    "right": ("Left – right", -0.5, 0.5, 0), "down": ("Up – down", -0.5, 0.5, 0),
    "size": ("Size", 0.5, 2, 1), "turn": ("Turn", -45, 45, 0),
}  # fmt: skip


def request_of(asked: Any, **changes: Any) -> EditRequest:
    """What the page's controls ask for."""
    return EditRequest.of({name: getattr(asked, name) for name in CONTROLS} | changes)


class Editor:
    """What the tab's events do; stateless but for the shelf of models.

    The `preferred` of them come first; `on_space` visitors may sign in to the Hub.
    """

    def __init__(
        self, shelf: ModelShelf, preferred: Sequence[str] = (), on_space: bool = False
    ) -> None:
        self.shelf, self.preferred, self.on_space = shelf, preferred, on_space
        # At home the stored one; in public none, so that all see what a stranger may see.
        self.token = None if shelf.limits.local_paths else False
        self._stopped = Cache(1000)  # faces and sessions that are waited for no longer

    @cached_property
    def first(self) -> EditRequest:
        """What the page shows without a link."""
        return session.first_request(self.shelf, N_SHOWN_AT_FIRST, self.preferred)

    # Restoring a view

    def load(self, asked: Any) -> Changes:
        """Fill the page from the link's query string; without one it shows `first` already."""
        query = dict(asked.request.query_params)
        return self.restore(query) if query else {}

    def go_back(self, asked: Any) -> Changes:
        """Fill the page from an earlier query string, as Back and Forward of the browser ask."""
        query = dict(parse_qsl(str(asked.said["query"]).lstrip("?")))
        # A view of the visitor's own photo names no face.
        return self.restore(query, None if {"face", "seed"} & query.keys() else asked.own)

    def restore(self, query: dict[str, str], face: Face | None = None) -> Changes:
        """Everything that a query string says, of the face that it names unless one is given."""
        wanted = self.first
        try:
            wanted = EditRequest.from_query(query, wanted)
        except HublatentError as error:
            wiring.warn(self.shelf, error)
        offers, shown = self.offers(wanted, wanted.source, query)
        try:
            face = face or session.draw(self.shelf, wanted.source, wanted.seed)
        except HublatentError as error:
            wiring.warn(self.shelf, error)
        offers["hold"]["value"] = list(wanted.held)
        offers["layers"]["value"] = str(wanted.layers or AS_FOUND)
        return {
            **offers, "models": gr.update(value=list(wanted.models)), "seed": wanted.seed,
            "face": face, "shelf": self.faces(wanted.source, face),
            "mode": gr.update(value=wanted.mode), **self.view(face, shown, value=shown.strength),
        }  # fmt: skip

    def offers(
        self, request: EditRequest, source: str | None, named: dict[str, str] | None = None
    ) -> tuple[Changes, EditRequest]:
        """What the chosen models offer, and the request with what was selected of it.

        What is not offered is replaced, unless a link `named` it: that is answered.
        """
        opened, named = self.shelf.open_all(request.models), named or {}
        attributes, methods = shelf.offered_attributes(opened), shelf.offered_methods(opened)
        layers = shelf.offered_layers(opened)
        sources = list(dict.fromkeys([*self.shelf.names, *(o.name for o in opened)]))
        if "attribute" not in named:
            request = replace(request, attribute=wiring.kept(request.attribute, attributes))
        if "method" not in named:
            request = replace(request, method=wiring.kept(request.method, methods))
        choices, chosen = searchable(attributes), request.attribute
        return {
            "pills": html("edit.pills", favourites(chosen, attributes), chosen),
            "attribute": gr.update(choices=choices, value=chosen),
            "method": gr.update(choices=list(methods), value=request.method),
            "hold": gr.update(choices=choices),
            "source": gr.update(choices=sources, value=source or next(iter(sources), None)),
            "layers": gr.update(choices=[AS_FOUND, *layers], visible=bool(layers)),
        }, request  # fmt: skip

    def faces(self, source: str | None, chosen: Face | None) -> str:
        """The shelf: a few faces that a model draws, with the one that is edited."""
        drawn = [session.draw(self.shelf, source, seed) for seed in faces.SAMPLE_SEEDS]
        row = [face for face in drawn if face is not None]
        if chosen is not None and not chosen.source:
            row = [chosen, *row]
        elif chosen is not None and all(face.key != chosen.key for face in row):
            row = [chosen, *row[:-1]]
        return html("edit.shelf", row, chosen)

    def view(self, face: Face | None, request: EditRequest, **slider: Any) -> Changes:
        """A face and its edits; `slider` has the `value` where it is not the visitor who set it."""
        rows = session.compare_edits(self.shelf, face, request) if face else []
        low, high = session.slider_range(rows, request)
        return {
            "strength": gr.update(
                minimum=low, maximum=high, step=MODES[request.mode].step,
                label=f"{human_name(request.attribute)} {MODES[request.mode].asks}", **slider,
            ),
            "original": html("edit.original", face),
            "results": webpage.results_html(rows, request.attribute),
            "query": request.to_query(face),
            "waiting": html("edit.waiting", rows, face.key if face else ""),
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
        return {"moves": webpage.moves_of(rows), "query": request.to_query(asked.face)}

    def keep_within(self, asked: Any) -> Changes:
        """A number beyond the slider's range was typed: the end that was taken instead is shown."""
        end = session.checked_number("strength", asked.strength)
        gr.Warning(f"The slider ends at {end:g}, which was taken instead.")
        return {"strength": end}

    def change_attribute(self, asked: Any) -> Changes:
        """Another attribute was picked, or typed as people call it."""
        request = request_of(asked, **asked.said)
        known = shelf.offered_attributes(self.shelf.open_all(request.models))
        # The rows of one that is unknown answer with the nearest names.
        name = find_name(request.attribute, known) or request.attribute
        pills = html("edit.pills", favourites(name, known), name)
        changes = self.view(asked.face, replace(request, attribute=name))
        return {"pills": pills, "attribute": name, **changes}

    def change_mode(self, asked: Any) -> Changes:
        """The slider is to mean something else; or is set back."""
        default = MODES.get(asked.mode, MODES["sigma"]).default
        return self.view(asked.face, request_of(asked, strength=default), value=default)

    def pick_frame(self, asked: Any) -> Changes:
        """A frame was picked: all models are moved as far as it was, in standard deviations."""
        request = request_of(asked, mode="sigma", strength=asked.said["strength"])
        return {"mode": "sigma", **self.view(asked.face, request, value=request.strength)}

    def change_models(self, asked: Any, **slider: Any) -> Changes:
        """Other models were chosen."""
        offers, request = self.offers(request_of(asked), asked.source)
        face, source = asked.face, offers["source"]["value"]
        if face is None and source:
            face = session.draw(self.shelf, source, asked.seed)
            offers["shelf"] = self.faces(source, face)
        return {**offers, "face": face, **self.view(face, request, **slider)}

    # The Hub, and directions that join those of the models

    def search(self, asked: Any) -> Changes:
        """What the Hub has of these words; an id, or what was found and picked, is opened."""
        picked = session.checked_text("repository", asked.said.get("repo"))
        words = picked or (asked.words or "").strip()
        if picked or is_hub_id(words):
            return {"found_repos": "", **self.open_repo(words, asked)}
        return {"found_repos": html("edit.found", hub_search.search_hub(words, self.token))}

    def open_repo(self, repo: str, asked: Any) -> Changes:
        """A model of the Hub joins the others; directions join those of their model."""
        if not hub_search.holds_model(repo, self.token):
            return self.open_directions(repo, asked)
        self.shelf.open(repo)
        asked.models = list(dict.fromkeys([*session.checked_names("models", asked.models), repo]))
        return {"models": gr.update(value=asked.models), **self.change_models(asked)}

    def open_directions(self, where: str, asked: Any) -> Changes:
        """Directions of a file or of the Hub join those of their model, and are tried."""
        if not self.shelf.limits.local_paths:
            raise HublatentError("Directions are opened in an app of one's own, not in public.")
        names = session.checked_names("models", asked.models)
        others = [*self.shelf.names, *(hub_search.base_models(where) if is_hub_id(where) else ())]
        found = open_directions(self.shelf, where, names, others)
        asked.models = list(dict.fromkeys([found[0][0], *names]))[:MAX_ROWS]
        return {**self.joined(found), **self.try_direction(found[0][1].attribute, asked)}

    def joined(self, found: Sequence[tuple[str, Direction]]) -> Changes:
        """What can be done with directions, each after the name of its model."""
        at_home, judge = self.shelf.limits.local_paths, (self.shelf.cards or Path()) / shelf.JUDGE
        reads = any(direction.attribute in self.shelf.judges.names for _, direction in found)
        styles = any(direction.styles is not None for _, direction in found)
        may = {
            "use": at_home, "restyle": at_home and styles,
            "audit": at_home and reads and judge.is_dir(), "push_row": at_home or self.on_space,
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
        face = session.draw(self.shelf, asked.source, asked.seed)
        return {"seed": asked.seed, **self.show_face(face, asked)}

    def show_face(self, face: Face | None, asked: Any) -> Changes:
        """A face is edited as the last one was."""
        row = self.faces(asked.source, face)
        return {"shelf": row, "face": face, **self.view(face, request_of(asked))}

    def pick_face(self, asked: Any) -> Changes:
        """One of the faces was picked, or one more is asked for."""
        dice = asked.said.get("dice")
        asked.seed = random.randrange(MAX_SEED) if dice else asked.said.get("seed", 0)
        return self.change_face(asked)

    def upload(self, part: str, asked: Any) -> Changes:
        """A photo came: its face is found, cut out as CelebA's are, and edited."""
        path = getattr(asked, part)
        if not path:
            return {}
        photo = Photo.open(path, self.shelf.limits, self.shelf.judges.detector)
        changes = {"photo": photo, "crop_panel": gr.update(visible=True)}
        if photo.crop is None:
            gr.Warning("No face was found in this picture. Place the square by hand, or use the "
                       "picture's centre.")  # fmt: skip
            return {**changes, "crop": html("edit.crop", photo, None)}
        return {**changes, **self._cut(photo, asked)}

    def adjust(self, asked: Any) -> Changes:
        """The square is moved by hand; without a found face it starts at the centre."""
        if asked.photo is None:
            return {}
        moved = asked.photo.adjusted(asked.right, asked.down, asked.size, asked.turn)
        return self._cut(moved, asked)

    def _cut(self, photo: Photo, asked: Any) -> Changes:
        face = photo.face(self.shelf.limits)
        crop = html("edit.crop", photo, face)
        return {"crop": crop, "own": face, **self.show_face(face, asked)}

    def project(
        self, face: Face | None, waiting: str, names: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """Find the face in the models that wait for it, and show how far that is; then redraw."""
        if face is None or not waiting:
            yield gr.skip(), ""
            return
        self._stopped.put(face.key, False)
        began, seen = time.monotonic(), SimpleNamespace(done=0, total=0, picture=None)

        def progress(done: int, total: int) -> None:
            if self._stopped.find(face.key) or self._stopped.find(request.session_hash):
                raise StoppedError("The search was stopped.")
            seen.done, seen.total = done, total

        def watch(picture: Image.Image) -> None:
            seen.picture = picture

        with ThreadPoolExecutor(1) as pool:
            models = session.checked_names("models", names)
            search = pool.submit(faces.project_missing, self.shelf, face, models, progress, watch)
            try:
                while not futures.wait([search], timeout=SECONDS_BETWEEN_PICTURES).done:
                    seconds = time.monotonic() - began
                    shown = html("edit.search", seen.done, seen.total, seen.picture, seconds)
                    yield gr.skip(), shown
                search.result()
            except StoppedError:
                yield gr.skip(), ""
                return
            except HublatentError as error:
                wiring.warn(self.shelf, error)
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

    def download(self, asked: Any) -> Changes:
        """The strips of all models as one picture."""
        if asked.face is None:
            return {}
        request = request_of(asked)
        rows = session.compare_edits(self.shelf, asked.face, request)
        return {"file": webpage.download_of(rows, request)}


def build(do: Editor, wire: Wiring) -> gr.Tab:
    """Lay the tab out; `connect` comes when the other tabs are there."""
    with gr.Tab("Edit", id="edit") as tab:
        # The bar is reached first by keyboard; page.css shows it above the matrix.
        _add_bar(wire.parts)
        _add_faces(wire.parts)
        _add_matrix(wire.parts, do.shelf.names)
        _add_unseen(wire.parts)
    _fill(wire.parts, do.restore({}))
    return tab


def _add_bar(c: SimpleNamespace) -> None:
    """The controls that stay in sight: attribute and slider."""
    with gr.Row(elem_id="bar"):
        c.pills = html_part("pills", SAY_JS)
        c.attribute = wiring.dropdown("All attributes", "attribute", show_label=False)
        c.strength = gr.Slider(0, 1, 0, elem_id="strength", label="Strength", buttons=[])
        c.actions = html_part("actions", SAY_JS, html("edit.actions"))


def _add_faces(c: SimpleNamespace) -> None:
    """The row of faces, and the panels that it opens."""
    c.shelf = html_part("shelf", SAY_JS)
    with gr.Row(elem_id="shelf-menu"):
        c.source = wiring.dropdown("Drawn by", "source")
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
            with gr.Row(elem_id="nudges"):
                for name, (label, low, high, value) in NUDGES.items():
                    nudge = gr.Slider(
                        low, high, value, step=0.01, label=label, buttons=[], min_width=110
                    )
                    setattr(c, name, nudge)
            c.centre = gr.Button("Use the square as it is", size="sm", elem_id="use-square")
    # The photo that the visitor brought, the face cut out of it, and the one that is edited.
    c.photo, c.own, c.face = (gr.State(None, time_to_live=3600) for _ in range(3))


def _add_matrix(c: SimpleNamespace, names: Sequence[str]) -> None:
    """The original beside a row for each model, and what is rarely changed."""
    modes = [(mode.label, name) for name, mode in MODES.items()]
    with gr.Row(elem_id="matrix"):
        with gr.Column(elem_id="side", min_width=120):
            c.original = html_part("original")
            with gr.Accordion("Options", open=True, elem_id="options"):
                c.mode = gr.Dropdown(modes, label="The slider means", elem_id="mode")
                c.hold = wiring.dropdown("Hold still", "hold", multiselect=True)
                c.method = wiring.dropdown(
                    "Method", "method", info="Best: as measured in each model; else joint"
                )
                c.layers = wiring.dropdown("Layers", "layers", value=AS_FOUND, visible=False)
                c.models = wiring.dropdown(
                    "Models", "models", names, value=[], multiselect=True,
                    info="Or a Hub id, and Enter",
                )  # fmt: skip
                c.download = gr.Button("Save the strips", size="sm", elem_id="download-strip")
        with gr.Column(elem_id="rows", min_width=200):
            c.waiting, c.search = html_part("waiting"), html_part("search")
            c.stop = gr.Button("Stop looking", size="sm", elem_id="stop")
            c.results = html_part("results", SAY_JS)
    with gr.Accordion("Find models and directions on the Hub", open=False, elem_id="hub"):
        with gr.Row():
            c.words = gr.Textbox(
                show_label=False, label="Words of the name, or an id", scale=4, max_length=200,
                placeholder="celeba, or an id such as user/btcvae-celeba", elem_id="hub-words",
            )  # fmt: skip
            c.look = gr.Button("Search", size="sm", scale=1, elem_id="hub-search")
        c.found_repos = html_part("hub-found", SAY_JS)


def _add_unseen(c: SimpleNamespace) -> None:
    """What the page keeps, and what its script is told."""
    c.query, c.found = (
        gr.Textbox(visible="hidden", elem_id=name, label=name) for name in ("query", "found")
    )
    c.back, c.beyond = html_part("back", webpage.BACK_JS), html_part("beyond", webpage.BEYOND_JS)
    c.moves, c.file = gr.JSON(visible=False), gr.JSON(visible=False)
    # Directions that were made or opened last, each after the name of its model.
    c.opened = gr.State([], time_to_live=3600)


def _fill(c: SimpleNamespace, changes: Changes) -> None:
    """Put what a page shows first into the page itself: no request has to be waited for."""
    for name, change in changes.items():
        part = getattr(c, name)
        update = change if isinstance(change, dict) else {"value": change}
        for key, value in update.items():
            if key == "choices":
                value = [v if isinstance(v, tuple) else (v, v) for v in value]
            if key != "__type__":
                setattr(part, key, value)
                part.constructor_args[key] = value  # a session's copy is made of these


def connect(do: Editor, wire: Wiring, app: gr.Blocks) -> None:
    """What happens when something is touched."""
    c = wire.parts
    # A slow download of one visitor's model does not stop the others' sliders.
    slow: dict[str, Any] = {"lane": "opening"}
    wire.on(app.load, do.load, (), **slow).then(None, None, None, js=webpage.SHOW_JS)
    app.load(None, c.query, None, js=webpage.FIRST_JS, api_visibility="private")
    c.query.change(None, c.query, None, js=webpage.LINK_JS, api_visibility="private")
    wire.on(c.back.change, do.go_back, ("own",), **slow)
    # At home without the queue's two requests per move; strangers take turns.
    wire.on(
        c.strength.input, do.slide, ("face", *CONTROLS), ("moves", "query"),
        queue=not do.shelf.limits.local_paths, **LATEST,
    ).then(None, c.moves, None, js=webpage.MOVE_JS)  # fmt: skip
    wire.on(c.beyond.select, do.keep_within, ("strength",), ("strength",))
    wire.on([c.method.input, c.hold.input, c.layers.input, c.found.change], do.redraw, **LATEST)
    wire.on([c.attribute.input, c.pills.select], do.change_attribute, **LATEST)
    wire.on([c.mode.input, c.actions.select], do.change_mode)
    wire.on(c.results.select, do.pick_frame)
    wire.on(c.models.input, do.change_models, **LATEST, **slow)
    asked, hub = ("face", "source", "seed", *CONTROLS), (*SHOWN, "tabs", "found_repos", *MADE)
    searched = [c.look.click, c.words.submit, c.found_repos.select]
    wire.on(searched, do.search, ("words", *asked), hub, **slow)
    wire.on([c.source.input, c.seed.input, c.upload.clear], do.change_face, **LATEST)
    wire.on(c.shelf.select, do.pick_face)
    brought = ("photo", "crop_panel", "crop", "own", "shelf", "face", *VIEW)
    for part, event in (("upload", c.upload.upload), ("webcam", c.webcam.input)):
        wire.on(event, partial(do.upload, part), (part, "source", *CONTROLS), brought)
    nudged = [c.centre.click, *(getattr(c, name).input for name in NUDGES)]
    wire.on(nudged, do.adjust, ("photo", *NUDGES, "source", *CONTROLS), brought, **LATEST)
    c.waiting.change(
        do.project, [c.face, c.waiting, c.models], [c.found, c.search], concurrency_limit=1,
        concurrency_id="projection", show_progress="hidden", api_visibility="private", **LATEST,
    )  # fmt: skip
    wire.on(c.stop.click, do.stop, ("face",), ("waiting",), lane="stop")
    app.unload(do.leave)
    wire.on(c.download.click, do.download, ("face", *CONTROLS), ("file",)).then(
        None, c.file, None, js=webpage.DOWNLOAD_JS
    )
