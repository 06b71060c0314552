"""What scripts and MCP clients call: the named endpoints of the app, which are also its tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from html import escape
from inspect import signature
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image

from hublatent.demo import session
from hublatent.demo.composing import MAX_CHANGES, Composition, compose
from hublatent.demo.events import Callbacks, served
from hublatent.demo.faces import MAX_SEED, Face, Photo, images_of, latents_of, time_limit
from hublatent.demo.making import MAX_FACES, make_directions, save_directions
from hublatent.demo.session import AS_FOUND, MAX_ROWS, MODES, EditRequest
from hublatent.demo.shelf import offered_attributes, offered_layers, offered_methods
from hublatent.demo.webpage import numbers_of
from hublatent.direction import Direction
from hublatent.discovery.few_images import at_chance
from hublatent.errors import HublatentError
from hublatent.images import to_pil

Answers = list[dict[str, Any]]
Pictures = list[tuple[Image.Image, str]]


ARGUMENTS = {
    "image": "a picture of a face; without one, the face that `source` draws from `seed`.",
    "source": "the model that draws faces.",
    "seed": "a whole number; the same seed draws the same face.",
    "model": "the model that is asked.",
    "models": "the models that are compared, at most 8.",
    "attribute": "what to change, such as Eyeglasses or Smiling.",
    "method": "how the directions were found.",
    "hold": "attributes whose readings stay where they are, at most 8.",
    "mode": "what the strength means: sigma, standard deviations; alpha, the vector's own length; "
    "probability, a percentage that the direction predicts; effect, one that the classifier sees.",
    "strength": "how far; negative takes the attribute away in the modes sigma and alpha.",
    "layers": "the layers that are moved where there are some, such as 0-3.",
    "percent": "the probability, from 1 to 99.",
    "changes": 'attribute to strength in standard deviations, such as {"Smiling": 2}.',
    "other_seed": "of the face that is mixed in.",
    "mix": "the percentage of the other face, from 0 to 100.",
    "name": "what to call the difference, such as Dimples.",
    "with_seeds": "seeds of faces that have it; with the images 5 to 50.",
    "without_seeds": "seeds of faces that do not.",
    "with_images": "pictures of faces that have it.",
    "without_images": "pictures of faces that do not.",
}


def endpoint(method: Callable[..., Any]) -> Callable[..., Any]:
    """Describe what a method takes; a mistake reaches the caller as its sentence."""

    @wraps(method)
    def wrapped(self: Any, *args: Any, **named: Any) -> Any:
        try:
            return method(self, *args, **named)
        except HublatentError as error:
            text = escape(self.shelf.tell(error), quote=False)
            raise gr.Error(text, print_exception=False) from error

    _, *names = signature(method).parameters
    told = [f"    {name}: {ARGUMENTS[name]}" for name in names]
    wrapped.__doc__ = "\n".join([f"{method.__doc__}\n", "Args:", *told])
    return wrapped


class Api:
    """The endpoints. Clients read the summaries, and of the arguments what ARGUMENTS says."""

    def __init__(self, do: Callbacks) -> None:
        self.do = do
        self.shelf = do.shelf

    @endpoint
    def edit(
        self, image: str | None = None, source: str | None = None, seed: float = 0,
        models: Any = None, attribute: str = "", method: str = "", hold: Any = None,
        mode: str = "sigma", strength: float = 3, layers: str = AS_FOUND,
    ) -> tuple[Pictures, Answers]:  # fmt: skip
        """Edit one attribute of a face in several generative models, and say what else changed."""
        request = EditRequest.of(models, attribute, method, hold, mode, strength, layers)
        return self._edited(self._face(image, source, seed), request)

    @endpoint
    def compare_at_equal_effect(
        self, image: str | None = None, source: str | None = None, seed: float = 0,
        models: Any = None, attribute: str = "", method: str = "", hold: Any = None,
        percent: float = 80,
    ) -> tuple[Pictures, Answers]:  # fmt: skip
        """Move each model until the classifier sees the attribute with the same probability."""
        request = EditRequest.of(models, attribute, method, hold, "effect", percent)
        return self._edited(self._face(image, source, seed), request)

    @endpoint
    def compose(
        self, image: str | None = None, source: str | None = None, seed: float = 0,
        models: Any = None, changes: Any = None, method: str = "",
        other_seed: float = 0, mix: float = 0,
    ) -> tuple[Pictures, Answers]:  # fmt: skip
        """Change several attributes of a face at once, and mix in another face."""
        names = session.checked_names("models", models, MAX_ROWS)
        share = session.checked_number("mix", mix, 0, 100) / 100
        other = self._face(None, source, other_seed) if share else None
        what = Composition(_changes(changes), method, share)
        face = self._face(image, source, seed)
        session.project_missing(self.shelf, face, EditRequest(models=names), self._limit())
        composed = compose(self.shelf, face, other, names, what)
        pictures = [(c.edited, c.model) for c in composed if c.edited is not None]
        return pictures, [
            {"model": c.model, "problem": c.problem} if c.problem
            else {"model": c.model, "words": c.words}
            for c in composed
        ]  # fmt: skip

    @endpoint
    def encode(
        self, image: str | None = None, source: str | None = None, seed: float = 0, model: str = "",
    ) -> tuple[Image.Image, dict[str, Any]]:  # fmt: skip
        """Find a face in a model's latent space."""
        (name,) = session.checked_names("models", [model], 1)
        opened = self.shelf.open(name)
        face = self._face(image, source, seed)
        session.project_missing(self.shelf, face, EditRequest(models=(name,)), self._limit())
        latents = latents_of(opened, face)
        with torch.inference_mode():
            drawn = opened.model.decode(latents)
            error = ((drawn - images_of(opened.model, face)) / 2).square().mean()
        (picture,) = to_pil(drawn)
        return picture, {
            "model": name,
            "latents": latents[0].tolist(),
            "mean_squared_error": float(error),
        }

    @endpoint
    def directions(self, model: str = "") -> Answers:
        """List the directions of a model, with how well each reads its attribute."""
        (name,) = session.checked_names("models", [model], 1)
        opened = self.shelf.open(name)
        if opened.directions is None:
            raise HublatentError(opened.problem)
        return [_facts(direction) for direction in opened.directions]

    @endpoint
    def make_direction(
        self, name: str = "", source: str | None = None, with_seeds: Any = None,
        without_seeds: Any = None, with_images: list[str] | None = None,
        without_images: list[str] | None = None, models: Any = None,
    ) -> tuple[list[str], Answers]:  # fmt: skip
        """Find the direction between faces that have something and faces that do not."""
        names = session.checked_names("models", models, MAX_ROWS)
        heaps = [
            self._heap(source, seeds, images)
            for seeds, images in ((with_seeds, with_images), (without_seeds, without_images))
        ]
        made = make_directions(self.shelf, name, heaps[0], heaps[1], names)
        found = [(m.model, m.direction) for m in made if m.direction is not None]
        files = served(lambda folder: save_directions(self.shelf, found, folder))
        answers = [
            {"model": m.model, "problem": m.problem} if m.direction is None
            else {"model": m.model, "carried_from": m.carried_from} if m.accuracy is None
            else {
                "model": m.model,
                "accuracy": [m.accuracy.value, m.accuracy.low, m.accuracy.high],
                "at_chance": at_chance(m.accuracy),
            }
            for m in made
        ]  # fmt: skip
        return files, answers

    def _face(self, image: str | None, source: str | None, seed: float) -> Face:
        if image:
            limits, detector = self.shelf.limits, self.shelf.judges.detector
            return Photo.open(Path(image).read_bytes(), limits, detector).face(limits)
        if not source:
            raise HublatentError("No face: send an image, or the model that draws the seed.")
        (name,) = session.checked_names("models", [source], 1)
        seed = session.checked_number("seed", seed, 0, MAX_SEED)
        face = self.do.draw(name, seed)
        assert face is not None
        return face

    def _heap(self, source: str | None, seeds: Any, images: list[str] | None) -> list[Face]:
        seeds = [] if seeds is None else seeds
        if not isinstance(seeds, list) or len(seeds) + len(images or ()) > MAX_FACES:
            raise HublatentError(f"A heap is a list of at most {MAX_FACES} seeds and images.")
        drawn = [self._face(None, source, seed) for seed in seeds]
        faces = [*drawn, *(self._face(image, None, 0) for image in images or ())]
        return list({face.key: face for face in faces}.values())

    def _edited(self, face: Face, request: EditRequest) -> tuple[Pictures, Answers]:
        session.project_missing(self.shelf, face, request, self._limit())
        rows = session.compare_edits(self.shelf, face, request)
        pictures = [(row.edited, row.name) for row in rows if row.edited is not None]
        return pictures, [numbers_of(row) for row in rows]

    def _limit(self) -> Any:
        return time_limit(self.shelf.limits.request_seconds)

    def connect(self) -> None:
        """Add the endpoints to the Blocks that are being built; nothing of them is seen."""
        shelf, first = self.shelf, self.do.first
        opened = shelf.open_all(shelf.names)
        image = gr.File(label="image", visible=False)  # its bytes are read by hublatent alone
        source = _choice("source", shelf.names, first.source)
        seed = _number("seed", 0)
        models = _choice("models", shelf.names, list(first.models), multiselect=True)
        model = _choice("model", shelf.names, first.source)
        attributes = offered_attributes(opened)
        attribute = _choice("attribute", attributes, first.attribute)
        hold = _choice("hold", attributes, [], multiselect=True)
        method = _choice("method", offered_methods(opened), first.method)
        face = [image, source, seed]
        pictures = gr.Gallery(label="pictures", format="png", visible=False)
        answers = gr.JSON(label="answers", visible=False)
        both = [pictures, answers]
        picture = gr.Image(label="picture", format="png", visible=False)
        files: dict[str, Any] = {"file_count": "multiple", "visible": False}
        endpoints: Mapping[str, tuple[Sequence[Any], Sequence[Any]]] = {
            "edit": (
                [*face, models, attribute, method, hold, _choice("mode", tuple(MODES), "sigma"),
                 _number("strength", 3),
                 _choice("layers", (AS_FOUND, *offered_layers(opened)), AS_FOUND)],
                both,
            ),
            "compare_at_equal_effect": (
                [*face, models, attribute, method, hold, _number("percent", 80)], both,
            ),
            "compose": (
                [*face, models, _json("changes", {"Smiling": 2}), method,
                 _number("other_seed", 0), _number("mix", 0)],
                both,
            ),
            "encode": ([*face, model], [picture, answers]),
            "directions": ([model], [answers]),
            "make_direction": (
                [gr.Textbox("", label="name", visible=False), source, _json("with_seeds", []),
                 _json("without_seeds", []), gr.File(label="with_images", **files),
                 gr.File(label="without_images", **files), models],
                [gr.File(label="files", **files), answers],
            ),
        }  # fmt: skip
        for name, (inputs, outputs) in endpoints.items():
            gr.Button(visible=False).click(
                getattr(self, name), inputs, outputs, api_name=name, concurrency_id="opening"
            )


