"""What the judge says of pictures: probabilities, features, distances, realism.

The judge is a classifier that nothing else uses, so that no model was fitted to please it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hublatent.comparison import results
from hublatent.data import FaceDataset
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import (
    Estimate,
    bootstrap_weights,
    interval,
    weighted_auroc,
)

BATCH = 128
N_NEIGHBOURS = 3
MAX_PAIRS = 2000

DEFINITIONS = {
    "distance": "Perceptual distance: root of the mean, over the stages and positions of {judge}'s "
    "network, of the squared distance between the two pictures' channel vectors at length 1 "
    "(LPIPS without learned weights; 0 to 2).",
    "similarity": "Cosine between {judge}'s features of the two pictures.",
    "realism": "Realism score of Kynkäänniemi et al. 2019 (arXiv:1904.06991, eq. 3) in {judge}'s "
    "features, k = 3: above 1 the picture lies within reach of the reference pictures. These are "
    "the model's own unedited reconstructions of training faces, as many wearers as others; for "
    "a model without an encoder its own samples, sorted by the judge.",
}


@dataclass(frozen=True, eq=False)
class Reading:
    """What the judge sees on B pictures.

    Attributes:
        logits: (B, K).
        features: (B, F).
        maps: one (B, C, H, W) per stage, channel vectors of length 1.
    """

    logits: Tensor
    features: Tensor
    maps: list[Tensor]


def read(judge: AttributeClassifier, images: Tensor) -> Reading:
    """Read images (B, C, H, H) in [-1, 1], of any size H, in one pass."""
    maps: list[Tensor] = []
    features: list[Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda _module, _given, out: maps.append(out))
        for stage in judge.stages
    ]
    hooks.append(judge.pool.register_forward_hook(lambda _m, _given, out: features.append(out)))
    try:
        logits = judge(images)
    finally:
        for hook in hooks:
            hook.remove()
    return Reading(logits, features[0].float(), [functional.normalize(m, dim=1) for m in maps])


def distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Perceptual distance (see DEFINITIONS) of maps (..., C, H, W): (...)."""
    stages = [
        (a - b).square().sum(dim=-3).mean(dim=(-2, -1)) for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(stages).mean(dim=0).sqrt()  # (...)


@dataclass(frozen=True, eq=False)
class Support:
    """Where reference pictures lie, for the realism score.

    Attributes:
        centres: (R, F), features of reference pictures.
        radii: (R,), distance of each to its k-th nearest other one.
    """

    centres: Tensor
    radii: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Support:
        """Kynkäänniemi et al. 2019: spheres around (N, F); the larger half is left out."""
        distances = torch.cdist(features, features)
        radii = distances.kthvalue(N_NEIGHBOURS + 1, dim=1).values  # the nearest is itself
        kept = radii <= radii.median()
        return cls(features[kept], radii[kept])

    def realism(self, features: Tensor) -> Tensor:
        """Eq. 3: the largest radius over distance among the spheres; (B, F) -> (B,)."""
        away = torch.cdist(features, self.centres).clamp_min(1e-6)  # (B, R)
        return (self.radii / away).amax(dim=1)


def read_in_batches(
    judge: AttributeClassifier, batches: Iterator[Tensor]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities (N, K) and features (N, F) of batches of images."""
    probabilities, features = [], []
    for images in batches:
        reading = read(judge, images)
        probabilities.append(reading.logits.sigmoid())
        features.append(reading.features)
    return torch.cat(probabilities).numpy(), torch.cat(features).numpy()


@torch.inference_mode()
def judge_quality(
    judge: AttributeClassifier, name: str, fingerprint: str, dataset: FaceDataset, seed: int
) -> results.Judge:
    """How good the judge is on the real pictures of the test partition.

    Args:
        judge: the judge.
        name: of the judge.
        fingerprint: of its weights.
        dataset: labelled pictures.
        seed: of pairs and bootstraps.

    Returns:
        AUROC of each attribute that data and judge share, same-person AUROC, and own noise.
    """
    indices = dataset.indices("test")
    if not len(indices):
        return results.Judge(name, fingerprint, {}, None, float("nan"), 0)
    batches = [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]
    probabilities, features = read_in_batches(judge, (dataset.batch(b) for b in batches))
    mirrored, _ = read_in_batches(judge, (dataset.batch(b).flip(3) for b in batches))
    people = dataset.identities[indices]
    auroc = {}
    for attribute in judge.attribute_names:
        if attribute not in dataset.attributes:
            continue
        label = dataset.label(attribute)[indices]
        if label.any() and not label.all():
            ranking = probabilities[:, judge.index(attribute)]
            auroc[attribute] = _auroc(label, ranking, people, seed)
    return results.Judge(
        name=name,
        fingerprint=fingerprint,
        auroc=auroc,
        same_person_auroc=_same_person(features, people, seed),
        own_noise=float(np.abs(probabilities - mirrored).mean()),
        n_test=len(indices),
    )


def _same_person(features: NDArray[np.float32], people: np.ndarray, seed: int) -> Estimate | None:
    """AUROC of the cosine of features: two pictures of one person against those of two persons."""
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(len(people), 1)
    same = people[first] == people[second]
    if not same.any() or same.all():
        return None
    n = min(int(same.sum()), MAX_PAIRS)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(kind), n, replace=False) for kind in (same, ~same)]
    )
    first, second, same = first[chosen], second[chosen], same[chosen]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return _auroc(same, (unit[first] * unit[second]).sum(axis=1), people[first], seed)


def _auroc(labels: np.ndarray, ranking: np.ndarray, people: np.ndarray, seed: int) -> Estimate:
    once = np.ones((1, len(labels)), np.float32)
    drawn = [weighted_auroc(w, labels, ranking) for w in bootstrap_weights(people, seed=seed)]
    return interval(np.concatenate(drawn), float(weighted_auroc(once, labels, ranking)[0]))
