"""The paper's Table 1: measured as its code did, then step by step as it should be.

Between the paper's number and an honest one lie several choices that its rows do not share. Each
step of a walk changes one of them, on the same images, with a paired interval.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from tqdm import tqdm

from hublatent.data import DataSource, FaceDataset
from hublatent.discovery import LabelledLatents
from hublatent.discovery.cross_validation import N_DRAWS, N_FOLDS, cross_validate
from hublatent.discovery.labelled import BATCH, Latents
from hublatent.errors import DataError
from hublatent.evaluation.claims import Contrast, adjusted, overall
from hublatent.evaluation.report import interval as interval_text
from hublatent.evaluation.report import page, told
from hublatent.evaluation.subjects import RESULTS_NAME
from hublatent.images import CELEBA_CROP
from hublatent.models import load
from hublatent.models.vae import VAE
from hublatent.publish import cells
from hublatent.stats import (
    MARGINS,
    MIN_TRAININGS,
    Bools,
    Difference,
    Floats,
    Ints,
    balanced_indices,
    bootstrap_weights,
    from_draws,
    identity_folds,
    welch_difference,
)
from hublatent.storage import portable, write_text

N_OF_EACH = 2_000  # images with the attribute, and as many without
REPORT_NAME = "report.md"
BASELINE = "paper-betavae"


class PaperRow(NamedTuple):
    """A score of the paper, and how its code came to it."""

    model: str  # as the paper calls it
    recipe: str  # that trains it as the code does; what its trainings' folders are called
    attribute: str
    accuracy: float | None  # the paper's
    sampled: bool = False  # read from latents drawn from the posterior, not from its mean
    fitted: bool = False  # scored on the images that the SVM was fitted to
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
MEANS = "means, not samples, of the posterior"
STEPS = (
    "as the code does, on these faces",
    "a random fifth held out, not scored on the images of the fit",
    MEANS,
    f"people held out: {N_FOLDS} folds, each image read once",
    "this library's SVM (C = 0.01), not C = 1",
    f"{N_DRAWS} draws of images and folds, not one",
)


class Draw(NamedTuple):
    """Which images of one choice were read rightly; both (n,)."""

    identities: Ints
    correct: Bools


class Step(NamedTuple):
    """What a walk finds at one of STEPS: the accuracy, and its paired change since the step before;
    None at the first, and where a row was so all along.
    """

    accuracy: Difference
    change: Difference | None


class Posteriors:
    """The posteriors of images of ascending indices (n,), and a latent drawn from each."""

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

    A seed chooses at random; None takes the first of each kind, as the paper's code does.

    Raises:
        DataError: too few have the attribute, or lack it.
    """
    if seed is not None:
        return balanced_indices(label, seed, N_OF_EACH)
    kinds = np.flatnonzero(label), np.flatnonzero(~label)
    n = min(N_OF_EACH, *map(len, kinds))
    return np.sort(np.concatenate([kind[:n] for kind in kinds]))


def walk(
    row: PaperRow, found: Posteriors, seed: int = 0, should_be: Sequence[Draw] = ()
) -> list[Step]:
    """Read one row as the paper's code did, then step by step as it should be, at each of STEPS.

    `found` are the posteriors of a training of the row's recipe; `should_be` is what
    `as_it_should_be` finds, where that is known.
    """
    dataset = found.dataset
    label = dataset.label(row.attribute)
    chosen = choose(label)
    drawn, means = found.latents(chosen, row.sampled), found.latents(chosen)
    who = dataset.identities[chosen]
    fit = partial(_read_rightly, solver=row.solver, labels=label[chosen], identities=who)
    fifth = np.random.default_rng(seed).permutation(len(chosen)) % 5
    held_out = fit(drawn, fifth)
    should_be = should_be or as_it_should_be(found, row.attribute, seed)
    on_means = fit(means, fifth) if row.sampled else held_out
    of_people = fit(means, identity_folds(who, N_FOLDS, seed), range(N_FOLDS))
    as_coded = fit(drawn, np.zeros(len(chosen), int), fitted=True) if row.fitted else held_out
    readings = [as_coded, held_out, on_means, of_people, should_be[:1], should_be]
    people = np.unique(dataset.identities)
    values = [resampled(draws, people, seed) for draws in readings]
    steps = [Step(_figure(values[0]), None)]
    for before, after, old, new in zip(readings, readings[1:], values, values[1:], strict=False):
        steps.append(Step(_figure(new), None if before is after else _figure(new - old)))
    return steps


def as_it_should_be(found: Posteriors, attribute: str, seed: int = 0) -> list[Draw]:
    """Means, people held out, this library's SVM; the first draw is of the first images."""
    label, draws = found.dataset.label(attribute), []
    for k, chosen in enumerate(_choices(label, seed)):
        latents, who = found.latents(chosen), found.dataset.identities[chosen]
        data = LabelledLatents(latents, label[chosen][:, None], (attribute,), who)
        read = cross_validate(data, attribute, "svm", seed=seed + k)
        draws.append(Draw(read.identities, read.correct))
    return draws


