"""Directions that no label was needed for, named by what a classifier sees change most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hublatent.direction import Direction
from hublatent.discovery.methods.components import principal_components, weight_factors
from hublatent.editing import edit
from hublatent.errors import HublatentError, unknown_name
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import Estimate, Floats, bootstrap_means, interval

UNLABELLED: dict[str, Callable[[LatentModel], Tensor]] = {
    "components": principal_components,
    "factorisation": weight_factors,
}
N_RANDOM = 20  # directions that mean nothing
PERCENTILE = 95
STRENGTH = 2.0
BATCH = 32


def discover_unlabelled(
    model: LatentModel, method: str, classifier: AttributeClassifier, *,
    n_directions: int = 20, n_samples: int = 64, seed: int = 0,
) -> list[Direction]:  # fmt: skip
    """Find directions without labels, and name each by what a classifier sees change most.

    A direction's effect on an attribute is the mean change of its logit per sigma, between -2 and
    +2 sigma, in units of the logit's deviation over the unedited samples. It has the name of the
    attribute with the largest effect if that is beyond the null band: the 95th percentile of the
    largest effects of 20 random directions.

    Args:
        method: "components" or "factorisation".
        classifier: sees the changes; not the judge.
        n_directions: how many, the first ones.
        n_samples: of the model, that are edited.
        seed: of the samples and the random directions.

    Returns:
        Directions of norm 1 in each layer they touch, pointing to presence; the method ends in a
        number, as in "components-03". One within the null band is called "Component-03". Their
        scores are "effect" and "null band".
    """
    if method not in UNLABELLED:
        raise HublatentError(unknown_name("method without labels", method, UNLABELLED))
    rows = UNLABELLED[method](model)[:n_directions]
    latents = model.sample_latents(n_samples, generator=torch.Generator().manual_seed(seed))
    scale = _logits(model, classifier, latents).std(axis=0)  # (K,)

    def effects(row: Tensor, name: str) -> tuple[Direction, Floats]:
        direction = unlabelled_direction(model, row, name)
        low, high = (
            _logits(model, classifier, edit(latents, direction, s)) for s in (-STRENGTH, STRENGTH)
        )
        return direction, (high - low) / (2 * STRENGTH * scale)  # (n, K)

    generator = torch.Generator().manual_seed(seed + 1)
    random_rows = torch.randn(N_RANDOM, rows.shape[1], generator=generator)
    largest = [np.abs(effects(row, "random")[1].mean(axis=0)).max() for row in random_rows]
    band = float(np.percentile(largest, PERCENTILE))
    return [
        _named(*effects(row, f"{method}-{i:02d}"), classifier.attribute_names, band, i, seed)
        for i, row in enumerate(rows)
    ]


def _named(
    direction: Direction, effects: Floats, names: Sequence[str], band: float, i: int, seed: int
) -> Direction:
    """Name a direction by its effects (n, K), and let it point to presence."""
    means, drawn = bootstrap_means(effects, np.arange(len(effects)), seed)  # (K,), (R, K)
    strongest = int(np.abs(means).argmax())
    sign = 1.0 if means[strongest] >= 0 else -1.0
    effect = interval(sign * drawn[:, strongest], abs(means[strongest]))
    return replace(
        direction,
        vector=sign * direction.vector,
        attribute=names[strongest] if effect.value > band else f"Component-{i:02d}",
        scores={"effect": effect, "null band": Estimate(band, band, band)},
    )


def unlabelled_direction(model: LatentModel, row: Tensor, method: str) -> Direction:
    """A row (D,) at norm 1 in each layer that directions of the model move."""
    vector = torch.zeros(model.latent_shape)
    vector[model.moved_rows()] = (row / row.norm()).float()
    return Direction("Component", method, vector).with_sigma(model)


@torch.inference_mode()
def _logits(model: LatentModel, classifier: AttributeClassifier, latents: Tensor) -> Floats:
    """(n, K): the attributes' logits of the images of latents."""
    return np.concatenate(
        [classifier(model.decode(part)).double().cpu().numpy() for part in latents.split(BATCH)]
    )
