"""Folders in, models to be measured out, each with its pictures and directions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hublatent.checkpoint import folder_name
from hublatent.comparison.latents import Projected, Subject
from hublatent.comparison.parts import PARTS_VERSION
from hublatent.comparison.results import Problem
from hublatent.data import FaceDataset, load_dataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery import balanced_set, discover_all
from hublatent.discovery.methods import FROM_LABELS, PROJECTED_SUFFIX
from hublatent.errors import DataError, HublatentError
from hublatent.hub import CARD_NAME, DIRECTIONS_NAME
from hublatent.inversion.latents_file import ProjectedImages, read_projected
from hublatent.model import LatentModel
from hublatent.models import load, why_no_latent_model
from hublatent.publish.card import RECIPE_KEY
from hublatent.publish.results import read_card

FROM_FILE, FOUND_HERE = "file", "here"
CHANNELS = 3  # of the data's pictures
# Settings of a projection that say which pictures, not how.
CHOICE_OF_PICTURES = {"attribute", "n", "partition", "batch_size", "seed"}


class Datasets:
    """The same labelled pictures in every size that is asked for, each loaded once."""

    def __init__(self, source: str | Path, cache: str | Path | None, progress: bool) -> None:
        self._source, self._cache, self._progress = source, cache, progress
        self._loaded: dict[int, FaceDataset] = {}

    def of_size(self, image_size: int) -> FaceDataset:
        """The pictures, image_size pixels wide."""
        if image_size not in self._loaded:
            self._loaded[image_size] = load_dataset(
                self._source, image_size, cache=self._cache, progress=self._progress
            )
        return self._loaded[image_size]


def find_subjects(
    folders: Iterable[Path],
    projected: Iterable[Path],
    datasets: Datasets,
    cache: Path,
) -> list[Subject]:
    """Open every latent model; other folders are passed over, with one line each.

    Args:
        folders: of models.
        projected: folders of projected pictures, for models without an encoder.
        datasets: the labelled pictures.
        cache: folder of what was computed before.

    Raises:
        DataError: no folder holds a latent model, two have one name, or projected pictures belong
            to none of the models or to other data, are given twice, or were projected in different
            ways.
    """
    subjects: dict[str, Subject] = {}
    unused = dict.fromkeys(projected, "Every compared model has an encoder.")
    for folder in folders:
        if not folder.exists():
            raise DataError(f"{folder} does not exist; expected a model's folder.")
        if reason := why_no_latent_model(folder):
            print(f"passed over: {folder}: {reason}")
            continue
        model = load(folder)
        if model.channels != CHANNELS:
            print(f"passed over: {folder}: it draws {model.channels} channels, pictures have 3.")
            continue
        name = folder_name(folder)
        if name in subjects:
            raise DataError(f"Two models are called {name}; rename a folder.")
        dataset = datasets.of_size(model.image_size)
        directions, problem = _directions(folder, model)
        found = None if model.has_encoder else _projected(unused, model, dataset)
        subjects[name] = Subject(
            name, model, model.fingerprint(), dataset, cache, directions, found, problem,
            _recipe(folder),
        )  # fmt: skip
    if not subjects:
        raise DataError("None of the folders holds a latent model, so there is nothing to compare.")
    for folder, reason in unused.items():
        raise DataError(f"{folder} belongs to none of the compared models: {reason}")
    _check_same_pictures(subjects.values())
    return list(subjects.values())


def _recipe(folder: Path) -> dict[str, float]:
    """The numbers that a model was trained with, from its card; none without a card."""
    path = folder / CARD_NAME
    if not path.is_file():
        return {}
    recipe = read_card(path).data.get(RECIPE_KEY) or {}
    return {k: float(v) for k, v in recipe.items() if isinstance(v, (int, float))}


def _directions(folder: Path, model: LatentModel) -> tuple[DirectionSet | None, str]:
    path = folder / DIRECTIONS_NAME
    if not path.is_file():
        return None, "It has no direction file."
    try:
        return DirectionSet.load(path, model), ""
    except HublatentError as error:
        return None, f"Its direction file is not used: {error}"


def _projected(
    unused: dict[Path, str], model: LatentModel, dataset: FaceDataset
) -> Projected | None:
    """All projected pictures that belong to a model; their folders are taken off the list.

    The others keep the reason why they were refused.
    """
    mine: dict[Path, ProjectedImages] = {}
    for folder in list(unused):
        try:
            found = read_projected(folder, model)
        except DataError as error:
            unused[folder] = str(error)
            continue
        if found.dataset != dataset.digest:
            raise DataError(
                f"{folder} holds projected pictures of the data {found.dataset[:12]}; these are "
                f"{dataset.digest[:12]}. Project the pictures of these data."
            )
        del unused[folder]
        mine[folder] = found
    if not mine:
        return None
    _check_same_projection(mine)
    indices = np.concatenate([found.indices.numpy() for found in mine.values()])
    if len(np.unique(indices)) < len(indices):
        raise DataError(
            f"{' and '.join(map(str, mine))} hold some pictures twice; give folders of different "
            "pictures, as of two partitions."
        )
    return Projected(np.concatenate([found.latents.numpy() for found in mine.values()]), indices)


def _check_same_projection(found: Mapping[Path, ProjectedImages]) -> None:
    """Refuse folders that were projected in different ways: their codes are not comparable."""
    (first, reference), *others = found.items()
    for folder, images in others:
        names = {*reference.settings, *images.settings} - CHOICE_OF_PICTURES
        differing = sorted(
            name for name in names if reference.settings.get(name) != images.settings.get(name)
        )
        if differing:
            raise DataError(
                f"{first} and {folder} were projected with different settings "
                f"({', '.join(differing)}); project both alike."
            )


def _check_same_pictures(subjects: Iterable[Subject]) -> None:
    given = [s.projected.indices for s in subjects if s.projected is not None]
    if any(not np.array_equal(np.sort(given[0]), np.sort(other)) for other in given[1:]):
        raise DataError(
            "The models without an encoder were given projections of different pictures; project "
            "the same ones for all, so that they can be compared."
        )


@dataclass(frozen=True, eq=False)
class Found:
    """A direction, whether it comes from the model's file or was found here, and a remark."""

    direction: Direction
    source: str
    note: str = ""

    @property
    def digest(self) -> str:
        """Of the vector and its sigma: what an edit depends on."""
        values = self.direction.vector.numpy().tobytes() + repr(self.direction.sigma).encode()
        return hashlib.sha256(values).hexdigest()


