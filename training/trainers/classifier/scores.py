"""How good and how honest a classifier's probabilities are: calibration, scores and the card."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import bootstrap_weights, interval, weighted_auroc
from training.trainers import loop
from training.trainers.classifier.distort import blur

N_BINS = 15
LARGEST_LOG_T = math.log(1e3)
BLURS = (1.0, 2.0)  # pixels
Floats = NDArray[np.floating]


def logits_of(
    model: AttributeClassifier,
    dataset: FaceDataset,
    indices: np.ndarray,
    change: Callable[[Tensor], Tensor] = lambda images: images,
) -> Tensor:
    """Calibrated logits (N, K), on the CPU, of some images, changed before, for example by a blur;
    the model's mode is left as it was.
    """
    with loop.evaluating(model) as device:
        parts = loop.batches(dataset, indices)
        return torch.cat([model(change(images).to(device)).cpu() for images in parts])


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The number T by which to divide logits (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    It minimises the cross-entropy of images that the network was not trained on, which is convex in
    1 / T, and is above 1 where the network was too sure. One for all attributes: a separate one for
    an attribute of a dozen validation faces would fit their noise.
    """
    logits, labels = logits.double(), labels.double()
    found = minimize_scalar(
        lambda log_t: float(cross_entropy(logits / math.exp(log_t), labels)),
        bounds=(-LARGEST_LOG_T, LARGEST_LOG_T), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    if abs(found.x) > LARGEST_LOG_T - 0.01:
        raise DataError(
            "No temperature fits the validation images: their logits separate the labels "
            "perfectly, or not at all. Give more validation images, or train longer."
        )
    return math.exp(found.x)


def calibration_error(weights: Floats, probabilities: Floats, labels: Floats) -> Floats:
    """Expected calibration error of one attribute, under each row of weights.

    ECE = sum over bins b of (n_b / N) * |mean predicted P in b - share of positives in b|, with 15
    bins of equal width of the predicted P(attribute) (Naeini et al. 2015; Guo et al. 2017, eq. 3,
    for a binary label). Finite samples bias it upwards: a perfect forecast has a small ECE, not 0.

    Args:
        weights: (R, N); the errors are (R,).
        probabilities: (N,), in [0, 1].
        labels: (N,), bool or 0 and 1.
    """
    bins = np.minimum((probabilities * N_BINS).astype(int), N_BINS - 1)
    # n_b * (mean P - share of positives) is the bin's sum of P - label.
    excess = np.eye(N_BINS)[bins] * (probabilities - labels)[:, None]  # (N, 15)
    return np.abs(weights @ excess).sum(axis=1) / weights.sum(axis=1)


def held_out_scores(
    logits: Tensor, labels: np.ndarray, identities: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """AUROC and calibration error of K attributes, with 95% intervals over identities.

    Returns:
        "attributes": name -> {"auroc", "ece", "n_positive"}, and "mean": the same two averaged
        over the attributes; each score has value, low and high. An attribute that all test faces
        have, or none, has no AUROC (null) and is left out of the mean.
    """
    probabilities, ranking = logits.double().sigmoid().numpy(), logits.numpy()

    def measure(weights: Floats) -> tuple[Floats, Floats]:
        columns = range(len(names))
        auroc = [weighted_auroc(weights, labels[:, k], ranking[:, k]) for k in columns]
        ece = [calibration_error(weights, probabilities[:, k], labels[:, k]) for k in columns]
        return np.stack(auroc, axis=1), np.stack(ece, axis=1)  # (R, K) each

    point = measure(np.ones((1, len(labels)), np.float32))
    drawn = [measure(weights) for weights in bootstrap_weights(identities)]
    defined = np.isfinite(point[0][0])
    scores: dict[str, Any] = {"attributes": {}, "mean": {}}
    for i, score in enumerate(("auroc", "ece")):
        values = np.concatenate([d[i] for d in drawn])  # (R, K)
        if score == "ece":
            # Drawing with replacement adds noise that an absolute value never averages out: the
            # resamples' mean is that much too high.
            values = (values - values.mean(axis=0) + point[i]).clip(min=0)
        for k, name in enumerate(names):
            entry = scores["attributes"].setdefault(name, {"n_positive": int(labels[:, k].sum())})
            known = score == "ece" or defined[k]
            entry[score] = asdict(interval(values[:, k], point[i][0, k])) if known else None
        if defined.any():
            # A resample that happens to lack an attribute's positives averages the others.
            means = np.nanmean(values[:, defined], axis=1)
            scores["mean"][score] = asdict(interval(means, point[i][0, defined].mean()))
    return scores


def mean_auroc(logits: Tensor, labels: np.ndarray) -> float:
    """AUROC averaged over the attributes that occur and do not always occur."""
    once = np.ones((1, len(labels)), np.float32)
    columns = [
        weighted_auroc(once, labels[:, k], logits[:, k].numpy())[0]
        for k in range(labels.shape[1])
        if 0 < labels[:, k].sum() < len(labels)
    ]
    return float(np.mean(columns)) if columns else float("nan")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Nats per attribute and image."""
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits))


def loss_and_auroc(logits: Tensor, labels: np.ndarray) -> dict[str, float]:
    """What a log line says of logits (N, K) and labels (N, K) bool: loss and mean AUROC."""
    loss = float(cross_entropy(logits, torch.from_numpy(labels)))
    return {"loss": loss, "auroc": mean_auroc(logits, labels)}


def test_scores(model: AttributeClassifier, dataset: FaceDataset) -> dict[str, Any] | None:
    """All that a card says of the test images; None where there are none."""
    indices = dataset.indices("test")
    if not len(indices):
        return None
    labels, identities = dataset.labels[indices], dataset.identities[indices]
    logits = logits_of(model, dataset, indices)
    blurred = {}
    for sigma in BLURS:
        soft = logits_of(model, dataset, indices, partial(blur, sigma=sigma))
        blurred[str(sigma)] = mean_auroc(soft, labels)
    return {
        "n_images": len(indices),
        "n_identities": len(np.unique(identities)),
        "loss": loss_and_auroc(logits, labels)["loss"],
        "auroc_blurred": blurred,
        **held_out_scores(logits, labels, identities, dataset.attributes),
    }
