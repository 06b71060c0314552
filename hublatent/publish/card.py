"""One card input and one renderer: for models, directions alone, classifiers, converted models.

Every number of a card comes from a file that a command wrote; one that is not finite is refused,
and a name from a stranger's file is text, whatever it holds.
"""

from __future__ import annotations

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
from hublatent.publish.card_tables import (
    attribute_table,
    best_of_each,
    classifier_rows,
    direction_row,
    measured_section,
    of_headline,
    score_rows,
)
from hublatent.publish.cells import check_number, code, number_cell, table, text
from hublatent.publish.licences import Licence, face_data, licence_of

RECIPE_KEY = "hublatent_recipe"
TASK = "unconditional-image-generation"
CLASSIFIER_TASK = "image-classification"
UNMEASURED = dict.fromkeys(
    ("n_parameters", "preprocessing", "torch", "data", "test", "recipe", "validation")
)


@dataclass(frozen=True)
class CardInput:
    """What a card is rendered from; what is absent is left out of it.

    Attributes:
        repo: the Hub id, folder or name of what is published; the example loads it.
        model: the model, latent or classifier; None where directions are published alone.
        directions: the directions.
        results: what its results.json holds.
        dataset: name of the data it was trained on, such as "celeba"; None where unknown.
        about: a sentence or two for the top of the card.
        licence: the terms; None lets the data decide.
        shares: attribute -> share of the training images that have it.
        left_out: why attributes have no direction.
        baselines: name -> directions of another model, found on the same data and seed.
        commands: what to type to make it again.
        base_model: the Hub id of the model that directions alone belong to.
        base_commit: the commit of that model that the picture was drawn with.
        samples_caption: what samples.png shows; None without such a picture.
        discriminator: whether the one that the generator was trained against lies beside it.
    """

    repo: str
    model: HubModel | None = None
    directions: DirectionSet | None = None
    results: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    about: str = ""
    licence: Licence | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    baselines: Mapping[str, DirectionSet] = field(default_factory=dict)
    commands: Sequence[str] = ()
    base_model: str | None = None
    base_commit: str | None = None
    samples_caption: str | None = None
    discriminator: bool = False

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
        if self.model is not None:
            return self.model.architecture
        return UNKNOWN if self.directions is None else self.directions.architecture

    @property
    def datasets(self) -> list[str]:
        """Names of all data that it was made from."""
        origins = [d.origin for d in self.directions or () if d.origin is not None]
        names = [self.dataset] * (self.dataset is not None) + [o.dataset for o in origins]
        return list(dict.fromkeys(name for name in names if name is not None))

    @property
    def terms(self) -> Licence:
        """The licence: as given, else as the data set asks."""
        stated = None if self.directions is None else self.directions.licence
        return self.licence or licence_of(self.datasets, stated)


def render_card(given: CardInput) -> str:
    """Render a README.md.

    Args:
        given: what the card says.

    Returns:
        The card, its head included.

    Raises:
        HublatentError: a number is not finite, an id is none, results or directions are of other
            weights, or a baseline is of other data.
    """
    _check(given)
    data = _metadata(given)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False,
        finalize=lambda value: text(value) if isinstance(value, str) else value,
    )  # fmt: skip
    environment.filters.update(number=number_cell, code=code, verbatim=Markup)
    rendered = environment.get_template("card.md.jinja").render(
        metadata=Markup(data.to_yaml().strip()), **_context(given)
    )
    card = ModelCard(re.sub(r"\n{3,}", "\n\n", rendered))
    parsed, wanted = (_figures(d.get("eval_results") or []) for d in (card.data, data))
    if parsed != wanted:
        raise HublatentError(f"The head of the card of {given.name} does not parse: {parsed}.")
    return card.content


def _figures(results: Iterable[EvalResult]) -> list[tuple[str, str, float]]:
    """What results state, in an order of its own: a head gathers those of each data set."""
    return sorted((str(r.dataset_split), str(r.metric_name), r.metric_value) for r in results)


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
    model, directions = given.model, given.directions
    latent = model if isinstance(model, LatentModel) else None
    fingerprint = latent.fingerprint() if latent else directions.fingerprint if directions else None
    origins = [d.origin for d in directions or () if d.origin]
    return {
        "given": given,
        "model": model,
        "directions": directions,
        "results": {**UNMEASURED, **given.results},
        "fingerprint": fingerprint,
        "description": describe(given.architecture),
        "shape": " x ".join(map(str, _latent_shape(given))),
        "example": next(iter(best_of_each(of_headline(directions))), None),
        "faces": any(map(face_data, given.datasets)),
        "of_samples": any(origin.kind == "sampled" for origin in origins),
        "origins": list(_origins(directions)),
        "score_table": table(
            ("attribute", "direction", "accuracy", "precision", "recall", "F1", "AUROC"),
            score_rows(given),
        ),
        "attribute_table": attribute_table(given),
        "direction_table": table(
            ("direction", "sigma", "layers", "examples", "found in", "held"),
            map(direction_row, directions or ()),
        ),
        "measured_section": Markup(measured_section(directions)),
        "n_unscored": sum(not direction.scores for direction in directions or ()),
        "classifier_table": table(
            ("attribute", "positives", "AUROC", "calibration error"), classifier_rows(given)
        ),
        "balance": _balance(given.shares),
        "version": __version__,
        "unknown": UNKNOWN,
    }


