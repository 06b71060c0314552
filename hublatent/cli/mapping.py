"""hublatent map and hublatent carry: between the latents of several models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import hublatent
from hublatent.cli.options import FileOption, FolderOption, Text
from hublatent.errors import HublatentError, find_name, unknown_name


def map(
    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL...")],
    out: FolderOption,
    data: Text = None,
    split: Text = None,
    identity_column: Text = None,
    samples: int = 4000,
    judge: Annotated[str | None, arg(metavar="MODEL")] = None,
    faces: int = 100,
    seed: int = 0,
    cache: Path | None = None,
) -> None:
    """Fit linear maps between the latents of every two of several models.

    Args:
        models: two or more, each a folder or a Hub id. Maps in the folder that fit them are kept.
        out: the folder for one file a pair, named SOURCE--TARGET.safetensors, and their card.
        data: a folder or Hub dataset of faces that all models read; without it, models read
            samples of one of each two.
        split: of a Hub dataset, the one split to take.
        identity_column: of a table or Hub dataset, the column that says who is on each picture.
        samples: how many, without --data.
        judge: a classifier that judges edits along directions carried by the maps (needs --data).
        faces: how many faces are edited for it.
        seed: of samples, folds and bootstraps.
        cache: folder of the decoded pictures; by default ~/.cache/hublatent/datasets.
    """
    from hublatent.data import DataSource
    from hublatent.mapping import fit_maps
    from hublatent.publish import write_maps_card

    names = [Path(model).name for model in models]
    if len(models) < 2 or len(set(names)) < len(names):
        raise HublatentError(f"Name two or more models, each called otherwise; given: {names}.")
    if judge is not None and data is None:
        raise HublatentError("--judge needs --data: the faces whose edits it judges.")
    loaded = {name: hublatent.load(model) for name, model in zip(names, models, strict=True)}
    size = max(model.image_size for model in loaded.values())
    dataset = None
    if data is not None:
        dataset = DataSource(data, split, identity_column, cache).load(size)
    fitted = {}
    for pair, latent_map in fit_maps(loaded, dataset or samples, out, seed):
        fitted[pair] = latent_map
        ways = (latent_map.forward, latent_map.backward)
        forward, backward = (way.scores["r2"].value for way in ways)
        print(f"{pair[0]} to {pair[1]}: R2 {forward:.3f}; back: R2 {backward:.3f}", flush=True)
    effects = None
    if judge is not None and dataset is not None:
        from hublatent.evaluation.judged_edits import carried_effects

        own = {
            name: (loaded[name], hublatent.DirectionSet.from_pretrained(model, loaded[name]))
            for name, model in zip(names, models, strict=True)
        }
        reader = hublatent.AttributeClassifier.from_pretrained(judge)
        effects = carried_effects(own, [*fitted.values()], dataset, reader, n_faces=faces)
    write_maps_card(out, fitted, effects)
    print(f"{out}: {len(fitted)} maps")


def carry(
    directions: Annotated[Positional[str], arg(metavar="DIRECTIONS")],
    map: Annotated[str, arg(metavar="MAP")],
    out: FileOption,
    attribute: Text = None,
    method: Text = None,
    kind: Literal["pattern", "filter"] | None = None,
) -> None:
    """Carry directions of one model to another, across a map of their latents.

    Args:
        directions: a direction file, or a folder or Hub id that holds one.
        map: a map's file, or a folder or Hub id that holds one; used the way that fits.
        out: the direction file to write, for the other model.
        attribute: take its directions alone.
        method: take this method's alone, such as joint.
        kind: how directions of others are carried: a classifier's normal is a filter, what says
            how latents move a pattern.
    """
    found = hublatent.DirectionSet.open(directions)
    name = None if attribute is None else find_name(attribute, found.attributes)
    if attribute is not None and name is None:
        raise HublatentError(unknown_name("attribute", attribute, found.attributes))
    if method is not None and method not in found.methods:
        raise HublatentError(unknown_name("method", method, found.methods))
    chosen = [
        direction
        for direction in found
        if name in (None, direction.attribute) and method in (None, found.method_of(direction))
    ]
    across = hublatent.LatentMap.from_pretrained(map)
    carried = across.carry_all(found.with_directions(chosen), kind)
    carried.save(out)
    print(f"{out}: {len(carried)} directions of {carried.architecture}")
