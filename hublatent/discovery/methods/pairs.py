"""Directions of a few pairs of pictures, without and with an attribute (FLAME).

Parihar et al. 2022, "Everything is there in latent space: attribute editing and attribute style
manipulation by StyleGAN latent space exploration" (arXiv:2207.09855).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hublatent.direction import Direction
from hublatent.discovery.methods.problem import Fits, Problem
from hublatent.errors import DataError, DirectionError
from hublatent.model import LatentModel
from hublatent.stats import Bools, Estimate, Floats, Ints

N_PAIRS = 20  # of labelled images of one person each, in `pairs`


def direction_of_pairs(
    model: LatentModel, before: Tensor, after: Tensor, attribute: str, *,
    estimate: Literal["singular", "mean"] = "singular",
) -> Direction:  # fmt: skip
    """Find the direction that a few before/after pictures share (FLAME).

    Args:
        model: the model of the latents; its statistics give sigma.
        before: (N, *latent_shape), latents of pictures without the attribute; 1 to about 20.
        after: (N, *latent_shape), of the same pictures with it.
        estimate: "singular", FLAME's, is the first singular vector of the changes; "mean" is their
            mean. Both are of changes of norm 1. Where the pictures of a pair differ in much beside
            the attribute, as two photographs do, the singular vector follows what differs most.

    Returns:
        The direction, of norm 1. Its scores say how well the pairs agree: "singular share" is that
        of the first singular value, squared (1 where all pairs change alike, 1 / N where they have
        nothing in common); "pair cosine" is that between a pair and the direction of the others.

    Raises:
        DataError: shapes differ, there is no pair, or the two pictures of one are the same.
    """
    if before.shape != after.shape or before.shape[1:] != model.latent_shape:
        raise DataError(
            f"The pairs have the shapes {tuple(before.shape)} and {tuple(after.shape)}; expected "
            f"(N, {', '.join(map(str, model.latent_shape))}) twice."
        )
    changes = _unit_changes((after - before).double().cpu().numpy())  # (N, *latent_shape)
    row = common_direction(changes) if estimate == "singular" else _mean_direction(changes)
    n = len(changes)
    return Direction(
        attribute, "pairs", torch.from_numpy(row), n_positive=n, n_negative=n,
        scores=agreement(changes),
    ).with_sigma(model)  # fmt: skip


def with_styles(model: LatentModel, directions: Sequence[Direction]) -> Direction:
    """Join the directions of an attribute's styles, such as kinds of glasses (FLAME).

    With u the first singular vector of the unit vectors v_k, style k is the tangent
    v_k / <v_k, u> - u, which is orthogonal to u. Returns u with `styles`, for `Direction.varied`.
    """
    shapes = {tuple(direction.vector.shape) for direction in directions}
    if len(directions) < 2 or len(shapes) > 1:
        raise DirectionError(
            f"Styles are joined from two or more directions of one shape; given: {len(directions)} "
            f"of the shapes {sorted(shapes)}."
        )
    vectors = np.stack([d.unit().vector.double().numpy() for d in directions])  # (M, *latent_shape)
    common = common_direction(vectors)
    along = (vectors * common).reshape(len(vectors), -1).sum(axis=1)  # (M,)
    if along.min() <= 0:
        raise DirectionError(
            f"{directions[int(along.argmin())].name} points away from what the other styles have "
            "in common; leave it out."
        )
    styles = torch.from_numpy(vectors / along.reshape(-1, *[1] * common.ndim) - common)
    first = directions[0]
    joined = Direction(first.attribute, first.method, torch.from_numpy(common), styles=styles)
    return joined.with_sigma(model)


def common_direction(changes: Floats) -> Floats:
    """The first right singular vector of unit vectors (N, ...), uncentred, along their mean."""
    flat = changes.reshape(len(changes), -1)
    vector = np.linalg.svd(flat, full_matrices=False)[2][0]
    # A singular vector has no sign of its own.
    sign = 1 if (flat @ vector).mean() >= 0 else -1
    return np.asarray(sign * vector.reshape(changes.shape[1:]))


def _mean_direction(changes: Floats) -> Floats:
    mean = changes.mean(axis=0)
    norm = np.linalg.norm(mean)
    if not norm:
        raise DataError("The pairs cancel out: their mean change is zero.")
    return np.asarray(mean / norm)


def agreement(changes: Floats) -> dict[str, Estimate]:
    """How well pairs agree: their unit changes (N, ...) -> two scores; none of a single pair."""
    n = len(changes)
    if n < 2:
        return {}
    rest = [np.delete(changes, i, axis=0) for i in range(n)]
    cosines = [float((c * common_direction(r)).sum()) for c, r in zip(changes, rest, strict=True)]
    shares = np.array([_singular_share(r) for r in rest])
    # The jackknife: how much the share moves where one pair is left out.
    deviation = float(np.sqrt((n - 1) / n * np.square(shares - shares.mean()).sum()))
    error = float(np.std(cosines, ddof=1)) / n**0.5
    return {
        "singular share": _around(_singular_share(changes), deviation, 1 / n),
        "pair cosine": _around(float(np.mean(cosines)), error, -1),
    }


def pairs(problem: Problem) -> Fits:
    """The mean change of up to 20 pairs of images of one person each, without and with it."""
    data, rows = problem.data, []
    for fold in range(problem.n_folds + 1):
        seen = np.flatnonzero(problem.folds != fold)
        label, identities = problem.label[seen], data.identities[seen]
        chosen = same_person_pairs(label, identities, N_PAIRS, problem.seed)
        if not len(chosen):
            raise DataError(
                f"{problem.attribute}: nobody is on an image with and on one without it, so there "
                "are no pairs."
            )
        without, having = seen[chosen].T
        changes = data.latents[having].astype(np.float64) - data.latents[without]
        rows.append(_mean_direction(_unit_changes(changes)))
    return Fits(np.stack(rows))


def same_person_pairs(label: Bools, identities: Ints, n_pairs: int, seed: int = 0) -> Ints:
    """Draw pairs of images of one person each, nobody twice, n_pairs at most.

    Returns:
        (P, 2), indices of the image without and of the one with the attribute, whose presence
        label (N,) tells. A smaller draw is part of a larger one.
    """
    rng = np.random.default_rng(seed)
    found = []
    for person in rng.permutation(np.unique(identities)):
        own = np.flatnonzero(identities == person)
        kinds = [own[~label[own]], own[label[own]]]
        if all(map(len, kinds)):
            found.append([rng.choice(kind) for kind in kinds])
        if len(found) == n_pairs:
            break
    return np.array(found, dtype=int).reshape(-1, 2)


def _unit_changes(changes: Floats) -> Floats:
    """Scale changes (N, ...) to norm 1 each, so that no pair outweighs the others."""
    norms = np.sqrt(np.square(changes).sum(axis=tuple(range(1, changes.ndim)), keepdims=True))
    if not len(changes) or not norms.all():
        raise DataError(
            f"{len(changes)} pairs, of which {int((norms == 0).sum())} have two equal latents; "
            "expected at least one, and each with a change."
        )
    return np.asarray(changes / norms)


def _singular_share(changes: Floats) -> float:
    squares = np.square(np.linalg.svd(changes.reshape(len(changes), -1), compute_uv=False))
    return float(squares[0] / squares.sum())


def _around(value: float, deviation: float, lowest: float) -> Estimate:
    low, high = value - 1.96 * deviation, value + 1.96 * deviation
    return Estimate(value, max(low, lowest), min(high, 1.0))
