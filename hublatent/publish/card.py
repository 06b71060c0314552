"""One card input and one renderer: for models, directions alone, classifiers, converted models.

Every number of a card comes from a file that a command wrote; one that is not finite is refused,
and a name from a stranger's file is text, whatever it holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hublatent import __version__
from hublatent.direction import Direction
from hublatent.direction_set import UNKNOWN, DirectionSet
from hublatent.errors import HubError, HublatentError
from hublatent.hub import SAMPLES_NAME, HubModel
from hublatent.hub.client import check_repo_id
from hublatent.model import LatentModel
from hublatent.models import ARCHITECTURES
from hublatent.perception.classifier import AttributeClassifier
from hublatent.publish import card_tables as tables
from hublatent.publish.cells import (
    check_number,
    code,
    interval_cell,
    number_cell,
    percent_cell,
    text,
)  # fmt: skip
from hublatent.publish.licences import Licence, face_licence, licence_of

TEMPLATES = Path(__file__).parent / "templates"
RECIPE_KEY = "hublatent_recipe"
TASK = "unconditional-image-generation"
CLASSIFIER_TASK = "image-classification"
UNMEASURED = dict.fromkeys(
    ("n_parameters", "preprocessing", "torch", "data", "test", "recipe", "validation", "encoder")
)
GROUPS = ("Male", "Young", "Pale_Skin", "Eyeglasses", "Bald")  # attributes that part people


@dataclass(frozen=True)
class CardInput:
    """What a card is rendered from; what is absent is left out of it."""

    repo: str  # the Hub id, folder or name of what is published; the example loads it
    model: HubModel | None = None  # latent or classifier; None for directions published alone
    directions: DirectionSet | None = None
    results: Mapping[str, Any] = field(default_factory=dict)  # what its results.json holds
    dataset: str | None = None  # name of the data it was trained on, such as "celeba"
    about: str = ""  # a sentence or two for the top of the card
    licence: Licence | None = None  # None lets the data decide
    # Attribute -> share of the training images that have it.
    shares: Mapping[str, float] = field(default_factory=dict)
    left_out: Sequence[str] = ()  # why attributes have no direction
    # Name -> directions of another model, found on the same data and seed.
    baselines: Mapping[str, DirectionSet] = field(default_factory=dict)
    commands: Sequence[str] = ()  # what to type to make it again
    base_model: str | None = None  # the Hub id of the model that directions alone belong to
    base_commit: str | None = None  # the commit of that model that drew the picture
    samples_caption: str | None = None  # what samples.png shows; None without such a picture
    discriminator: bool = False  # whether the one that the generator was trained against is there

    @property
    def name(self) -> str:
        """The last part of the repository's name."""
        return self.repo.rpartition("/")[2]

    @property
    def kind(self) -> str:
        """What is published: "model", "classifier" or "directions"; each has a template."""
        if self.model is None:
            return "directions"
        return "classifier" if isinstance(self.model, AttributeClassifier) else "model"

    @property
    def architecture(self) -> str:
        """Of the model, or of the one that the directions belong to."""
        owner = self.directions if self.model is None else self.model
        return UNKNOWN if owner is None else owner.architecture

    @property
    def description(self) -> str:
        """What the architecture is: the first line of its class's docstring."""
        classes = {**ARCHITECTURES, AttributeClassifier.architecture: AttributeClassifier}
        found = classes.get(self.architecture)
        return self.architecture if found is None else (found.__doc__ or "").splitlines()[0]

    @property
    def datasets(self) -> list[str]:
        """Names of all data that it was made from."""
        origins = [d.origin.dataset for d in self.directions or () if d.origin is not None]
        return [name for name in dict.fromkeys([self.dataset, *origins]) if name is not None]

    @property
    def of_faces(self) -> bool:
        """Whether some of them are known data of faces."""
        return any(map(face_licence, self.datasets))

    @property
    def terms(self) -> Licence:
        """The licence: as given, else as the data set asks."""
        stated = None if self.directions is None else self.directions.licence
        return self.licence or licence_of(self.datasets, stated)


def render_card(given: CardInput) -> str:
    """Render a README.md, its head included.

    Raises:
        HublatentError: a number is not finite, an id is none, results or directions are of other
            weights, or a baseline is of other data.
    """
    _check(given)
    return fill_card("card", _head_of(given), **_context(given))


