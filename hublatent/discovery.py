"""discover(): latents and labels in, a Direction out, with scores from held-out identities.

Filters answer "how is the attribute read", patterns "how does the latent move" (Haufe et al. 2014,
doi:10.1016/j.neuroimage.2013.10.067). Which of them edits well is an empirical question:

    svm              normal of a linear support vector machine; the paper's direction
    logistic         normal of a logistic regression
    mean-difference  difference of the two class means
    pattern          covariance of the latents times the svm filter
    joint            coefficient of the attribute when latents are regressed on all attributes
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from hublatent.direction import Direction
from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.model import LatentModel
from hublatent.statistics import (
    Bools,
    Floats,
    Ints,
    balanced_indices,
    classification_scores,
    identity_folds,
    logistic_curve,
    midpoint,
)

N_FOLDS = 5
SVM_C = 0.01
# The logistic loss bends an eighth as much as the squared hinge, so C is about eight times larger.
LOGISTIC_C = 0.1
DEFAULT_METHOD = "joint"


@dataclass(frozen=True, eq=False)
class LabelledLatents:
    """Latents of images, with what is known about each image.

    Attributes:
        latents: (N, *latent_shape), float32.
        labels: (N, K), presence of each attribute.
        attributes: K names.
        identities: (N,), who is on each image.
        dataset: name and digest of the data.
        preprocessing: how images were cropped and resized.
    """

    latents: NDArray[np.float32]
    labels: Bools
    attributes: tuple[str, ...]
    identities: Ints
    dataset: str | None = None
    preprocessing: str | None = None

    def __post_init__(self) -> None:
        shapes = {len(self.latents), len(self.labels), len(self.identities)}
        if len(shapes) != 1 or self.labels.shape[1:] != (len(self.attributes),):
            raise DataError(
                f"{len(self.latents)} latents, labels of shape {self.labels.shape}, "
                f"{len(self.identities)} identities and {len(self.attributes)} attributes "
                "do not belong together."
            )
        if not np.isfinite(self.latents).all():
            raise DataError("The latents hold NaN or infinite values; the model is broken.")

    @cached_property
    def codes(self) -> NDArray[np.float64]:
        """(N, D): the latents; one with layers is averaged over them, as in the paper."""
        codes = self.latents.astype(np.float64)
        return codes.mean(axis=1) if codes.ndim == 3 else codes

    def label(self, attribute: str) -> Bools:
        """(N,): presence of one attribute."""
        if attribute not in self.attributes:
            raise DataError(unknown_name("attribute", attribute, self.attributes))
        return self.labels[:, self.attributes.index(attribute)]


@dataclass(frozen=True, eq=False)
class Population:
    """All examples that a fit may see, at their natural prevalence.

    Attributes:
        data: N examples.
        keep: (N,), which of them.
    """

    data: LabelledLatents
    keep: Bools

    @cached_property
    def coefficients(self) -> Floats:
        """(K, D): each attribute's coefficient when codes are regressed on all attributes."""
        labels = self.data.labels[self.keep]
        design = np.column_stack([np.ones(len(labels)), labels])
        solution, *_ = np.linalg.lstsq(design, self.data.codes[self.keep], rcond=None)
        return np.asarray(solution[1:])


@dataclass(frozen=True, eq=False)
class Examples:
    """What a method is fitted on: the balanced examples of an attribute, and all of them.

    Attributes:
        codes: (n, D), the balanced set.
        labels: (n,), the attribute on it.
        population: every example.
        column: the attribute's column of the population's labels.
    """

    codes: Floats
    labels: Bools
    population: Population
    column: int

    @cached_property
    def svm_normal(self) -> Floats:
        """(D,): normal of the linear SVM, which two methods need."""
        from sklearn.svm import LinearSVC

        fit = LinearSVC(C=SVM_C, dual=False, max_iter=10_000).fit(_scaled(self.codes), self.labels)
        return np.asarray(fit.coef_[0])


