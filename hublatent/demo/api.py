"""What scripts and MCP clients call: the named endpoints of the app, which are also its tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from inspect import Parameter, Signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import torch
from PIL import Image

from hublatent.demo import session
from hublatent.demo.composing import MAX_CHANGES, Composed, Composition, checked_strength, compose
from hublatent.demo.faces import Face, Photo, images_of, latents_of, project_missing, time_limit
from hublatent.demo.making import MAX_FACES, Made, gather, make_directions, save_directions
from hublatent.demo.session import AS_FOUND, MODES, Edit, EditRequest, Refusal
from hublatent.demo.shelf import ModelShelf, offered_attributes, offered_layers, offered_methods
from hublatent.demo.wiring import served
from hublatent.direction import Direction
from hublatent.discovery.few_images import at_chance
from hublatent.errors import HublatentError
from hublatent.images import to_pil

Answers = list[dict[str, Any]]
Pictures = list[tuple[Image.Image, str]]
MODE_TOLD = (
    "what the strength means: sigma, standard deviations; alpha, the vector's own length; "
    "probability, a percentage that the direction predicts; effect, one that the classifier sees."
)
# The component that takes an argument, and what clients read of it.
ARGUMENTS: dict[str, tuple[Any, str]] = {
    "image": (gr.File, "a picture of a face; without one, what `source` draws from `seed`."),
    "source": (gr.Dropdown, "the model that draws faces."),
    "seed": (gr.Number, "a whole number; the same seed draws the same face."),
    "model": (gr.Dropdown, "the model that is asked."),
    "models": (gr.Dropdown, "the models that are compared, at most 8."),
    "attribute": (gr.Dropdown, "what to change, such as Eyeglasses or Smiling."),
    "method": (gr.Dropdown, "how the directions were found."),
    "hold": (gr.Dropdown, "attributes whose readings stay where they are, at most 8."),
    "mode": (gr.Dropdown, MODE_TOLD),
    "strength": (gr.Number, "how far; in sigma and alpha, negative takes the attribute away."),
    "layers": (gr.Dropdown, "the layers that are moved where there are some, such as 0-3."),
    "percent": (gr.Number, "the probability, from 1 to 99."),
    "changes": (gr.JSON, 'attribute to strength in standard deviations, as {"Smiling": 2}.'),
    "other_seed": (gr.Number, "of the face that is mixed in."),
    "mix": (gr.Number, "the percentage of the other face, from 0 to 100."),
    "name": (gr.Textbox, "what to call the difference, such as Dimples."),
    "with_seeds": (gr.JSON, "seeds of faces that have it; with the images 5 to 50."),
    "without_seeds": (gr.JSON, "seeds of faces that do not."),
    "with_images": (gr.File, "pictures of faces that have it."),
    "without_images": (gr.File, "pictures of faces that do not."),
}
# What each endpoint takes and returns, by the names of ARGUMENTS and of Api.connect.
ENDPOINTS = {
    "edit": (
        "image source seed models attribute method hold mode strength layers", "pictures answers"
    ),
    "compare_at_equal_effect": (
        "image source seed models attribute method hold percent", "pictures answers"
    ),
    "compose": ("image source seed models changes method other_seed mix", "pictures answers"),
    "encode": ("image source seed model", "picture answers"),
    "directions": ("model", "answers"),
    "make_direction": (
        "name source with_seeds without_seeds with_images without_images models", "files answers"
    ),
}  # fmt: skip


class Api:
    """The endpoints; each takes an object with its arguments, as clients sent them.

    `first` is what is asked for where a client says nothing.
    """

    def __init__(self, shelf: ModelShelf, first: EditRequest) -> None:
        self.shelf, self.first = shelf, first

    def edit(self, asked: Any) -> tuple[Pictures, Answers]:
        """Edit one attribute of a face in several generative models, and say what else changed."""
        request = EditRequest.of(vars(asked))
        face = self._known(self._face(asked), request.models)
        rows = session.compare_edits(self.shelf, face, request)
        pictures = [(row.picture, row.model) for row in rows if isinstance(row, Edit)]
        return pictures, _told(rows, _numbers)

    def compare_at_equal_effect(self, asked: Any) -> tuple[Pictures, Answers]:
        """Move each model until the classifier sees the attribute with the same probability."""
        asked.mode, asked.strength = "effect", asked.percent
        return self.edit(asked)

    def compose(self, asked: Any) -> tuple[Pictures, Answers]:
        """Change several attributes of a face at once, and mix in another face."""
        share = session.checked_number("mix", asked.mix, 0, 100) / 100
        method = session.checked_text("method", asked.method)
        what = Composition(_changes(asked.changes), method, share)
        other = session.draw(self.shelf, asked.source, asked.other_seed) if share else None
        names = session.checked_names("models", asked.models)
        face = self._known(self._face(asked), names)
        composed = compose(self.shelf, face, other, names, what)
        pictures = [(c.edited, c.model) for c in composed if isinstance(c, Composed)]
        return pictures, _told(composed, lambda answer: {"words": answer.words})

    def encode(self, asked: Any) -> tuple[Image.Image, dict[str, Any]]:
        """Find a face in a model's latent space."""
        opened = self.shelf.open(session.checked_text("model", asked.model))
        face = self._known(self._face(asked), (opened.name,))
        latents = latents_of(opened, face)
        with torch.inference_mode():
            drawn = opened.model.decode(latents)
            error = ((drawn - images_of(opened.model, face)) / 2).square().mean()
        numbers = {"latents": latents[0].tolist(), "mean_squared_error": float(error)}
        return to_pil(drawn)[0], {"model": opened.name, **numbers}

    def directions(self, asked: Any) -> Answers:
        """List the directions of a model, with how well each reads its attribute."""
        opened = self.shelf.open(session.checked_text("model", asked.model))
        if opened.directions is None:
            raise HublatentError(opened.problem)
        return [_facts(direction) for direction in opened.directions]

    def make_direction(self, asked: Any) -> tuple[list[str], Answers]:
        """Find the direction between faces that have something and faces that do not."""
        with_it = self._heap(asked.source, asked.with_seeds, asked.with_images)
        without_it = self._heap(asked.source, asked.without_seeds, asked.without_images)
        names = session.checked_names("models", asked.models)
        made = make_directions(self.shelf, asked.name, with_it, without_it, names)
        found = [(m.model, m.direction) for m in made if isinstance(m, Made)]

        def told(answer: Made) -> dict[str, Any]:
            accuracy = answer.accuracy
            if accuracy is None:
                return {"carried_from": answer.carried_from}
            interval = [accuracy.value, accuracy.low, accuracy.high]
            return {"accuracy": interval, "at_chance": at_chance(accuracy)}

        return served(lambda folder: save_directions(self.shelf, found, folder)), _told(made, told)

    def _face(self, asked: Any) -> Face:
        if asked.image:
            limits, detector = self.shelf.limits, self.shelf.judges.detector
            return Photo.open(Path(asked.image).read_bytes(), limits, detector).face(limits)
        face = session.draw(self.shelf, asked.source, asked.seed)
        if face is None:
            raise HublatentError("No face: send an image, or the model that draws the seed.")
        return face

    def _known(self, face: Face, names: Sequence[str]) -> Face:
        """A face, looked for in those of the models that did not know it."""
        project_missing(self.shelf, face, names, time_limit(self.shelf.limits.request_seconds))
        return face

    def _heap(self, source: Any, seeds: Any, images: list[str] | None) -> list[Face]:
        seeds, images = [] if seeds is None else seeds, images or []
        if not isinstance(seeds, list) or len(seeds) + len(images) > MAX_FACES:
            raise HublatentError(f"A heap is a list of at most {MAX_FACES} seeds and images.")
        return gather(self.shelf, source, seeds, [Path(image).read_bytes() for image in images])

    def _answer(self, name: str) -> Callable[..., Any]:
        """An endpoint as Gradio calls it; a mistake reaches the caller as its sentence."""
        method, names = getattr(self, name), ENDPOINTS[name][0].split()

        def answer(*given: Any) -> Any:
            try:
                return method(SimpleNamespace(**dict(zip(names, given, strict=True))))
            except HublatentError as error:
                text = escape(self.shelf.tell(error), quote=False)
                raise gr.Error(text, print_exception=False) from error

        # Clients read these: what is taken, and what it means.
        answer.__name__ = name
        answer.__signature__ = Signature(  # type: ignore[attr-defined]
            [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD, default=None) for n in names]
        )
        told = [f"    {n}: {ARGUMENTS[n][1]}" for n in names]
        answer.__doc__ = "\n".join([f"{method.__doc__}\n", "Args:", *told])
        return answer

    def connect(self) -> None:
        """Add the endpoints to the Blocks that are being built; nothing of them is seen."""
        shelf, first = self.shelf, self.first
        opened = shelf.open_all(shelf.names)
        attributes, layers = offered_attributes(opened), (AS_FOUND, *offered_layers(opened))
        values: dict[str, Any] = {
            "seed": 0, "strength": 3, "percent": 80, "other_seed": 0, "mix": 0, "name": "",
            "changes": {"Smiling": 2}, "with_seeds": [], "without_seeds": [],
            "source": first.source, "model": first.source, "models": list(first.models),
            "attribute": first.attribute, "method": first.method, "hold": [], "mode": "sigma",
            "layers": AS_FOUND,
        }  # fmt: skip
        choices: dict[str, Sequence[str]] = {
            "source": shelf.names, "model": shelf.names, "models": shelf.names,
            "attribute": attributes, "hold": attributes, "method": offered_methods(opened),
            "mode": tuple(MODES), "layers": layers,
        }  # fmt: skip
        parts: dict[str, Any] = {
            "pictures": gr.Gallery(format="png", label="pictures", visible=False),
            "picture": gr.Image(format="png", label="picture", visible=False),
            "answers": gr.JSON(label="answers", visible=False),
            "files": gr.File(file_count="multiple", label="files", visible=False),
        }
        for name, (kind, _) in ARGUMENTS.items():
            about: dict[str, Any] = {}
            if kind is gr.Dropdown:
                about = {"choices": list(choices[name]), "multiselect": name in ("models", "hold")}
            elif kind is gr.File:
                about = {"file_count": "single" if name == "image" else "multiple"}
            parts[name] = kind(value=values.get(name), label=name, visible=False, **about)
            # What comes is checked by hublatent, which offers the nearest names.
            if kind in (gr.Dropdown, gr.Number):
                parts[name].preprocess = lambda given: given
        for name, (taken, returned) in ENDPOINTS.items():
            gr.Button(visible=False).click(
                self._answer(name), [parts[n] for n in taken.split()],
                [parts[n] for n in returned.split()],
                api_name=name, concurrency_id="opening",
            )  # fmt: skip


