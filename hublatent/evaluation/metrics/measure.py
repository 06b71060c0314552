"""A model's scores: on sprites, on a data set's attributes, and on its own samples."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from hublatent.data import FaceDataset, sprites
from hublatent.data.listing import PARTITIONS
from hublatent.discovery.labelled import encode, encode_images
from hublatent.errors import DataError
from hublatent.evaluation.metrics import METRICS
from hublatent.evaluation.metrics.linear_separability import linear_separability, surest
from hublatent.evaluation.metrics.path_length import path_length
from hublatent.images import to_float
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.perception.features import ImageFeatures
from hublatent.stats import MIN_POSITIVES, Floats, Ints

BATCH = 128
MIN_IMAGES = 200


def sprite_latents(model: LatentModel, n: int, seed: int = 0) -> tuple[Floats, Ints]:
    """A model's latents (n, D) of sprites drawn at random, and their factors (n, 5).

    Raises:
        DataError: the model sees images of another size.
    """
    if model.image_size != sprites.SIDE:
        raise DataError(
            f"Sprites have {sprites.SIDE} pixels a side; the model sees {model.image_size}."
        )
    factors = sprites.draw_factors(n, seed)
    latents = []
    for part in tqdm(np.split(factors, range(BATCH, n, BATCH)), "encode", unit="batch"):
        pixels = torch.from_numpy(sprites.render(part))[..., None]
        images = to_float(pixels.expand(-1, -1, -1, model.channels))
        latents.append(encode_images(model, images).reshape(len(part), -1))
    return np.concatenate(latents), factors


def attribute_latents(
    model: LatentModel, dataset: FaceDataset, n: int, seed: int = 0
) -> tuple[Floats, Ints, tuple[str, ...]]:
    """A model's latents (n, D) of at most n images, their attributes (n, K), and the K names.

    Latents with layers are averaged over them; attributes of too few images are left out.

    Raises:
        DataError: no attribute is left.
    """
    data = encode(model, dataset, PARTITIONS, mirror=False, progress=True)
    rows = np.random.default_rng(seed).permutation(len(data.latents))[:n]
    labels = data.labels[rows].astype(np.int64)
    common = np.minimum(labels.sum(axis=0), (1 - labels).sum(axis=0)) >= MIN_POSITIVES
    if not common.any():
        raise DataError(
            f"No attribute has {MIN_POSITIVES} images with it and without among {len(rows)}."
        )
    names = tuple(name for name, kept in zip(data.attributes, common, strict=True) if kept)
    return data.pooled_latents[rows], labels[:, common], names


def scores(
    latents: Floats, factors: Ints, metrics: Iterable[str], estimator: str,
    attributes: bool = False, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Scores by the names of their columns.

    Args:
        latents: (N, D).
        factors: (N, K), integers.
        metrics: keys of METRICS.
        estimator: DCI's; it stands in its columns' names.
        attributes: the factors are labels that depend on one another: columns say "attribute-".
        seed: of every draw.
    """
    given = {"seed": seed, "estimator": estimator, "balanced": not attributes}
    found = {}
    bar = tqdm(list(metrics), unit="metric")
    for name in bar:
        bar.set_description(name)
        taken = given.keys() & signature(METRICS[name]).parameters.keys()
        values = METRICS[name](latents, factors, **{option: given[option] for option in taken})
        for key, value in values.items():
            column = key if key == name else f"{name}-{key}"
            column += f" ({estimator})" if name == "dci" else ""
            found[f"attribute-{column}" if attributes else column] = value
    return found


def describe_correlations(correlations: pd.DataFrame) -> str:
    """How strongly labels depend on one another, in a sentence."""
    upper = correlations.where(np.triu(np.ones(correlations.shape, bool), 1)).stack()
    strongest = upper[upper.abs().nlargest(3).index]
    pairs = ", ".join(f"{a} and {b} {r:.2f}" for (a, b), r in strongest.items())
    return (
        f"{len(correlations)} labels correlate with one another: mean |r| "
        f"{upper.abs().mean():.3f}; strongest: {pairs or 'there is only one'}."
    )


@torch.inference_mode()
def sample_scores(
    model: LatentModel, classifier: AttributeClassifier, features: ImageFeatures, n: int,
    seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Linear separability and path length of n of a model's own samples.

    The papers take 200,000 and 100,000. Latents with layers are averaged over them to be separated;
    attributes too rare among the samples are left out; features measure the distance along paths.
    """
    generator = torch.Generator().manual_seed(seed)
    first, second = (model.sample_latents(n, generator=generator) for _ in range(2))
    parts = tqdm(first.split(BATCH), "draw and label", unit="batch")
    images = (model.decode(part) for part in parts)
    logits = torch.cat([classifier(part) for part in images]).cpu().numpy()
    shown = np.stack([column[surest(column)] > 0 for column in logits.T])  # (K, kept)
    rare = np.minimum(shown.sum(axis=1), (~shown).sum(axis=1)) < MIN_POSITIVES
    if rare.all():
        raise DataError(f"Among {n} samples no attribute varies enough; give more samples.")
    pooled = first.mean(dim=1) if first.ndim == 3 else first
    (separability,) = linear_separability(pooled.cpu().numpy(), logits[:, ~rare]).values()

    def embed(images: torch.Tensor) -> torch.Tensor:
        """(B, F), whose squared distances are the mean squared ones of unit feature vectors."""
        maps = features.feature_maps(images.expand(-1, 3, -1, -1))
        scaled = [m.flatten(1) / (len(maps) * m[0, 0].numel()) ** 0.5 for m in maps]
        return torch.cat(scaled, dim=1)

    return {
        f"linear-separability ({(~rare).sum()} attributes)": separability,
        **path_length(model.decode, first, second, embed, seed=seed),
    }
