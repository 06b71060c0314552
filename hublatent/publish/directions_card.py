"""The card of a repository that holds directions alone: whose they are, how to use and trust them.

The weights they belong to are elsewhere; the card names them by Hub id and by fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublatent.direction import Direction
from hublatent.direction_set import UNKNOWN, DirectionSet
from hublatent.errors import HubError
from hublatent.hub.client import check_repo_id
from hublatent.hub.download import CARD_NAME, DIRECTIONS_NAME, SAMPLES_NAME
from hublatent.images import save_png
from hublatent.model import LatentModel
from hublatent.publish.parts import (
    CELEBA_LICENCE,
    TEMPLATES,
    Licence,
    best_of_each,
    check_number,
    describe,
    fill_template,
    of_headline,
    score_cells,
    text_cell,
)
from hublatent.publish.samples import draw_edits
from hublatent.storage import atomic_folder_update
from hublatent.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

TEMPLATE = TEMPLATES / "directions.md.jinja"
MAX_SAMPLE_ROWS = 6


@dataclass(frozen=True)
class DirectionsCardInput:
    """What the card of a direction file is rendered from.

    Attributes:
        repo: the Hub id that the card is for.
        directions: the directions.
        base_model: the Hub id of their model; None where it is not known.
        base_commit: the commit of the model that the picture was drawn with.
        samples_caption: what samples.png shows; None without such a picture.
    """

    repo: str
    directions: DirectionSet
    base_model: str | None = None
    base_commit: str | None = None
    samples_caption: str | None = None


def render_directions_card(given: DirectionsCardInput) -> str:
    """Render the README.md of a repository that holds directions alone.

    Args:
        given: what the card says.

    Returns:
        The card, its head included.

    Raises:
        HublatentError: the base model is no Hub id, or a number is not finite.
    """
    if given.base_model is not None:
        check_repo_id(given.base_model)
    return fill_template(TEMPLATE, _metadata(given), _context(given))


def write_directions_folder(
    folder: str | Path,
    directions: DirectionSet,
    repo: str,
    *,
    model: LatentModel | None = None,
    base_model: str | None = None,
    seed: int = 0,
) -> None:
    """Write what goes to the Hub: the direction file, its card and, with the model, a picture.

    Args:
        folder: the folder; made where it is missing.
        directions: the directions.
        repo: the Hub id that they go to.
        model: the model they belong to; draws the picture.
        base_model: the model's Hub id, for the card.
        seed: of the samples in the picture.

    Raises:
        HublatentError: the set is empty, the directions do not belong to the model, or the card
            cannot be rendered.
    """
    if not len(directions):
        raise HubError(f"There is no direction to publish to {repo}.")
    given = DirectionsCardInput(repo, directions, base_model)
    names = [DIRECTIONS_NAME, CARD_NAME]
    if model is not None:
        directions.check_fits(model)
        shown = best_of_each(directions)[:MAX_SAMPLE_ROWS]
        picture, caption = draw_edits(model, shown, seed)
        given = replace(given, samples_caption=caption, base_commit=model.commit)
        names.append(SAMPLES_NAME)
    card = render_directions_card(given)
    with atomic_folder_update(folder, tuple(names)) as paths:
        directions.save(paths[DIRECTIONS_NAME])
        paths[CARD_NAME].write_text(card, encoding="utf-8")
        if model is not None:
            save_png(picture, paths[SAMPLES_NAME])


def licence_of(directions: DirectionSet) -> Licence | None:
    """The terms of a direction file: what its author stated, and CelebA's if it is from there.

    Returns:
        The licence; None where nobody stated one and the data are not CelebA's.
    """
    from_celeba = any(d.origin and "celeba" in d.origin.dataset.lower() for d in directions)
    if directions.licence is None:
        return CELEBA_LICENCE if from_celeba else None
    also = f"\n\n{CELEBA_LICENCE.sentence}" if from_celeba else ""
    stated = text_cell(directions.licence)
    return Licence("stated-in-the-card", "", f"As their author states: {stated}{also}")


def _context(given: DirectionsCardInput) -> dict[str, Any]:
    """The template's variables."""
    directions = given.directions
    return {
        "name": given.repo.rsplit("/", 1)[-1],
        "repo": given.repo,
        "base_model": given.base_model,
        "base_commit": given.base_commit,
        "description": describe(directions.architecture),
        "known": directions.architecture != UNKNOWN,
        "directions": directions,
        "shape": " x ".join(map(str, next(iter(directions)).vector.shape)),
        "example": best_of_each(of_headline(directions))[0],
        "samples_caption": given.samples_caption,
        "scored": [
            [text_cell(d.attribute), f"`{text_cell(d.method)}`", *score_cells(d)]
            for d in directions
            if d.scores
        ],
        "unscored": sum(not d.scores for d in directions),
        "rows": [_row(direction) for direction in directions],
        "licence": licence_of(directions),
        "version": __version__,
    }


def _row(direction: Direction) -> list[str]:
    """What a direction was found from, as table cells."""
    counts = (direction.n_positive, direction.n_negative)
    sigma, layers = direction.sigma, direction.layers
    return [
        f"`{text_cell(direction.name)}`",
        "-" if sigma is None else f"{check_number(f'{direction.name} sigma', sigma):.4g}",
        "-" if layers is None else " ".join(map(str, layers)),
        "-" if None in counts else f"{counts[0]:,} / {counts[1]:,}",
        text_cell(direction.origin or "-"),
        text_cell(", ".join(direction.conditioned_on) or "-"),
    ]


def _metadata(given: DirectionsCardInput) -> ModelCardData:
    from huggingface_hub import ModelCardData

    licence, more = licence_of(given.directions), dict[str, Any]()
    if given.base_model is not None:
        more |= {"base_model": given.base_model, "base_model_relation": "adapter"}
    if licence is not None:
        more |= {"license_name": licence.name, "license_link": licence.link or None}
    if given.samples_caption:
        output = {"url": SAMPLES_NAME}
        more["widget"] = [{"text": given.samples_caption, "output": output}]
    architecture = given.directions.architecture
    return ModelCardData(
        model_name=given.repo.rsplit("/", 1)[-1],
        library_name="hublatent",
        license="unknown" if licence is None else "other",
        tags=["hublatent", "latent-space", "latent-directions"]
        + ([architecture] if architecture != UNKNOWN else []),
        eval_results=_eval_results(given.directions) or None,
        **more,
    )


def _eval_results(directions: DirectionSet) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="unconditional-image-generation",
            task_name="Separability",
            dataset_type=direction.origin.dataset.lower() if direction.origin else "unknown",
            dataset_name=direction.origin.dataset if direction.origin else "unknown",
            metric_type="accuracy",
            metric_name=f"{direction.name} accuracy",
            metric_value=check_number(
                f"{direction.name} accuracy", direction.scores["accuracy"].value
            ),
        )
        for direction in of_headline(directions)
        if "accuracy" in direction.scores
    ]