def _changes(given: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(given, dict) or not 0 < len(given) <= MAX_CHANGES:
        raise HublatentError(
            f"The changes are an object of 1 to {MAX_CHANGES} attributes and their strengths in "
            'standard deviations, such as {"Smiling": 2}.'
        )
    return tuple(
        (name, checked_strength(f"strength of {name[:40]}", strength))
        for name, strength in given.items()
    )


def _told(answers: Sequence[Any], tell: Callable[[Any], dict[str, Any]]) -> Answers:
    """What each model says, or why it says nothing."""
    return [
        {"model": a.model, **({"problem": a.problem} if isinstance(a, Refusal) else tell(a))}
        for a in answers
    ]


def _numbers(made: Edit) -> dict[str, Any]:
    """An edit in numbers."""
    before, after = made.reading or (None, None)
    return {
        "verdict": made.verdict.text if made.verdict else None,
        "direction": made.opened.method_of(made.direction),
        "strength_sigma": made.strength,
        "alpha": made.raw,
        "reached": made.reached,
        "reconstruction_mse": made.still.error,
        "projected": made.still.projected,
        "mean_change": made.change,
        "probability_before": before,
        "probability_after": after,
    }


def _facts(direction: Direction) -> dict[str, Any]:
    plain = ("attribute", "method", "sigma", "threshold", "gain", "layers", "n_positive",
             "n_negative")  # fmt: skip
    return {
        **{name: getattr(direction, name) for name in plain},
        "origin": None if direction.origin is None else str(direction.origin),
        "scores": {
            name: [score.value, score.low, score.high] for name, score in direction.scores.items()
        },
    }