def discover(
    data: LabelledLatents,
    attribute: str,
    method: str = DEFAULT_METHOD,
    *,
    model: LatentModel,
    layers: Iterable[int] | None = None,
    seed: int = 0,
) -> Direction:
    """Find the direction of an attribute, and measure on held-out identities how well it reads it.

    Args:
        data: latents of training and validation images, with labels.
        attribute: what to find.
        method: one of METHODS.
        model: the model of the latents; its statistics give sigma.
        layers: which layers of a latent (L, D) to move; None takes the model's default.
        seed: of the balanced set, the folds and the bootstrap.

    Returns:
        The direction; every row it touches has norm 1.

    Raises:
        DataError: the attribute is unknown or has too few examples.
        HublatentError: the method is unknown, or a layer is outside the model.
    """
    return next(discover_all(data, (attribute,), (method,), model=model, layers=layers, seed=seed))


def discover_all(
    data: LabelledLatents,
    attributes: Sequence[str],
    methods: Sequence[str],
    *,
    model: LatentModel,
    layers: Iterable[int] | None = None,
    seed: int = 0,
) -> Iterator[Direction]:
    """Find many directions; what several of them need is computed once.

    Args:
        data, model, layers, seed: as for `discover`.
        attributes: what to find.
        methods: some of METHODS.

    Yields:
        What `discover` returns, for each method of the first attribute, then of the next.

    Raises:
        DataError, HublatentError: as `discover`, before anything is fitted.
    """
    for method in methods:
        if method not in METHODS:
            raise HublatentError(unknown_name("method", method, METHODS))
    chosen = {attribute: check_attribute(data, attribute, seed) for attribute in attributes}
    rows = touched_layers(model, layers)
    folds = identity_folds(data.identities, N_FOLDS, seed)
    # The last one holds nobody out: it gives the direction itself.
    populations = [Population(data, folds != fold) for fold in range(N_FOLDS + 1)]
    for attribute, indices in chosen.items():
        fits = [
            _examples(data, attribute, indices[population.keep[indices]], population)
            for population in populations
        ]
        for method in methods:
            vectors = [_vector(METHODS[method](fit), rows, model.latent_shape) for fit in fits]
            held_out = _held_out(data, attribute, indices, folds, vectors)
            found = _direction(data, attribute, method, indices, vectors[-1], held_out, seed)
            yield found.measured_on(model)


def check_attribute(data: LabelledLatents, attribute: str, seed: int = 0) -> Ints:
    """Refuse an attribute whose direction, or whose scores, would rest on too few examples.

    Args:
        data: the latents and labels.
        attribute: one of the data's.
        seed: of the balanced set and the folds.

    Returns:
        The balanced set: indices of as many examples with as without the attribute.

    Raises:
        DataError: it is unknown, fewer than 20 examples have or lack it, or they show so few
            people that a fit without some of them has none.
    """
    label = data.label(attribute)
    try:
        chosen = balanced_indices(label, seed)
    except DataError as error:
        raise DataError(f"{attribute}: {error}") from error
    folds = identity_folds(data.identities, N_FOLDS, seed)[chosen]
    for fold in range(N_FOLDS):
        if len(np.unique(label[chosen][folds != fold])) < 2:
            raise DataError(
                f"{attribute}: its examples show too few people; with one fifth of the people "
                "held out, none is left to learn from."
            )
    return chosen


