"""The cards of maps between latent spaces: of one that goes to the Hub, of a folder of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from hublatent.hub import CARD_NAME, MAP_NAME
from hublatent.mapping import SCORES, LatentMap
from hublatent.publish.card import by, card_head, fill_card
from hublatent.publish.cells import code, interval_cell, table
from hublatent.publish.licences import licence_of
from hublatent.publish.push import publish
from hublatent.storage import write_text

CURVE = "R2 of "
DRAWN = ("target reconstruction", "mapped", "procrustes", "mean face")


def push_map(latent_map: LatentMap, repo: str, **options: Any) -> str:
    """Publish a map and its card in one commit; see `LatentMap.push_to_hub`."""
    with tempfile.TemporaryDirectory() as folder:
        latent_map.save(Path(folder) / MAP_NAME)
        write_text(Path(folder) / CARD_NAME, map_card(latent_map, repo))
        return publish(folder, repo, files=(MAP_NAME, CARD_NAME), **options)


def map_card(latent_map: LatentMap, repo: str) -> str:
    """The README.md of a map."""
    spaces = (latent_map.source, latent_map.target)
    ways = (latent_map.forward, latent_map.backward)
    facts = [
        ("architecture", *(code(space.architecture) for space in spaces)),
        ("latents", *(f"{s.space}, {by(s.latent_shape)}" for s in spaces)),
        ("fingerprint", *(code(space.fingerprint) for space in spaces)),
    ]
    measured = [
        (what, *(interval_cell(what, way.scores.get(score)) for way in ways))
        for score, what in SCORES.items()
    ]
    return _card(
        "map", repo.rpartition("/")[2], [latent_map], repo=repo, images=latent_map.images,
        spaces=table(("", "source", "target"), facts),
        scores=table(("measure", "source to target", "target to source"), measured),
    )  # fmt: skip


def write_maps_card(
    folder: str | Path,
    maps: Mapping[tuple[str, str], LatentMap],
    effects: pd.DataFrame | None = None,
) -> None:
    """Write README.md, maps.csv and carried.csv of a folder of maps (source, target) -> map.

    `effects` are of directions carried by them, as `carried_effects` measures them.
    """
    measured = _measured(maps)
    tables = {"maps.csv": measured} | ({} if effects is None else {"carried.csv": effects})
    for name, rows in tables.items():
        write_text(Path(folder) / name, rows.to_csv(index=False, float_format="%.6g"))
    card = _card(
        "maps", "latent-maps", maps.values(),
        r2=_matrix(measured.assign(cell=measured["r2"].map("{:.3f}".format)), "cell"),
        sections=[_of_images(*group) for group in measured.groupby("images", sort=False)],
        carried=[] if effects is None else list(_of_attributes(effects)),
    )  # fmt: skip
    write_text(Path(folder) / CARD_NAME, card)


def _measured(maps: Mapping[tuple[str, str], LatentMap]) -> pd.DataFrame:
    """One row for each way of a map: names, images, penalty, SCORES, R2 by number of images."""
    rows = []
    for names, latent_map in maps.items():
        ways = (names, latent_map.forward), (names[::-1], latent_map.backward)
        for (source, target), way in ways:
            fitted = {"source": source, "target": target, "images": latent_map.images}
            scores = {name: estimate.value for name, estimate in way.scores.items()}
            curve = {f"{CURVE}{n}": r2 for n, r2 in way.curve.items()}
            rows.append({**fitted, "penalty": way.penalty, **scores, **curve})
    return pd.DataFrame(rows)


def _of_images(images: str, rows: pd.DataFrame) -> dict[str, Any]:
    """What the maps that were fitted to the same images have in common."""
    curve = rows.filter(like=CURVE).mean().dropna()
    errors = rows.groupby("target", sort=False)[list(DRAWN)].mean()
    cells = ((name, *(f"{error:.4f}" for error in row)) for name, *row in errors.itertuples())
    return {
        "images": images,
        "curve": ", ".join(f"{r2:.3f} of {n.removeprefix(CURVE)}" for n, r2 in curve.items()),
        "procrustes": f"{rows['procrustes r2'].mean():.3f}",
        "errors": table(("target", *(SCORES[name] for name in DRAWN)), cells),
    }


def _of_attributes(effects: pd.DataFrame) -> Iterator[dict[str, Any]]:
    own = effects["source"] == effects["target"]
    cosines = effects["cosine"].map(" ({:.2f})".format).mask(own, "")
    effects = effects.assign(cell=effects["effect"].map("{:.2f}".format) + cosines)
    for attribute, rows in effects.groupby("attribute", sort=False):
        share = rows.loc[~own, "share"].median()
        yield {"name": attribute, "effects": _matrix(rows, "cell"), "share": f"{share:.0%}"}


def _matrix(rows: pd.DataFrame, column: str) -> Markup:
    """A table of a column's texts, sources in rows and targets in columns."""
    names = list(dict.fromkeys([*rows["source"], *rows["target"]]))
    cells = rows.pivot(index="source", columns="target", values=column)
    lines = cells.reindex(index=names, columns=names).fillna("").itertuples()
    return table(("source \\ target", *names), lines)


def _card(template: str, name: str, maps: Iterable[LatentMap], **context: Any) -> str:
    maps = list(maps)
    licence = licence_of(m.origin.dataset for m in maps if m.origin.kind != "sampled")
    architectures = dict.fromkeys(s.architecture for m in maps for s in (m.source, m.target))
    head = card_head(name, licence, ["latent-space", "latent-map", *architectures])
    return fill_card(template, head, name=name, licence=licence.sentence, **context)
