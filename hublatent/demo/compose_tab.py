"""The tab "Compose": several named sliders at once, a second face, and pictures to keep."""

from __future__ import annotations

import base64
import random
from functools import partial
from typing import Any

import gradio as gr

from hublatent.demo import composing, session
from hublatent.demo.composing import N_CHANGES, Composed, Composition
from hublatent.demo.faces import MAX_SEED, Face
from hublatent.demo.names import FAVOURITES, human_name
from hublatent.demo.session import AS_FOUND
from hublatent.demo.shelf import ModelShelf, offered_attributes, offered_layers
from hublatent.demo.verdicts import MAX_STRENGTH
from hublatent.demo.webpage import DOWNLOAD_JS, FACE_SIDES, SAY_JS, html, picture_uri
from hublatent.demo.wiring import LATEST, Changes, Wiring, dropdown, html_part, kept
from hublatent.errors import HublatentError
from hublatent.figures import data_uri

N_REMEMBERED = 12
NAMES = tuple(f"change_{i}" for i in range(N_CHANGES))
STRENGTHS = tuple(f"by_{i}" for i in range(N_CHANGES))
VALUES = ("other_seed", "mix", "mixed_layers", *NAMES, *STRENGTHS)
ASKED = ("face", "models", "method", "source", *VALUES)
LABELS = {"dice": "Surprise me", "reset": "Reset", "png": "Save picture", "gif": "Save GIF"}
MEDIA = {"gif": "image", "mp4": "video"}


class Composer:
    """What the tab's events do."""

    def __init__(self, shelf: ModelShelf) -> None:
        self.shelf = shelf

    def show(self, asked: Any) -> Changes:
        """The face with all changes, in every model."""
        answers = composing.compose(self.shelf, *self._asked(asked))
        return {"composed": html("compose.composed", answers)}

    def remember(self, asked: Any) -> Changes:
        """What is composed now joins the history, and a click there brings it back."""
        face, other, models, what = self._asked(asked)
        values, past = [getattr(asked, name) for name in VALUES], asked.past
        answers = composing.compose(self.shelf, face, other, models[:1], what)
        composed = [answer for answer in answers if isinstance(answer, Composed)]
        if composed and (not past or past[-1][-1] != values):
            picture = picture_uri(composed[0].edited, *FACE_SIDES)
            past = [*past, (what.words(other), picture, values)][-N_REMEMBERED:]
        return {"past": past, "shown_past": html("compose.past", past)}

    def recall(self, asked: Any) -> Changes:
        """An entry of the history comes back."""
        return dict(zip(VALUES, asked.past[int(asked.said["index"])][-1], strict=True))

    def save(self, kind: str, asked: Any) -> Changes:
        """The way there and back as "gif" or "mp4", or a "png" with a caption and the link."""
        face, other, models, what = composition = self._asked(asked)
        if kind in MEDIA:
            content = composing.animate(self.shelf, *composition, kind)
            src = f"data:{MEDIA[kind]}/{kind};base64,{base64.b64encode(content).decode('ascii')}"
        else:
            origin = f"seed {face.seed} of {face.source}" if face.source else "a picture of mine"
            lines = [f"{what.words(other)} · {origin}"]
            if face.source:
                page = str(asked.request.headers.get("referer", "")).partition("?")[0]
                lines.append(f"{page}?models={','.join(models)}&face={face.source}"
                             f"&seed={face.seed}&{what.to_query(other)}")  # fmt: skip
            answers = composing.compose(self.shelf, *composition)
            src = data_uri(composing.share_picture(answers, lines))
        return {"file": {"src": src, "name": f"composition.{kind}"}}

    def follow(self, asked: Any) -> Changes:
        """The changes that a link names; page.js brings the tab to the front."""
        named = composing.changes_from(dict(asked.request.query_params))
        if not named:
            return {}
        changes: Changes = dict.fromkeys(NAMES) | dict.fromkeys(STRENGTHS, 0.0)
        for i, (name, strength) in enumerate(named):
            changes |= {NAMES[i]: name, STRENGTHS[i]: strength}
        return changes

    def open(self, asked: Any) -> Changes:
        """The attributes and layers that the models offer; the one chosen in "Edit" comes first."""
        opened = self.shelf.open_all(asked.models)
        offered, layers = offered_attributes(opened), (AS_FOUND, *offered_layers(opened))
        choices = [(human_name(name), name) for name in offered]
        chosen = [getattr(asked, part) for part in NAMES]
        first = [asked.attribute, *(name for name in FAVOURITES if name in offered), *offered]
        free = iter([name for name in dict.fromkeys(first) if name not in chosen])
        changes = {
            part: gr.update(choices=choices, value=name or next(free, None))
            for part, name in zip(NAMES, chosen, strict=True)
        }
        changes["mixed_layers"] = gr.update(
            choices=list(layers), value=kept(asked.mixed_layers, layers), visible=len(layers) > 1
        )
        return changes

    def dice(self, _: Any) -> Changes:
        """Strengths at random."""
        return {name: round(random.gauss(0, 1.5), 1) for name in STRENGTHS}

    def reset(self, _: Any) -> Changes:
        """Nothing is changed any more."""
        return dict.fromkeys((*STRENGTHS, "mix"), 0.0)

    def _asked(self, asked: Any) -> tuple[Face, Face | None, list[str], Composition]:
        if asked.face is None:
            raise HublatentError("Choose a face under Edit first.")
        pairs = [
            (getattr(asked, n), getattr(asked, s)) for n, s in zip(NAMES, STRENGTHS, strict=True)
        ]
        changes = tuple((name, float(strength)) for name, strength in pairs if name and strength)
        other = session.draw(self.shelf, asked.source, asked.other_seed) if asked.mix else None
        layers = session.checked_layers("layers", asked.mixed_layers)
        what = Composition(changes, asked.method, asked.mix / 100, layers)
        return asked.face, other, asked.models, what


