"""discover(): latents and labels in, a Direction out, with scores from held-out identities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import EllipsisType

import numpy as np
import torch

from hublatent.direction import Direction
from hublatent.direction_set import DEFAULT_METHOD
from hublatent.discovery.cross_validation import check_methods, pose, read_held_out, unit_rows
from hublatent.discovery.labelled import LabelledLatents
from hublatent.discovery.methods import METHODS, Fits, Problem
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import logistic_curve


def discover(
    data: LabelledLatents, attribute: str, method: str = DEFAULT_METHOD, *, model: LatentModel,
    layers: Iterable[int] | None = None, classifier: AttributeClassifier | None = None,
    seed: int = 0,
) -> Direction:  # fmt: skip
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
    data: LabelledLatents, attributes: Sequence[str], methods: Sequence[str], *,
    model: LatentModel, layers: Iterable[int] | None = None,
    classifier: AttributeClassifier | None = None, seed: int = 0,
) -> Iterator[Direction]:  # fmt: skip
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
    data, chosen, label = problem.data, problem.chosen, problem.label[problem.chosen]
    vectors = np.zeros((problem.n_folds + 1, *data.latents.shape[1:]), np.float32)
    for vector, row in zip(vectors, unit_rows(problem, fits), strict=True):
        vector[rows] = row if row.ndim == 1 else row[rows]
    squared_norms = np.square(vectors.astype(float)).reshape(len(vectors), -1).sum(axis=1)
    readings, of_centre = data.read(chosen, vectors)  # (n, F + 1), (F + 1,)
    # Less the centre: its readings by two folds' vectors differ more than the attribute's kinds do.
    own_fold = problem.folds[chosen]
    coordinate = (readings / squared_norms)[range(len(chosen)), own_fold]
    threshold, gain = logistic_curve(coordinate, label)
    used = problem.label if method == "joint" else label
    return Direction(
        problem.attribute, method, torch.from_numpy(vectors[-1]),
        threshold=threshold + float(of_centre[-1] / squared_norms[-1]), gain=gain,
        n_positive=int(used.sum()), n_negative=int((~used).sum()),
        origin=data.origin, preprocessing=data.preprocessing,
        scores=read_held_out(problem, fits).scores(problem.seed),
    )  # fmt: skip
