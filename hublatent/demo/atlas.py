"""A model's own samples in two dimensions, and along one direction: what the tab "Map" shows."""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from hublatent.demo.faces import Progress, decode_in_parts
from hublatent.demo.shelf import OpenModel
from hublatent.demo.verdicts import Judges
from hublatent.figures import fit
from hublatent.images import to_pil
from hublatent.stats import Floats

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
