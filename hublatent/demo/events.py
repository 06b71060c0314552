"""What the events of app.py's page do. Only app.py imports this module: it needs gradio."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, lru_cache, wraps
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from hublatent.comparison.results import Comparison
from hublatent.demo.catalogue import offered_attributes, offered_layers, offered_methods
from hublatent.demo.faces import SAMPLE_SEEDS, Face, drawn_face, uploaded_face
from hublatent.demo.scores import (
    EDITING_COLUMNS,
    READING_COLUMNS,
    editing_plots,
    editing_rows,
    note,
    reading_rows,
)
from hublatent.demo.session import (
    AS_FOUND,
    EditRequest,
    compare_edits,
    first_request,
    project_missing,
)
from hublatent.demo.shelf import ModelShelf
from hublatent.demo.webpage import (
    download_of,
    moves_of,
    numbers_of,
    plot_html,
    results_html,
    table_html,
    waiting_html,
)
from hublatent.errors import HublatentError
from hublatent.figures import fit

N_SHOWN_AT_FIRST = 5
EDIT_TAB, SCORES_TAB = "Edit", "Scores"
SAMPLE_SIDE = 128
NO_PROGRESS = gr.Progress()  # gradio replaces it by the event's own


def warn_user(method: Callable[..., Any]) -> Callable[..., Any]:
    """A mistake becomes one visible sentence, and what is on the page stays."""

    @wraps(method)
    def wrapped(self: Callbacks, *args: Any) -> Any:
        try:
            return method(self, *args)
        except HublatentError as error:
            self.warn(error)
            return gr.skip()

    return wrapped


class Callbacks:
    """What the page's events do; stateless but for the shelf of models."""

    def __init__(self, shelf: ModelShelf, comparison: Comparison | None = None) -> None:
        self.shelf = shelf
        self.comparison = comparison
        self._plots = lru_cache(lambda attribute: editing_plots(comparison, attribute))

    def warn(self, error: HublatentError) -> None:
        """Show an error on the page."""
        gr.Warning(escape(self.shelf.tell(error), quote=False), duration=None)

    @cached_property
    def first(self) -> EditRequest:
        """What the page shows without a link."""
        return first_request(self.shelf, N_SHOWN_AT_FIRST)

    def restore(self, request: gr.Request) -> tuple[Any, ...]:
        """Fill the page from the link's query string."""
        wanted = self.first
        try:
            wanted = EditRequest.from_query(dict(request.query_params), wanted)
        except HublatentError as error:
            self.warn(error)
        updates = self.choices(list(wanted.models), wanted.attribute, wanted.method, wanted.source)
        attribute, method, hold, _, layers = updates
        for key, update in (("attribute", attribute), ("method", method)):
            if key in request.query_params:  # an unknown one is answered, not replaced
                update["value"] = getattr(wanted, key)
        hold["value"], layers["value"] = list(wanted.held), str(wanted.layers or AS_FOUND)
        face, samples = None, []
        try:
            face, samples = self.draw(wanted.source, wanted.seed), self.samples(wanted.source)
        except HublatentError as error:
            self.warn(error)
        shown = replace(wanted, attribute=attribute["value"], method=method["value"])
        return (
            gr.update(value=list(wanted.models)), *updates, wanted.seed, samples, wanted.strength,
            face, *self.view(face, shown),
        )  # fmt: skip

    def choices(self, names: list[str], attribute: str, method: str, source: str) -> list[Any]:
        """What the chosen models offer, keeping what was selected."""
        opened = self.shelf.open_all(names)
        attributes, methods = offered_attributes(opened), offered_methods(opened)
        sources = list(dict.fromkeys([*self.shelf.names, *(o.name for o in opened)]))
        layers = offered_layers(opened)
        return [
            gr.update(choices=list(attributes), value=kept(attribute, attributes)),
            gr.update(choices=list(methods), value=kept(method, methods)),
            gr.update(choices=list(attributes)),
            gr.update(choices=sources, value=source or next(iter(sources), None)),
            gr.update(choices=[AS_FOUND, *layers], visible=bool(layers)),
        ]

    def draw(self, source: str | None, seed: float | None) -> Face | None:
        """The face of a seed; None without a model to draw it."""
        return drawn_face(self.shelf.open(source), int(seed or 0)) if source else None

    def samples(self, source: str | None) -> list[tuple[Any, str]]:
        """A few faces that a model draws, as captioned pictures."""
        faces = [self.draw(source, seed) for seed in SAMPLE_SEEDS]
        return [(fit(f.picture, SAMPLE_SIDE, SAMPLE_SIDE), f"seed {f.seed}") for f in faces if f]

    def view(self, face: Face | None, request: EditRequest) -> tuple[str, str, str]:
        """The rows, the query string, and what has yet to be projected."""
        if face is None:
            return results_html([], request), request.to_query(), ""
        rows = compare_edits(self.shelf, face, request)
        query = request.seen(face).to_query()
        return results_html(rows, request), query, waiting_html(rows, face.key)

    @warn_user
    def redraw(self, face: Face | None, *values: Any) -> tuple[str, str, str]:
        """Any control but the slider was changed."""
        return self.view(face, EditRequest.of(*values))

    @warn_user
    def slide(self, face: Face | None, *values: Any) -> tuple[list[dict[str, Any]], str]:
        """The slider moved: what it does not change is neither made nor sent again."""
        if face is None:
            return gr.skip()  # type: ignore[no-any-return, unused-ignore]
        request = EditRequest.of(*values)
        rows = compare_edits(self.shelf, face, request)
        return moves_of(rows, request), request.seen(face).to_query()

    @warn_user
    def project(
        self, face: Face | None, waiting: str, progress: Any = NO_PROGRESS, *values: Any
    ) -> str:
        """Find the face in the models that wait for it; the answer asks for a redraw."""
        if face is None or not waiting:
            return gr.skip()  # type: ignore[no-any-return, unused-ignore]
        say = lambda done, total: progress((done, total), unit="steps")  # noqa: E731
        project_missing(self.shelf, face, EditRequest.of(*values), say)
        return str(time.time_ns())

    @warn_user
    def scores(self, tab: str, names: list[str], attribute: str) -> tuple[Any, ...]:
        """The tab "Scores", if it is the one that is seen; its figures take a moment."""
        if tab != SCORES_TAB:
            return gr.skip()  # type: ignore[no-any-return, unused-ignore]
        reading = reading_rows(self.shelf.open_all(names), attribute)
        editing, plots = editing_rows(self.comparison, attribute), self._plots(attribute)
        return (
            note(self.comparison, attribute),
            table_html("Reading, from the direction files", READING_COLUMNS, reading)
            + table_html("Editing, from the comparison", EDITING_COLUMNS, editing),
            "".join(map(plot_html, plots)),
        )

    @warn_user
    def change_models(
        self, face: Face | None, source: str, seed: float, *values: Any
    ) -> tuple[Any, ...]:
        """Other models were chosen."""
        request = EditRequest.of(*values)
        updates = self.choices(list(request.models), request.attribute, request.method, source)
        drawn_by = updates[3]["value"]
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
        face = uploaded_face(Path(path).read_bytes(), self.shelf.limits)
        return face, *self.view(face, EditRequest.of(*values))

    @warn_user
    def download(self, face: Face | None, *values: Any) -> dict[str, str] | None:
        """The strips of all models as one picture."""
        request = EditRequest.of(*values)
        return download_of(compare_edits(self.shelf, face, request), request) if face else None

    def edit(
        self, image: str | None, source: str | None, seed: float, models: list[str],
        attribute: str, method: str, hold: list[str], strength: float, layers: str = AS_FOUND,
    ) -> tuple[list[tuple[Any, str]], list[dict[str, Any]]]:  # fmt: skip
        """The API: edit an uploaded picture, or without one the face of a seed.

        Returns:
            The edited pictures with their models' names, and each model's numbers or problem.
        """
        try:
            request = EditRequest.of(models, attribute, method, hold, strength, layers)
            content = Path(image).read_bytes() if image else b""
            limits = self.shelf.limits
            face = uploaded_face(content, limits) if image else self.draw(source, seed)
            if face is None:
                raise HublatentError("No face: send an image, or the model that draws the seed.")
            project_missing(self.shelf, face, request)
            rows = compare_edits(self.shelf, face, request)
        except HublatentError as error:
            text = escape(self.shelf.tell(error), quote=False)
            raise gr.Error(text, print_exception=False) from error
        pictures = [(row.edited, row.name) for row in rows if row.edited is not None]
        return pictures, [numbers_of(row) for row in rows]


def kept(value: str, offered: tuple[str, ...]) -> str:
    """A selection, or the first of what is offered where it is not among it."""
    return value if value in offered or not offered else offered[0]
