"""The space as a whole: holes between samples, cosines between directions, distance and effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from hublatent.comparison.editability import Resamples, Strips, rank_correlations
from hublatent.comparison.judge import BATCH, Support, read_in_batches
from hublatent.comparison.latents import Faces, Pool, to_tensor
from hublatent.comparison.results import Boundary, Cosines, Holes
from hublatent.direction import Direction
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import bootstrap_weights, interval

N_LINES = 100
N_REFERENCE = 400
BETWEEN = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
BEYOND = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)

DEFINITIONS = {
    "holes": f"Realism score against {N_REFERENCE} other samples of the same model, on {N_LINES} "
    "straight lines: between two samples, and from latent_mean through a sample and beyond, r "
    "times as far as the sample.",
    "boundary": "Spearman's rank correlation, over the faces, of the distance to the svm "
    "direction's threshold, in its standard deviations, with the mean of P(target) over the "
    "positive strengths: negative where edits fail far from the boundary.",
}


@torch.inference_mode()
def holes(
    model: LatentModel, judge: AttributeClassifier, pool: Pool, *, name: str, seed: int
) -> Holes | None:
    """Realism along lines through the space; None for too few samples.

    Args:
        model: draws.
        judge: judges.
        pool: own samples: the last ones are the reference, the first the ends of the lines.
        name: of the model.
        seed: of the bootstrap over lines.
    """
    n = min(N_LINES, len(pool.latents) // 4)
    reference = torch.from_numpy(pool.features[2 * n :][-N_REFERENCE:])
    if len(reference) < 20:
        return None
    support = Support.of(reference)
    first, second = to_tensor(pool.latents[:n]), to_tensor(pool.latents[n : 2 * n])
    centre = model.latent_mean.expand_as(first)
    resamples = Resamples(np.arange(n), seed)

    def along(start: torch.Tensor, end: torch.Tensor, t: float) -> np.ndarray:
        latents = start.lerp(end, t)
        _, features = read_in_batches(judge, (model.decode(z) for z in latents.split(BATCH)))
        return support.realism(torch.from_numpy(features)).numpy()

    return Holes(
        model=name,
        n=n,
        realism_between=tuple((t, resamples.score(along(first, second, t))) for t in BETWEEN),
        realism_beyond=tuple((r, resamples.score(along(centre, first, r))) for r in BEYOND),
    )


def cosines(
    directions: Mapping[tuple[str, str], Direction], name: str, methods: Iterable[str]
) -> list[Cosines]:
    """Cosines between all directions of a method, for every method with at least two."""
    tables = []
    for method in methods:
        found = {a: d.vector.flatten() for (a, m), d in directions.items() if m == method}
        if len(found) < 2:
            continue
        unit = torch.nn.functional.normalize(torch.stack(list(found.values())).double(), dim=1)
        matrix = (unit @ unit.T).tolist()
        tables.append(Cosines(name, method, tuple(found), tuple(tuple(row) for row in matrix)))
    return tables


def boundary(
    strips: Strips,
    faces: Faces,
    svm: Direction | None,
    column: int,
    *,
    model: str,
    method: str,
    kind: str,
    seed: int,
) -> Boundary | None:
    """Does an edit do less, the farther the face lies before the boundary?

    Args:
        strips: readings of the edited faces.
        faces: the same faces.
        svm: gives the boundary; without threshold or sigma there is nothing to measure.
        column: the target among the judge's logits.
        model, method, kind: of the row.
        seed: of the bootstrap.
    """
    if svm is None or svm.threshold is None or not svm.sigma or len(faces) < 3:
        return None
    away = (svm.threshold - svm.coordinate(to_tensor(faces.latents)).numpy()) / svm.sigma  # (n,)
    effect = strips.target(column)[:, strips.zero + 1 :].mean(axis=1)  # (n,)
    x, y = _ranks(away), _ranks(effect)

    def correlation(weights: np.ndarray) -> np.ndarray:
        w = weights / weights.sum(axis=1, keepdims=True)
        mean_x, mean_y = w @ x, w @ y
        spread = (w @ x**2 - mean_x**2) * (w @ y**2 - mean_y**2)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (w @ (x * y) - mean_x * mean_y) / np.sqrt(spread)

    drawn = [
        correlation(w.astype(np.float64)) for w in bootstrap_weights(faces.identities, seed=seed)
    ]
    point = float(rank_correlations(away, effect[None])[0])
    score = interval(np.concatenate(drawn), point)
    return Boundary(model, svm.attribute, method, kind, score)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, centred, in [-1/2, 1/2]; ties share theirs."""
    from scipy.stats import rankdata

    ranks = rankdata(values)
    return (ranks - ranks.mean()) / len(ranks)
