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

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
)

N_FOLDS = 5
SVM_C = 0.01
# The logistic loss bends an eighth as much as the squared hinge, so C is about eight times larger.
LOGISTIC_C = 0.1
DEFAULT_METHOD = "joint"


@dataclass(frozen=True)
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

    @property
    def codes(self) -> NDArray[np.float64]:
        """(N, D): the latents; one with layers is averaged over them, as in the paper."""
        codes = self.latents.astype(np.float64)
        return codes.mean(axis=1) if codes.ndim == 3 else codes

    def label(self, attribute: str) -> Bools:
        """(N,): presence of one attribute."""
        if attribute not in self.attributes:
            raise DataError(unknown_name("attribute", attribute, self.attributes))
        return self.labels[:, self.attributes.index(attribute)]


@dataclass(frozen=True)
class Examples:
    """What a method is fitted on: the balanced examples of an attribute, and all of them.

    Attributes:
        codes: (n, D), the balanced set.
        labels: (n,), the attribute on it.
        all_codes: (N, D), every example.
        all_labels: (N, K), every attribute.
        column: the attribute's column of `all_labels`.
    """

    codes: Floats
    labels: Bools
    all_codes: Floats
    all_labels: Bools
    column: int


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
    if method not in METHODS:
        raise HublatentError(unknown_name("method", method, METHODS))
    label = data.label(attribute)
    try:
        chosen = balanced_indices(label, seed)
    except DataError as error:
        raise DataError(f"{attribute}: {error}") from error
    rows = touched_layers(model, layers)
    everyone = np.ones(len(label), dtype=bool)
    vector = _fit(data, attribute, method, everyone, chosen, rows, model.latent_shape)
    coordinate, decision = _held_out(data, attribute, method, chosen, rows, model, seed)
    threshold, gain = logistic_curve(coordinate, label[chosen])
    scores = classification_scores(
        label[chosen], decision > 0, decision, data.identities[chosen], seed
    )
    n_positive = int(label.sum()) if method == "joint" else len(chosen) // 2
    n_negative = int((~label).sum()) if method == "joint" else len(chosen) // 2
    return Direction(
        attribute=attribute,
        method=method,
        vector=torch.from_numpy(vector),
        threshold=threshold,
        gain=gain,
        n_positive=n_positive,
        n_negative=n_negative,
        dataset=data.dataset,
        preprocessing=data.preprocessing,
        scores=scores,
    ).measured_on(model)


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


def logistic_curve(coordinate: Floats, labels: Bools) -> tuple[float, float]:
    """Fit P = sigmoid(gain * (c - threshold)) on held-out coordinates of a balanced set.

    Args:
        coordinate: (n,).
        labels: (n,), as many of each kind.

    Returns:
        The threshold, in units of c, and the gain, per unit of c.
    """
    from sklearn.linear_model import LogisticRegression

    # The fit works on standardised coordinates, since solvers dislike very small or large ones.
    mean, spread = coordinate.mean(), coordinate.std()
    fit = LogisticRegression(C=1e6).fit(((coordinate - mean) / spread)[:, None], labels)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    return float(mean - spread * intercept / slope), float(slope / spread)


def _fit(
    data: LabelledLatents,
    attribute: str,
    method: str,
    allowed: Bools,
    chosen: Ints,
    rows: tuple[int, ...] | None,
    latent_shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Fit a method on the allowed examples; each touched row of the result has norm 1."""
    codes, inside = data.codes, chosen[allowed[chosen]]
    examples = Examples(
        codes=codes[inside],
        labels=data.label(attribute)[inside],
        all_codes=codes[allowed],
        all_labels=data.labels[allowed],
        column=data.attributes.index(attribute),
    )
    row = METHODS[method](examples)
    row = row / np.linalg.norm(row)
    if rows is None:
        return row.astype(np.float32)
    vector = np.zeros(latent_shape, np.float32)
    vector[list(rows)] = row
    return vector


def _held_out(
    data: LabelledLatents,
    attribute: str,
    method: str,
    chosen: Ints,
    rows: tuple[int, ...] | None,
    model: LatentModel,
    seed: int,
) -> tuple[Floats, Floats]:
    """Read each balanced example with a direction that never saw its identity.

    Returns:
        The coordinates (n,), and the decisions (n,): how far beyond the fold's own threshold.
    """
    label = data.label(attribute)
    folds = identity_folds(data.identities, N_FOLDS, seed)
    coordinate = np.zeros(len(chosen))
    decision = np.zeros(len(chosen))
    for fold in range(N_FOLDS):
        out = folds[chosen] == fold
        vector = _fit(data, attribute, method, folds != fold, chosen, rows, model.latent_shape)
        c = _coordinates(data.latents[chosen], vector)
        coordinate[out] = c[out]
        decision[out] = c[out] - _midpoint(c[~out], label[chosen][~out])
    return coordinate, decision


def _coordinates(latents: Floats, vector: Floats) -> Floats:
    flat = latents.reshape(len(latents), -1).astype(np.float64)
    row = vector.reshape(-1).astype(np.float64)
    return flat @ row / (row @ row)


def _midpoint(coordinate: Floats, labels: Bools) -> float:
    """Half-way between the class means: the decision at equal priors."""
    return float(coordinate[labels].mean() + coordinate[~labels].mean()) / 2


def svm(examples: Examples) -> Floats:
    """Normal of the linear SVM (the paper, section 5; Cortes & Vapnik 1995)."""
    from sklearn.svm import LinearSVC

    codes = _scaled(examples.codes)
    fit = LinearSVC(C=SVM_C, dual=False, max_iter=10_000).fit(codes, examples.labels)
    return np.asarray(fit.coef_[0])


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
    return np.asarray(np.cov(examples.codes.T) @ svm(examples))


def joint(examples: Examples) -> Floats:
    """The attribute's coefficient in the least-squares regression of latents on all attributes."""
    design = np.column_stack([np.ones(len(examples.all_labels)), examples.all_labels])
    solution, *_ = np.linalg.lstsq(design.astype(np.float64), examples.all_codes, rcond=None)
    return np.asarray(solution[1 + examples.column])


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
