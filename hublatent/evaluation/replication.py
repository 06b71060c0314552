"""The paper's Table 1: measured as its code did, then step by step as it should be.

Between the paper's number and an honest one lie several choices that its rows do not share. Each
step of a walk changes one of them, on the same images, with a paired interval.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tqdm import tqdm

from hublatent.data import DataSource, FaceDataset
from hublatent.discovery import LabelledLatents
from hublatent.discovery.cross_validation import N_DRAWS, N_FOLDS, cross_validate
from hublatent.discovery.labelled import BATCH, Latents
from hublatent.errors import DataError
from hublatent.images import CELEBA_CROP
from hublatent.models import load
from hublatent.models.vae import VAE
from hublatent.publish import cells
from hublatent.stats import (
    MIN_POSITIVES,
    Bools,
    Estimate,
    Floats,
    Ints,
    bootstrap_weights,
    identity_folds,
    interval,
    welch_difference,
)
from hublatent.storage import portable, write_text

N_OF_EACH = 2_000  # images with the attribute, and as many without
REPORT_NAME = "report.md"
BASELINE = "paper-betavae"


@dataclass(frozen=True)
class PaperRow:
    """A score of the paper, and how its code came to it.

    Attributes:
        model: as the paper calls it.
        recipe: of training/recipes.py, that trains it as the code does; what its trainings' folders
            are called.
        attribute: what is read.
        accuracy: the paper's; None where it has none.
        sampled: read from latents drawn from the posterior, not from its mean.
        fitted: scored on the images that the SVM was fitted to.
        solver: a key of SOLVERS.
    """

    model: str
    recipe: str
    attribute: str
    accuracy: float | None
    sampled: bool = False
    fitted: bool = False
    solver: str = "SVC"


ROWS = (
    PaperRow("VAE", "paper-vae", "Eyeglasses", 0.7611, True, True, "LinearSVC"),
    PaperRow("VAE", "paper-vae", "Male", 0.75, True, True, "LinearSVC"),
    PaperRow("VAE", "paper-vae", "Smiling", 0.77, True, True, "LinearSVC"),
    PaperRow("β-VAE", "paper-betavae", "Eyeglasses", 0.8387),
    PaperRow("β-TCVAE", "paper-btcvae-as-coded", "Eyeglasses", 0.8750),
    PaperRow("β-TCVAE, as its text says", "paper-btcvae", "Eyeglasses", None),
)
RECIPES = tuple(dict.fromkeys(row.recipe for row in ROWS))
ATTRIBUTES = tuple(dict.fromkeys(row.attribute for row in ROWS))
STEPS = (
    "as the code does, on these faces",
    "a random fifth held out, not scored on the images of the fit",
    "means, not samples, of the posterior",
    f"people held out: {N_FOLDS} folds, each image read once",
    "this library's SVM (C = 0.01), not C = 1",
    f"{N_DRAWS} draws of images and folds, not one",
)


class Draw(NamedTuple):
    """Which images of one choice were read rightly; both (n,)."""

    identities: Ints
    correct: Bools


@dataclass(frozen=True)
class Step:
    """What a walk finds at one of STEPS.

    Attributes:
        accuracy: there.
        change: since the step before, paired; None at the first, and where a row was so all along.
    """

    accuracy: Estimate
    change: Estimate | None


class Posteriors:
    """The posteriors of some of a data set's images.

    Args:
        model: reads them.
        dataset: the images.
        indices: (n,), ascending, of the images.
        seed: of the latents drawn from them.
    """

    def __init__(self, model: VAE, dataset: FaceDataset, indices: Ints, seed: int) -> None:
        self.dataset, self.indices = dataset, indices
        means, spreads = [], []
        with torch.no_grad():
            for start in range(0, len(indices), BATCH):
                images = dataset.batch(indices[start : start + BATCH]).to(model.latent_mean)
                mean, log_variance = model.encode_distribution(images)  # (B, D) each
                means.append(mean.cpu().numpy())
                spreads.append((0.5 * log_variance).exp().cpu().numpy())
        self.means = np.concatenate(means)
        noise = np.random.default_rng(seed).standard_normal(self.means.shape, np.float32)
        self.samples = self.means + np.concatenate(spreads) * noise

    def latents(self, chosen: Ints, sampled: bool = False) -> Latents:
        """(m, D): of images among those of `indices`."""
        return (self.samples if sampled else self.means)[np.searchsorted(self.indices, chosen)]


def choose(label: Bools, seed: int | None = None) -> Ints:
    """As many images with an attribute as without, at most 2,000 of each; ascending indices.

    Args:
        label: (N,).
        seed: of a random choice; None takes the first of each kind, as the paper's code does.

    Raises:
        DataError: too few have the attribute, or lack it.
    """
    kinds = np.flatnonzero(label), np.flatnonzero(~label)
    n = min(N_OF_EACH, *map(len, kinds))
    if n < MIN_POSITIVES:
        raise DataError(f"{n} images of one kind; at least {MIN_POSITIVES} of each are needed.")
    if seed is None:
        return np.sort(np.concatenate([kind[:n] for kind in kinds]))
    draws = np.random.default_rng(seed)
    return np.sort(np.concatenate([draws.choice(kind, n, replace=False) for kind in kinds]))


def _choices(label: Bools, seed: int) -> list[Ints]:
    """The images of each of N_DRAWS draws."""
    return [choose(label, seed + k if k else None) for k in range(N_DRAWS)]


def walk(row: PaperRow, found: Posteriors, seed: int = 0) -> list[Step]:
    """Read one row as the paper's code did, then step by step as it should be.

    Args:
        row: which.
        found: of a training of its recipe; of the images of `choose` for all seeds used here.
        seed: of the random fifth, the folds, the draws and the bootstrap.

    Returns:
        One for each of STEPS.
    """
    dataset = found.dataset
    label = dataset.label(row.attribute)
    chosen = choose(label)
    drawn = found.latents(chosen, row.sampled)
    means = found.latents(chosen)
    who, is_there = dataset.identities[chosen], label[chosen]
    fit = partial(_read_rightly, solver=row.solver, labels=is_there, identities=who)
    everyone = np.zeros(len(chosen), int)
    fifth = np.random.default_rng(seed).permutation(len(chosen)) % 5
    folds = identity_folds(who, N_FOLDS, seed)
    held_out = fit(drawn, fifth, folds_read=(0,))
    should_be = as_it_should_be(found, row.attribute, seed)
    readings = [
        fit(drawn, everyone, fitted=True) if row.fitted else held_out,
        held_out,
        fit(means, fifth, folds_read=(0,)) if row.sampled else held_out,
        fit(means, folds, folds_read=range(N_FOLDS)),
        should_be[:1],
        should_be,
    ]
    people = np.unique(dataset.identities)
    values = [resampled(draws, people, seed) for draws in readings]
    steps = [Step(interval(values[0][1:], values[0][0]), None)]
    for before, after, old, new in zip(readings, readings[1:], values, values[1:], strict=False):
        change = None if before is after else interval((new - old)[1:], (new - old)[0])
        steps.append(Step(interval(new[1:], new[0]), change))
    return steps


def as_it_should_be(found: Posteriors, attribute: str, seed: int = 0) -> list[Draw]:
    """Means, people held out, this library's SVM; the first draw is of the first images."""
    label, draws = found.dataset.label(attribute), []
    for k, chosen in enumerate(_choices(label, seed)):
        data = LabelledLatents(
            found.latents(chosen),
            label[chosen][:, None],
            (attribute,),
            found.dataset.identities[chosen],
        )
        read = cross_validate(data, attribute, "svm", seed=seed + k)
        draws.append(Draw(read.identities, read.correct))
    return draws


