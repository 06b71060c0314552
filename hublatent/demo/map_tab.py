"""The tab "Map": a model's own samples in two dimensions and along the chosen direction."""

from __future__ import annotations

import base64
import io
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import gradio as gr
import numpy as np
import torch
from markupsafe import Markup
from PIL import Image
from scipy.special import expit
from sklearn.decomposition import PCA
from torch import Tensor

from hublatent.demo.edit_tab import Editor
from hublatent.demo.faces import Progress, decode_in_parts, latents_of
from hublatent.demo.names import human_name, searchable
from hublatent.demo.shelf import Cache, OpenModel, offered_attributes
from hublatent.demo.verdicts import Judges
from hublatent.demo.webpage import html, script, sigmas
from hublatent.demo.wiring import ASKED, LATEST, SHOWN, Changes, Wiring, html_part, kept
from hublatent.direction import Direction
from hublatent.editing import probability
from hublatent.errors import HublatentError
from hublatent.figures import fit
from hublatent.images import to_pil
from hublatent.stats import Floats

N_KEPT = 4  # maps of so many models
N_BINS, MAX_SIGMAS = 30, 4  # of the histogram
N_SAMPLES = 1000
N_COLUMNS, THUMBNAIL_SIDE = 32, 48  # of the sheet of all pictures, as static/map.js knows
LAYOUTS = ("PCA", "UMAP") if find_spec("umap") else ("PCA",)


@dataclass(frozen=True, eq=False)
class Atlas:
    """What a model draws from the seeds 0, 1, 2, ..."""

    latents: Tensor  # (N, *latent_shape)
    logits: Floats | None  # (N, K), of all attributes; None without a classifier
    sheet: bytes  # a JPEG of all pictures, N_COLUMNS in a row
    layouts: dict[str, Any]  # by its name, what finds a latent's place in two dimensions; fitted

    def places(self, layout: str) -> Floats:
        """Where the samples lie, (N, 2)."""
        if layout not in self.layouts:
            self.layouts[layout] = _fitted(layout, _flat(self.latents))
        fitted = self.layouts[layout]
        if layout == "UMAP":
            return np.asarray(fitted.embedding_, dtype=float)
        return np.asarray(fitted.transform(_flat(self.latents)))

    def place(self, layout: str, latents: Tensor) -> Floats:
        """Where latents (1, *latent_shape) lie among the samples, (2,)."""
        return np.asarray(self.layouts[layout].transform(_flat(latents)), dtype=float)[0]


