"""The tab "Map": a model's own samples in two dimensions and along the chosen direction."""

from __future__ import annotations

import base64
import threading
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from hublatent.demo import webpage
from hublatent.demo.atlas import LAYOUTS, Atlas, draw_atlas
from hublatent.demo.events import ASKED, SHOWN, Callbacks, Changes, Wiring, html_part, kept
from hublatent.demo.faces import Face, latents_of
from hublatent.demo.names import human_name, searchable_name
from hublatent.demo.shelf import Cache, OpenModel, offered_attributes
from hublatent.demo.webpage import picture_uri, sigmas
from hublatent.direction import Direction
from hublatent.editing import probability
from hublatent.errors import HublatentError
from hublatent.figures import fit
from hublatent.stats import Floats

N_KEPT = 4  # maps of so many models
N_BINS = 30


class Mapper:
    """What the tab's events do."""

    def __init__(self, do: Callbacks) -> None:
        self.do, self.shelf = do, do.shelf
        self._atlases = Cache(N_KEPT)
        self._drawing = threading.Lock()  # one at a time: it takes all of the machine

    def open(self, asked: Any) -> Changes:
        """The models and attributes to choose from; the model that drew the face comes first."""
        offered = offered_attributes(self.shelf.open_all(asked.models))
        choices = [(searchable_name(name), name) for name in offered]
        names = list(dict.fromkeys([*asked.models, *([asked.source] if asked.source else [])]))
        chosen = asked.source if asked.source in names else next(iter(names), None)
        attribute = gr.update(choices=choices, value=kept(asked.attribute, offered))
        return {"mapped": gr.update(choices=names, value=chosen), "coloured_by": attribute}

    def show(self, progress: gr.Progress, asked: Any) -> Changes:
        """The map of a model, coloured by an attribute, with today's face on it."""
        if not asked.mapped:
            raise HublatentError("Choose a model under Edit first.")
        opened, face, attribute = self.shelf.open(asked.mapped), asked.face, asked.coloured_by
        with self._drawing:
            atlas = self._atlases.get(
                opened.fingerprint,
                lambda: draw_atlas(
                    opened, self.shelf.judges,
                    progress=lambda done, n: progress((done, n), unit="faces"),
                ),
            )  # fmt: skip
            atlas.places(asked.layout)
        shares = self._shares(atlas, attribute)
        here, along, problem = None, "", ""
        try:
            here = latents_of(opened, face) if face else None
        except HublatentError as error:
            problem = self.shelf.tell(error)
        try:
            along = histogram_html(atlas, opened.find(attribute, asked.method), shares, here)
        except HublatentError as error:
            problem = f"{problem} {self.shelf.tell(error)}"
        place = None if here is None else atlas.place(asked.layout, here)
        about = (attribute, shares, face, place, along, problem)
        return {"map": map_html(opened, atlas, asked.layout, *about)}

    def pick(self, event: gr.EventData, asked: Any) -> Changes:
        """A sample was picked: it is edited."""
        asked.source, asked.seed = asked.mapped, int(event.seed)
        changes = self.do.change_face(asked)
        return {**changes, "tabs": gr.Tabs(selected="edit"), "source": asked.mapped}

    def _shares(self, atlas: Atlas, attribute: str) -> Floats | None:
        """P(attribute) of each sample for the classifier; None where it cannot tell."""
        classifier = self.shelf.judges.classifier
        if atlas.logits is None or classifier is None or not self.shelf.judges.reads(attribute):
            return None
        logits = atlas.logits[:, classifier.attribute_names.index(attribute)]
        return np.asarray(1 / (1 + np.exp(-logits)))


def map_html(
    opened: OpenModel, atlas: Atlas, layout: str, attribute: str, shares: Floats | None,
    face: Face | None, place: Floats | None, along: str, problem: str,
) -> str:  # fmt: skip
    """The samples as points, and beside them what lies along the direction."""
    places = atlas.places(layout)
    low, high = places.min(axis=0), places.max(axis=0)

    def on_page(points: Floats) -> Floats:
        return np.asarray(np.clip(4 + 92 * (points - low) / (high - low), 2, 98))

    points = "".join(
        f'<circle data-i="{i}" cx="{x:.1f}" cy="{y:.1f}" r="0.85"'
        + ("" if shares is None else f' style="--p:{shares[i]:.0%}"')
        + "/>"
        for i, (x, y) in enumerate(on_page(places))
    )
    here = ""
    if place is not None and face is not None:
        x, y = np.clip(on_page(place), 5, 95)
        uri = picture_uri(fit(face.picture, 64, 64))
        here = (
            f'<g class="hl-here"><image href="{uri}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" '
            f'height="8" clip-path="circle(4px at 4px 4px)"/><circle cx="{x:.1f}" cy="{y:.1f}" '
            'r="4"/></g>'
        )
    name = human_name(attribute)
    key = f"Each point is a face that {opened.name} draws; a click edits it."
    if shares is not None:
        key += (
            f" The classifier sees {name.lower()} in {(shares > 0.5).sum():,} of {len(places):,}."
        )
    sheet = base64.b64encode(atlas.sheet).decode("ascii")
    return (
        f'<div class="hl-map"><div class="hl-plane"><svg viewBox="0 0 100 100" role="img" '
        f'aria-label="{escape(key)}">{points}{here}</svg><div class="hl-peek" hidden '
        f"style=\"background-image:url('data:image/jpeg;base64,{sheet}')\"></div></div>"
        f'<div class="hl-along"><p>{escape(key)}</p>{_legend(name, shares)}{along}'
        + (f'<p class="hl-problem">{escape(problem.strip())}</p>' if problem else "")
        + "</div></div>"
    )