def resampled(draws: Sequence[Draw], people: Ints, seed: int = 0) -> Floats:
    """The accuracy (first), then that of each resample of people and of draws: (R + 1,).

    Args:
        draws: one or several.
        people: everyone in the data; the same ones make two results paired.
        seed: of the bootstrap.
    """
    who = [np.searchsorted(people, draw.identities) for draw in draws]
    n = len(people)
    hits = np.stack([np.bincount(w, d.correct, n) for w, d in zip(who, draws, strict=True)], 1)
    sizes = np.stack([np.bincount(w, minlength=n) for w in who], 1)
    weights = chain([np.ones((1, n), np.float32)], bootstrap_weights(np.arange(n), seed=seed))
    with np.errstate(invalid="ignore"):  # a resample may hold nobody of a small test set
        scores = np.concatenate([(w @ hits) / (w @ sizes) for w in weights])  # (R + 1, draws)
    k = len(draws)
    of_draws = np.concatenate([*bootstrap_weights(np.arange(k), seed=seed)])
    return (scores * np.concatenate([np.ones((1, k)), of_draws]) / k).sum(axis=1)


def _read_rightly(
    latents: Latents,
    folds: Ints,
    *,
    solver: str,
    labels: Bools,
    identities: Ints,
    folds_read: Sequence[int] = (0,),
    fitted: bool = False,
) -> list[Draw]:
    """Fit without each fold and read it; or fit everything and read that."""
    right, read = np.zeros(len(labels), bool), np.isin(folds, folds_read)
    for fold in folds_read:
        mine = folds == fold
        learnt = mine if fitted else ~mine
        machine = _solver(solver).fit(latents[learnt], labels[learnt])
        right[mine] = machine.predict(latents[mine]) == labels[mine]
    return [Draw(identities[read], right[read])]


