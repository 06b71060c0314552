"""What takes part: each folder's model, what it was trained with, and its latents of the faces."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hublatent.checkpoint import folder_name, init_parameters
from hublatent.data import DataSource, FaceDataset
from hublatent.direction import Direction, Origin
from hublatent.direction_set import DirectionSet
from hublatent.discovery import LabelledLatents, discover
from hublatent.discovery.labelled import Latents, encode_images, labelled
from hublatent.discovery.methods.stylespace import in_styles
from hublatent.errors import DataError, HublatentError
from hublatent.evaluation.rate import rate_and_distortion
from hublatent.hub import CARD_NAME, DIRECTIONS_NAME
from hublatent.model import LatentModel
from hublatent.models import load, why_no_latent_model
from hublatent.models.style_space import StyleSpace
from hublatent.perception.classifier import AttributeClassifier
from hublatent.publish.card import RECIPE_KEY, read_card
from hublatent.stats import Ints

BATCH = 64
UNTRAINED = "random weights"
IN_W = " in W"  # what names of models with layers end in where all layers have one code
RESULTS_NAME, MODEL_FOLDER = "results.json", "model"
# Of a run's results.json, what stands beside the scores: rate, distortion and what the rate is.
FACTS = ("kl", "mse", "mutual_information", "total_correlation", "active_dimensions")


class OneLatent(LatentModel):
    """A view of a model with layers: a latent (D,) of W for all of them, not (L, D) of W+.

    An image's is the mean over its layers: of all latents of W the nearest to its own in W+.
    """

    space = "w"

    def __init__(self, model: LatentModel) -> None:
        super().__init__(model.image_size, model.channels, model.latent_shape[1:])
        self.architecture = model.architecture  # type: ignore[misc]
        self.model = model
        self.latent_mean, self.latent_covariance = model.latent_mean, model.latent_covariance

    def encode(self, images: Tensor) -> Tensor:
        return self.model.encode(images).mean(dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents[:, None].expand(-1, *self.model.latent_shape))

    def fingerprint(self) -> str:
        return self.model.fingerprint()


@dataclass(frozen=True, eq=False)
class Subject:
    """One checkpoint, the faces it is measured on, and what is known of its training."""

    name: str  # of the recipe; trainings that differ in their seed alone share it
    training: str  # of the checkpoint
    model: LatentModel  # on the device that it is measured on
    dataset: FaceDataset  # labelled images of its size
    folder: Path
    recipe: Mapping[str, Any] = field(default_factory=dict)  # {} where it is unknown
    facts: Mapping[str, float] = field(default_factory=dict)  # FACTS of its run, as far as known
    baseline: bool = False  # only read, to say what its network gives before any training
    classifier: AttributeClassifier | None = None  # for the method "assessor"; not a judge

    @property
    def key(self) -> list[str]:
        """What every measurement of it depends on."""
        return [self.model.fingerprint(), self.dataset.digest]

    @property
    def has_w(self) -> bool:
        """Whether it is measured once more with one latent for all of its layers."""
        return len(self.model.latent_shape) > 1 and self.model.has_encoder

    def in_w(self) -> Subject:
        """The same, of a model whose latents have layers, with one latent for all layers."""
        names = self.name + IN_W, self.training + IN_W
        return replace(self, name=names[0], training=names[1], model=OneLatent(self.model))

    def encode(self, indices: Ints) -> Latents:
        """Latents of some images: (n, *latent_shape)."""
        parts = [np.zeros((0, *self.model.latent_shape), np.float32)]
        for start in range(0, len(indices), BATCH):
            parts.append(encode_images(self.model, self.dataset.batch(indices[start:][:BATCH])))
        return np.concatenate(parts)

    def names(self, indices: Ints) -> list[str]:
        """PERSON/PICTURE of some images."""
        return [f"{self.dataset.identities[i]}/{self.dataset.names[i]}" for i in indices]

    def labelled(self, indices: Ints) -> LabelledLatents:
        """Latents of some images beside their labels."""
        origin = Origin("encoded", self.dataset.name, self.dataset.digest, len(indices))
        return labelled(self.dataset, indices, self.encode(indices), origin)

    @property
    def learnt(self) -> Ints:
        """The images that directions are found on: training and validation."""
        return self.dataset.indices("train", "validation")

    @cached_property
    def known(self) -> LabelledLatents:
        """Latents of what directions are found on."""
        return self.labelled(self.learnt)

    @cached_property
    def styles(self) -> tuple[StyleSpace, LabelledLatents]:
        """A StyleGAN2 as a model of styles, and `known` in it."""
        return in_styles(self.model, self.known)

    @cached_property
    def stored(self) -> DirectionSet | None:
        """The direction file beside the model, if there is one."""
        path = self.folder / DIRECTIONS_NAME
        return DirectionSet.load(path, self.model) if path.is_file() else None

    def directions(
        self, attribute: str, methods: Sequence[str], seed: int,
        say: Callable[[str], object] = print,
    ) -> list[Direction]:  # fmt: skip
        """Directions found on the same images for all models; without an encoder, stored ones.

        A method that this model lacks, as all but LSA-VAE lack "axis", is left out; `say` is told
        which, and why.

        Raises:
            DataError: none of them gives a direction.
        """
        found = []
        for method in methods:
            try:
                found.append(self._direction(attribute, method, seed))
            except HublatentError as error:
                say(f"{self.training}, {attribute}: {method} is left out. {error}")
        if not found:
            raise DataError(f"{self.training} has nothing to edit {attribute} along.")
        return found

    def _direction(self, attribute: str, method: str, seed: int) -> Direction:
        if not self.model.has_encoder:
            if self.stored is None:
                raise DataError(f"{self.folder} has no encoder and no {DIRECTIONS_NAME}.")
            return self.stored[attribute, method].with_sigma(self.model)
        model, data = self.styles if method == "stylespace" else (self.model, self.known)
        return discover(data, attribute, method, model=model, classifier=self.classifier, seed=seed)

    def space_of(self, direction: Direction, latents: Tensor) -> tuple[LatentModel, Tensor]:
        """The model whose latents a direction moves, and the given ones (B, *latent_shape) there.

        That is this one, or a StyleGAN2's styles.
        """
        if tuple(direction.vector.shape) == self.model.latent_shape:
            return self.model, latents
        space = self.styles[0]
        with torch.no_grad():
            return space, space.to_styles(latents)

    def about(self) -> dict[str, Any]:
        """What claims group models by."""
        told = ("objective", "likelihood", "beta", "gamma", "w_noise", "seed")
        return {
            "model": self.name,
            "training": self.training,
            "architecture": self.model.architecture,
            "space": self.model.space,
            "latent": " x ".join(map(str, self.model.latent_shape)),
            "layers": len(self.model.latent_shape) > 1,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            **{name: self.recipe.get(name) for name in told},
            "baseline": self.baseline,
        }

    def measured_facts(self) -> dict[str, float]:
        """FACTS as far as the model has them, of test images; what its run told stands."""
        indices = self.dataset.indices("test")
        if not self.model.has_encoder or not len(indices):
            return dict(self.facts)
        found = rate_and_distortion(self.model, self.dataset, indices)
        names = FACTS if "kl" in found else ("mse",)
        return {**{name: found[name] for name in names}, **self.facts}


def gather(
    folders: Sequence[Path], data: DataSource, device: str = "cpu",
    done: Callable[[], object] = lambda: None,
) -> list[Subject]:  # fmt: skip
    """Load every model of some folders; folders that hold other things are passed over.

    `done` is told of each folder.

    Raises:
        DataError: none of them holds a model, or two trainings have one name.
    """
    load_data = cache(data.load)
    found: list[Subject] = []
    for place in folders:
        done()
        inner = place / MODEL_FOLDER
        folder = inner if inner.is_dir() and why_no_latent_model(place) else place
        if why_no_latent_model(folder):
            continue
        model = load(folder).to(device).eval()
        if model.channels != 3:
            raise DataError(f"{folder} draws {model.channels} channels; faces are compared in 3.")
        name = folder_name(folder)
        dataset = load_data(model.image_size)
        found.append(Subject(name, name, model, dataset, folder, *run_of(folder)))
    if not found:
        given = ", ".join(map(str, folders[:4])) or "none"
        raise DataError(f"None of the folders holds a latent model; given: {given}.")
    check_distinct([subject.training for subject in found])
    return _named_by_recipe(found)


def check_distinct(names: Sequence[str]) -> None:
    """Refuse two models of one name, with DataError: one's numbers would stand for the other's."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"Two folders are called {twice[0]}; each training needs its own name.")


