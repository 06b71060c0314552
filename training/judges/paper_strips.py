"""The paper's 40 strips of StyleGAN2 edits: where glasses appear, and where the face breaks.

python training/judges/paper_strips.py --strips STRIPS --data DATA

STRIPS holds rows of 43 pictures, an edit of growing strength, as the paper's authors published them
(github.com/isaac-berlin/latent-space-manipulation, MIT), their latents and directions, and by-eye
labels of some. Writes strips.csv, strips.md and strips.png.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from torch import Tensor

from hublatent.data import load_dataset
from hublatent.errors import DataError
from hublatent.evaluation.judges import (
    MAX_FACES,
    WHOLE_ABOVE,
    Condition,
    ConditionJudge,
    coherence,
)
from hublatent.evaluation.outcomes import outcome
from hublatent.figures import grid
from hublatent.images import open_image, save_png, to_float
from hublatent.perception.classifier import AttributeClassifier
from hublatent.perception.faces import FaceIdentity
from hublatent.publish import cells
from hublatent.storage import write_text
from training.judges.edit_strips import median_gap
from training.trainers.commands import run_script

ALPHAS = np.array([0, *range(1, 248, 6)])
# The strips' faces are framed more widely than CelebA's: this square of a tile is its crop.
TILE, CROP_TOP, CROP_LEFT, CROP_SIDE = 128, 0, 4, 120
# Glasses are there where logit + half its rise since α = 0 exceeds this: set on set 1, where
# anything from -2.8 to -0.8 gives the same outcomes.
GLASSES_ABOVE, RISE_WEIGHT = -1.8, 0.5
ROW_NORM = 14**-0.5  # of each of the 14 rows of a direction of norm 1
SHOWN = ("set1_07", "set1_08", "set1_06")
SHOWN_STEP = 6
HEAD = ("reader", "kappa of outcomes", "glasses, median difference in α", "break, the same")
REPORT = """# The paper's strips, measured

Each strip edits one face along the paper's SVM direction with α = 0, 1, 7, ..., 247. \
Glasses are there where judge-celeba's logit plus {rise} of its rise exceeds \
{glasses}, there and at the next α; a face is broken where its coherence \
(detector and PaDiM against α = 0) is below {whole}. *Strong*: glasses \
before the break; *decohered*: a break without; *no effect*: neither.

{counts}

Against {n} strips labelled by eye (kappa and glasses without the \
{n_wearers} that wear them from the start), on which the thresholds were set:

{agreement}The same, where coherence's weights and threshold were fitted without the strip \
(AUROC of broken pictures {auroc:.3f}):

{held_out}{directions}

![A strong, a decohered and an unchanged strip](strips.png)

Generated faces, by the paper's authors: github.com/isaac-berlin/latent-space-manipulation (MIT).
"""


@dataclass(frozen=True)
class Arguments:
    """Measure both onsets of each of the paper's strips."""

    strips: Path  # folder of the strips
    data: str  # folder or Hub dataset of CelebA, to know how whole faces look
    out: Path = Path("model_cards/replication")  # the folder to write
    models: Path = Path("model_cards")  # the folder that holds the judges


class Onsets(NamedTuple):
    """From which α on glasses are there and the face is broken; each (S,), infinite for never."""

    glasses: NDArray[np.floating]
    broken: NDArray[np.floating]

    def outcomes(self) -> NDArray[np.str_]:
        """By the rule of all edits."""
        return outcome(self.glasses, self.broken)


class Readings(NamedTuple):
    """What the judges see: glasses' logit, the faces' condition, identity's distance; (S, 43)."""

    glasses: NDArray[np.floating]
    condition: Condition
    distance: Tensor

    def onsets(self) -> Onsets:
        """By the thresholds, each face against itself at α = 0."""
        rise = self.glasses - self.glasses[:, :1]
        glasses = self.glasses + RISE_WEIGHT * rise > GLASSES_ABOVE
        # A flicker of glasses is none, but a face does not mend.
        lasting = glasses[:, :-1] & glasses[:, 1:]
        unedited = Condition(*(reading[:, :1] for reading in self.condition))
        left = coherence(self.condition, unedited, self.distance).numpy()
        return Onsets(first_alpha(lasting), first_alpha(left < WHOLE_ABOVE))


def first_alpha(seen: NDArray[np.bool_]) -> NDArray[np.floating]:
    """The first α at which something is seen, in each of the strips (S, at most 43)."""
    return np.where(seen.any(axis=1), ALPHAS[seen.argmax(axis=1)], np.inf)


