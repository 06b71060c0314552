"""What every card is made of: licences, checked numbers, table cells, the template's filling."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.errors import HublatentError
from hublatent.stats import Estimate

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

TEMPLATES = Path(__file__).parent / "templates"
HEADLINE_ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
EXAMPLE_METHODS = ("joint", "pattern", "svm")
# What each architecture is, in a card's words.
DESCRIPTIONS = {
    "vae": "Variational auto-encoder (Kingma & Welling 2013, arXiv:1312.6114).",
    "betavae": "β-VAE (Higgins et al. 2017): a variational auto-encoder whose KL divergence is "
    "weighted by β, so that its latents are disentangled.",
    "btcvae": "β-TCVAE (Chen et al. 2018, arXiv:1802.04942): a variational auto-encoder of whose "
    "KL divergence only the total correlation is weighted by β.",
    "eigenfaces": "Eigenfaces (Turk & Pentland 1991): principal components of the pixels, the "
    "linear baseline that learned latent spaces are compared with.",
    "progan": "ProGAN (Karras et al. 2018, arXiv:1710.10196): a generator that reads only the "
    "direction of its latents; they lie on a sphere, on which an edit turns them.",
    "stylegan": "StyleGAN (Karras et al. 2019, arXiv:1812.04948): a generator whose latents are "
    "one style code per layer (W+).",
    "stylegan2": "StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): a generator whose latents are "
    "one style code per layer (W+).",
    "stylegan3": "StyleGAN3 (Karras et al. 2021, arXiv:2106.12423): an alias-free generator whose "
    "latents are one style code per layer (W+), of which the first turns and shifts the image.",
}
SCORES = ("accuracy", "precision", "recall", "f1", "auroc")


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


UNKNOWN_LICENCE = Licence(
    "not-stated", "", "Whoever published these weights has not said what they may be used for."
)


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


def describe(architecture: str, documented: str | None = None) -> str:
    """What an architecture is, in a card's words; else the first line of its docstring."""
    first = (documented or architecture).strip().splitlines()[0]
    return DESCRIPTIONS.get(architecture, first)


def of_headline(directions: DirectionSet | None) -> list[Direction]:
    """The directions of the headline attributes; the first three where there are none."""
    wanted = [d for name in HEADLINE_ATTRIBUTES for d in directions or () if d.attribute == name]
    return wanted or list(directions or ())[:3]


def best_of_each(directions: Iterable[Direction]) -> list[Direction]:
    """One direction of each attribute: of the method that edits best, if it is there."""
    rank = {method: i for i, method in enumerate(EXAMPLE_METHODS)}
    best: dict[str, Direction] = {}
    for direction in directions:
        known = best.setdefault(direction.attribute, direction)
        if rank.get(direction.method, len(rank)) < rank.get(known.method, len(rank)):
            best[direction.attribute] = direction
    return list(best.values())


def score_cells(direction: Direction) -> list[str]:
    """A direction's scores with their intervals, in the order of SCORES."""
    return [_score(direction.name, name, direction.scores.get(name)) for name in SCORES]


def _score(direction: str, name: str, score: Estimate | None) -> str:
    return "-" if score is None else interval_cell(f"{direction} {name}", score)


def interval_cell(name: str, score: Estimate) -> str:
    """A figure with its interval; numbers are checked."""
    value, low, high = (check_number(name, x) for x in (score.value, score.low, score.high))
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def number_cell(value: Any, name: str) -> str:
    """A setting or measure as a table cell; numbers are checked."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return text_cell(value) if isinstance(value, str) else f"{check_number(name, value):.4g}"


def text_cell(value: Any) -> str:
    """Text that keeps within its table cell, and is text there."""
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").replace("<", "&lt;")


def fill_template(path: Path, data: ModelCardData, context: Mapping[str, Any]) -> str:
    """Render a card's template, and parse its head again.

    Args:
        path: the template.
        data: the head.
        context: the template's variables.

    Returns:
        The card, its head included.

    Raises:
        HublatentError: the head does not parse to what it was.
    """
    from huggingface_hub import ModelCard
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number_cell, cell=text_cell)
    template = environment.from_string(path.read_text(encoding="utf-8"))
    rendered = template.render(metadata=data.to_yaml().strip(), **context)
    card = ModelCard(re.sub(r"\n{3,}", "\n\n", rendered))
    parsed, given = (_figures(d.get("eval_results") or []) for d in (card.data, data))
    if parsed != given:
        raise HublatentError(f"The head of the card {path.name} does not parse: {parsed}.")
    return card.content


def _figures(results: Iterable[EvalResult]) -> list[tuple[str, str, float]]:
    """What results state, in an order of its own: a head gathers those of each data set."""
    return sorted((str(r.dataset_split), str(r.metric_name), r.metric_value) for r in results)
