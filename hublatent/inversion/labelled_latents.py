"""Latents with labels of a model without an encoder: of images that were projected before, or of
its own samples that a classifier labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from hublatent.data import FaceDataset
from hublatent.direction import Origin
from hublatent.discovery import LabelledLatents
from hublatent.discovery.labelled import labelled
from hublatent.errors import DataError
from hublatent.inversion.latents_file import read_projected
from hublatent.model import LatentModel, weights_digest
from hublatent.perception.classifier import AttributeClassifier, split_names

BATCH = 256


def projected(model: LatentModel, dataset: FaceDataset, folder: Path) -> LabelledLatents:
    """The training and validation images among those that training/project_images.py projected.

    Raises:
        DataError: the folder is of another model or of other data, or has no such images.
    """
    found = read_projected(folder, model)
    if found.dataset != dataset.digest:
        raise DataError(
            f"{folder} holds images of the data {found.dataset[:12]}; {dataset.name} is "
            f"{dataset.digest[:12]}. Give the --data that were projected."
        )
    indices = found.indices.numpy()
    keep = np.isin(indices, dataset.indices("train", "validation"))
    if not keep.any():
        raise DataError(f"{folder} holds no training or validation images; directions need some.")
    origin = Origin("projected", dataset.name, dataset.digest, int(keep.sum()))
    return labelled(dataset, indices[keep], found.latents.numpy()[keep], origin)


@torch.no_grad()
def sampled(
    model: LatentModel, classifier: AttributeClassifier, n: int, name: str, seed: int = 0
) -> LabelledLatents:
    """Draw n samples and let a classifier label them (InterFaceGAN; arXiv:2005.09635, 3.1).

    The classifier's `name` is for the direction file.
    """
    latents = model.sample_latents(n, generator=torch.Generator().manual_seed(seed))
    labels = []
    with tqdm(total=n, desc="draw and label", unit="image") as bar:
        for part in latents.split(BATCH):
            labels.append(classifier.probabilities(model.decode(part)).cpu().numpy() > 0.5)
            bar.update(len(part))
    return LabelledLatents(
        latents=latents.cpu().numpy(),
        labels=np.concatenate(labels),
        attributes=split_names(classifier.attributes),
        identities=np.arange(n),
        origin=Origin("sampled", name, weights_digest(classifier), n),
    )
