"""Latents of a model without an encoder: files of projected ones, and samples, with labels.

A file holds the latents of some pictures; a folder of shards those of a data set.

Tensors `latents` (n, *latent_shape) float32 and `errors` (n,) float32, in a shard also `indices`
(n,) int64, positions in the data set. The metadata hold one JSON document, which says of which
model and data they are and how they were found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hublatent.data import FaceDataset
from hublatent.direction import Origin
from hublatent.discovery.labelled import LabelledLatents, labelled
from hublatent.errors import DataError
from hublatent.model import LatentModel, weights_digest
from hublatent.perception.classifier import AttributeClassifier, split_names
from hublatent.storage import TensorFormat

PROJECTED = TensorFormat("hublatent-projected", version=1, noun="projected latents")
SHARD_PATTERN = "shard-*.safetensors"
BATCH = 256


@dataclass(frozen=True, eq=False)
class ProjectedImages:
    """What a model draws N images of a data set from."""

    latents: Tensor  # (N, *latent_shape), float32
    errors: Tensor  # (N,), mean squared errors of what is drawn from them, pixels in [0, 1]
    indices: Tensor  # (N,) int64, the images' positions in the data set, each once
    dataset: str  # the data set's digest
    settings: Mapping[str, Any]  # how the images were chosen and projected


def describe(model: LatentModel, **facts: Any) -> dict[str, Any]:
    """The JSON document of a file: the model it belongs to, and further facts."""
    names = ("architecture", "space")
    known = {name: getattr(model, name) for name in names} | {"fingerprint": model.fingerprint()}
    return {**known, **json.loads(json.dumps(facts))}


def read_latents(path: str | Path, model: LatentModel) -> tuple[list[str], Tensor]:
    """The names of pictures, and their latents (n, *latent_shape), as `hublatent project` writes.

    Raises:
        DataError: there is no such file, it names no pictures, or it belongs to another model.
    """
    document, tensors = PROJECTED.read(path)
    _check_model(path, document, model)
    latents = _tensor(path, tensors, "latents").to(model.latent_mean)
    names = document.get("names") or []
    if len(names) != len(latents) or latents.shape[1:] != model.latent_shape:
        raise DataError(f"{path} does not hold one latent for each picture that it names.")
    return [Path(str(name)).name for name in names], latents


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{number:06d}.safetensors"


def check_same_run(folder: Path, document: Mapping[str, Any]) -> None:
    """Refuse a folder that holds shards of another model, data or settings; says what differs.

    `document` is what they should say, apart from their number.
    """
    for path in sorted(folder.glob(SHARD_PATTERN)):
        found = _run_of(path)
        if found == document:
            continue
        theirs, ours = ({**d, **d.get("settings", {}), "settings": None} for d in (found, document))
        differences = (
            f"{key} {str(theirs.get(key))[:12]} -> {str(ours.get(key))[:12]}"
            for key in sorted({*theirs, *ours})
            if theirs.get(key) != ours.get(key)
        )
        raise DataError(
            f"{path} is of another run ({', '.join(differences)}). Repeat that run's model, data "
            "and settings to go on with it, or choose another folder."
        )


def read_projected(folder: str | Path, model: LatentModel) -> ProjectedImages:
    """Read what training/project_images.py wrote, in the order of the data set.

    Raises:
        DataError: there is none, some are missing, or they belong to another model.
    """
    paths = sorted(Path(folder).glob(SHARD_PATTERN))
    if not paths:
        raise DataError(
            f"{folder} holds no projected images ({SHARD_PATTERN}); training/project_images.py "
            "makes them."
        )
    document = _run_of(paths[0])
    check_same_run(Path(folder), document)
    _check_model(paths[0], document, model)
    shards = [(path, PROJECTED.read(path)[1]) for path in paths]
    latents, errors, indices = (
        torch.cat([_tensor(path, tensors, name) for path, tensors in shards])
        for name in ("latents", "errors", "indices")
    )
    if len(indices) != document["n_images"] or len(indices.unique()) != len(indices):
        raise DataError(
            f"{folder} holds {len(indices.unique())} of {document['n_images']} projected images; "
            "the command that began it also finishes it."
        )
    order = indices.argsort()
    told = (document["dataset"], document["settings"])
    return ProjectedImages(latents[order], errors[order], indices[order], *told)


def _tensor(path: str | Path, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise DataError(f"{path} is incomplete: it lacks {name}.")
    return tensors[name]


def _check_model(path: str | Path, document: Mapping[str, Any], model: LatentModel) -> None:
    for key, ours in describe(model).items():
        if document.get(key) != ours:
            raise DataError(
                f"{path} holds latents of another model: its {key} is "
                f"{str(document.get(key))[:12]}, this model's is {ours[:12]}."
            )


def _run_of(path: Path) -> dict[str, Any]:
    """What all shards of a run say, as `describe` gives it."""
    try:
        document = PROJECTED.read_document(path)
    except DataError as error:
        raise DataError(f"{error} Delete it, and the same command makes it again.") from error
    return {k: v for k, v in document.items() if k not in ("format", "version", "shard")}


def projected(model: LatentModel, dataset: FaceDataset, folder: Path) -> LabelledLatents:
    """The training and validation images among those that training/project_images.py projected."""
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
