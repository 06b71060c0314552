"""discover(): latents and labels in, a Direction out, with scores from held-out identities.

The fits themselves are in methods.py; here each is repeated without some people, and read by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from hublatent.direction import Direction, Origin
from hublatent.discovery.methods import METHODS, Examples, Population
from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.model import LatentModel
from hublatent.stats import (
    Bools,
    Floats,
    Ints,
    balanced_indices,
    classification_scores,
    identity_folds,
    logistic_curve,
    midpoint,
)

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "N_FOLDS",
    "LabelledLatents",
    "check_attribute",
    "discover",
    "discover_all",
    "touched_layers",
]

N_FOLDS = 5
DEFAULT_METHOD = "joint"


@dataclass(frozen=True, eq=False)
class LabelledLatents:
    """Latents of images, with what is known about each image.

    Attributes:
        latents: (N, *latent_shape), float32.
        labels: (N, K), presence of each attribute.
        attributes: K names.
        identities: (N,), who is on each image.
        origin: where they come from.
        preprocessing: how images were cropped and resized.
        mirrored: (N, *latent_shape), latents of the mirror images. Hardly any attribute has a
            side, so fits learn from them too; scores are those of the images themselves.
    """

    latents: NDArray[np.float32]
    labels: Bools
    attributes: tuple[str, ...]
    identities: Ints
    origin: Origin | None = None
    preprocessing: str | None = None
    mirrored: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shapes = {len(self.latents), len(self.labels), len(self.identities)}
        if self.mirrored is not None and self.mirrored.shape != self.latents.shape:
            raise DataError(
                f"Latents of shape {self.latents.shape}, but {self.mirrored.shape} of the mirror "
                "images; expected the same."
            )
        if len(shapes) != 1 or self.labels.shape[1:] != (len(self.attributes),):
            raise DataError(
                f"{len(self.latents)} latents, labels of shape {self.labels.shape}, "
                f"{len(self.identities)} identities and {len(self.attributes)} attributes "
                "do not belong together."
            )
        if not all(np.isfinite(latents).all() for latents in self._both):
            raise DataError("The latents hold NaN or infinite values; the model is broken.")

    @property
    def _both(self) -> tuple[NDArray[np.float32], ...]:
        return (self.latents,) if self.mirrored is None else (self.latents, self.mirrored)

    @cached_property
    def codes(self) -> NDArray[np.float64]:
        """What fits learn from: latents (N, D), then those of the mirror images, if there are any.

        A latent with layers is averaged over them, as in the paper.
        """
        codes = np.concatenate(self._both).astype(np.float64)
        return codes.mean(axis=1) if codes.ndim == 3 else codes

    def rows(self, indices: Ints) -> Ints:
        """Where the images' codes, and their mirror images', stand in `codes`."""
        return np.concatenate([indices + i * len(self.latents) for i in range(len(self._both))])

    def label(self, attribute: str) -> Bools:
        """(N,): presence of one attribute."""
        if attribute not in self.attributes:
            raise DataError(unknown_name("attribute", attribute, self.attributes))
        return self.labels[:, self.attributes.index(attribute)]


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
        The direction; every row it touches has norm 1. Its scores are those of reading codes
        averaged over all layers, as in the paper; threshold and gain belong to its coordinate.

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
    populations = [
        Population(data.codes, data.labels, data.rows(np.flatnonzero(folds != fold)))
        for fold in range(N_FOLDS + 1)
    ]
    for attribute, indices in chosen.items():
        fits = [
            _examples(data, attribute, indices[folds[indices] != fold], population)
            for fold, population in enumerate(populations)
        ]
        for method in methods:
            found = [METHODS[method](fit) for fit in fits]
            units = [row / np.linalg.norm(row) for row in found]
            vectors = [_vector(row, rows, model.latent_shape) for row in units]
            held_out = _held_out(data, attribute, indices, folds, units, vectors)
            direction = _direction(data, attribute, method, indices, vectors[-1], held_out, seed)
            yield direction.with_sigma(model)


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
    rows = data.rows(indices)
    return Examples(
        codes=data.codes[rows],
        labels=data.label(attribute)[rows % len(data.labels)],
        population=population,
        column=data.attributes.index(attribute),
    )


def _vector(
    row: Floats, layers: tuple[int, ...] | None, latent_shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """(*latent_shape): the row in each layer it moves."""
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
    units: Sequence[Floats],
    vectors: Sequence[NDArray[np.float32]],
) -> tuple[Floats, Floats]:
    """Read each balanced example with the direction that never saw its identity.

    Args:
        data, attribute, chosen, folds: the examples.
        units: (D,) each, of norm 1, fitted without one fold, then one fitted on all.
        vectors: the same in the layers that the direction moves.

    Returns:
        The coordinates (n,), and the decisions (n,): how far beyond the fold's own threshold a
        code is, which is averaged over all layers, as in the paper.
    """
    label = data.label(attribute)[chosen]
    coordinate = np.zeros(len(chosen))
    decision = np.zeros(len(chosen))
    for fold in range(N_FOLDS):
        out = folds[chosen] == fold
        coordinate[out] = _coordinates(data.latents[chosen[out]], vectors[fold])
        read = data.codes[chosen] @ units[fold]
        decision[out] = read[out] - midpoint(read[~out], label[~out])
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
        origin=data.origin,
        preprocessing=data.preprocessing,
        scores=classification_scores(
            label[chosen], decision > 0, decision, data.identities[chosen], seed
        ),
    )


def _coordinates(latents: Floats, vector: Floats) -> Floats:
    flat = latents.reshape(len(latents), -1).astype(np.float64)
    row = vector.reshape(-1).astype(np.float64)
    return flat @ row / (row @ row)