def fill_card(template: str, head: ModelCardData, **context: Any) -> str:
    """Fill a card's template, below its head."""
    return fill(TEMPLATES / f"{template}.md.jinja", metadata=Markup(head.to_yaml()), **context)


def fill(template: Path, **context: Any) -> str:
    """Fill a template; a text from the context is no markup there."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False,
        finalize=lambda value: value if isinstance(value, (int, float)) else text(value),
    )  # fmt: skip
    environment.filters.update(
        number=number_cell,
        percent=percent_cell,
        code=code,
        verbatim=Markup,
        interval=lambda score, name: interval_cell(name, score),
    )
    filled = environment.get_template(template.name).render(version=__version__, **context)
    return re.sub(r"\n{3,}", "\n\n", filled).rstrip() + "\n"


def card_head(name: str, licence: Licence, tags: Iterable[str], **more: Any) -> ModelCardData:
    """A card's head; a licence that the Hub does not know stands there with its name and link."""
    if licence.hub_id == "other":
        more |= {"license_name": licence.name, "license_link": licence.link or None}
    return ModelCardData(
        model_name=name, library_name="hublatent", license=licence.hub_id,
        tags=["hublatent", *tags], **more,
    )  # fmt: skip


def _check(given: CardInput) -> None:
    if given.base_model is not None:
        check_repo_id(given.base_model)
    if not isinstance(given.model, LatentModel):
        return
    measured = given.results.get("fingerprint")
    if measured is not None and not given.model.matches(str(measured)):
        raise HublatentError(
            f"The results of {given.name} were measured on weights {str(measured)[:12]}; these "
            f"are {given.model.fingerprint()[:12]}. Measure the weights that are published."
        )
    if given.directions is None:
        return
    given.directions.check_fits(given.model)
    ours = {direction.origin for direction in given.directions}
    for name, baseline in given.baselines.items():
        if {direction.origin for direction in baseline} != ours:
            raise HublatentError(
                f"The directions of the baseline {name} were found on other data than those of "
                f"{given.name}; find both on the same."
            )


def _context(given: CardInput) -> dict[str, Any]:
    """The templates' variables."""
    directions, shape, fingerprint = given.directions, "", None
    if isinstance(given.model, LatentModel):
        shape, fingerprint = by(given.model.latent_shape), given.model.fingerprint()
    elif directions:
        shape, fingerprint = by(next(iter(directions)).vector.shape), directions.fingerprint
    shown = tables.of_headline(directions) if given.kind == "model" else directions or ()
    order = {name: i for i, name in enumerate(tables.HEADLINE_ATTRIBUTES)}
    attributes = () if directions is None else directions.attributes
    return {
        "given": given,
        "model": given.model,
        "directions": directions,
        "results": {**UNMEASURED, **given.results},
        "fingerprint": fingerprint,
        "shape": shape,
        "example": next(iter(tables.best_of_each(tables.of_headline(directions))), None),
        "of_samples": any(d.origin and d.origin.kind == "sampled" for d in directions or ()),
        "origins": _origins(directions),
        "scored": [direction for direction in shown if direction.scores],
        "attributes": sorted(attributes, key=lambda name: order.get(name, len(order))),
        "measured_section": Markup(tables.measured_section(directions)),
        "n_unscored": sum(not direction.scores for direction in directions or ()),
        "balance": ", ".join(f"{given.shares[n]:.1%} {n}" for n in GROUPS if n in given.shares),
        "unknown": UNKNOWN,
    }


def by(shape: Iterable[int]) -> str:
    """A shape, as a card writes it."""
    return " x ".join(map(str, shape))


def _origins(directions: DirectionSet | None) -> list[tuple[str, str]]:
    """Which methods' directions were found in what, where some were not found in images."""
    methods: dict[str, dict[str, None]] = {}
    for direction in directions or ():
        found = methods.setdefault(str(direction.origin or "unknown data"), {})
        found[directions.method_of(direction)] = None  # type: ignore[union-attr]
    if all(d.origin is None or d.origin.kind == "encoded" for d in directions or ()):
        return []
    return [(", ".join(names), origin) for origin, names in methods.items()]