def build(wire: Wiring, app: gr.Blocks) -> None:
    """Lay the tab out, and connect its events."""
    composer, c = Composer(wire.shelf), wire.parts
    wide: dict[str, Any] = {"min_width": 120, "scale": 3, "buttons": []}
    labels = LABELS | ({"mp4": "Save MP4"} if composing.FFMPEG else {})
    with gr.Tab("Compose", id="compose", elem_id="compose-tab") as tab, gr.Row(elem_id="compose"):
        with gr.Column(scale=1, min_width=300, elem_classes="hl-plain"):
            for i, (name, strength) in enumerate(zip(NAMES, STRENGTHS, strict=True)):
                with gr.Row(elem_classes="hl-change"):
                    attribute = dropdown(
                        f"Attribute {i + 1}", f"compose-{name}", show_label=False, scale=2,
                        min_width=120,
                    )  # fmt: skip
                    slider = gr.Slider(
                        -MAX_STRENGTH, MAX_STRENGTH, 2.0 if i == 0 else 0, step=0.1,
                        label=f"Strength {i + 1} in σ", show_label=False, **wide,
                    )  # fmt: skip
                setattr(c, name, attribute)
                setattr(c, strength, slider)
            with gr.Row(elem_classes="hl-change"):
                c.other_seed = gr.Number(
                    7, label="Mix with the face of seed", precision=0, minimum=0,
                    maximum=MAX_SEED, scale=2, min_width=120,
                )  # fmt: skip
                c.mix = gr.Slider(0, 100, 0, step=1, label="by %", **wide)
            c.mixed_layers = gr.Dropdown(
                [AS_FOUND], value=AS_FOUND, label="in the layers (style mixing)", visible=False,
                elem_id="compose-layers",
            )  # fmt: skip
            html_part("before-after", value=html("compose.before_after"))
            with gr.Row(elem_classes="hl-buttons"):
                buttons = {
                    name: gr.Button(label, size="sm", min_width=90, elem_id=f"compose-{name}")
                    for name, label in labels.items()
                }
        with gr.Column(scale=3, min_width=280):
            c.composed, c.shown_past = html_part("composed"), html_part("past", SAY_JS)
            c.past = gr.State([], time_to_live=3600)

    def show(triggers: Any, **options: Any) -> Any:
        return wire.on(triggers, composer.show, ASKED, ("composed",), **options)

    def remember(triggers: Any, **options: Any) -> Any:
        asked = ("past", *ASKED)
        return wire.on(triggers, composer.remember, asked, ("past", "shown_past"), **options)

    wire.on(app.load, composer.follow, (), (*NAMES, *STRENGTHS))
    show([getattr(c, name).input for name in VALUES], **LATEST)
    settled = [getattr(c, name).release for name in (*STRENGTHS, "mix")]
    settled += [getattr(c, name).input for name in ("other_seed", "mixed_layers", *NAMES)]
    remember(settled, **LATEST)
    asked = ("models", "attribute", "mixed_layers", *NAMES)
    changed = (
        wire.on(tab.select, composer.open, asked, ("mixed_layers", *NAMES)),
        wire.on(buttons["dice"].click, composer.dice, (), STRENGTHS),
        wire.on(buttons["reset"].click, composer.reset, (), (*STRENGTHS, "mix")),
    )  # fmt: skip
    for event in changed:
        remember(show(event.then).then)
    show(wire.on(c.shown_past.select, composer.recall, ("past",), VALUES).then)
    for kind in [kind for kind in buttons if kind not in ("dice", "reset")]:
        wire.on(buttons[kind].click, partial(composer.save, kind), ASKED, ("file",)).then(
            None, c.file, None, js=DOWNLOAD_JS
        )
