"""One function renders any model card, from a config, measured results and directions.

Every number of a card comes from a file that a command wrote; one that is not finite is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublatent.direction import Direction, Origin
from hublatent.direction_set import DirectionSet
from hublatent.errors import HublatentError
from hublatent.hub.download import CARD_NAME, SAMPLES_NAME
from hublatent.images import save_png
from hublatent.model import LatentModel
from hublatent.publish.directions_card import licence_of
from hublatent.publish.parts import (
    CELEBA_LICENCE,
    HEADLINE_ATTRIBUTES,
    TEMPLATES,
    UNKNOWN_LICENCE,
    Licence,
    best_of_each,
    check_number,
    describe,
    fill_template,
    of_headline,
    score_cells,
    text_cell,
)
from hublatent.publish.samples import draw_samples
from hublatent.storage import write_text
from hublatent.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

TEMPLATE = TEMPLATES / "card.md.jinja"
BASELINE_METHOD = "svm"
RECIPE_KEY = "hublatent_recipe"


@dataclass(frozen=True)
class CardInput:
    """What a card is rendered from.

    Attributes:
        name: of the model, such as "btcvae-celeba".
        config: its config.json.
        results: its results.json; {} where nothing was measured.
        directions: its directions.
        shares: attribute -> share of the training images that have it.
        left_out: why attributes have no direction.
        baselines: name -> directions of another model, found on the same data and seed.
        commands: what to type to make the model again.
        source: what `hublatent.load` is given in the example.
        samples_caption: what samples.png shows; None without such a picture.
        licence: what the model may be used for.
        tags: further tags for the Hub.
    """

    name: str
    config: Mapping[str, Any]
    results: Mapping[str, Any] = field(default_factory=dict)
    directions: DirectionSet | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    baselines: Mapping[str, DirectionSet] = field(default_factory=dict)
    commands: Sequence[str] = ()
    source: str = ""
    samples_caption: str | None = None
    licence: Licence = CELEBA_LICENCE
    tags: Sequence[str] = ("faces", "celeba")


def render_card(given: CardInput, model: LatentModel) -> str:
    """Render a model's README.md.

    Args:
        given: what the card says.
        model: the model.

    Returns:
        The card, its head included.

    Raises:
        HublatentError: a number is not finite, results or directions are of other weights, or a
            baseline is of other data.
    """
    _check(given, model)
    data = _metadata(given, model)
    return fill_template(TEMPLATE, data, _context(given, model))


def write_card(
    folder: Path, model: LatentModel, repo: str, directions: DirectionSet | None
) -> None:
    """Write a card and its picture for a model that nothing but its directions is known about.

    Args:
        folder: where README.md and samples.png go.
        model: the model; draws the picture.
        repo: the Hub id that it goes to.
        directions: its directions; what they were found on decides what the licence says.
    """
    licence = licence_of(directions) if directions is not None else None
    picture, caption = draw_samples(model, directions)
    given = CardInput(
        name=repo.rpartition("/")[2],
        config=model.config,
        directions=directions,
        source=repo,
        samples_caption=caption,
        licence=licence or UNKNOWN_LICENCE,
        tags=("faces", "celeba") if licence == CELEBA_LICENCE else (),
    )
    write_text(folder / CARD_NAME, render_card(given, model))
    save_png(picture, folder / SAMPLES_NAME)


def _context(given: CardInput, model: LatentModel) -> dict[str, Any]:
    """The template's variables."""
    unmeasured = dict.fromkeys(
        ("n_parameters", "preprocessing", "torch", "data", "test", "recipe", "validation")
    )
    return {
        "name": given.name,
        "description": describe(model.architecture, type(model).__doc__),
        "config": given.config,
        "shape": " x ".join(map(str, model.latent_shape)),
        "space": model.space.upper(),
        "has_encoder": model.has_encoder,
        "results": {**unmeasured, "fingerprint": model.fingerprint(), **given.results},
        "licence": given.licence,
        "draws_faces": "faces" in given.tags,
        "samples_caption": given.samples_caption,
        "source": given.source or f"model_cards/{given.name}",
        "example": next(iter(best_of_each(of_headline(given.directions))), None),
        "headline": list(_headline(given)),
        "everything": list(_everything(given)),
        "methods": given.directions.methods if given.directions else (),
        "origins": list(_origins(given.directions)),
        "baselines": list(given.baselines),
        "left_out": given.left_out,
        "balance": _balance(given.shares),
        "commands": given.commands,
        "version": __version__,
    }


def _check(given: CardInput, model: LatentModel) -> None:
    fingerprint = model.fingerprint()
    measured = given.results.get("fingerprint", fingerprint)
    if measured != fingerprint:
        raise HublatentError(
            f"The results of {given.name} were measured on weights {str(measured)[:12]}; these "
            f"are {fingerprint[:12]}. Measure the weights that are published."
        )
    if given.directions is None:
        return
    given.directions.check_fits(model)
    ours = {direction.origin for direction in given.directions}
    for name, baseline in given.baselines.items():
        if {direction.origin for direction in baseline} != ours:
            raise HublatentError(
                f"The directions of the baseline {name} were found on other data than those of "
                f"{given.name}; find both on the same."
            )