def read_pictures(path: Path, size: int) -> NDArray[np.uint8]:
    """A strip's pictures (43, size, size, 3), cut as CelebA's."""
    picture = open_image(path)
    if picture.size != (TILE * len(ALPHAS), TILE):
        raise DataError(
            f"{path} has {picture.width} x {picture.height} pixels; expected {len(ALPHAS)} "
            f"pictures of {TILE} in a row."
        )
    tiles = []
    for left in range(CROP_LEFT, picture.width, TILE):
        tile = picture.crop((left, CROP_TOP, left + CROP_SIDE, CROP_TOP + CROP_SIDE))
        tiles.append(np.asarray(tile.resize((size, size), Image.Resampling.LANCZOS)))
    return np.stack(tiles)


def read_labels(folder: Path) -> tuple[dict[str, Onsets], set[str]]:
    """The readers' onsets by strip, and the strips that wear glasses from the start.

    Raises:
        DataError: there are no labels.
    """
    files = sorted(folder.glob("labels_*.json"))
    if not files:
        raise DataError(f"{folder} holds no labels_*.json.")
    read = {k: v for file in files for k, v in json.loads(file.read_text()).items()}
    labels = {}
    for name, readers in read.items():
        seen = pd.DataFrame(list(readers.values()))[["glasses_from", "broken_from"]].astype(float)
        labels[name] = Onsets(*seen.fillna(np.inf).to_numpy().T)
    wearers = {k for k, readers in read.items() if any(r["already"] for r in readers.values())}
    return labels, wearers


@torch.inference_mode()
def read(strips: list[NDArray[np.uint8]], models: Path, faces: Tensor) -> Readings:
    """Have the judges look at strips."""
    classifier = AttributeClassifier.from_pretrained(models / "judge-celeba")
    identity = FaceIdentity.from_pretrained(models / "face-identity")
    condition = ConditionJudge.from_pretrained(models, faces)
    seen = []
    for strip in strips:
        images = to_float(torch.from_numpy(strip))
        glasses = classifier(images)[:, classifier.index("Eyeglasses")]
        embedded = identity.embed(images)
        distance = (embedded - embedded[:1]).norm(dim=1)
        seen.append((glasses, *condition.read(images), distance))
    glasses, confidence, damage, distance = map(torch.stack, zip(*seen, strict=True))
    return Readings(glasses.numpy(), Condition(confidence, damage), distance)


def agreement(found: Onsets, labels: Onsets, kept: NDArray[np.bool_]) -> Markup:
    """Kappa of the outcomes and medians of the onsets' differences, for each reader.

    Outcomes and glasses are those of the strips kept.
    """
    rows = []
    for reader, seen in enumerate(zip(labels.glasses.T, labels.broken.T, strict=True)):
        outcomes = found.outcomes()[kept], Onsets(*seen).outcomes()[kept]
        everywhere = np.ones_like(kept)
        gaps = [
            median_gap(one[part], other[part])
            for one, other, part in zip(found, seen, (kept, everywhere), strict=True)
        ]
        rows.append(
            ["ABC"[reader], f"{cohen_kappa_score(*outcomes):.2f}", *map("{:.0f}".format, gaps)]
        )
    return cells.table(HEAD, rows)


def held_out(readings: Readings, labels: Onsets) -> tuple[float, NDArray[np.floating]]:
    """Weights and threshold of coherence fitted anew without each strip, and used on it.

    Returns:
        AUROC of the pictures' probabilities against most readers, and where each strip breaks.
    """
    confidence, damage = (reading.numpy() for reading in readings.condition)
    terms = [confidence, confidence - confidence[:, :1], damage - damage[:, :1]]
    inputs = np.stack(terms, axis=2)  # (S, 43, 3)
    broken = np.median(labels.broken, axis=1)[:, None] <= ALPHAS  # (S, 43)
    found = np.empty(broken.shape)
    for i in range(len(broken)):
        others = np.arange(len(broken)) != i
        fit = LogisticRegression(C=10).fit(inputs[others].reshape(-1, 3), broken[others].ravel())
        found[i] = fit.predict_proba(inputs[i])[:, 1]
    return float(roc_auc_score(broken.ravel(), found.ravel())), first_alpha(found > 0.5)


