"""Measure face-detector and face-identity, and write the figures into their cards:

python training/judges/measure_judges.py --data DATA --strips STRIPS

STRIPS holds rows of 43 pictures, an edit of growing strength, and by-eye labels of the strength
from which each face is broken.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from hublatent.data import load_dataset
from hublatent.errors import DataError
from hublatent.images import to_float
from hublatent.perception.faces import SAME_PERSON_DISTANCE, FaceDetector, FaceIdentity
from hublatent.storage import write_text
from training.judges.paper_strips import ALPHAS, CROP_SIDE, read_labels, read_pictures
from training.trainers.commands import run_script

MARKS = ("<!-- scores -->\n", "<!-- end of scores -->\n")


@dataclass(frozen=True)
class Arguments:
    """Measure face-detector and face-identity, and write the figures into their cards."""

    data: str  # folder or Hub dataset of labelled faces; its test people are used
    strips: Path  # folder of strips with their labels
    models: Path = Path("model_cards")  # the folder that holds face-detector and face-identity


@torch.inference_mode()
def run(arguments: Arguments) -> None:
    """Measure both judges and write their cards."""
    detector = FaceDetector.from_pretrained(arguments.models / "face-detector")
    identity = FaceIdentity.from_pretrained(arguments.models / "face-identity")
    dataset = load_dataset(arguments.data, image_size=64)
    test = dataset.indices("test")
    faces = dataset.batch(test)
    told = identity_scores(identity, faces, dataset.identities[test])
    write_scores(arguments.models / "face-identity", told)
    told = detector_scores(detector, faces, arguments.strips)
    write_scores(arguments.models / "face-detector", told)


def identity_scores(identity: FaceIdentity, faces: Tensor, people: NDArray[np.integer]) -> str:
    """How well distances tell one person's pictures from strangers', in words."""
    embeddings = torch.cat([identity.embed(part) for part in faces.split(64)])
    first, second = np.triu_indices(len(people), 1)
    distances = torch.cdist(embeddings, embeddings).numpy()[first, second]
    same = people[first] == people[second]
    near = distances < SAME_PERSON_DISTANCE
    return (
        f"On {len(people)} pictures of 64 pixels of {len(np.unique(people))} people "
        f"({same.sum():,} pairs of one person, {(~same).sum():,} of two): AUROC of the distance "
        f"{roc_auc_score(same, -distances):.3f}; mean distance {distances[same].mean():.3f} for "
        f"one person and {distances[~same].mean():.3f} for two; nearer than "
        f"{SAME_PERSON_DISTANCE} are {near[same].mean():.0%} of the former and "
        f"{near[~same].mean():.0%} of the latter.\n"
    )


def detector_scores(detector: FaceDetector, faces: Tensor, strips: Path) -> str:
    """How well the confidence tells broken from whole faces, in words."""
    real = torch.cat([detector.confidence(part) for part in faces.split(256)]).numpy()
    images, broken = read_strips(strips)
    confidence = torch.cat([detector.confidence(part) for part in images.split(256)]).numpy()
    agreed = ~np.isnan(broken)
    auroc = roc_auc_score(broken[agreed] == 0, confidence[agreed])
    return (
        f"Logits of {len(real)} test pictures of CelebA at 64 pixels: median "
        f"{np.median(real):.1f}, 5% quantile {np.quantile(real, 0.05):.1f}. On "
        f"{agreed.sum()} edits of StyleGAN2's faces that three readers agree on by eye "
        f"({int(broken[agreed].sum())} of them broken) it tells broken from whole at AUROC "
        f"{auroc:.3f}.\n"
    )


def read_strips(folder: Path) -> tuple[Tensor, NDArray[np.floating]]:
    """The strips' pictures (B, 3, 120, 120), and whether each is broken: 1, 0, or NaN, where
    readers disagree.
    """
    pictures, broken = [], []
    for name, onsets in read_labels(folder)[0].items():
        pictures.append(read_pictures(folder / f"{name}.jpg", CROP_SIDE))
        votes = (onsets.broken[:, None] <= ALPHAS).mean(axis=0)
        broken.append(np.where((votes > 0) & (votes < 1), np.nan, votes))
    return to_float(torch.from_numpy(np.concatenate(pictures))), np.concatenate(broken)


def write_scores(folder: Path, text: str) -> None:
    """Put a text between the card's two marks."""
    card = folder / "README.md"
    before = card.read_text(encoding="utf-8")
    head, begin, rest = before.partition(MARKS[0])
    _, end, tail = rest.partition(MARKS[1])
    if not begin or not end:
        raise DataError(f"{card} lacks the lines {MARKS[0].strip()} and {MARKS[1].strip()}.")
    write_text(card, head + begin + text + end + tail)
    print(text, end="")


if __name__ == "__main__":
    run_script(Arguments, run)