def _solver(name: str):  # type: ignore[no-untyped-def]
    from sklearn.svm import SVC, LinearSVC

    return LinearSVC(random_state=0) if name == "LinearSVC" else SVC(kernel="linear", C=1.0)


# The report.


@dataclass(frozen=True)
class Training:
    """One training of a recipe: what results.json says of it, and how well it is read.

    Attributes:
        name: of its folder, RECIPE-SEED.
        recipe: of training/recipes.py.
        measured: KL, total correlation and MSE of test images, and the crop.
        accuracy: attribute -> accuracies as from `resampled`.
    """

    name: str
    recipe: str
    measured: dict[str, float]
    accuracy: dict[str, Floats]


def replicate(runs: Path, data: DataSource, out: Path, seed: int = 0) -> str:
    """Walk each row of the paper's table, compare the trainings, and write out/report.md.

    Args:
        runs: holds trainings of RECIPES, each in a folder RECIPE-SEED as training/train_vae.py
            writes it.
        data: labelled faces.
        out: the folder to write to.
        seed: of everything drawn.

    Returns:
        The report.

    Raises:
        DataError: there is no training of any of them, or a model is no VAE.
    """
    folders = [f for recipe in RECIPES for f in sorted(runs.glob(f"{recipe}-[0-9]*/model"))]
    if not folders:
        raise DataError(
            f"{runs} holds no folder RECIPE-SEED/model with one of the recipes "
            f"{', '.join(RECIPES)}; train them with training/train_vae.py."
        )
    size = load(folders[0]).image_size
    opened = lru_cache(partial(data.load, size, False))
    trainings: list[Training] = []
    walks: dict[PaperRow, list[Step]] = {}
    for folder in tqdm(folders, desc="read trainings", unit="training"):
        found = read_posteriors(folder, opened(crop=_crop(folder)), seed)
        trainings.append(_training(folder, found, seed))
        for row in ROWS:
            if row.recipe == trainings[-1].recipe and row not in walks:
                walks[row] = walk(row, found, seed)
    command = f"python -m hublatent replicate {portable(runs)} {data.words()}"
    command += f" --out {portable(out)} --seed {seed}"
    page = report(walks, trainings, found.dataset, command)
    write_text(out / REPORT_NAME, page)
    return page


def read_posteriors(folder: Path, dataset: FaceDataset, seed: int = 0) -> Posteriors:
    """The posteriors of all images that any row or training is read on.

    Raises:
        DataError: the model is no VAE.
    """
    model = load(folder)
    if not isinstance(model, VAE):
        raise DataError(f"{folder} is of the architecture {model.architecture}; expected a VAE.")
    choices = [chosen for a in ATTRIBUTES for chosen in _choices(dataset.label(a), seed)]
    return Posteriors(model, dataset, np.unique(np.concatenate(choices)), seed)


