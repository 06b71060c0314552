"""Linear separability (Karras et al. 2019, arXiv:1812.04948, section 4.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hublatent.errors import DataError
from hublatent.evaluation.metrics.arrays import checked
from hublatent.stats import Bools, Floats, Ints

KEPT = 0.5


def linear_separability(latents: ArrayLike, logits: ArrayLike) -> dict[str, float]:
    """How much of each attribute a hyperplane leaves unknown.

    2 ** (sum over k of H(label_k | side of the plane), in bits), over the half of the samples
    whose attribute k the classifier is surest of; fitted and measured on the same samples

    Args:
        latents: (N, D), of a model's samples; the paper takes 200,000.
        logits: (N, K), a classifier's, of the samples' images.

    Returns:
        "linear-separability", from 1 (separable).

    Raises:
        DataError: an attribute has one value among the samples kept.
    """
    from sklearn.svm import LinearSVC

    sure = np.asarray(logits, np.float64)
    z, _ = checked(latents, (sure > 0).astype(np.int64) if sure.ndim == 2 else sure)
    total = 0.0
    for k, column in enumerate(sure.T):
        kept = surest(column)
        labels = column[kept] > 0
        if labels.all() or not labels.any():
            raise DataError(
                f"Attribute {k} has one value among the {len(kept)} samples that the classifier "
                "is surest of; give more samples, or leave it out."
            )
        sides = LinearSVC().fit(z[kept], labels).predict(z[kept])
        total += conditional_entropy(labels, sides)
    return {"linear-separability": float(2**total)}


def surest(logits: Floats) -> Ints:
    """Which half of the samples a classifier is surest of, by its logits (N,)."""
    return np.argsort(-np.abs(logits), kind="stable")[: max(2, round(len(logits) * KEPT))]


def conditional_entropy(labels: Bools | Ints, given: Bools | Ints) -> float:
    """H(labels | given) in bits, of two binary columns (N,)."""
    joint = np.bincount(2 * given.astype(np.int64) + labels, minlength=4).reshape(2, 2) / len(given)
    share = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)
    return float(-(joint[joint > 0] * np.log2(share[joint > 0])).sum())
