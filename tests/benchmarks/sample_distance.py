"""How far a generator's samples are from faces that it has not seen: Fréchet distance and kernel
distance (KID) on the features of several classifiers, beside those of as many training images."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch
from torch import Tensor

import hublatent
from hublatent.data import load_dataset
from hublatent.perception.classifier import AttributeClassifier
from training.trainers import loop
from training.trainers.stylegan2.kid import squared_mmd

BATCH = 100
CLASSIFIERS = ["model_cards/judge-celeba", "model_cards/attributes-celeba"]


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Between the Gaussians of features (N, d) and (M, d) (Heusel et al. 2017, 1706.08500, eq. 6).

    The trace of the root of a product of covariances is the sum of its eigenvalues' roots.
    """
    means = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    covariances = torch.cov(x.T), torch.cov(y.T)
    eigenvalues = np.linalg.eigvals((covariances[0] @ covariances[1]).numpy()).real
    roots = np.sqrt(eigenvalues.clip(0)).sum()
    return float(means + sum(c.trace() for c in covariances) - 2 * roots)


@torch.no_grad()
def features(classifier: AttributeClassifier, batches: Iterable[Tensor]) -> Tensor:
    return torch.cat([classifier.features(images).double() for images in batches])


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="folders of generators")
    parser.add_argument("--data", required=True)
    parser.add_argument("--classifiers", nargs="+", default=CLASSIFIERS)
    parser.add_argument("--samples", type=int, default=3000)
    given = parser.parse_args()
    generators = {name: hublatent.load(name) for name in given.models}
    (size,) = {model.image_size for model in generators.values()}
    dataset = load_dataset(given.data, size)
    unseen, seen = dataset.indices("validation", "test"), dataset.indices("train")[: given.samples]
    print(f"{len(unseen)} unseen images; {given.samples} samples of each generator, seed 0")
    for name in given.classifiers:
        classifier = AttributeClassifier.from_pretrained(name)
        cpu = torch.device("cpu")
        real, floor = (features(classifier, loop.batches(dataset, indices, cpu, BATCH))
                       for indices in (unseen, seen))  # fmt: skip
        found = {"training images": floor}
        for folder, model in generators.items():
            latents = model.sample_latents(
                given.samples, generator=torch.Generator().manual_seed(0)
            )
            found[folder] = features(
                classifier, (model.decode(part) for part in latents.split(BATCH))
            )
        for what, seen_features in found.items():
            print(f"{name}, {what}: Fréchet distance {frechet_distance(real, seen_features):.2f}, "
                  f"KID {squared_mmd(real, seen_features):.4f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