def _choices(label: Bools, seed: int) -> list[Ints]:
    """The images of each of N_DRAWS draws."""
    return [choose(label, seed + k if k else None) for k in range(N_DRAWS)]


def resampled(draws: Sequence[Draw], people: Ints, seed: int = 0) -> Floats:
    """The accuracy (first), then that of each resample of people and of draws: (R + 1,).

    `people` are all in the data: the same ones make two results paired.
    """
    n, k = len(people), len(draws)
    who = [np.searchsorted(people, draw.identities) for draw in draws]
    hits = np.stack([np.bincount(w, d.correct, n) for w, d in zip(who, draws, strict=True)], 1)
    sizes = np.stack([np.bincount(w, minlength=n) for w in who], 1)
    weights = chain([np.ones((1, n), np.float32)], bootstrap_weights(np.arange(n), seed=seed))
    with np.errstate(invalid="ignore"):  # a resample may hold nobody of a small test set
        scores = np.concatenate([(w @ hits) / (w @ sizes) for w in weights])  # (R + 1, draws)
    of_draws = np.concatenate([*bootstrap_weights(np.arange(k), seed=seed)])
    return (scores * np.concatenate([np.ones((1, k)), of_draws]) / k).sum(axis=1)


def _figure(values: Floats) -> Difference:
    """The first of values as from `resampled`, with the interval of the others."""
    known = values[np.isfinite(values)]
    return from_draws(known[:1], known[1:, None])


def _read_rightly(
    latents: Latents, folds: Ints, folds_read: Iterable[int] = (0,), *, solver: str, labels: Bools,
    identities: Ints, fitted: bool = False,
) -> list[Draw]:  # fmt: skip
    """Fit without each fold and read it; or fit everything and read that."""
    from sklearn.svm import SVC, LinearSVC

    right, read = np.zeros(len(labels), bool), np.isin(folds, list(folds_read))
    for fold in folds_read:
        mine = folds == fold
        learnt = mine if fitted else ~mine
        linear = solver == "LinearSVC"
        machine = LinearSVC(random_state=0) if linear else SVC(kernel="linear", C=1.0)
        machine.fit(latents[learnt], labels[learnt])
        right[mine] = machine.predict(latents[mine]) == labels[mine]
    return [Draw(identities[read], right[read])]


class Training(NamedTuple):
    """One training of a recipe: its folder, RECIPE-SEED, what its run measured on test images, the
    side of the square of CelebA's images that it saw, and accuracies by attribute, as `resampled`.
    """

    folder: Path
    test: dict[str, float]
    crop: int
    accuracy: dict[str, Floats]

    @property
    def recipe(self) -> str:
        """Of training/recipes.py."""
        return self.folder.name.rpartition("-")[0]


def replicate(runs: Path, data: DataSource, out: Path, seed: int = 0) -> str:
    """Walk each row of the paper's table, compare the trainings, and write out/report.md.

    Arguments as of `hublatent replicate`; the report is returned.

    Raises:
        DataError: there is no training of any of them, or a model is no VAE.
    """
    places = [f"{recipe}-[0-9]*/model" for recipe in RECIPES]
    folders = [model.parent for place in places for model in sorted(runs.glob(place))]
    if not folders:
        raise DataError(
            f"{runs} holds no folder RECIPE-SEED/model with one of the recipes "
            f"{', '.join(RECIPES)}; train them with training/train_vae.py."
        )
    opened = lru_cache(partial(data.load, load(folders[0] / "model").image_size, False))
    trainings: list[Training] = []
    walks: dict[PaperRow, list[Step]] = {}
    for folder in tqdm(folders, desc="read trainings", unit="training"):
        test, crop = _run(folder)
        dataset = opened(crop=crop)
        found = read_posteriors(folder / "model", dataset, seed)
        people = np.unique(dataset.identities)
        read = {a: as_it_should_be(found, a, seed) for a in ATTRIBUTES}
        scores = {a: resampled(draws, people, seed) for a, draws in read.items()}
        trainings.append(Training(folder, test, crop, scores))
        for row in ROWS:
            if row.recipe == trainings[-1].recipe and row not in walks:
                walks[row] = walk(row, found, seed, read[row.attribute])
    command = f"python -m hublatent replicate {portable(runs)} {data.words()}"
    text = page(
        "replication.md.jinja", walk_table=_walk_table(walks), baseline=BASELINE, n_draws=N_DRAWS,
        training_table=_training_table(trainings), claim_table=_claim_table(walks, trainings),
        n_train=f"{len(dataset.indices('train')):,}", n_images=f"{len(dataset):,}",
        n_glasses=f"{int(dataset.label('Eyeglasses').sum()):,}", dataset=cells.text(dataset.name),
        min_trainings=MIN_TRAININGS, margin=MARGINS["accuracy"],
        command=Markup(f"{command} --out {portable(out)} --seed {seed}"),
    )  # fmt: skip
    write_text(out / REPORT_NAME, text + "\n")
    return text


