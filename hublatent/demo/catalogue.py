"""Which models an app offers, and what their directions offer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hublatent.checkpoint import folder_name
from hublatent.demo.shelf import BEST_METHOD, OpenModel
from hublatent.direction import offered_ranges
from hublatent.discovery import DEFAULT_METHOD
from hublatent.models import why_no_latent_model


def find_models(folder: Path) -> dict[str, str]:
    """The latent models in the subfolders of a folder.

    Args:
        folder: such as model_cards/; it may be missing.

    Returns:
        Name -> folder, by name.
    """
    if not folder.is_dir():
        return {}
    folders = [path for path in sorted(folder.iterdir()) if not why_no_latent_model(path)]
    return {path.name: str(path) for path in folders}


def collect_models(extra: tuple[str, ...], cards: Path) -> dict[str, str]:
    """The models of model_cards/ and those named at launch.

    Args:
        extra: folders or Hub ids.
        cards: the folder of bundled models.

    Returns:
        Name -> folder or Hub id; a second of the same name gets a number.
    """
    catalogue = find_models(cards)
    for source in extra:
        folder = Path(source).expanduser()
        name = folder_name(folder) if folder.is_dir() else source
        stem, n = name, 2
        while catalogue.get(name, source) != source:
            name, n = f"{stem} ({n})", n + 1
        catalogue[name] = source
    return catalogue


def offered_attributes(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """The attributes that any of the models has a direction for."""
    sets = [o.directions for o in opened if o.directions is not None]
    return tuple(dict.fromkeys(name for s in sets for name in s.attributes))


def offered_methods(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """The methods that any of the models has directions of; the default first.

    Last, where a file says what edits best in its model, BEST_METHOD.
    """
    sets = [o.directions for o in opened if o.directions is not None]
    names = dict.fromkeys(name for s in sets for name in s.methods)
    best = (BEST_METHOD,) if any(s.defaults for s in sets) else ()
    return (*sorted(names, key=lambda name: name != DEFAULT_METHOD), *best)


def offered_layers(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """Layer ranges to choose from, for the model with the most layers; () without layers."""
    return offered_ranges(max((o.n_layers for o in opened), default=0))
