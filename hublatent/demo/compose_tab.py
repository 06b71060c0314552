"""The tab "Compose": several named sliders at once, a second face, and an animation to keep."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from hublatent.demo.catalogue import offered_attributes
from hublatent.demo.composing import N_CHANGES, Composed, Composition, animate, compose
from hublatent.demo.events import Callbacks, warn_user
from hublatent.demo.faces import MAX_SEED, Face
from hublatent.demo.names import FAVOURITES, human_name
from hublatent.demo.verdicts import MAX_STRENGTH
from hublatent.demo.webpage import DOWNLOAD_JS, EDITED_SIDES, image
from hublatent.errors import HublatentError

TITLE = "Compose"


class Composer:
    """What the tab's events do.

    The values come as: face, models, method, source, seed of the other face, its share, then for
    each change its attribute, and for each its strength.

    Args:
        do: the page's events.
    """

    def __init__(self, do: Callbacks) -> None:
        self.do = do
        self.shelf = do.shelf

    def warn(self, error: HublatentError) -> None:
        """Show an error on the page."""
        self.do.warn(error)

    @warn_user
    def show(self, *values: Any) -> str:
        """The face with all changes, in every model."""
        return composed_html(compose(self.shelf, *self._asked(*values)))

    @warn_user
    def save(self, *values: Any) -> dict[str, str]:
        """The way there and back as a GIF."""
        content = base64.b64encode(animate(self.shelf, *self._asked(*values))).decode("ascii")
        return {"src": f"data:image/gif;base64,{content}", "name": "composition.gif"}

    def open(self, models: list[str], *names: str) -> list[Any]:
        """The attributes that the models offer."""
        offered = offered_attributes(self.shelf.open_all(models))
        firsts = [*(n for n in FAVOURITES if n in offered), *offered]
        choices = [(human_name(name), name) for name in offered]
        return [
            gr.update(choices=choices, value=name or (firsts[i] if i < len(firsts) else None))
            for i, name in enumerate(names)
        ]

    def _asked(
        self, face: Face | None, models: list[str], method: str, source: str, seed: float,
        mix: float, *values: Any,
    ) -> tuple[Face, Face | None, list[str], Composition]:  # fmt: skip
        if face is None:
            raise HublatentError("Choose a face under Edit first.")
        names, strengths = values[:N_CHANGES], values[N_CHANGES:]
        pairs = zip(names, strengths, strict=True)
        changes = tuple((name, float(strength)) for name, strength in pairs if name and strength)
        other = self.do.draw(source, seed) if mix else None
        return face, other, models, Composition(changes, method, mix / 100)


def composed_html(answers: Sequence[Composed]) -> str:
    """A card for each model: the changed face, the unedited one, and what was read."""
    return f'<div class="hl-cards">{"".join(map(_card, answers))}</div>'


def _card(answer: Composed) -> str:
    name = escape(answer.model)
    if answer.unedited is None or answer.edited is None:
        return (
            f'<section class="hl-card"><h3>{name}</h3>'
            f'<p class="hl-problem">{escape(answer.problem)}</p></section>'
        )
    return (
        f'<section class="hl-card">{image(answer.edited, EDITED_SIDES, f"Composed in {name}")}'
        f"<div>{image(answer.unedited, EDITED_SIDES, f'Unedited in {name}')}"
        f"<h3>{name}</h3></div><p>{escape(answer.words)}</p></section>"
    )


def _dice() -> list[float]:
    return [round(random.gauss(0, 1.5), 1) for _ in range(N_CHANGES)]


def build(do: Callbacks, c: Any) -> None:
    """Lay the tab out, and connect its events.

    Args:
        do: the page's events.
        c: the controls of the tab "Edit".
    """
    composer = Composer(do)
    with gr.Tab(TITLE, id="compose", elem_id="compose-tab") as tab, gr.Row(elem_id="compose"):
        with gr.Column(scale=1, min_width=280):
            names: list[gr.Dropdown] = []
            strengths: list[gr.Slider] = []
            for i in range(N_CHANGES):
                with gr.Row(elem_classes="hl-change"):
                    names.append(gr.Dropdown(
                        [], label=f"Attribute {i + 1}", show_label=False, scale=2, min_width=120,
                    ))  # fmt: skip
                    strengths.append(gr.Slider(
                        -MAX_STRENGTH, MAX_STRENGTH, 0, step=0.1, label=f"Strength {i + 1} in σ",
                        show_label=False, buttons=[], scale=3, min_width=120,
                    ))  # fmt: skip
            with gr.Row(elem_classes="hl-change"):
                seed = gr.Number(
                    7, label="Mix with seed", precision=0, minimum=0,
                    maximum=MAX_SEED, scale=2, min_width=120,
                )  # fmt: skip
                mix = gr.Slider(0, 100, 0, step=1, label="by %", buttons=[], scale=3, min_width=120)
            with gr.Row():
                dice = gr.Button("Surprise me", size="sm", min_width=80, elem_id="compose-dice")
                reset = gr.Button("Reset", size="sm", min_width=80, elem_id="compose-reset")
                save = gr.Button("Save as GIF", size="sm", min_width=80, elem_id="compose-save")
        with gr.Column(scale=3, min_width=280):
            result = gr.HTML(elem_id="composed", apply_default_css=False)
            file = gr.JSON(visible=False)
    private: dict[str, Any] = {
        "api_visibility": "private", "concurrency_id": "page", "show_progress": "hidden",
    }  # fmt: skip
    asked = [c.face, c.models, c.method, c.source, seed, mix, *names, *strengths]
    shown = {"fn": composer.show, "inputs": asked, "outputs": result, **private}
    tab.select(composer.open, [c.models, *names], names, **private).then(**shown)
    controls: list[Any] = [*names, *strengths, seed, mix]
    touched = [control.input for control in controls]
    gr.on(touched, **shown, trigger_mode="always_last")
    dice.click(_dice, None, strengths, **private).then(**shown)
    reset.click(lambda: [0.0] * (N_CHANGES + 1), None, [*strengths, mix], **private).then(**shown)
    save.click(composer.save, asked, file, **private).then(None, file, None, js=DOWNLOAD_JS)