def read_posteriors(model: Path, dataset: FaceDataset, seed: int = 0) -> Posteriors:
    """The posteriors of all images that any row or training is read on."""
    vae = load(model)
    if not isinstance(vae, VAE):
        raise DataError(f"{model} is of the architecture {vae.architecture}; expected a VAE.")
    choices = [chosen for a in ATTRIBUTES for chosen in _choices(dataset.label(a), seed)]
    return Posteriors(vae, dataset, np.unique(np.concatenate(choices)), seed)


def _run(folder: Path) -> tuple[dict[str, float], int]:
    """What a run measured on test images, and the side of the square that it saw."""
    path = folder / RESULTS_NAME
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = re.match(r"central (\d+)x", results.get("preprocessing", ""))
    return results.get("test") or {}, int(found[1]) if found else CELEBA_CROP


def _signed(figure: Difference) -> str:
    return interval_text(figure.estimate, signed=True)


def _walk_table(walks: dict[PaperRow, list[Step]]) -> Markup:
    rows = [["the paper", *("-" if r.accuracy is None else f"{r.accuracy:.4f}" for r in walks)]]
    for i, text in enumerate(STEPS):
        rows.append([text])
        for steps in walks.values():
            accuracy = cells.interval_cell("accuracy", steps[i].accuracy.estimate)
            change = steps[i].change
            rows[-1].append(accuracy if change is None else f"{accuracy}; {_signed(change)}")
    return cells.table(["", *(f"{row.model}, {row.attribute}" for row in walks)], rows)


def _training_table(trainings: Sequence[Training]) -> Markup:
    base = next((t for t in trainings if t.recipe == BASELINE), None)
    head = ["training", "crop", "KL", "total correlation", "MSE", *ATTRIBUTES, f"less {BASELINE}"]
    rows = []
    for training in trainings:
        measured = [
            f"{training.test[name]:.4g}" if name in training.test else "-"
            for name in ("kl", "total_correlation", "mse")
        ]
        scores = [
            cells.interval_cell(a, _figure(training.accuracy[a]).estimate) for a in ATTRIBUTES
        ]
        less = "-"
        if base is not None and training is not base:
            less = _signed(_figure(training.accuracy["Eyeglasses"] - base.accuracy["Eyeglasses"]))
        rows.append([training.folder.name, str(training.crop), *measured, *scores, less])
    return cells.table(head, rows)


# The claims that the paper's code adds; a family of contrasts each.


def winner(trainings: Sequence[Training]) -> Iterator[Contrast]:
    """What the code calls β-TCVAE, whose KL weighs about 1, minus the β-VAE of weight 4."""
    ours = [t for t in trainings if t.recipe == "paper-btcvae-as-coded"]
    return _contrasts(ours, [t for t in trainings if t.recipe == BASELINE])


def stated_weight(trainings: Sequence[Training]) -> Iterator[Contrast]:
    """β-TCVAE as the text says, minus the β-VAE's training whose rate is nearest to its own."""
    rated = [t for t in trainings if "kl" in t.test]
    for ours in (t for t in rated if t.recipe == "paper-btcvae"):
        others = {abs(t.test["kl"] - ours.test["kl"]): t for t in rated if t.recipe == BASELINE}
        if others:
            yield from _contrasts([ours], [others[min(others)]])


def means_not_samples(walks: dict[PaperRow, list[Step]]) -> Iterator[Contrast]:
    """Means of the posterior minus samples of it, in the rows that read samples."""
    for row, steps in walks.items():
        change = steps[STEPS.index(MEANS)].change
        if row.sampled and change is not None:
            yield Contrast(f"means minus samples, {row.attribute}", "accuracy", change)


def _contrasts(first: Sequence[Training], second: Sequence[Training]) -> Iterator[Contrast]:
    """Each attribute's accuracy, between trainings by Welch's t; of one each paired over people."""
    for attribute in ATTRIBUTES if first and second else ():
        one, two = ([t.accuracy[attribute] for t in group] for group in (first, second))
        if min(len(one), len(two)) > 1:
            names = first[0].recipe, second[0].recipe
            points = (np.array([values[0] for values in group]) for group in (one, two))
            difference = welch_difference(*points)
        else:
            names = first[0].folder.name, second[0].folder.name
            difference = _figure(one[0] - two[0])
        yield Contrast(f"{' minus '.join(names)}, {attribute}", "accuracy", difference)


def _claim_table(walks: dict[PaperRow, list[Step]], trainings: Sequence[Training]) -> Markup:
    tests = {
        "The paper's winner is its model of β = 1, read better than that of β = 4":
            winner(trainings),
        "Total correlation at its stated weight is read better, at equal rate":
            stated_weight(trainings),
        "Reading samples, not means, is what lowers the VAE's row": means_not_samples(walks),
    }  # fmt: skip
    rows = []
    for statement, test in tests.items():
        family = adjusted(test)
        verdict = overall([contrast.verdict for contrast in family])
        rows.append([statement, verdict, "; ".join(map(told, family))])
    return cells.table(["claim", "verdict", "contrasts"], rows)
