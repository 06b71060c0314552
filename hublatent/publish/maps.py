"""The cards of maps between latent spaces: of one that goes to the Hub, of a folder of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import ModelCard, ModelCardData

from hublatent import __version__
from hublatent.hub import CARD_NAME, MAP_NAME
from hublatent.mapping import SCORES, LatentMap
from hublatent.publish.cells import code, interval_cell, table, text
from hublatent.publish.commits import publish
from hublatent.publish.licences import licence_of
from hublatent.storage import write_text

CURVE = "R2 of "
DRAWN = ("target reconstruction", "mapped", "procrustes", "mean face")
_ONE_MAP = """```python
import hublatent

latent_map = hublatent.LatentMap.from_pretrained(REPO)
latents = latent_map.apply(source.encode(images))  # of the target model
direction = latent_map.carry(direction).with_sigma(target)
```"""
_MAPS = """```python
import hublatent
from hublatent.mapping import carry_to, load_maps

maps = load_maps("model_cards/latent-maps")
direction = carry_to(direction, source, target, maps)  # of one model: for another
```"""
_CARRIED = """## Directions carried across

A pattern, such as `joint`, is carried forward; a filter, such as `svm`, backward. The change of the
judge's logit when test faces without the attribute are moved by +3 standard deviations: along the
target's own direction on the diagonal, along the carried direction elsewhere. In brackets the
cosine of the two. Both were found in the images that the maps were fitted to, so this says what a
map keeps, and not how well it carries to other images."""


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
        ("latents", *(f"{s.space}, {' x '.join(map(str, s.latent_shape))}" for s in spaces)),
        ("fingerprint", *(code(space.fingerprint) for space in spaces)),
    ]
    measured = [
        (what, *(interval_cell(what, way.scores.get(score)) for way in ways))
        for score, what in SCORES.items()
    ]
    sections = (
        f"A linear map between the latents of two models, fitted both ways to "
        f"{text(latent_map.images)} (Asperti & Tonelli 2023, arXiv:2207.06812).",
        table(("", "source", "target"), facts),
        "## Use",
        _ONE_MAP.replace("REPO", f'"{repo}"'),
        "## Measured on people that it was not fitted to",
        table(("measure", "source to target", "target to source"), measured),
    )
    return _card(repo.rpartition("/")[2], [latent_map], sections)


def write_maps_card(
    folder: str | Path,
    maps: Mapping[tuple[str, str], LatentMap],
    effects: pd.DataFrame | None = None,
) -> None:
    """Write the README.md and the tables, maps.csv and carried.csv, of a folder of maps.

    Args:
        folder: where the maps lie.
        maps: (source, target) -> map.
        effects: of directions carried by them, as `carried_effects` measures them.
    """
    measured = maps_table(maps)
    by_images = dict(tuple(measured.groupby("images", sort=False)))
    sections = [
        "Linear maps between the latents of every two of several models, both ways, fitted by "
        f"ridge regression to {text('; or to '.join(by_images))} (Asperti & Tonelli 2023, "
        "arXiv:2207.06812). Held-out people chose the penalties; all figures are of people that no "
        "map was fitted to.",
        "## Use",
        _MAPS,
        "## Variance of the target's latents that a map explains (R2)",
        _matrix("source \\ target", measured, lambda row: f"{row['r2']:.3f}"),
        *(part for images, rows in by_images.items() for part in _images_section(images, rows)),
    ]
    write_text(Path(folder) / "maps.csv", measured.to_csv(index=False, float_format="%.6g"))
    if effects is not None:
        sections += [_CARRIED, *_effect_sections(effects)]
        write_text(Path(folder) / "carried.csv", effects.to_csv(index=False, float_format="%.6g"))
    write_text(Path(folder) / CARD_NAME, _card("latent-maps", maps.values(), sections))


def maps_table(maps: Mapping[tuple[str, str], LatentMap]) -> pd.DataFrame:
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


def _images_section(images: str, rows: pd.DataFrame) -> Iterator[str]:
    """What the maps that were fitted to the same images have in common."""
    curve = rows.filter(like=CURVE).mean().dropna()
    errors = rows.groupby("target", sort=False)[list(DRAWN)].mean()
    yield f"## Of the maps fitted to {text(images)}"
    yield (
        "R2 by the number of images, mean over the maps: "
        + ", ".join(f"{r2:.3f} of {name.removeprefix(CURVE)}" for name, r2 in curve.items())
        + f". With the best rotation and scale instead: {rows['procrustes r2'].mean():.3f}."
    )
    yield "Mean squared error of pictures, in [0, 1], mean over the sources:"
    cells = ((name, *(f"{error:.4f}" for error in row)) for name, *row in errors.itertuples())
    yield table(("target", *(SCORES[name] for name in DRAWN)), cells)


def _effect_sections(effects: pd.DataFrame) -> Iterator[str]:
    def cell(row: pd.Series) -> str:
        own = row["source"] == row["target"]
        return f"{row['effect']:.2f}" + ("" if own else f" ({row['cosine']:.2f})")

    for attribute, rows in effects.groupby("attribute", sort=False):
        across = rows[rows["source"] != rows["target"]]
        yield f"### {attribute}"
        yield _matrix("source \\ target", rows, cell)
        yield f"Share of the own direction's effect, median: {across['share'].median():.0%}."


def _matrix(corner: str, rows: pd.DataFrame, cell: Callable[[pd.Series], str]) -> str:
    """A table of cells, sources in rows and targets in columns."""
    names = list(dict.fromkeys([*rows["source"], *rows["target"]]))
    cells = {(row["source"], row["target"]): cell(row) for _, row in rows.iterrows()}
    lines = ((source, *(cells.get((source, target), "") for target in names)) for source in names)
    return table((corner, *names), lines)


def _card(name: str, maps: Iterable[LatentMap], sections: Iterable[str]) -> str:
    maps = list(maps)
    origins = (latent_map.origin for latent_map in maps)
    licence = licence_of(origin.dataset for origin in origins if origin.kind != "sampled")
    more: dict[str, Any] = {}
    if licence.hub_id == "other":
        more = {"license_name": licence.name, "license_link": licence.link or None}
    architectures = (s.architecture for m in maps for s in (m.source, m.target))
    head = ModelCardData(
        model_name=name,
        library_name="hublatent",
        license=licence.hub_id,
        tags=["hublatent", "latent-space", "latent-map", *dict.fromkeys(architectures)],
        **more,
    )
    end = ("## Licence", licence.sentence, f"hublatent {__version__} wrote this card.")
    body = "\n\n".join(part.strip() for part in (f"# {text(name)}", *sections, *end))
    return ModelCard(f"---\n{head.to_yaml().strip()}\n---\n\n{body}\n").content