def _head_of(given: CardInput) -> ModelCardData:
    more: dict[str, Any] = {}
    if given.base_model is not None:
        more = {"base_model": given.base_model, "base_model_relation": "adapter"}
    if given.samples_caption:
        more["widget"] = [{"text": given.samples_caption, "output": {"url": SAMPLES_NAME}}]
    if given.results.get("recipe"):  # for programs, such as an evaluation that groups by beta
        more[RECIPE_KEY] = dict(given.results["recipe"])
    if given.kind != "directions":
        more["pipeline_tag"] = CLASSIFIER_TASK if given.kind == "classifier" else TASK
    tags = ["latent-space"] * (given.kind != "classifier")
    tags += [given.architecture] * (given.architecture != UNKNOWN)
    tags += ["latent-directions"] * (given.directions is not None) + ["faces"] * given.of_faces
    papers = re.findall(r"arXiv:(\d{4}\.\d{4,5})", given.description)
    return card_head(
        given.name,
        given.terms,
        [*tags, *(f"arxiv:{paper}" for paper in papers)],
        datasets=[name for name in given.datasets if "/" in name] or None,
        eval_results=list(_eval_results(given)) or None,
        **more,
    )


def _eval_results(given: CardInput) -> Iterator[EvalResult]:
    """For the head: the reconstruction error, and how well attributes are read."""
    encoder = given.results.get("encoder") or {}
    test = given.results.get("test") or encoder.get("test") or {}
    dataset = (given.datasets or ["unknown"])[0]
    if "mse" in test:
        yield _eval_result("Reconstruction", dataset, "test", "MSE, pixels in [0, 1]", test["mse"])
    if given.kind == "classifier" and test.get("mean", {}).get("auroc"):
        value = test["mean"]["auroc"]["value"]
        yield _eval_result("Attributes", dataset, "test", "mean AUROC", value)
    for direction in tables.of_headline(given.directions):
        if given.directions is not None and "accuracy" in direction.scores:
            value = direction.scores["accuracy"].value
            name = f"{direction.attribute}.{given.directions.method_of(direction)}"
            data = "unknown" if direction.origin is None else direction.origin.dataset
            split = f"{_examples(direction)}, balanced, 5 folds by identity"
            yield _eval_result("Separability", data, split, "accuracy", value, name)


def _eval_result(
    task: str, dataset: str, split: str, measure: str, value: Any, of: str = ""
) -> EvalResult:
    """A figure for the head; a measure's type is what stands before a comma of its name."""
    faces, name = face_licence(dataset), f"{of} {measure}".strip()
    title = faces.faces if faces else dataset
    return EvalResult(
        task_type=CLASSIFIER_TASK if task == "Attributes" else TASK,
        task_name=task,
        dataset_type=title.lower(),
        dataset_name=title,
        dataset_split=split,
        metric_type=re.sub(r"[^a-z0-9]+", "_", measure.partition(",")[0].lower()).strip("_"),
        metric_name=name,
        metric_value=check_number(name, value),
    )


def _examples(direction: Direction) -> str:
    """What a direction was found and scored on."""
    origin = direction.origin
    if origin is None or origin.kind == "encoded":
        return "train and validation"
    return str(origin) if origin.kind == "sampled" else f"{origin}, train and validation"


def read_card(path: Path) -> ModelCard:
    """Read a card as the Hub does.

    Raises:
        HubError: there is none, or it does not parse.
    """
    if not path.is_file():
        raise HubError(f"{path.parent} holds no {path.name}; a published model needs a card.")
    try:
        return ModelCard(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        first_line = f"{error}".splitlines()[0]
        raise HubError(f"{path} does not parse as a model card: {first_line}.") from error


def check_card(path: Path) -> None:
    """Refuse a model card that the Hub would not understand, or that names no licence."""
    data: Any = read_card(path).data
    if not data.get("license"):
        raise HubError(f"{path} names no license; add the line 'license: ...' to its head.")
    for result in data.eval_results or []:
        value = result.metric_value
        if type(value) not in (int, float) or not math.isfinite(value):
            raise HubError(
                f"{path}: the model-index gives {result.metric_type} = {value!r}; expected a "
                "finite number."
            )