def _metadata(given: CardInput, model: LatentModel) -> ModelCardData:
    from huggingface_hub import ModelCardData

    papers = re.findall(
        r"arXiv:(\d{4}\.\d{4,5})", describe(model.architecture, type(model).__doc__)
    )
    more: dict[str, Any] = {}
    if given.samples_caption:
        output = {"url": SAMPLES_NAME}
        more["widget"] = [{"text": given.samples_caption, "output": output}]
    if given.results.get("recipe"):  # for programs, such as a comparison that groups by beta
        more[RECIPE_KEY] = dict(given.results["recipe"])
    return ModelCardData(
        model_name=given.name,
        library_name="hublatent",
        license="other",
        license_name=given.licence.name,
        license_link=given.licence.link or None,
        pipeline_tag="unconditional-image-generation",
        tags=[
            "hublatent", "latent-space", model.architecture, *given.tags,
            *(f"arxiv:{paper}" for paper in papers),
        ],
        eval_results=_eval_results(given) or None,
        **more,
    )  # fmt: skip


def _eval_results(given: CardInput) -> list[EvalResult]:
    """For the head: the reconstruction error, and how well the headline attributes are read."""
    results = []
    test = given.results.get("test") or {}
    if "mse" in test:
        results.append(
            _eval_result("Reconstruction", "test", "mse", "MSE, pixels in [0, 1]", test["mse"])
        )
    for direction in of_headline(given.directions):
        if "accuracy" in direction.scores:
            value = direction.scores["accuracy"].value
            split = f"{_examples(direction)}, balanced, 5 folds by identity"
            name = f"{direction.name} accuracy"
            results.append(_eval_result("Separability", split, "accuracy", name, value))
    return results


def _examples(direction: Direction) -> str:
    """What a direction was found and scored on."""
    origin = direction.origin
    if origin is None or origin.kind == "encoded":
        return "train and validation"
    return str(origin) if origin.kind == "sampled" else f"{origin}, train and validation"


def _origins(directions: DirectionSet | None) -> Iterable[tuple[str, str]]:
    """Which methods' directions were found in what, where some were not found in images."""
    methods: dict[Origin | None, dict[str, None]] = {}
    for direction in directions or ():
        methods.setdefault(direction.origin, {})[f"`{direction.method}`"] = None
    if any(origin and origin.kind != "encoded" for origin in methods):
        yield from (
            (", ".join(names), str(origin or "unknown data")) for origin, names in methods.items()
        )


def _eval_result(task: str, split: str, metric: str, name: str, value: Any) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="unconditional-image-generation",
        task_name=task,
        dataset_type="celeba",
        dataset_name="CelebA",
        dataset_split=split,
        metric_type=metric,
        metric_name=name,
        metric_value=check_number(name, value),
    )


def _headline(given: CardInput) -> Iterable[list[str]]:
    """Rows of the headline attributes: each method's, then each baseline's."""
    shown = of_headline(given.directions)
    for attribute in dict.fromkeys(direction.attribute for direction in shown):
        rows = [(f"`{d.method}`", d) for d in shown if d.attribute == attribute]
        rows += [
            (f"{name} `{BASELINE_METHOD}`", baseline[attribute, BASELINE_METHOD])
            for name, baseline in given.baselines.items()
            if (attribute, BASELINE_METHOD) in baseline
        ]
        for label, direction in rows:
            yield [text_cell(attribute), text_cell(label), *score_cells(direction)]


def _everything(given: CardInput) -> Iterable[list[str]]:
    directions = given.directions
    if directions is None:
        return
    order = {name: i for i, name in enumerate(HEADLINE_ATTRIBUTES)}
    for attribute in sorted(directions.attributes, key=lambda a: order.get(a, len(order))):
        ours = {d.method: d for d in directions if d.attribute == attribute}
        # Only the joint regression uses more than the balanced set.
        counts = [d.n_positive for d in ours.values() if d.method != "joint"] or [None]
        share = given.shares.get(attribute)
        yield [
            text_cell(attribute),
            "-" if share is None else f"{check_number(f'share of {attribute}', share):.1%}",
            "-" if counts[0] is None else f"{counts[0]:,}",
            *(_cell(ours, method) for method in directions.methods),
        ]


def _cell(directions: Mapping[str, Direction], method: str) -> str:
    if method not in directions:
        return "-"
    return score_cells(directions[method])[0]


def _balance(shares: Mapping[str, float]) -> str:
    """Which share of the training images has the attributes that divide people into groups."""
    told = [name for name in ("Male", "Young", "Pale_Skin", "Eyeglasses", "Bald") if name in shares]
    return ", ".join(f"{shares[name]:.1%} {name}" for name in told)