def _legend(name: str, shares: Floats | None) -> str:
    if shares is None:
        return ""
    return (
        f'<p class="hl-legend"><span>without</span><i></i><span>{escape(name.lower())}, as the '
        "classifier reads it</span></p>"
    )


def histogram_html(atlas: Atlas, direction: Direction, shares: Floats | None, here: Any) -> str:
    """Both classes along the direction, with its threshold and today's face."""
    coordinates = direction.coordinate(atlas.latents).double().cpu().numpy()
    middle, sigma = float(coordinates.mean()), float(direction.sigma or 1)

    def in_sigmas(value: float) -> float:
        return (value - middle) / sigma

    edges = np.linspace(-4, 4, N_BINS + 1)
    scaled = np.clip((coordinates - middle) / sigma, -3.99, 3.99)
    classes = [("", np.ones(len(scaled), dtype=bool))]
    if shares is not None:
        classes = [("hl-without", shares <= 0.5), ("hl-with", shares > 0.5)]
    bars = []
    for style, members in classes:
        counts, _ = np.histogram(scaled[members], edges)
        heights = 40 * counts / max(1, counts.max())  # each class by itself: one may be rare
        bars += [
            f'<rect class="{style}" x="{100 * i / N_BINS:.2f}" y="{44 - height:.2f}" '
            f'width="{100 / N_BINS - 0.3:.2f}" height="{height:.2f}"/>'
            for i, height in enumerate(heights)
        ]
    lines, words = [], [f"Along {direction.name}, in σ from the mean; each class scaled by itself."]
    if direction.threshold is not None:
        at = in_sigmas(direction.threshold)
        lines.append(_line(at, "hl-threshold", "threshold"))
        words.append(f"The threshold lies at {sigmas(at)}.")
    if here is not None:
        at = in_sigmas(float(direction.coordinate(here)))
        lines.append(_line(at, "hl-today", "this face"))
        said = f"This face lies at {sigmas(at)}"
        if direction.threshold is not None and direction.gain is not None:
            said += f": the direction reads {float(probability(here, direction)):.0%}"
        words.append(f"{said}.")
    ticks = "".join(
        f'<text x="{50 + 12.5 * s}" y="49">{s:+d}σ</text>' if s else '<text x="50" y="49">0</text>'
        for s in range(-3, 4)
    )
    text = " ".join(words)
    return (
        f'<svg class="hl-histogram" viewBox="0 0 100 51" role="img" aria-label="{escape(text)}">'
        f"{''.join(bars)}{''.join(lines)}{ticks}</svg><p>{escape(text)}</p>"
    )


def _line(at: float, style: str, word: str) -> str:
    x = 50 + 12.5 * min(max(at, -4), 4)
    anchor = "end" if x > 80 else "start"
    y = 3 if style == "hl-threshold" else 7
    return (
        f'<g class="{style}"><line x1="{x:.1f}" x2="{x:.1f}" y1="1" y2="44"/>'
        f'<text x="{x + (1 if anchor == "start" else -1):.1f}" y="{y}" '
        f'style="text-anchor:{anchor}">{word}</text></g>'
    )


def build(do: Callbacks, wire: Wiring) -> None:
    """Lay the tab out, and connect its events."""
    mapper, c = Mapper(do), wire.parts
    with gr.Tab("Map", id="map", elem_id="map-tab") as tab:
        with gr.Row(elem_id="map-bar"):
            c.mapped = gr.Dropdown([], label="Model", elem_id="map-model", min_width=140)
            c.coloured_by = gr.Dropdown(
                [], label="Coloured by", elem_id="map-attribute", min_width=140
            )
            c.layout = gr.Radio(
                list(LAYOUTS), value=LAYOUTS[0], label="Arranged by", min_width=140,
                visible=len(LAYOUTS) > 1, elem_id="map-layout",
            )  # fmt: skip
        c.map = html_part("map", webpage.script("map"), min_height=300)
    slow: dict[str, Any] = {"lane": "opening", "show_progress": "full"}
    asked = ("mapped", "coloured_by", "method", "layout", "face")
    opened = wire.on(
        tab.select, mapper.open, ("source", "models", "attribute"), ("mapped", "coloured_by"),
        lane="opening",
    )  # fmt: skip
    wire.on(opened.then, mapper.show, asked, ("map",), **slow)
    changed = [c.mapped.input, c.coloured_by.input, c.layout.input]
    wire.on(changed, mapper.show, asked, ("map",), trigger_mode="always_last", **slow)
    wire.on(c.map.select, mapper.pick, ("mapped", *ASKED), (*SHOWN, "tabs"), lane="opening")
