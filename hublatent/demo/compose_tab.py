"""The tab "Compose": several named sliders at once, a second face, and pictures to keep."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from hublatent.demo.catalogue import offered_attributes, offered_layers
from hublatent.demo.composing import (
    FFMPEG,
    N_CHANGES,
    Composed,
    Composition,
    animate,
    changes_from,
    compose,
    share_picture,
)
from hublatent.demo.events import PageTab, kept, warn_user
from hublatent.demo.faces import MAX_SEED, Face
from hublatent.demo.names import FAVOURITES, human_name
from hublatent.demo.session import AS_FOUND, layer_range
from hublatent.demo.verdicts import MAX_STRENGTH
from hublatent.demo.webpage import DOWNLOAD_JS, EDITED_SIDES, FACE_SIDES, SAY_JS, image, say
from hublatent.errors import HublatentError
from hublatent.figures import data_uri

TITLE = "Compose"
N_REMEMBERED = 12
Asked = tuple[Face, "Face | None", list[str], Composition]


class Composer(PageTab):
    """What the tab's events do.

    The values come as: face, models, method, source, seed of the other face, its share, the layers
    that it is mixed into, then for each change its attribute, and for each its strength.
    """

    @warn_user
    def show(self, *values: Any) -> str:
        """The face with all changes, in every model."""
        return composed_html(compose(self.shelf, *self._asked(*values)))

    @warn_user
    def remember(self, past: list[tuple[str, Any]], *values: Any) -> tuple[Any, ...]:
        """What is composed now joins the history, and a click there brings it back."""
        face, other, models, what = self._asked(*values)
        answers = compose(self.shelf, face, other, models[:1], what)
        kept_values = list(values[4:])
        if answers and answers[0].edited and (not past or past[-1][1] != kept_values):
            words = what.words(other)
            picture = image(answers[0].edited, FACE_SIDES, words)
            past = [*past, (f'title="{escape(words)}">{picture}', kept_values)][-N_REMEMBERED:]
        return past, past_html(past)

    def recall(self, event: gr.EventData, past: list[tuple[str, Any]]) -> list[Any]:
        """The values of an entry of the history."""
        return list(past[int(event.index)][1])

    @warn_user
    def save(self, kind: str, request: gr.Request, *values: Any) -> dict[str, str]:
        """The way there and back as "gif" or "mp4", or a "png" with a caption and the link."""
        asked = self._asked(*values)
        name = f"composition.{kind}"
        if kind != "png":
            content = base64.b64encode(animate(self.shelf, *asked, kind)).decode("ascii")
            media = "image" if kind == "gif" else "video"
            return {"src": f"data:{media}/{kind};base64,{content}", "name": name}
        face, other, models, what = asked
        origin = f"seed {face.seed} of {face.source}" if face.source else "a picture of mine"
        lines = [f"{what.words(other)} · {origin}"]
        if face.source:
            page = str(request.headers.get("referer", "")).partition("?")[0]
            models_asked = ",".join(models)
            lines.append(f"{page}?models={models_asked}&face={face.source}&seed={face.seed}"
                         f"&{what.to_query(other)}")  # fmt: skip
        picture = share_picture(compose(self.shelf, *asked), lines)
        return {"src": data_uri(picture), "name": name}

    @warn_user
    def follow(self, request: gr.Request) -> list[Any]:
        """The changes that a link names; page.js brings the tab to the front."""
        changes = changes_from(dict(request.query_params))
        if not changes:
            return [gr.skip()] * (2 * N_CHANGES)
        names, strengths = zip(*changes, strict=True)
        rest = N_CHANGES - len(changes)
        return [*names, *[None] * rest, *strengths, *[0.0] * rest]

    def open(self, models: list[str], chosen: str, layers: str, *names: str) -> list[Any]:
        """The attributes and layers that the models offer; the one chosen in "Edit" comes first."""
        opened = self.shelf.open_all(models)
        offered, ranges = offered_attributes(opened), [AS_FOUND, *offered_layers(opened)]
        firsts = [chosen, *(n for n in FAVOURITES if n in offered), *offered]
        firsts = [name for name in dict.fromkeys(firsts) if name not in names]
        choices = [(human_name(name), name) for name in offered]
        missing = iter(firsts)
        return [
            gr.update(choices=ranges, value=kept(layers, tuple(ranges)), visible=len(ranges) > 1),
            *(gr.update(choices=choices, value=name or next(missing, None)) for name in names),
        ]

    def _asked(
        self, face: Face | None, models: list[str], method: str, source: str, seed: float,
        mix: float, layers: str, *values: Any,
    ) -> Asked:  # fmt: skip
        if face is None:
            raise HublatentError("Choose a face under Edit first.")
        pairs = zip(values[:N_CHANGES], values[N_CHANGES:], strict=True)
        changes = tuple((name, float(strength)) for name, strength in pairs if name and strength)
        other = self.do.draw(source, seed) if mix else None
        return face, other, models, Composition(changes, method, mix / 100, layer_range(layers))


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


def _dice() -> list[float]:
    return [round(random.gauss(0, 1.5), 1) for _ in range(N_CHANGES)]


def build(do: Any, c: Any, app: gr.Blocks) -> None:
    """Lay the tab out, and connect its events.

    Args:
        do: the page's events.
        c: the controls of the tab "Edit".
        app: the page.
    """
    composer = Composer(do)
    names: list[gr.Dropdown] = []
    strengths: list[gr.Slider] = []
    wide: dict[str, Any] = {"min_width": 120, "scale": 3, "buttons": []}
    with gr.Tab(TITLE, id="compose", elem_id="compose-tab") as tab, gr.Row(elem_id="compose"):
        with gr.Column(scale=1, min_width=300, elem_classes="hl-plain"):
            for i in range(N_CHANGES):
                with gr.Row(elem_classes="hl-change"):
                    names.append(gr.Dropdown(
                        [], label=f"Attribute {i + 1}", show_label=False, scale=2, min_width=120,
                        allow_custom_value=True,
                    ))  # fmt: skip
                    strengths.append(gr.Slider(
                        -MAX_STRENGTH, MAX_STRENGTH, 2.0 if i == 0 else 0, step=0.1,
                        label=f"Strength {i + 1} in σ", show_label=False, **wide,
                    ))  # fmt: skip
            with gr.Row(elem_classes="hl-change"):
                seed = gr.Number(
                    7, label="Mix with the face of seed", precision=0, minimum=0,
                    maximum=MAX_SEED, scale=2, min_width=120,
                )  # fmt: skip
                mix = gr.Slider(0, 100, 0, step=1, label="by %", **wide)
            layers = gr.Dropdown(
                [AS_FOUND], value=AS_FOUND, label="in the layers (style mixing)", visible=False,
                elem_id="compose-layers",
            )  # fmt: skip
            gr.HTML(
                '<label class="hl-before">After <input type="range" class="hl-divide" value="0" '
                'aria-label="Before and after"> Before</label>', apply_default_css=False,
            )  # fmt: skip
            with gr.Row(elem_classes="hl-buttons"):
                buttons = {
                    name: gr.Button(label, size="sm", min_width=90, elem_id=f"compose-{name}")
                    for name, label in (
                        ("dice", "Surprise me"), ("reset", "Reset"), ("png", "Save picture"),
                        ("gif", "Save GIF"), *((("mp4", "Save MP4"),) if FFMPEG else ()),
                    )
                }  # fmt: skip
        with gr.Column(scale=3, min_width=280):
            result = gr.HTML(elem_id="composed", apply_default_css=False)
            shown_past = gr.HTML(elem_id="past", js_on_load=SAY_JS, apply_default_css=False)
            file, past = gr.JSON(visible=False), gr.State([], time_to_live=3600)
            kinds = {kind: gr.State(kind) for kind in ("png", "gif", "mp4") if kind in buttons}
    private: dict[str, Any] = {
        "api_visibility": "private", "concurrency_id": "page", "show_progress": "hidden",
    }  # fmt: skip
    values: list[Any] = [seed, mix, layers, *names, *strengths]
    asked = [c.face, c.models, c.method, c.source, *values]
    shown = {"fn": composer.show, "inputs": asked, "outputs": result, **private}
    kept_now = {
        "fn": composer.remember, "inputs": [past, *asked], "outputs": [past, shown_past], **private
    }  # fmt: skip
    app.load(composer.follow, None, [*names, *strengths], **private)
    tab.select(
        composer.open, [c.models, c.attribute, layers, *names], [layers, *names], **private
    ).then(**shown).then(**kept_now)
    gr.on([value.input for value in values], **shown, trigger_mode="always_last")
    settled = [*(slider.release for slider in (*strengths, mix)), *(n.input for n in names)]
    gr.on([*settled, layers.input, seed.input], **kept_now, trigger_mode="always_last")
    for button, change, changed in (
        (buttons["dice"], _dice, strengths),
        (buttons["reset"], lambda: [0.0] * (N_CHANGES + 1), [*strengths, mix]),
    ):
        button.click(change, None, changed, **private).then(**shown).then(**kept_now)
    shown_past.select(composer.recall, past, values, **private).then(**shown)
    for kind, state in kinds.items():
        saved = buttons[kind].click(composer.save, [state, *asked], file, **private)
        saved.then(None, file, None, js=DOWNLOAD_JS)