def _training(model: Path, found: Posteriors, seed: int) -> Training:
    people = np.unique(found.dataset.identities)
    accuracy = {a: resampled(as_it_should_be(found, a, seed), people, seed) for a in ATTRIBUTES}
    name = model.parent.name
    measured = {**(_results(model).get("test") or {}), "crop": _crop(model)}
    return Training(name, name.rpartition("-")[0], measured, accuracy)


def _results(model: Path) -> dict[str, Any]:
    path = model.parent / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _crop(model: Path) -> int:
    """Side of the square of CelebA's pictures that a training saw."""
    found = re.match(r"central (\d+)x", _results(model).get("preprocessing", ""))
    return int(found[1]) if found else CELEBA_CROP


def report(
    walks: dict[PaperRow, list[Step]],
    trainings: Sequence[Training],
    dataset: FaceDataset,
    command: str,
) -> str:
    """The page: what the paper's code did, the walks, and the trainings side by side."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("replication.md.jinja").render(
        walk_table=_walk_table(walks),
        training_table=_training_table(trainings),
        between=_between_trainings(trainings),
        n_train=f"{len(dataset.indices('train')):,}",
        n_images=f"{len(dataset):,}",
        n_glasses=f"{int(dataset.label('Eyeglasses').sum()):,}",
        dataset=cells.text(dataset.name),
        n_draws=N_DRAWS,
        baseline=BASELINE,
        command=command,
    )


def _walk_table(walks: dict[PaperRow, list[Step]]) -> Markup:
    rows = [
        ["the paper", *("-" if r.accuracy is None else f"{r.accuracy:.4f}" for r in walks)],
        *(
            [text, *(_step_cell(steps[i]) for steps in walks.values())]
            for i, text in enumerate(STEPS)
        ),
    ]
    return cells.table(["", *(f"{row.model}, {row.attribute}" for row in walks)], rows)


def _step_cell(step: Step) -> str:
    if step.change is None:
        return cells.interval_cell("accuracy", step.accuracy)
    return f"{cells.interval_cell('accuracy', step.accuracy)}; {_signed(step.change)}"


def _between_trainings(trainings: Sequence[Training]) -> list[str]:
    """What recipes trained several times differ by from the baseline, in words."""
    found: dict[str, list[Training]] = {}
    for training in trainings:
        found.setdefault(training.recipe, []).append(training)
    base = found.pop(BASELINE, [])
    sentences = []
    for recipe, mine in found.items():
        if min(len(mine), len(base)) < 2:
            continue
        parts = []
        for name in ATTRIBUTES:
            values = [np.array([t.accuracy[name][0] for t in group]) for group in (mine, base)]
            parts.append(f"{name} {_signed(welch_difference(*values).estimate)}")
        counts = f"{len(mine)} and {len(base)} trainings"
        sentences.append(f"{recipe} less {BASELINE}, {counts}: {', '.join(parts)}")
    return sentences


def _signed(found: Estimate) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _training_table(trainings: Sequence[Training]) -> Markup:
    base = next((t for t in trainings if t.recipe == BASELINE), None)
    head = ["training", "crop", "KL", "total correlation", "MSE", *ATTRIBUTES, f"less {BASELINE}"]
    rows = []
    for training in trainings:
        measured = [
            f"{training.measured[name]:.4g}" if name in training.measured else "-"
            for name in ("crop", "kl", "total_correlation", "mse")
        ]
        values = training.accuracy
        scores = [cells.interval_cell(a, interval(values[a][1:], values[a][0])) for a in ATTRIBUTES]
        less = "-"
        if base is not None and training is not base:
            gap = values["Eyeglasses"] - base.accuracy["Eyeglasses"]
            less = _signed(interval(gap[1:], gap[0]))
        rows.append([training.name, *measured, *scores, less])
    return cells.table(head, rows)
