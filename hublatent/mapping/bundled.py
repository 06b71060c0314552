"""The maps of a folder, and directions carried by them: "use this direction in all models"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from hublatent.data import FaceDataset
from hublatent.direction import Direction
from hublatent.errors import DirectionError
from hublatent.mapping.fitting import SharedImages, is_sampled
from hublatent.mapping.latent_map import N_SAMPLES, Kind, LatentMap, LatentSpace

if TYPE_CHECKING:
    from hublatent.model import LatentModel

BUNDLED_FOLDER = "latent-maps"  # beside the models, in model_cards/


def load_maps(folder: str | Path) -> tuple[LatentMap, ...]:
    """The maps that lie in a folder, such as model_cards/latent-maps; none where it is missing."""
    return tuple(LatentMap.load(path) for path in sorted(Path(folder).glob("*.safetensors")))


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

    @cache
    def shared(sampler: str | None) -> SharedImages:
        if sampler is None:
            return SharedImages.of(images, (), seed=seed)
        n = images if isinstance(images, int) else N_SAMPLES
        return SharedImages.of(n, (models[sampler],), seed=seed)

    for names in combinations(models, 2):
        source, target = (models[name] for name in names)
        path = Path(folder) / f"{names[0]}--{names[1]}.safetensors"
        known = LatentMap.load(path) if path.is_file() else None
        spaces = (LatentSpace.of(source), LatentSpace.of(target))
        if known is None or (known.source, known.target) != spaces:
            sampler = next((name for name in names if is_sampled(models[name])), None)
            if sampler is None and isinstance(images, int):
                sampler = names[0]
            known = LatentMap.fit(source, target, shared(sampler), seed=seed)
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
        maps: where to look for theirs, either way, such as `load_maps("model_cards/latent-maps")`.
        kind: see `LatentMap.carry`.

    Returns:
        A direction of method "...-carried".

    Raises:
        DirectionError: no map joins the two models, or the direction cannot be carried.
    """
    if source.fingerprint() == target.fingerprint():
        return direction
    known = list(maps)
    for found in (*known, *(m.reversed() for m in known)):
        if source.matches(found.source.fingerprint) and target.matches(found.target.fingerprint):
            return found.carry(direction, kind).with_sigma(target)
    raise DirectionError(
        f"There is no map from {LatentSpace.of(source)} to {LatentSpace.of(target)} among the "
        f"{len(known)} given; fit one with: python -m hublatent map SOURCE TARGET --out FOLDER"
    )
