"""The tab "Compose": several named sliders at once, a second face, and pictures to keep."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from hublatent.demo import composing
from hublatent.demo.composing import N_CHANGES, Composed, Composition
from hublatent.demo.events import Callbacks, Changes, Wiring, html_part, kept
from hublatent.demo.faces import MAX_SEED, Face
from hublatent.demo.names import FAVOURITES, human_name
from hublatent.demo.session import AS_FOUND, layer_range
from hublatent.demo.shelf import offered_attributes, offered_layers
from hublatent.demo.verdicts import MAX_STRENGTH
from hublatent.demo.webpage import DOWNLOAD_JS, EDITED_SIDES, FACE_SIDES, SAY_JS, image, say
from hublatent.errors import HublatentError
from hublatent.figures import data_uri

N_REMEMBERED = 12
NAMES = tuple(f"change_{i}" for i in range(N_CHANGES))
STRENGTHS = tuple(f"by_{i}" for i in range(N_CHANGES))
VALUES = ("other_seed", "mix", "mixed_layers", *NAMES, *STRENGTHS)
ASKED = ("face", "models", "method", "source", *VALUES)
LABELS = {"dice": "Surprise me", "reset": "Reset", "png": "Save picture", "gif": "Save GIF"}


class Composer:
    """What the tab's events do."""

    def __init__(self, do: Callbacks) -> None:
        self.do, self.shelf = do, do.shelf

    def show(self, asked: Any) -> Changes:
        """The face with all changes, in every model."""
        return {"composed": composed_html(composing.compose(self.shelf, *self._asked(asked)))}

    def remember(self, asked: Any) -> Changes:
        """What is composed now joins the history, and a click there brings it back."""
        face, other, models, what = self._asked(asked)
        values, past = [getattr(asked, name) for name in VALUES], asked.past
        answers = composing.compose(self.shelf, face, other, models[:1], what)
        if answers and answers[0].edited and (not past or past[-1][1] != values):
            words = what.words(other)
            picture = image(answers[0].edited, FACE_SIDES, words)
            past = [*past, (f'title="{escape(words)}">{picture}', values)][-N_REMEMBERED:]
        return {"past": past, "shown_past": past_html(past)}

    def recall(self, event: gr.EventData, asked: Any) -> Changes:
        """An entry of the history comes back."""
        return dict(zip(VALUES, asked.past[int(event.index)][1], strict=True))

    def save(self, kind: str, request: gr.Request, asked: Any) -> Changes:
        """The way there and back as "gif" or "mp4", or a "png" with a caption and the link."""
        face, other, models, what = composition = self._asked(asked)
        if kind != "png":
            content = base64.b64encode(composing.animate(self.shelf, *composition, kind)).decode(
                "ascii"
            )
            media = "image" if kind == "gif" else "video"
            src = f"data:{media}/{kind};base64,{content}"
        else:
            origin = f"seed {face.seed} of {face.source}" if face.source else "a picture of mine"
            lines = [f"{what.words(other)} · {origin}"]
            if face.source:
                page = str(request.headers.get("referer", "")).partition("?")[0]
                lines.append(f"{page}?models={','.join(models)}&face={face.source}"
                             f"&seed={face.seed}&{what.to_query(other)}")  # fmt: skip
            src = data_uri(
                composing.share_picture(composing.compose(self.shelf, *composition), lines)
            )
        return {"file": {"src": src, "name": f"composition.{kind}"}}

    def follow(self, request: gr.Request, _: Any) -> Changes:
        """The changes that a link names; page.js brings the tab to the front."""
        changes = composing.changes_from(dict(request.query_params))
        if not changes:
            return {}
        pairs: Any = [*changes, *[(None, 0.0)] * (N_CHANGES - len(changes))]
        pairs = zip(NAMES, STRENGTHS, pairs, strict=True)
        return {
            key: value for *keys, given in pairs for key, value in zip(keys, given, strict=True)
        }

    def open(self, asked: Any) -> Changes:
        """The attributes and layers that the models offer; the one chosen in "Edit" comes first."""
        opened = self.shelf.open_all(asked.models)
        offered, ranges = offered_attributes(opened), (AS_FOUND, *offered_layers(opened))
        chosen = [getattr(asked, name) for name in NAMES]
        firsts = dict.fromkeys(
            [asked.attribute, *(n for n in FAVOURITES if n in offered), *offered]
        )
        missing = iter([name for name in firsts if name not in chosen])
        choices = [(human_name(name), name) for name in offered]
        layers = gr.update(
            choices=list(ranges), value=kept(asked.mixed_layers, ranges), visible=len(ranges) > 1
        )
        return {
            "mixed_layers": layers,
            **{
                part: gr.update(choices=choices, value=name or next(missing, None))
                for part, name in zip(NAMES, chosen, strict=True)
            },
        }

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
        other = self.do.draw(asked.source, asked.other_seed) if asked.mix else None
        layers = layer_range(asked.mixed_layers)
        return (
            asked.face,
            other,
            asked.models,
            Composition(changes, asked.method, asked.mix / 100, layers),
        )