def _choice(label: str, choices: Sequence[str], value: Any, **options: Any) -> Any:
    component: Any = gr.Dropdown(list(choices), value=value, label=label, visible=False, **options)
    # Others, such as Hub ids, are answered by hublatent, which offers the nearest names.
    component.preprocess = lambda given: given
    return component


def _number(label: str, value: float) -> Any:
    component: Any = gr.Number(value, label=label, visible=False)
    component.preprocess = lambda given: given
    return component


def _json(label: str, value: Any) -> gr.JSON:
    return gr.JSON(value, label=label, visible=False)


def _changes(given: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(given, dict) or not 0 < len(given) <= MAX_CHANGES:
        raise HublatentError(
            f"The changes are an object of 1 to {MAX_CHANGES} attributes and their strengths in "
            'standard deviations, such as {"Smiling": 2}.'
        )
    limit = MODES["sigma"]
    return tuple(
        (name, session.checked_number(f"strength of {name[:40]}", strength, limit.low, limit.high))
        for name, strength in given.items()
    )


def _facts(direction: Direction) -> dict[str, Any]:
    return {
        "attribute": direction.attribute,
        "method": direction.method,
        "sigma": direction.sigma,
        "threshold": direction.threshold,
        "gain": direction.gain,
        "layers": direction.layers,
        "n_positive": direction.n_positive,
        "n_negative": direction.n_negative,
        "origin": None if direction.origin is None else str(direction.origin),
        "scores": {
            name: [score.value, score.low, score.high] for name, score in direction.scores.items()
        },
    }
