"""discover(): latents and labels in, a Direction out, with scores from held-out identities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import EllipsisType

import numpy as np
import torch

from hublatent.direction import Direction
from hublatent.direction_set import DEFAULT_METHOD
from hublatent.discovery.cross_validation import check_methods, pose, read, read_held_out, unit_rows
from hublatent.discovery.labelled import LabelledLatents
from hublatent.discovery.methods import METHODS, Fits, Problem
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import logistic_curve


def discover(
    data: LabelledLatents,
    attribute: str,
    method: str = DEFAULT_METHOD,
    *,
    model: LatentModel,
    layers: Iterable[int] | None = None,
    classifier: AttributeClassifier | None = None,
    seed: int = 0,
) -> Direction:
    """Find the direction of an attribute, and measure on held-out identities how well it reads it.

    Args:
        data: latents of training and validation images, with labels.
        attribute: what to find.
        method: one of METHODS.
        model: the model of the latents; its statistics give sigma.
        layers: which layers of a latent (L, D) to move; None takes the model's default.
        classifier: whose logit the method "assessor" raises; not the judge.
        seed: of the balanced set, the folds and the bootstrap.

    Returns:
        The direction; every row it touches has norm 1, unless the method moves each layer its own
        way ("pairs"), where the norm over all layers of the model is 1. Its scores are those of
        reading latents averaged over all layers, as in the paper; threshold and gain belong to
        its coordinate.

    Raises:
        DataError: the attribute is unknown or has too few examples.
        HublatentError: the method is unknown, or a layer is outside the model.
    """
    found = discover_all(
        data, (attribute,), (method,), model=model, layers=layers, classifier=classifier, seed=seed
    )
    return next(found)


def discover_all(
    data: LabelledLatents,
    attributes: Sequence[str],
    methods: Sequence[str],
    *,
    model: LatentModel,
    layers: Iterable[int] | None = None,
    classifier: AttributeClassifier | None = None,
    seed: int = 0,
) -> Iterator[Direction]:
    """Find many directions, as `discover` does; what several of them need is computed once.

    Yields:
        For each method of the first attribute, then of the next.
    """
    check_methods(methods)
    rows = model.moved_rows(layers)
    for problem in pose(data, attributes, model=model, classifier=classifier, seed=seed):
        for method in methods:
            found = METHODS[method](problem)
            yield _direction(problem, method, found, rows).with_sigma(model)


def _direction(
    problem: Problem, method: str, fits: Fits, rows: list[int] | EllipsisType
) -> Direction:
    data, chosen = problem.data, problem.chosen
    label = problem.label[chosen]
    vectors = np.zeros((problem.n_folds + 1, *data.latents.shape[1:]), np.float32)
    for vector, row in zip(vectors, unit_rows(problem, fits), strict=True):
        vector[rows] = row if row.ndim == 1 else row[rows]
    held_out = vectors[:-1].reshape(problem.n_folds, -1).astype(np.float64)
    readings = read(data, chosen, vectors[:-1]) / np.square(held_out).sum(axis=1)  # (n, F)
    coordinate = readings[range(len(chosen)), problem.population.folds[chosen]]
    threshold, gain = logistic_curve(coordinate, label)
    used = problem.label if method == "joint" else label
    return Direction(
        problem.attribute, method, torch.from_numpy(vectors[-1]), threshold=threshold, gain=gain,
        n_positive=int(used.sum()), n_negative=int((~used).sum()),
        origin=data.origin, preprocessing=data.preprocessing,
        scores=read_held_out(problem, fits).scores(problem.seed),
    )  # fmt: skip