def composed_html(answers: Sequence[Composed]) -> str:
    """A card for each model: the changed face over the unedited one, and what was read."""
    return f'<div class="hl-cards">{"".join(map(_card, answers))}</div>'


def _card(answer: Composed) -> str:
    name = escape(answer.model)
    if answer.unedited is None or answer.edited is None:
        return (
            f'<section class="hl-card"><h3>{name}</h3>'
            f'<p class="hl-problem">{escape(answer.problem)}</p></section>'
        )
    return (
        f'<section class="hl-card"><div class="hl-compare">'
        f"{image(answer.edited, EDITED_SIDES, f'Composed in {name}')}"
        f"{image(answer.unedited, EDITED_SIDES, f'Unedited in {name}')}</div>"
        f"<h3>{name}</h3><p>{escape(answer.words)}</p></section>"
    )


def past_html(past: Sequence[tuple[str, Any]]) -> str:
    """The history, the latest first."""
    shown = "".join(
        f'<button class="hl-face" {say(index=i)} {entry}</button>'
        for i, (entry, _) in reversed(list(enumerate(past)))
    )
    return f'<div class="hl-faces hl-past" role="group" aria-label="History">{shown}</div>'


def build(do: Callbacks, wire: Wiring, app: gr.Blocks) -> None:
    """Lay the tab out, and connect its events."""
    composer, c = Composer(do), wire.parts
    wide: dict[str, Any] = {"min_width": 120, "scale": 3, "buttons": []}
    labels = LABELS | ({"mp4": "Save MP4"} if composing.FFMPEG else {})
    with gr.Tab("Compose", id="compose", elem_id="compose-tab") as tab, gr.Row(elem_id="compose"):
        with gr.Column(scale=1, min_width=300, elem_classes="hl-plain"):
            for i, (name, strength) in enumerate(zip(NAMES, STRENGTHS, strict=True)):
                with gr.Row(elem_classes="hl-change"):
                    attribute = gr.Dropdown(
                        [], label=f"Attribute {i + 1}", show_label=False, scale=2, min_width=120,
                        allow_custom_value=True,
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
            html_part("before-after", value=(
                '<label class="hl-before">After <input type="range" class="hl-divide" value="0" '
                'aria-label="Before and after"> Before</label>'
            ))  # fmt: skip
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

    latest = {"trigger_mode": "always_last"}
    wire.on(app.load, composer.follow, (), (*NAMES, *STRENGTHS))
    opened = wire.on(
        tab.select, composer.open, ("models", "attribute", "mixed_layers", *NAMES),
        ("mixed_layers", *NAMES),
    )  # fmt: skip
    show([getattr(c, name).input for name in VALUES], **latest)
    settled = [getattr(c, name).release for name in (*STRENGTHS, "mix")]
    settled += [getattr(c, name).input for name in ("other_seed", "mixed_layers", *NAMES)]
    remember(settled, **latest)
    changed = (
        opened, wire.on(buttons["dice"].click, composer.dice, (), STRENGTHS),
        wire.on(buttons["reset"].click, composer.reset, (), (*STRENGTHS, "mix")),
    )  # fmt: skip
    for event in changed:
        remember(show(event.then).then)
    show(wire.on(c.shown_past.select, composer.recall, ("past",), VALUES).then)
    for kind in [kind for kind in ("png", "gif", "mp4") if kind in buttons]:
        wire.on(buttons[kind].click, partial(composer.save, kind), ASKED, ("file",)).then(
            None, c.file, None, js=DOWNLOAD_JS
        )
