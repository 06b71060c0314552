"""What `push_to_hub` and `hublatent push` do: check, write the card where there is none, commit."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]
from huggingface_hub import ModelCard

from hublatent.checkpoint import CONFIG_NAME, read_config
from hublatent.classifier import AttributeClassifier
from hublatent.direction_set import DirectionSet
from hublatent.errors import HubError
from hublatent.hub import CARD_NAME, DIRECTIONS_NAME, PUBLISHED_FILES, HubModel
from hublatent.model import LatentModel
from hublatent.models import load
from hublatent.publish.commits import publish, repo_has_file
from hublatent.publish.directions_card import write_directions_folder
from hublatent.publish.model_card import write_card


def push_model(
    model: HubModel, repo: str, *, directions: DirectionSet | None = None, **options: Any
) -> str:
    """Publish a model, and a direction set beside it, in one commit; see `HubModel.push_to_hub`.

    Args:
        model: the model.
        repo: the Hub id; a repository without a card gets one, with samples.
        directions: of the model, or None.
        options: private, revision, create_pr, token, message of `publish`.

    Returns:
        The commit's URL.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        if directions is not None:
            directions.check_fits(model)
            directions.save(Path(folder) / DIRECTIONS_NAME)
        has_card = repo_has_file(CARD_NAME, repo, options.get("revision"), options.get("token"))
        if not has_card and isinstance(model, LatentModel):
            write_card(Path(folder), model, repo, directions)
        return publish(folder, repo, **options)


def push_directions(
    directions: DirectionSet,
    repo: str,
    *,
    model: LatentModel | None = None,
    base_model: str | None = None,
    **options: Any,
) -> str:
    """Publish a direction set without its model; see `DirectionSet.push_to_hub`."""
    beside_model = repo_has_file(CONFIG_NAME, repo, options.get("revision"), options.get("token"))
    files = (DIRECTIONS_NAME,) if beside_model else PUBLISHED_FILES
    with tempfile.TemporaryDirectory() as folder:
        write_directions_folder(folder, directions, repo, model=model, base_model=base_model)
        return publish(folder, repo, files=files, **options)


def check_folder(folder: str | Path) -> HubModel:
    """Refuse a model folder that is not fit to be published.

    Args:
        folder: holds config.json, model.safetensors and README.md, perhaps directions and samples.

    Returns:
        The model.

    Raises:
        HublatentError: the weights do not load, the directions belong to other weights, or the card
            does not parse, names no licence or holds a figure that is not finite.
    """
    path = Path(folder)
    if not path.is_dir():
        raise HubError(f"{folder} is not a folder; expected one with {', '.join(PUBLISHED_FILES)}.")
    model = load_published(path)
    check_directions(path, model)
    check_card(path / CARD_NAME)
    return model


def load_published(folder: Path) -> HubModel:
    """Load whatever is published from here, a latent model or an attribute classifier, strictly."""
    if read_config(folder)["architecture"] == AttributeClassifier.architecture:
        return AttributeClassifier.from_pretrained(folder)
    return load(folder)


def check_directions(folder: Path, model: HubModel) -> None:
    """Refuse directions that lie beside a model but were not found on it."""
    path = folder / DIRECTIONS_NAME
    if not path.is_file():
        return
    if not isinstance(model, LatentModel):
        raise HubError(f"{folder} holds directions, but its {model.architecture} has no latents.")
    DirectionSet.load(path, model)


def check_card(path: Path) -> None:
    """Refuse a model card that the Hub would not understand, or that names no licence."""
    if not path.is_file():
        raise HubError(f"{path.parent} holds no {path.name}; a published model needs a card.")
    try:
        data: Any = ModelCard(path.read_text(encoding="utf-8")).data
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise HubError(f"{path} does not parse as a model card: {error}.") from error
    if not data.get("license"):
        raise HubError(f"{path} names no license; add the line 'license: ...' to its head.")
    for result in data.eval_results or []:
        value = result.metric_value
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
        ):
            raise HubError(
                f"{path}: the model-index gives {result.metric_type} = {value!r}; expected a "
                "finite number."
            )