def describe(architecture: str) -> str:
    """What an architecture is: the first line of its class's docstring."""
    model_class = {**ARCHITECTURES, "attribute-classifier": AttributeClassifier}.get(architecture)
    return architecture if model_class is None else (model_class.__doc__ or "").splitlines()[0]


def _latent_shape(given: CardInput) -> tuple[int, ...]:
    if isinstance(given.model, LatentModel):
        return given.model.latent_shape
    return tuple(next(iter(given.directions)).vector.shape) if given.directions else ()


def _metadata(given: CardInput) -> ModelCardData:
    licence, more = given.terms, dict[str, Any]()
    if licence.hub_id == "other":
        more |= {"license_name": licence.name, "license_link": licence.link or None}
    if given.base_model is not None:
        more |= {"base_model": given.base_model, "base_model_relation": "adapter"}
    if given.samples_caption:
        output = {"url": SAMPLES_NAME}
        more["widget"] = [{"text": given.samples_caption, "output": output}]
    if given.results.get("recipe"):  # for programs, such as an evaluation that groups by beta
        more[RECIPE_KEY] = dict(given.results["recipe"])
    if given.kind != "directions":
        more["pipeline_tag"] = CLASSIFIER_TASK if given.kind == "classifier" else TASK
    papers = re.findall(r"arXiv:(\d{4}\.\d{4,5})", describe(given.architecture))
    tags = ["hublatent", *["latent-space"] * (given.kind != "classifier"), given.architecture]
    tags += ["latent-directions"] * (given.directions is not None)
    tags += ["faces"] * any(map(face_data, given.datasets)) + [f"arxiv:{p}" for p in papers]
    return ModelCardData(
        model_name=given.name,
        library_name="hublatent",
        license=licence.hub_id,
        datasets=[name for name in given.datasets if "/" in name] or None,
        tags=[tag for tag in tags if tag != UNKNOWN],
        eval_results=list(_eval_results(given)) or None,
        **more,
    )


def _eval_results(given: CardInput) -> Iterator[EvalResult]:
    """For the head: the reconstruction error, and how well attributes are read."""
    test, dataset = given.results.get("test") or {}, (given.datasets or ["unknown"])[0]
    if "mse" in test:
        yield _eval_result("Reconstruction", dataset, "test", "MSE, pixels in [0, 1]", test["mse"])
    if given.kind == "classifier" and test.get("mean", {}).get("auroc"):
        value = test["mean"]["auroc"]["value"]
        yield _eval_result("Attributes", dataset, "test", "mean AUROC", value)
    directions = given.directions
    for direction in of_headline(directions):
        if directions is not None and "accuracy" in direction.scores:
            value = direction.scores["accuracy"].value
            name = f"{direction.attribute}.{directions.method_of(direction)}"
            data = "unknown" if direction.origin is None else direction.origin.dataset
            split = f"{_examples(direction)}, balanced, 5 folds by identity"
            yield _eval_result("Separability", data, split, "accuracy", value, name)


def _eval_result(
    task: str, dataset: str, split: str, measure: str, value: Any, of: str = ""
) -> EvalResult:
    """One figure for a card's head; the number is checked.

    Args:
        task: what is measured, such as "Reconstruction".
        dataset: the data set's name.
        split: the part of the data.
        measure: its name, such as "MSE, pixels in [0, 1]"; its type is what stands before a comma.
        value: the figure.
        of: the attribute or direction that it is of.
    """
    known, name = face_data(dataset), f"{of} {measure}".strip()
    return EvalResult(
        task_type=CLASSIFIER_TASK if task == "Attributes" else TASK,
        task_name=task,
        dataset_type=known.name if known else dataset.lower(),
        dataset_name=known.title if known else dataset,
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


def _origins(directions: DirectionSet | None) -> Iterator[tuple[str, str]]:
    """Which methods' directions were found in what, where some were not found in images."""
    methods: dict[str, dict[str, None]] = {}
    if directions is None:
        return
    for direction in directions:
        found = methods.setdefault(str(direction.origin or "unknown data"), {})
        found[directions.method_of(direction)] = None
    if any(d.origin and d.origin.kind != "encoded" for d in directions):
        yield from ((", ".join(names), origin) for origin, names in methods.items())


def _balance(shares: Mapping[str, float]) -> str:
    """Which share of the training images has the attributes that divide people into groups."""
    told = [name for name in ("Male", "Young", "Pale_Skin", "Eyeglasses", "Bald") if name in shares]
    return ", ".join(f"{shares[name]:.1%} {name}" for name in told)


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
