"""Strips of edits for labelling by eye, and how well the program's outcomes agree with the labels.

python training/judges/edit_strips.py draw --data DATA --out STRIPS
python training/judges/edit_strips.py score --strips STRIPS --labels LABELS...

`draw` edits samples of every model along its directions and along random ones, chooses as many
strips that the program calls strong, decohered and borderline, and writes numbered sheets that name
neither model nor verdict, with strips.csv, which does. A file of labels has the columns strip,
there and broken: the number of the first picture, 0 to 7, at which the attribute is there, and at
which the face is a face no more; empty where none is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score
from tqdm import tqdm

from hublatent.data import DataSource
from hublatent.direction import Direction
from hublatent.editing import edit
from hublatent.errors import DataError, exit_on_user_error
from hublatent.evaluation import outcomes
from hublatent.evaluation.controls import random_directions
from hublatent.evaluation.edits import Faces, changes, drawn, on_device, sampled_faces
from hublatent.evaluation.judges import BROKEN_BELOW, WHOLE_ABOVE, Judges
from hublatent.evaluation.outcomes import ABSENT
from hublatent.evaluation.report import number
from hublatent.evaluation.subjects import Subject, gather
from hublatent.figures import fit, grid
from hublatent.images import save_png, to_pil
from hublatent.publish import cells
from hublatent.storage import write_text

STRENGTHS = (0.0, 1.5, 3.0, 5.0, 7.0, 10.0, 14.0, 20.0)
ATTRIBUTES, METHODS = ("Eyeglasses", "Smiling", "Male"), ("svm", "joint")
KINDS = ("strong", "borderline", "decohered")
CLEAR = 3.0  # standard deviations between both onsets
PER_SHEET, SIDE = 10, 112
KEY_NAME, REPORT_NAME = "strips.csv", "by_eye.md"
REPORT = """# Edits judged by eye

{n} strips of edited samples of all models, of those that the program calls strong, decohered and
borderline, on sheets that name neither model nor verdict. Each was labelled by the first picture at
which the attribute is there, and at which the face is one no more; outcomes follow by rule. Broken
below {threshold:g} agrees best with the labels on one half of the strips; it is reported on the
other.

{table}
"""


@dataclass(frozen=True)
class Draw:
    """Draw strips for labelling."""

    data: str  # folder or Hub dataset of labelled faces, to know how whole faces look
    out: Path  # the folder to write
    models: Path = Path("model_cards")  # the folder of the models and judges
    n: int = 200  # how many strips
    pool: int = 48  # samples of each model, among which the strips are chosen
    seed: int = 0  # of the samples and the choice


@dataclass(frozen=True)
class Score:
    """Compare the program's outcomes with labels."""

    strips: Path  # the folder that `draw` wrote
    labels: tuple[Path, ...]  # one CSV file for each labelling
    out: Path = Path("model_cards/comparison")  # the folder of the report and of the labels