def untrained(subjects: Sequence[Subject], seed: int) -> list[Subject]:
    """A baseline: the first trained network, with its weights as drawn at random."""
    trained = [s for s in subjects if s.recipe.get("objective") and s.model.has_encoder]
    if not trained:
        return []
    first = trained[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        names = init_parameters(type(first.model))
        model: LatentModel = type(first.model)(**{n: first.model.config[n] for n in names})
    model = model.to(first.model.latent_mean.device).eval()
    where = first.dataset, first.folder
    return [Subject(UNTRAINED, UNTRAINED, model, *where, baseline=True)]


def run_of(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """A model's recipe and facts, from its run's results.json or else from its card."""
    for place in (folder, folder.parent):
        path = place / RESULTS_NAME
        if path.is_file() and (place == folder or folder_name(folder) == place.name):
            try:
                results = json.loads(path.read_text(encoding="utf-8"))
                test = results.get("test") or {}
                recipe = dict(results.get("recipe") or {})
            except (ValueError, AttributeError, TypeError) as error:
                raise DataError(f"{path} is not the results of a training: {error}.") from error
            return recipe, {k: float(test[k]) for k in FACTS if test.get(k) is not None}
    path = folder / CARD_NAME
    return (dict(read_card(path).data.get(RECIPE_KEY) or {}) if path.is_file() else {}), {}


def _named_by_recipe(subjects: Sequence[Subject]) -> list[Subject]:
    """Give trainings that differ in their seed alone one name: what their own begin with."""

    def key(subject: Subject) -> str:
        recipe = {k: v for k, v in subject.recipe.items() if k != "seed"}
        config = subject.model.config if recipe else subject.training
        return json.dumps([recipe, config], sort_keys=True, default=str)

    groups: dict[str, list[str]] = {}
    for subject in subjects:
        groups.setdefault(key(subject), []).append(subject.training)
    names = {}
    for group, trainings in groups.items():
        common = commonprefix(trainings).rstrip("-_. ") if trainings[1:] else ""  # noqa: RUF071
        names[group] = common or trainings[0]
    return [replace(subject, name=names[key(subject)]) for subject in subjects]