@torch.inference_mode()
def draw_atlas(
    opened: OpenModel, judges: Judges, n: int = N_SAMPLES, progress: Progress | None = None
) -> Atlas:
    """Let a model draw faces, and read them; `progress` gets those drawn and those in all."""
    model = opened.model
    generator = torch.Generator()
    latents = torch.cat(
        [model.sample_latents(1, generator=generator.manual_seed(i)) for i in range(n)]
    )
    rows = -(-n // N_COLUMNS)
    sheet = Image.new("RGB", (N_COLUMNS * THUMBNAIL_SIDE, rows * THUMBNAIL_SIDE))
    logits, done = [], 0
    for images in decode_in_parts(model, latents):
        logits.append(judges.attributes(images))
        for picture in to_pil(images):
            at = (done % N_COLUMNS * THUMBNAIL_SIDE, done // N_COLUMNS * THUMBNAIL_SIDE)
            sheet.paste(fit(picture, THUMBNAIL_SIDE, THUMBNAIL_SIDE), at)
            done += 1
        if progress:
            progress(done, n)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=80)
    read = [part for part in logits if part is not None]
    return Atlas(latents, np.concatenate(read) if read else None, buffer.getvalue(), {})


def _flat(latents: Tensor) -> Floats:
    """(N, D), where there are layers their mean: samples have the same in all of them."""
    rows = latents if latents.ndim == 2 else latents.mean(dim=1)
    return rows.double().cpu().numpy()


def _fitted(layout: str, rows: Floats) -> Any:
    if layout == "UMAP":
        from umap import UMAP  # takes seconds, and few have it

        return UMAP(random_state=0, n_jobs=1).fit(rows)
    return PCA(2).fit(rows)


class Mapper:
    """What the tab's events do."""

    def __init__(self, do: Editor) -> None:
        self.do, self.shelf = do, do.shelf
        self._atlases = Cache(N_KEPT)
        self._drawing = threading.Lock()  # one at a time: it takes all of the machine

    def open(self, asked: Any) -> Changes:
        """The models and attributes to choose from; the model that drew the face comes first."""
        offered = offered_attributes(self.shelf.open_all(asked.models))
        names = list(dict.fromkeys([*asked.models, *([asked.source] if asked.source else [])]))
        chosen = asked.source if asked.source in names else next(iter(names), None)
        attribute = gr.update(choices=searchable(offered), value=kept(asked.attribute, offered))
        return {"mapped": gr.update(choices=names, value=chosen), "coloured_by": attribute}

    def show(self, asked: Any) -> Changes:
        """The map of a model, coloured by an attribute, with today's face on it."""
        if not asked.mapped:
            raise HublatentError("Choose a model under Edit first.")
        opened, face, attribute = self.shelf.open(asked.mapped), asked.face, asked.coloured_by

        def draw() -> Atlas:
            def progress(done: int, n: int) -> None:
                asked.progress((done, n), unit="faces")

            return draw_atlas(opened, self.shelf.judges, progress=progress)

        with self._drawing:
            atlas = self._atlases.get(opened.fingerprint, draw)
            places = atlas.places(asked.layout)
        index, name, shares = self.shelf.judges.index(attribute), human_name(attribute), None
        if atlas.logits is not None and index is not None:
            shares = expit(atlas.logits[:, index])
        here, along, problem = None, "", ""
        try:
            here = latents_of(opened, face) if face else None
        except HublatentError as error:
            problem = self.shelf.tell(error)
        try:
            along = histogram_html(atlas, opened.find(attribute, asked.method), shares, here)
        except HublatentError as error:
            problem = f"{problem} {self.shelf.tell(error)}".strip()
        low, high = places.min(axis=0), places.max(axis=0)

        def on_page(points: Floats, margin: float) -> Floats:
            return np.clip(4 + 92 * (points - low) / (high - low), margin, 100 - margin)

        place = None if here is None else on_page(atlas.place(asked.layout, here), 5)
        key = f"Each point is a face that {opened.name} draws; a click edits it."
        if shares is not None:
            n = f"{(shares > 0.5).sum():,} of {len(places):,}"
            key += f" The classifier sees {name.lower()} in {n}."
        sheet = base64.b64encode(atlas.sheet).decode("ascii")
        about = (name.lower(), on_page(places, 2), shares, place, face, sheet, Markup(along))
        return {"map": html("map.map", key, *about, problem)}

    def pick(self, asked: Any) -> Changes:
        """A sample was picked: it is edited."""
        asked.source, asked.seed = asked.mapped, int(asked.said["seed"])
        changes = self.do.change_face(asked)
        return {**changes, "tabs": gr.Tabs(selected="edit"), "source": asked.mapped}


def histogram_html(
    atlas: Atlas, direction: Direction, shares: Floats | None, here: Tensor | None
) -> str:
    """Both classes along the direction, with its threshold and today's face."""
    coordinates = direction.coordinate(atlas.latents).double().cpu().numpy()
    middle, sigma = float(coordinates.mean()), float(direction.sigma or 1)
    edges = np.linspace(-MAX_SIGMAS, MAX_SIGMAS, N_BINS + 1)
    scaled = np.clip((coordinates - middle) / sigma, edges[0], edges[-1])
    classes = [("", np.ones(len(scaled), dtype=bool))]
    if shares is not None:
        classes = [("hl-without", shares <= 0.5), ("hl-with", shares > 0.5)]
    bars = []
    for style, members in classes:
        counts, _ = np.histogram(scaled[members], edges)
        bars.append((style, 40 * counts / max(1, counts.max())))  # by itself: one may be rare
    lines, words = [], [f"Along {direction.name}, in σ from the mean; each class scaled by itself."]

    def mark(style: str, word: str, coordinate: float) -> str:
        at = (coordinate - middle) / sigma
        lines.append((style, word, min(max(at, -MAX_SIGMAS), MAX_SIGMAS)))
        return sigmas(at)

    if direction.threshold is not None:
        at = mark("hl-threshold", "threshold", direction.threshold)
        words.append(f"The threshold lies at {at}.")
    if here is not None:
        at = mark("hl-today", "this face", float(direction.coordinate(here)))
        said = f"This face lies at {at}"
        if direction.threshold is not None and direction.gain is not None:
            said += f": the direction reads {float(probability(here, direction)):.0%}"
        words.append(f"{said}.")
    return html("map.histogram", bars, lines, " ".join(words))


def build(do: Editor, wire: Wiring) -> None:
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
        c.map = html_part("map", script("map"), min_height=300)
    options = {"lane": "opening", "with_progress": True, "show_progress": "full", **LATEST}
    asked = ("mapped", "coloured_by", "method", "layout", "face")
    opened = wire.on(
        tab.select, mapper.open, ("source", "models", "attribute"), ("mapped", "coloured_by"),
        lane="opening",
    )  # fmt: skip
    wire.on(opened.then, mapper.show, asked, ("map",), **options)
    wire.on(
        [c.mapped.input, c.coloured_by.input, c.layout.input], mapper.show, asked, ("map",),
        **options,
    )  # fmt: skip
    wire.on(c.map.select, mapper.pick, ("mapped", *ASKED), (*SHOWN, "tabs"), lane="opening")
