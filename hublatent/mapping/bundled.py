"""The maps of a folder, and directions carried by them: "use this direction in all models"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from hublatent.data import FaceDataset
from hublatent.direction import Direction
from hublatent.errors import DirectionError
from hublatent.mapping.fitting import Latents, SharedImages, is_sampled
from hublatent.mapping.latent_map import N_SAMPLES, Kind, LatentMap, LatentSpace

if TYPE_CHECKING:
    from hublatent.model import LatentModel

BUNDLED_FOLDER = "latent-maps"  # beside the models, in model_cards/


def load_maps(folder: str | Path) -> tuple[LatentMap, ...]:
    """The maps that lie in a folder, such as model_cards/latent-maps; none where it is missing."""
    return tuple(LatentMap.load(path) for path in sorted(Path(folder).glob("*.safetensors")))


def find_map(source: LatentModel, target: LatentModel, maps: Iterable[LatentMap]) -> LatentMap:
    """The map from one model's latents to another's, among maps either way.

    Raises:
        DirectionError: there is none.
    """
    known = list(maps)
    for found in (*known, *(m.reversed() for m in known)):
        if source.matches(found.source.fingerprint) and target.matches(found.target.fingerprint):
            return found
    raise DirectionError(
        f"There is no map from {source.architecture} {source.fingerprint()[:12]} to "
        f"{target.architecture} {target.fingerprint()[:12]} among the {len(known)} given; fit one "
        "with: python -m hublatent map SOURCE TARGET --out FOLDER"
    )


def fit_maps(
    models: Mapping[str, LatentModel], images: FaceDataset | int, folder: str | Path, seed: int = 0
) -> Iterator[tuple[tuple[str, str], LatentMap]]:
    """Fit a map between every two of several models; one in the folder that fits them is kept.

    Args:
        models: name -> model.
        images: a data set, which each model reads once, or how many samples of one of each two.
            Generators are mapped by samples of their own in any case; see `is_sampled`.
        folder: for SOURCE--TARGET.safetensors.
        seed: see `LatentMap.fit`.

    Yields:
        The two names, and their map.
    """
    n_samples = images if isinstance(images, int) else N_SAMPLES
    shared: dict[str, SharedImages] = {}
    read: dict[tuple[str, str], Latents] = {}
    for names in combinations(models, 2):
        source, target = (models[name] for name in names)
        path = Path(folder) / f"{names[0]}--{names[1]}.safetensors"
        known = LatentMap.load(path) if path.is_file() else None
        spaces = (LatentSpace.of(source), LatentSpace.of(target))
        if known is None or (known.source, known.target) != spaces:
            sampler = next((n for n in names if is_sampled(models[n])), names[0])
            of_data = isinstance(images, FaceDataset) and not is_sampled(models[sampler])
            key = "" if of_data else sampler
            if key not in shared:
                given = images if of_data else n_samples
                shared[key] = SharedImages.of(given, (models[sampler],), seed=seed)
            for name in names:
                if (key, name) not in read:
                    read[key, name] = shared[key].read(models[name])
            x, y = (read[key, name] for name in names)
            known = LatentMap.between(source, target, x, y, shared[key], seed=seed)
            known.save(path)
        yield names, known


def carry_to(
    direction: Direction,
    source: LatentModel,
    target: LatentModel,
    maps: Iterable[LatentMap],
    kind: Kind | None = None,
) -> Direction:
    """A direction of one model as one of another, with its sigma there.

    Args:
        direction: of the source model.
        source, target: the models; the same one returns the direction as it is.
        maps: where to look for theirs, such as `load_maps("model_cards/latent-maps")`.
        kind: see `LatentMap.carry`.

    Returns:
        A direction of method "...-carried".

    Raises:
        DirectionError: no map joins the two models, or the direction cannot be carried.
    """
    if source.fingerprint() == target.fingerprint():
        return direction
    return find_map(source, target, maps).carry(direction, kind).with_sigma(target)