def directions_text(tensors: dict[str, NDArray]) -> str:
    """The directions' cosine, and what α is in standard deviations."""
    svm, means = (tensors[k] / np.linalg.norm(tensors[k]) for k in ("svm_row", "mean_difference"))
    sigma = ROW_NORM / np.std(tensors["w"] @ svm)
    return (
        f"The cosine of the paper's SVM direction with its difference of class means is "
        f"{svm @ means:.3f}. Of the {len(tensors['w'])} latents the coordinate along the SVM's row "
        f"has a standard deviation of {ROW_NORM / sigma:.3f}, and α moves it by {ROW_NORM:.4f} α: "
        f"α = 1 is {sigma:.2f}σ, and the sweep from 1 to 247 goes from {sigma:.2f}σ to "
        f"{247 * sigma:.0f}σ, far outside what the generator was trained on."
    )


def report(names: list[str], readings: Readings, folder: Path) -> str:
    """The page strips.md."""
    onsets = readings.onsets()
    labels, wearers = read_labels(folder)
    rows = [names.index(name) for name in labels]
    seen = Onsets(*(np.stack(column) for column in zip(*labels.values(), strict=True)))
    condition = Condition(*(reading[rows] for reading in readings.condition))
    labelled = Readings(readings.glasses[rows], condition, readings.distance[rows])
    fresh = np.array([name not in wearers for name in labels])
    auroc, broken = held_out(labelled, seen)
    counts = []
    for number in "12":
        mine = onsets.outcomes()[[name.startswith(f"set{number}") for name in names]]
        count = pd.Series(mine).value_counts()
        counts.append(f"Set {number}: {', '.join(f'{n} {name}' for name, n in count.items())}.")
    return REPORT.format(
        rise=RISE_WEIGHT, glasses=GLASSES_ABOVE, whole=WHOLE_ABOVE, counts="\n\n".join(counts),
        n=len(labels), n_wearers=len(wearers), auroc=auroc,
        agreement=agreement(labelled.onsets(), seen, fresh),
        held_out=agreement(Onsets(labelled.onsets().glasses, broken), seen, fresh),
        directions=directions_text(load_file(folder / "codes_and_directions.safetensors")),
    )  # fmt: skip


def picture(names: list[str], onsets: Onsets, folder: Path) -> Image.Image:
    """Three of the strips, at every sixth α."""
    rows, captions = [], []
    for name in SHOWN:
        i = names.index(name)
        from_alpha = [
            f"{what} from α = {value:.0f}" if np.isfinite(value) else f"{what} never"
            for what, value in (("glasses", onsets.glasses[i]), ("broken", onsets.broken[i]))
        ]
        captions.append(f"{name}, {onsets.outcomes()[i]}: {', '.join(from_alpha)}")
        tiles = read_pictures(folder / f"{name}.jpg", 96)
        rows.append([Image.fromarray(tile) for tile in tiles[::SHOWN_STEP]])
    return grid(rows, captions, [f"α = {alpha}" for alpha in ALPHAS[::SHOWN_STEP]])


def table(names: list[str], onsets: Onsets) -> pd.DataFrame:
    """One row a strip; what never happens is left empty."""
    found = pd.Series(names).str.extract(r"set(?P<set>\d+)_(?P<sample>\d+)").astype(int)
    found["outcome"] = onsets.outcomes()
    for name, alphas in zip(("glasses_from", "broken_from"), onsets, strict=True):
        found[name] = pd.Series(alphas).replace(np.inf, np.nan).astype("Int64")
    return found


def run(arguments: Arguments) -> None:
    """Measure the strips and write what was found."""
    files = sorted(arguments.strips.glob("set*_*.jpg"))
    if not files:
        raise DataError(f"{arguments.strips} holds no strips set*_*.jpg.")
    names = [file.stem for file in files]
    dataset = load_dataset(arguments.data, 64)
    train = dataset.indices("train")
    chosen = np.random.default_rng(0).permutation(train)[:MAX_FACES]
    strips = [read_pictures(file, 64) for file in files]
    readings = read(strips, arguments.models, dataset.batch(chosen))
    onsets = readings.onsets()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "strips.csv", table(names, onsets).to_csv(index=False))
    write_text(arguments.out / "strips.md", report(names, readings, arguments.strips))
    save_png(picture(names, onsets, arguments.strips), arguments.out / "strips.png")
    print(f"{arguments.out / 'strips.csv'}: {len(names)} strips")


if __name__ == "__main__":
    run_script(Arguments, run)