def gather_directions(
    subject: Subject, attributes: Sequence[str], methods: Sequence[str], seed: int
) -> tuple[dict[tuple[str, str], Found], list[Problem]]:
    """The directions of a model's file, and those it lacks, found on the same pictures.

    Args:
        subject: the model.
        attributes: what is to be edited.
        methods: what is wanted. What a file lacks is found here if labels suffice for it; in
            projected pictures its name then ends in -projected. Other methods only a file can hold.
        seed: of what is found here.

    Returns:
        (attribute, method) -> direction, and what could not be had.
    """
    stored = _from_file(subject)
    found: dict[tuple[str, str], Found] = {}
    problems = []
    for attribute in attributes:
        names = {m: m if (attribute, m) in stored else _name_here(subject, m) for m in methods}
        wanted = dict.fromkeys(name for name in names.values() if name is not None)
        problems += [
            Problem(subject.name, attribute, f"Its direction file has no {m} direction.")
            for m, name in names.items()
            if name is None and not m.endswith(PROJECTED_SUFFIX)
        ]
        missing = [name for name in wanted if (attribute, name) not in stored]
        problem = _why_none_here(subject, attribute, missing, seed) if missing else ""
        here: dict[str, Found] = {}
        if problem:
            problems.append(Problem(subject.name, attribute, problem))
        else:
            here = _find_here(subject, attribute, missing, seed)
        for name in wanted:
            direction = stored.get((attribute, name)) or here.get(name)
            if direction is not None:
                found[attribute, name] = direction
    return found, problems


def _name_here(subject: Subject, method: str) -> str | None:
    """What a method is called if it is found here; None if it cannot be."""
    plain = method.removesuffix(PROJECTED_SUFFIX)
    if plain not in FROM_LABELS or (subject.model.has_encoder and plain != method):
        return None
    return plain if subject.model.has_encoder else plain + PROJECTED_SUFFIX


def _why_none_here(subject: Subject, attribute: str, missing: Sequence[str], seed: int) -> str:
    """Why no direction of an attribute can be found here; empty if one can."""
    if subject.known is None:
        names = ", ".join(missing)
        text = (
            f"{subject.problem} It has no encoder, and no training or validation pictures were "
            "projected to find directions on."
        )
        return f"{text.strip()} Missing: {names}."
    try:
        balanced_set(subject.known, attribute, seed)
    except DataError as error:
        return str(error)
    return ""


def _from_file(subject: Subject) -> dict[tuple[str, str], Found]:
    found: dict[tuple[str, str], Found] = {}
    if subject.directions is None:
        return found
    for stored in subject.directions:
        direction = replace(stored, method=subject.directions.method_of(stored))
        known = direction.origin and direction.origin.digest == subject.dataset.digest
        note = "" if known else "The direction was found on other data."
        found[direction.attribute, direction.method] = Found(direction, FROM_FILE, note)
    return found


def _find_here(
    subject: Subject, attribute: str, names: Sequence[str], seed: int
) -> dict[str, Found]:
    """Directions found on the known pictures, kept in the cache."""
    data, model = subject.known, subject.model
    if data is None or not names:
        return {}
    methods = [name.removesuffix(PROJECTED_SUFFIX) for name in names]
    wishes = [attribute, *methods, str(seed), str(PARTS_VERSION)]
    identity = [subject.fingerprint, _image_set(subject), *wishes]
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()
    path = subject.cache / f"directions-{digest[:16]}.safetensors"
    if not path.is_file():
        found = discover_all(data, (attribute,), methods, model=model, seed=seed)
        DirectionSet.of(model, found).save(path)
    stored = DirectionSet.load(path, model)
    return {
        name: Found(replace(stored[attribute, method], method=name), FOUND_HERE)
        for name, method in zip(names, methods, strict=True)
    }


def _image_set(subject: Subject) -> str:
    digest = hashlib.sha256(subject.dataset.digest.encode())
    if subject.projected is not None:
        digest.update(subject.projected.indices.tobytes())
        digest.update(subject.projected.latents.tobytes())
    return digest.hexdigest()


def subject_key(subject: Subject) -> Mapping[str, str]:
    """What every measure of a model depends on: its weights and its pictures."""
    return {"model": subject.name, "weights": subject.fingerprint, "pictures": _image_set(subject)}
