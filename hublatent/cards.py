"""One function renders any model card, from a config, measured results and directions.

Every number of a card comes from a file that a command wrote; one that is not finite is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from hublatent import figures
from hublatent.direction import Direction, Score
from hublatent.direction_set import DirectionSet
from hublatent.editing import edit
from hublatent.errors import HublatentError
from hublatent.images import to_pil
from hublatent.model import LatentModel
from hublatent.publishing import SAMPLES_NAME
from hublatent.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

TEMPLATE = Path(__file__).parent / "templates" / "card.md.jinja"
HEADLINE_ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
EXAMPLE_METHODS = ("joint", "pattern", "svm")
SCORES = ("accuracy", "precision", "recall", "f1", "auroc")
BASELINE_METHOD = "svm"
SAMPLE_COLUMNS = 8
SAMPLE_STRENGTH = 3.0
SAMPLE_WIDTH = 128  # pixels; smaller images are enlarged by a whole factor

# What each architecture is, in a card's words.
DESCRIPTIONS = {
    "vae": "Variational auto-encoder (Kingma & Welling 2013, arXiv:1312.6114).",
    "betavae": "β-VAE (Higgins et al. 2017): a variational auto-encoder whose KL divergence is "
    "weighted by β, so that its latents are disentangled.",
    "btcvae": "β-TCVAE (Chen et al. 2018, arXiv:1802.04942): a variational auto-encoder of whose "
    "KL divergence only the total correlation is weighted by β.",
    "eigenfaces": "Eigenfaces (Turk & Pentland 1991): principal components of the pixels, the "
    "linear baseline that learned latent spaces are compared with.",
    "stylegan2": "StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): a generator whose latents are "
    "one style code per layer (W+).",
}


@dataclass(frozen=True)
class Licence:
    """What a model may be used for.

    Attributes:
        name: the Hub's license_name; the licence itself is "other".
        link: where its text stands.
        sentence: what it says, in a card's words.
    """

    name: str
    link: str
    sentence: str


CELEBA_LICENCE = Licence(
    "celeba-non-commercial-research",
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    "The weights and directions come from CelebA, whose authors make it available for "
    "non-commercial research purposes only; use these files for nothing else.",
)


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
    from huggingface_hub import ModelCard
    from jinja2 import Environment, StrictUndefined

    _check(given, model)
    data = _metadata(given, model)
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=_number, cell=_text)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    rendered = template.render(metadata=data.to_yaml().strip(), **_context(given, model))
    card = ModelCard(re.sub(r"\n{3,}", "\n\n", rendered))
    parsed = [result.metric_value for result in card.data.get("eval_results") or []]
    if parsed != [result.metric_value for result in data.eval_results or []]:
        raise HublatentError(f"The head of the card of {given.name} does not parse: {parsed}.")
    return card.content


def _context(given: CardInput, model: LatentModel) -> dict[str, Any]:
    """The template's variables."""
    unmeasured = dict.fromkeys(("n_parameters", "preprocessing", "torch", "data", "test", "recipe"))
    return {
        "name": given.name,
        "description": _description(model),
        "config": given.config,
        "shape": " x ".join(map(str, model.latent_shape)),
        "space": model.space.upper(),
        "has_encoder": model.has_encoder,
        "results": {**unmeasured, "fingerprint": model.fingerprint(), **given.results},
        "licence": given.licence,
        "draws_faces": "faces" in given.tags,
        "samples_caption": given.samples_caption,
        "source": given.source or f"model_cards/{given.name}",
        "example": next(iter(_shown(given.directions)), None),
        "headline": list(_headline(given)),
        "everything": list(_everything(given)),
        "methods": given.directions.methods if given.directions else (),
        "baselines": list(given.baselines),
        "left_out": given.left_out,
        "balance": _balance(given.shares),
        "commands": given.commands,
        "version": __version__,
    }