def touched_layers(model: LatentModel, layers: Iterable[int] | None) -> tuple[int, ...] | None:
    """The layers a direction moves; None for a latent without layers."""
    if len(model.latent_shape) == 1:
        if layers is not None:
            raise HublatentError(f"A latent of shape {model.latent_shape} has no layers.")
        return None
    n_layers = model.latent_shape[0]
    chosen = tuple(sorted(set(model.default_layers if layers is None else layers)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= n_layers:
        raise HublatentError(f"Layers {chosen} were given; the model has 0 to {n_layers - 1}.")
    return chosen


def _examples(
    data: LabelledLatents, attribute: str, indices: Ints, population: Population
) -> Examples:
    return Examples(
        codes=data.codes[indices],
        labels=data.label(attribute)[indices],
        population=population,
        column=data.attributes.index(attribute),
    )


def _vector(
    row: Floats, layers: tuple[int, ...] | None, latent_shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """(*latent_shape): the row at norm 1, in each layer it moves."""
    row = row / np.linalg.norm(row)
    if layers is None:
        return row.astype(np.float32)
    vector = np.zeros(latent_shape, np.float32)
    vector[list(layers)] = row
    return vector


def _held_out(
    data: LabelledLatents,
    attribute: str,
    chosen: Ints,
    folds: Ints,
    vectors: Sequence[NDArray[np.float32]],
) -> tuple[Floats, Floats]:
    """Read each balanced example with the vector that never saw its identity.

    Returns:
        The coordinates (n,), and the decisions (n,): how far beyond the fold's own threshold.
    """
    label = data.label(attribute)[chosen]
    coordinate = np.zeros(len(chosen))
    decision = np.zeros(len(chosen))
    for fold in range(N_FOLDS):
        out = folds[chosen] == fold
        c = _coordinates(data.latents[chosen], vectors[fold])
        coordinate[out] = c[out]
        decision[out] = c[out] - midpoint(c[~out], label[~out])
    return coordinate, decision


def _direction(
    data: LabelledLatents,
    attribute: str,
    method: str,
    chosen: Ints,
    vector: NDArray[np.float32],
    held_out: tuple[Floats, Floats],
    seed: int,
) -> Direction:
    coordinate, decision = held_out
    label = data.label(attribute)
    used = label if method == "joint" else label[chosen]
    threshold, gain = logistic_curve(coordinate, label[chosen])
    return Direction(
        attribute=attribute,
        method=method,
        vector=torch.from_numpy(vector),
        threshold=threshold,
        gain=gain,
        n_positive=int(used.sum()),
        n_negative=int((~used).sum()),
        dataset=data.dataset,
        preprocessing=data.preprocessing,
        scores=classification_scores(
            label[chosen], decision > 0, decision, data.identities[chosen], seed
        ),
    )


def _coordinates(latents: Floats, vector: Floats) -> Floats:
    flat = latents.reshape(len(latents), -1).astype(np.float64)
    row = vector.reshape(-1).astype(np.float64)
    return flat @ row / (row @ row)


def svm(examples: Examples) -> Floats:
    """Normal of the linear SVM (the paper, section 5; Cortes & Vapnik 1995)."""
    return examples.svm_normal


def logistic(examples: Examples) -> Floats:
    """Normal of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=LOGISTIC_C, max_iter=1000).fit(
        _scaled(examples.codes), examples.labels
    )
    return np.asarray(fit.coef_[0])


def mean_difference(examples: Examples) -> Floats:
    """Mean of the positives minus mean of the negatives."""
    codes, labels = examples.codes, examples.labels
    return np.asarray(codes[labels].mean(axis=0) - codes[~labels].mean(axis=0))


def pattern(examples: Examples) -> Floats:
    """Covariance of the latents times the svm filter (Haufe et al. 2014, eq. 6)."""
    return np.asarray(np.cov(examples.codes.T) @ examples.svm_normal)


def joint(examples: Examples) -> Floats:
    """The attribute's coefficient in the least-squares regression of latents on all attributes."""
    return examples.population.coefficients[examples.column]


def _scaled(codes: Floats) -> Floats:
    """Divide by one number for all dimensions, so that C means the same in every model.

    Standardising each dimension would lift the noise of unused ones to the size of the rest.
    """
    return codes / np.sqrt(codes.var(axis=0).mean())


METHODS: dict[str, Callable[[Examples], Floats]] = {
    "svm": svm,
    "logistic": logistic,
    "mean-difference": mean_difference,
    "pattern": pattern,
    "joint": joint,
}
