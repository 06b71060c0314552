"""How good and how honest a classifier's probabilities are: calibration, scores and the card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hublatent.classifier import AttributeClassifier
from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.stats import bootstrap_weights, interval, weighted_auroc

N_BINS = 15
BATCH = 256
BLURS = (1.0, 2.0)  # pixels
# What the published classifiers are for, as their cards say it.
PURPOSES = {
    "attributes-celeba": "Serves the rest of hublatent: features for perceptual losses and kernel "
    "distances, labels for generated samples, the app's read-out. Because models are chosen and "
    "fitted with it, it never judges them; judge-celeba does.",
    "judge-celeba": "Judges edits in hublatent's comparison, and does nothing else: nothing that "
    "fits, selects or labels may load it. Trained to bear blur, for the pictures it judges are "
    "soft.",
}
Floats = NDArray[np.floating]


@torch.no_grad()
def logits_of(
    model: AttributeClassifier,
    dataset: FaceDataset,
    indices: np.ndarray,
    change: Callable[[Tensor], Tensor] = lambda images: images,
) -> Tensor:
    """Calibrated logits of some pictures; the model's mode is left as it was.

    Args:
        model: the classifier.
        dataset: the pictures.
        indices: (N,) positions in it.
        change: what happens to the images (B, C, H, W) first, such as a blur.

    Returns:
        float32 (N, K), on the CPU.
    """
    was_training = model.training
    model.eval()
    device = model.temperature.device
    parts = [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]
    logits = [model(change(dataset.batch(part)).to(device)).cpu() for part in parts]
    model.train(was_training)
    return torch.cat(logits)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The one number by which to divide logits (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    It minimises the cross-entropy, which is convex in 1 / T. One for all attributes: a separate one
    for an attribute of a dozen validation faces would fit their noise.

    Args:
        logits: (N, K), of images that the network was not trained on.
        labels: (N, K), bool or 0 and 1.

    Returns:
        T > 0; above 1 where the network was too sure.

    Raises:
        DataError: the logits carry nothing about the labels, or everything.
    """
    logits, labels = logits.double(), labels.double()
    inverse = torch.ones((), dtype=torch.float64)
    for _ in range(100):  # Newton's steps on the derivative with respect to 1 / T
        p = (logits * inverse).sigmoid()
        slope = ((p - labels) * logits).mean()
        curvature = (p * (1 - p) * logits.square()).mean()
        # Far from the minimum a whole step may overshoot: at most a factor of 2 at a time.
        proposal = inverse - slope / curvature
        nearer = proposal.clamp(float(inverse) / 2, float(inverse) * 2)
        if abs(float(nearer - inverse)) <= 1e-12 * float(inverse):
            return 1 / float(nearer)
        inverse = nearer
        if not 1e-3 < float(inverse) < 1e3:
            break
    raise DataError(
        "No temperature fits the validation images: their logits separate the labels perfectly, or "
        "not at all. Give more validation images, or train longer."
    )


def calibration_error(weights: Floats, probabilities: Floats, labels: Floats) -> Floats:
    """Expected calibration error of one attribute, under each row of weights.

    ECE = sum over bins b of (n_b / N) * |mean predicted P in b - share of positives in b|, with 15
    bins of equal width of the predicted P(attribute) (Naeini et al. 2015; Guo et al. 2017, eq. 3,
    for a binary label). Finite samples bias it upwards: a perfect forecast has a small ECE, not 0.

    Args:
        weights: (R, N).
        probabilities: (N,), in [0, 1].
        labels: (N,), bool or 0 and 1.

    Returns:
        (R,), in [0, 1].
    """
    bins = np.minimum((probabilities * N_BINS).astype(int), N_BINS - 1)
    # n_b * (mean P - share of positives) is the bin's sum of P - label.
    excess = np.eye(N_BINS)[bins] * (probabilities - labels)[:, None]  # (N, 15)
    return np.abs(weights @ excess).sum(axis=1) / weights.sum(axis=1)


def held_out_scores(
    logits: Tensor, labels: np.ndarray, identities: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """AUROC and calibration error of each attribute, with 95% intervals over identities.

    Args:
        logits: (N, K), calibrated.
        labels: (N, K) bool.
        identities: (N,); the bootstrap draws these.
        names: the attributes.

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


def render_card(results: Mapping[str, Any]) -> str:
    """The README.md of a classifier, from what results.json holds."""
    name, test = results["name"], results["test"]
    head = (
        "---\nlicense: other\nlibrary_name: hublatent\npipeline_tag: image-classification\n"
        "tags:\n- hublatent\n- attribute-classifier\n- celeba\n---\n"
    )
    lines = [
        head + f"# {name}",
        f"{PURPOSES.get(name, 'Reads attributes off faces.')} A residual network of "
        f"{results['n_parameters']:,} parameters with one calibrated logit for each of "
        f"{len(results['attributes'])} attributes.",
        "```python\nfrom hublatent.classifier import AttributeClassifier\n\n"
        f'classifier = AttributeClassifier.from_pretrained("model_cards/{name}")\n'
        "classifier.probabilities(images)  # (B, K), images (B, 3, H, H) in [-1, 1]\n```",
        "Trained on CelebA, which is for non-commercial research only; so are these weights. "
        "It saw photographs of the training partition only, never a generated picture.",
        "## Limits\n\nThe labels are annotators' impressions of photographs of celebrities, some "
        "of them subjective (Attractive, Young, Male as a binary). They say nothing about a "
        "person, and the classifier must not be used to judge people.",
    ]
    if test is not None:
        lines += _score_lines(test)
    lines.append(
        f"## How it was made\n\n`python training/train_classifier.py --recipe {name} --data DATA "
        f"--out runs/{name} --export model_cards/{name}`; seed {results['recipe']['seed']}, data "
        f"sha256 {results['data']}. All numbers are in results.json."
    )
    return "\n\n".join(lines) + "\n"


def _score_lines(test: Mapping[str, Any]) -> list[str]:
    blurred = ", ".join(f"{auroc:.3f} at {s} px" for s, auroc in test["auroc_blurred"].items())
    table = ["| attribute | wearers | AUROC | calibration error |", "|---|---|---|---|"]
    for name, scores in test["attributes"].items():
        cells = (_cell(scores["auroc"]), _cell(scores["ece"]))
        table.append(f"| {name} | {scores['n_positive']} | {' | '.join(cells)} |")
    mean = test["mean"]
    table.append(f"| **mean** | | {_cell(mean.get('auroc'))} | {_cell(mean.get('ece'))} |")
    return [
        f"## Scores on {test['n_images']:,} test images of {test['n_identities']:,} people it has "
        "never seen\n\nWith 95% bootstrap intervals over people. The calibration error (ECE) is "
        "the mean distance, over 15 bins of the predicted probability, between prediction and "
        f"observed share. Mean AUROC on blurred images (Gaussian): {blurred}.",
        "\n".join(table),
    ]


def _cell(score: Mapping[str, float] | None) -> str:
    if score is None:
        return "-"
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