def draw_samples(
    model: LatentModel, directions: DirectionSet | None = None, seed: int = 0
) -> tuple[Image.Image, str]:
    """Draw a model's own samples, and the same ones edited along its best known directions.

    Args:
        model: the model.
        directions: its directions; without them there are more samples instead.
        seed: of the samples.

    Returns:
        The picture, and a sentence that says what it shows.
    """
    draws = torch.Generator().manual_seed(seed)
    latents = model.sample_latents(SAMPLE_COLUMNS, generator=draws)
    rows = [("samples", latents)]
    for direction in _shown(directions):
        label = f"{direction.name} at +{SAMPLE_STRENGTH:g} standard deviations"
        rows.append((label, edit(latents, direction, SAMPLE_STRENGTH)))
    caption = "Samples, and the same ones edited along the directions that the rows name."
    if len(rows) == 1:
        more = [model.sample_latents(SAMPLE_COLUMNS, generator=draws) for _ in range(2)]
        rows += [("", latents) for latents in more]
        caption = "Samples."
    scale = max(1, SAMPLE_WIDTH // model.image_size)
    with torch.no_grad():
        pictures = [to_pil(model.decode(latents), scale) for _, latents in rows]
    return figures.grid(pictures, [label for label, _ in rows], [""] * SAMPLE_COLUMNS), caption


def check_number(name: str, value: Any) -> float:
    """A plain float for a card's head.

    Args:
        name: what is measured, for the message.
        value: a number of Python, NumPy or torch.

    Raises:
        HublatentError: it is no number, NaN or infinite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise HublatentError(
            f"{name} = {value!r} is not a number, so no card states it."
        ) from error
    if not math.isfinite(number):
        raise HublatentError(f"{name} = {number}; a card states finite numbers only.")
    return number


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
    ours = {direction.dataset for direction in given.directions}
    for name, baseline in given.baselines.items():
        if {direction.dataset for direction in baseline} != ours:
            raise HublatentError(
                f"The directions of the baseline {name} were found on other data than those of "
                f"{given.name}; find both on the same."
            )


def _description(model: LatentModel) -> str:
    documented = (type(model).__doc__ or type(model).__name__).strip().splitlines()[0]
    return DESCRIPTIONS.get(model.architecture, documented)


def _metadata(given: CardInput, model: LatentModel) -> ModelCardData:
    from huggingface_hub import ModelCardData

    papers = re.findall(r"arXiv:(\d{4}\.\d{4,5})", _description(model))
    more: dict[str, Any] = {}
    if given.samples_caption:
        output = {"url": SAMPLES_NAME}
        more["widget"] = [{"text": given.samples_caption, "output": output}]
    return ModelCardData(
        model_name=given.name,
        library_name="hublatent",
        license="other",
        license_name=given.licence.name,
        license_link=given.licence.link,
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
    for direction in _of_headline(given.directions):
        if "accuracy" in direction.scores:
            value = direction.scores["accuracy"].value
            split = "train and validation, balanced, 5 folds by identity"
            name = f"{direction.name} accuracy"
            results.append(_eval_result("Separability", split, "accuracy", name, value))
    return results


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


def _of_headline(directions: DirectionSet | None) -> list[Direction]:
    wanted = [d for name in HEADLINE_ATTRIBUTES for d in directions or () if d.attribute == name]
    return wanted or list(directions or ())[:3]


def _shown(directions: DirectionSet | None) -> list[Direction]:
    """One direction of each headline attribute: of the method that edits best, if it is there."""
    rank = {method: i for i, method in enumerate(EXAMPLE_METHODS)}
    best: dict[str, Direction] = {}
    for direction in _of_headline(directions):
        known = best.setdefault(direction.attribute, direction)
        if rank.get(direction.method, len(rank)) < rank.get(known.method, len(rank)):
            best[direction.attribute] = direction
    return list(best.values())


def _headline(given: CardInput) -> Iterable[list[str]]:
    """Rows of the headline attributes: each method's, then each baseline's."""
    shown = _of_headline(given.directions)
    for attribute in dict.fromkeys(direction.attribute for direction in shown):
        rows = [(f"`{d.method}`", d) for d in shown if d.attribute == attribute]
        rows += [
            (f"{name} `{BASELINE_METHOD}`", baseline[attribute, BASELINE_METHOD])
            for name, baseline in given.baselines.items()
            if (attribute, BASELINE_METHOD) in baseline
        ]
        for label, direction in rows:
            yield [_text(attribute), _text(label), *_score_cells(direction)]


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
            _text(attribute),
            "-" if share is None else f"{check_number(f'share of {attribute}', share):.1%}",
            "-" if counts[0] is None else f"{counts[0]:,}",
            *(_cell(ours, method) for method in directions.methods),
        ]


def _cell(directions: Mapping[str, Direction], method: str) -> str:
    if method not in directions:
        return "-"
    return _score_cells(directions[method])[0]


def _score_cells(direction: Direction) -> list[str]:
    return [_score(direction.name, name, direction.scores.get(name)) for name in SCORES]


def _score(direction: str, name: str, score: Score | None) -> str:
    if score is None:
        return "-"
    value, low, high = (
        check_number(f"{direction} {name}", x) for x in (score.value, score.low, score.high)
    )
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def _balance(shares: Mapping[str, float]) -> str:
    """Which share of the training images has the attributes that divide people into groups."""
    told = [name for name in ("Male", "Young", "Pale_Skin", "Eyeglasses", "Bald") if name in shares]
    return ", ".join(f"{shares[name]:.1%} {name}" for name in told)


def _number(value: Any, name: str) -> str:
    """A setting or measure as a table cell; numbers are checked."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return _text(value) if isinstance(value, str) else f"{check_number(name, value):.4g}"


def _text(value: Any) -> str:
    """Text that keeps within its table cell."""
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")
