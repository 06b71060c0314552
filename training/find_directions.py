"""Find a model's directions: python training/find_directions.py --model FOLDER --data DATA

Uses training and validation images only; the test partition stays unseen.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import tyro
from tqdm import tqdm

import hublatent
from hublatent.direction import Direction, DirectionSet
from hublatent.discovery import METHODS, LabelledLatents, discover
from hublatent.errors import DataError, unknown_name
from hublatent.hub import DIRECTIONS_NAME
from hublatent.model import LatentModel
from hublatent.statistics import MIN_POSITIVES
from training.data import FaceDataset, load_dataset
from training.run import exit_on_user_error

BATCH = 256


@dataclass(frozen=True)
class Arguments:
    """Find the directions of a model with an encoder.

    Attributes:
        model: folder or Hub id of the model.
        data: folder or Hub dataset of labelled faces.
        out: the direction file; by default directions.safetensors in the model's folder.
        attributes: what to find; by default every attribute of the data.
        methods: how to find it.
        seed: of the balanced sets, the folds and the bootstraps.
        cache: folder of the decoded images; by default ~/.cache/hublatent/datasets.
    """

    model: str
    data: str
    out: Path | None = None
    attributes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("svm", "pattern", "joint")
    seed: int = 0
    cache: Path | None = None


@torch.no_grad()
def encode_labelled(model: LatentModel, dataset: FaceDataset, name: str) -> LabelledLatents:
    """Encode the training and validation images.

    Args:
        model: a model with an encoder.
        dataset: the images and their labels.
        name: of the data, for the direction file.
    """
    indices = dataset.indices("train", "validation")
    parts = np.array_split(indices, max(1, len(indices) // BATCH))
    device = model.latent_mean.device
    latents = [
        model.encode(dataset.batch(part).to(device)).cpu().numpy()
        for part in tqdm(parts, desc="encode", unit="batch")
    ]
    return LabelledLatents(
        latents=np.concatenate(latents),
        labels=dataset.labels[indices],
        attributes=dataset.attributes,
        identities=dataset.identities[indices],
        dataset=f"{name} {dataset.digest}",
        preprocessing=dataset.preprocessing,
    )


def findable(data: LabelledLatents, wanted: tuple[str, ...]) -> list[str]:
    """The wanted attributes with enough examples; says which ones are left out."""
    names = wanted or data.attributes
    rarer = {a: int(min(data.label(a).sum(), (~data.label(a)).sum())) for a in names}
    rare = [f"{a} ({n})" for a, n in rarer.items() if n < MIN_POSITIVES]
    if rare:
        print(f"Left out, with fewer than {MIN_POSITIVES} examples of a kind: {', '.join(rare)}.")
    kept = [a for a, n in rarer.items() if n >= MIN_POSITIVES]
    if not kept:
        raise DataError(f"None of {', '.join(names)} has {MIN_POSITIVES} examples of each kind.")
    return kept


def run(arguments: Arguments) -> None:
    """Find, print and save."""
    for method in arguments.methods:
        if method not in METHODS:
            raise DataError(unknown_name("method", method, METHODS))
    out = arguments.out
    if out is None and not Path(arguments.model).is_dir():
        raise DataError(f"{arguments.model} is on the Hub; say with --out where the file goes.")
    model = hublatent.load(arguments.model)
    dataset = load_dataset(arguments.data, model.image_size, cache=arguments.cache)
    data = encode_labelled(model, dataset, Path(arguments.data).name)
    print(f"seed {arguments.seed}")
    pairs = [(a, m) for a in findable(data, arguments.attributes) for m in arguments.methods]
    directions = [
        discover(data, attribute, method, model=model, seed=arguments.seed)
        for attribute, method in tqdm(pairs, desc="discover", unit="direction")
    ]
    path = out or Path(arguments.model) / DIRECTIONS_NAME
    DirectionSet.of(model, directions).save(path)
    print("\n".join(map(describe, directions)))
    print(f"{path}: {len(directions)} directions")


def describe(direction: Direction) -> str:
    """One line: name, sigma, and the scores on held-out identities."""
    scores = "  ".join(
        f"{name} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
        for name, score in direction.scores.items()
        if name in ("accuracy", "auroc")
    )
    return f"{direction.name:32} sigma {direction.sigma:.3g}  {scores}"


def main() -> None:
    """Find what the command line asks for."""
    run(tyro.cli(Arguments))


if __name__ == "__main__":
    exit_on_user_error(main)