def draw(arguments: Draw) -> None:
    """Edit, choose, and write the sheets and their key."""
    subjects = gather(sorted(arguments.models.glob("*-celeba")), DataSource(str(arguments.data)))
    judges = Judges.load(str(arguments.models / "judge-celeba"), subjects[0].dataset, "cpu")
    found = [
        strip
        for subject in tqdm(subjects, unit="model")
        for strip in _strips(subject, judges, arguments)
    ]
    rng = np.random.default_rng(arguments.seed)
    kinds = np.array([kind(row["there"], row["broken"]) for row, _ in found])
    n_each = -(-arguments.n // len(KINDS))
    chosen = [rng.permutation(np.flatnonzero(kinds == k))[:n_each] for k in KINDS]
    order = rng.permutation(np.concatenate(chosen))[: arguments.n]
    key = pd.DataFrame([found[i][0] for i in order])
    key.insert(0, "strip", range(len(order)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(order), PER_SHEET):
        rows, pictures = zip(*(found[i] for i in order[start : start + PER_SHEET]), strict=True)
        names = [f"{start + i} {row['attribute']}" for i, row in enumerate(rows)]
        sheet = grid(pictures, names, [str(i) for i in range(len(STRENGTHS))])
        save_png(sheet, arguments.out / f"sheet-{start // PER_SHEET:02d}.png")
    write_text(arguments.out / KEY_NAME, key.to_csv(index=False))
    print(f"{len(order)} strips: {dict(pd.Series(kinds[order]).value_counts())}; {arguments.out}")


def kind(there: float, broken: float) -> str:
    """What the program calls a strip, and how clearly."""
    gap = min(broken, 2 * STRENGTHS[-1]) - min(there, 2 * STRENGTHS[-1])
    if abs(gap) < CLEAR:
        return "borderline"
    return "strong" if gap > 0 else "decohered"


def _strips(
    subject: Subject, judges: Judges, arguments: Draw
) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """What the program sees on each strip, and its pictures."""
    pool, probabilities = sampled_faces(subject, judges, arguments.pool, arguments.seed)
    for attribute in ATTRIBUTES:
        column = judges.classifier.index(attribute)
        has = probabilities[:, column] >= ABSENT
        ceiling = probabilities[has, column].mean() if has.any() else 1.0
        faces, _ = pool.parted(has, -(-arguments.pool // 4))
        threshold = (ceiling + probabilities[~has, column].mean()) / 2
        directions = subject.directions(attribute, METHODS, arguments.seed)
        for nothing in random_directions(subject.model, 1, column):
            directions.append(replace(nothing, attribute=attribute))  # breaks without an effect
        for direction in directions:
            yield from _edited(subject, judges, faces, direction, column, threshold)


def _edited(
    subject: Subject, judges: Judges, faces: Faces, direction: Direction, column: int,
    threshold: float,
) -> Iterator[tuple[dict[str, Any], list[Any]]]:  # fmt: skip
    latents, strengths = on_device(subject.model, faces.latents), np.array(STRENGTHS)
    images = [list(drawn(subject.model, edit(latents, direction, s))) for s in STRENGTHS]
    readings = [judges.read(some, len(latents)) for some in images]
    seen = pd.DataFrame([changes(r, readings[0], judges, column) for r in readings])
    target = outcomes.probability(np.stack(seen["target"], axis=1))  # (n, S)
    left = np.stack(seen["coherence"], axis=1)
    there = outcomes.onset(strengths, target >= threshold, target, threshold)
    broken = outcomes.breaks(strengths, left)
    frames = [to_pil(torch.cat(some)) for some in images]
    for i, pictures in enumerate(zip(*frames, strict=True)):
        row = {
            "model": subject.name, "attribute": direction.attribute, "method": direction.method,
            "there": there[i], "broken": broken[i],
            **{f"left {s:g}": round(float(v), 3) for s, v in zip(STRENGTHS, left[i], strict=True)},
        }  # fmt: skip
        yield row, [fit(picture, SIDE, SIDE) for picture in pictures]


def read_labels(path: Path, n: int) -> pd.DataFrame:
    """there and broken of each strip, in standard deviations; infinite for never.

    Raises:
        DataError: a strip is missing, or a label is no picture's number.
    """
    given = pd.read_csv(path).set_index("strip")
    if sorted(given.index) != list(range(n)) or not {"there", "broken"} <= set(given):
        raise DataError(f"{path}: expected the columns strip, there, broken and {n} strips.")
    labels = given[["there", "broken"]]
    if not (labels.isin(range(len(STRENGTHS))) | labels.isna()).all(axis=None):
        raise DataError(f"{path}: labels are 0 to {len(STRENGTHS) - 1}, or empty.")
    return labels.sort_index().replace(dict(enumerate(STRENGTHS))).fillna(np.inf)


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float, float]:
    """Kappa of the outcomes, and median differences of both onsets where both see one."""
    pair = [outcomes.outcome(f["there"].to_numpy(), f["broken"].to_numpy()) for f in (one, other)]
    gaps = [
        median_gap(one[name].to_numpy(), other[name].to_numpy()) for name in ("there", "broken")
    ]
    return float(cohen_kappa_score(*pair)), gaps[0], gaps[1]


def median_gap(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The median difference of onsets (n,) where both are finite; NaN where none are."""
    both = np.isfinite(one) & np.isfinite(other)
    return float(np.median(np.abs(one[both] - other[both]))) if both.any() else np.nan


def at_threshold(key: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The program's onsets if a face counted as broken below another threshold."""
    left = key[[f"left {s:g}" for s in STRENGTHS]].to_numpy()
    return key[["there"]].assign(broken=outcomes.breaks(np.array(STRENGTHS), left, threshold))


def best_threshold(key: pd.DataFrame, labellings: Sequence[pd.DataFrame]) -> float:
    """The threshold whose outcomes agree best with the labels."""

    def mean_kappa(threshold: float) -> float:
        found = at_threshold(key, threshold)
        return float(np.mean([agreement(found, seen)[0] for seen in labellings]))

    return max(np.arange(-12, 8.1, 0.5).tolist(), key=mean_kappa)


def score(arguments: Score) -> None:
    """Compare all labellings with one another and with the program, and write the report."""
    key = pd.read_csv(arguments.strips / KEY_NAME)
    seen = [read_labels(path, len(key)) for path in arguments.labels]
    half = np.random.default_rng(0).permutation(len(key)) < len(key) // 2
    chosen = best_threshold(key[half], [labels[half] for labels in seen])
    rows = [
        (f"labellings {i + 1} and {j + 1}", len(key), *agreement(seen[i], seen[j]))
        for i, j in combinations(range(len(seen)), 2)
    ]
    everything = np.ones(len(key), bool)
    aimless = key["method"].str.startswith("random").to_numpy()
    program = [("as it is", everything, BROKEN_BELOW),
               (f"broken below {chosen:g}, other half", ~half, chosen),
               (f"broken below {WHOLE_ABOVE:g}", everything, WHOLE_ABOVE),
               ("along found directions", ~aimless, BROKEN_BELOW),
               ("along random ones", aimless, BROKEN_BELOW)]  # fmt: skip
    program += [
        (m, (key["model"] == m).to_numpy(), BROKEN_BELOW) for m in sorted(set(key["model"]))
    ]
    for i, (name, part, threshold) in product(range(len(seen)), program):
        found = agreement(at_threshold(key[part], threshold), seen[i][part])
        rows.append((f"program, {name}, and labelling {i + 1}", int(part.sum()), *found))
    lines = [(name, str(n), *(number(v) for v in values)) for name, n, *values in rows]
    head = ("who", "strips", "kappa of outcomes", "attribute, median gap in σ", "break, the same")
    text = REPORT.format(n=len(key), threshold=chosen, table=cells.table(head, lines))
    write_text(arguments.out / REPORT_NAME, text)
    merged = key[["strip", "model", "attribute", "method", "there", "broken"]]
    for i, labels in enumerate(seen):
        merged = merged.join(labels.add_suffix(f" {i + 1}"))
    write_text(arguments.out / "by_eye.csv", merged.to_csv(index=False, float_format="%.3g"))
    print("\n".join(" | ".join(line) for line in lines))


def main() -> None:
    """Do what the command line asks for."""
    wanted = tyro.extras.subcommand_cli_from_dict({"draw": Draw, "score": Score})
    draw(wanted) if isinstance(wanted, Draw) else score(wanted)


if __name__ == "__main__":
    exit_on_user_error(main)
