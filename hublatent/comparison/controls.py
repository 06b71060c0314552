"""Directions that mean nothing: how large an effect has to be before it means something."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hublatent.comparison.latents import Faces, to_tensor
from hublatent.comparison.results import NullBand
from hublatent.direction import Direction
from hublatent.discovery import N_FOLDS, LabelledLatents, balanced_set, touched_layers
from hublatent.discovery.methods import METHODS, Population, Problem
from hublatent.editing import edit
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import Floats, identity_folds

N_RANDOM = 20
N_SHUFFLED = 20
N_FACES = 50
STRENGTHS = (-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0)
# One filter and one pattern: along the latter even a meaningless direction moves the picture.
SHUFFLED_METHODS = ("svm", "mean-difference")
PERCENTILE = 95

DEFINITION = (
    f"{PERCENTILE}th percentile of |mean change of P(target)| over {N_RANDOM} random directions "
    f"(isotropic) and {N_SHUFFLED} found on shuffled labels (half by {SHUFFLED_METHODS[0]}, half "
    f"by {SHUFFLED_METHODS[1]}), on at most {N_FACES} of the same faces, at "
    f"{', '.join(f'{s:+g}' for s in STRENGTHS if s)} standard deviations of each."
)


def random_directions(model: LatentModel, attribute: str, seed: int) -> list[Direction]:
    """Isotropic directions, with the sigma that the model's latents have along them."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((N_RANDOM, model.latent_shape[-1]))
    return [_direction(row, model, attribute, f"random-{i}") for i, row in enumerate(rows)]


def shuffled_directions(
    data: LabelledLatents, model: LatentModel, attribute: str, seed: int
) -> list[Direction]:
    """Directions of labels that were dealt out anew among the balanced pictures."""
    chosen = balanced_set(data, attribute, seed)
    folds = identity_folds(data.identities[chosen], N_FOLDS, seed)
    rng = np.random.default_rng(seed)
    directions = []
    for i in range(N_SHUFFLED):
        dealt = LabelledLatents(
            latents=data.latents[chosen],
            labels=rng.permutation(data.label(attribute)[chosen])[:, None],
            attributes=(attribute,),
            identities=data.identities[chosen],
            mirrored=None if data.mirrored is None else data.mirrored[chosen],
        )
        problem = Problem(Population(dealt, folds, N_FOLDS), attribute, np.arange(len(chosen)))
        fits = METHODS[SHUFFLED_METHODS[i % len(SHUFFLED_METHODS)]](problem)
        directions.append(_direction(fits.rows[-1], model, attribute, f"shuffled-{i}"))
    return directions


@torch.inference_mode()
def null_band(
    model: LatentModel,
    judge: AttributeClassifier,
    faces: Faces,
    directions: Sequence[Direction],
    *,
    name: str,
    kind: str,
) -> NullBand:
    """Measure the effects of control directions.

    Args:
        model: draws.
        judge: judges.
        faces: at least one; of more than N_FACES the first are taken.
        directions: controls, all for one attribute.
        name: of the model.
        kind: of the faces.
    """
    latents = to_tensor(faces.latents[:N_FACES])
    attribute = directions[0].attribute
    column = judge.index(attribute)

    def target(moved: torch.Tensor) -> float:
        return float(judge.probabilities(model.decode(moved))[:, column].mean())

    unedited = target(latents)
    effects = np.array(
        [
            [abs(target(edit(latents, d, s)) - unedited) if s else 0.0 for s in STRENGTHS]
            for d in directions
        ]
    )  # (directions, S)
    band = np.percentile(effects, PERCENTILE, axis=0)
    return NullBand(
        model=name,
        attribute=attribute,
        faces=kind,
        n=len(latents),
        n_random=sum(d.method.startswith("random") for d in directions),
        n_shuffled=sum(d.method.startswith("shuffled") for d in directions),
        strengths=STRENGTHS,
        band=tuple(float(x) for x in band),
    )


def _direction(row: Floats, model: LatentModel, attribute: str, method: str) -> Direction:
    """A row at norm 1 in every layer that directions of this model move."""
    unit = torch.from_numpy(row / np.linalg.norm(row)).float()
    layers = touched_layers(model, None)
    vector = torch.zeros(model.latent_shape)
    vector[... if layers is None else list(layers)] = unit
    return Direction(attribute, method, vector).with_sigma(model)
