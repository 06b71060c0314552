"""The paper's StyleGAN2 experiment, and the one that it only mentions: which layers edit best.

python training/paper_experiment.py --model model_cards/stylegan2-celeba --out runs/paper-experiment

Writes a strip per randomly drawn face at the paper's own α, another at multiples of sigma, and a
table of layer ranges compared at equal effect. Any model with layers will do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

import hublatent
from hublatent.checkpoint import folder_name
from hublatent.direction import Direction, LayerRange
from hublatent.direction_set import DirectionSet
from hublatent.editing import edit
from hublatent.errors import DataError, exit_on_user_error
from hublatent.evaluation.edits import STRENGTHS
from hublatent.evaluation.outcomes import onset
from hublatent.figures import fit, grid
from hublatent.images import save_png, to_pil
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.publish import cells
from hublatent.storage import write_text
from training.trainers.commands import command_of

SIDE = 96
BATCH = 128
PRESENT = 0.5  # P above which the attribute counts as drawn


@dataclass(frozen=True)
class Arguments:
    """Repeat the paper's section 5.1 with a model of one's own.

    Attributes:
        model: folder or Hub id of a model whose latents have layers, with its directions.
        out: the folder to write.
        attribute: what to change.
        method: which of its directions.
        n_faces: faces that strips are drawn of.
        alphas: coefficients of the direction's vector, as in the paper.
        sigmas: strengths of the second set of strips, in standard deviations.
        width: layers in a range of the table.
        judge: folder or Hub id of the classifier that judges the ranges.
        n_judged: faces that the ranges are judged on.
        seed: of the faces.
    """

    model: str
    out: Path
    attribute: str = "Eyeglasses"
    method: str = "svm"
    n_faces: int = 20
    alphas: tuple[float, ...] = (1.0, 50.0, 100.0, 150.0, 200.0, 250.0)
    sigmas: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
    width: int = 3
    judge: str = "model_cards/judge-celeba"
    n_judged: int = 200
    seed: int = 0


def draw_strips(
    model: LatentModel,
    direction: Direction,
    latents: Tensor,
    alphas: Mapping[str, float],
    folder: Path,
) -> None:
    """Write a horizontal strip per face: unedited, then further and further along a direction.

    Args:
        model: draws.
        direction: with sigma.
        latents: (B, *latent_shape).
        alphas: label -> coefficient of the direction's vector.
        folder: where they go.
    """
    assert direction.sigma is not None, "measured before"
    folder.mkdir(parents=True, exist_ok=True)
    of = f"{direction.attribute} along {direction.method}"
    scale = f"α = 1 is {1 / direction.sigma:.3g}σ"
    for i, latent in enumerate(latents.split(1)):
        steps = torch.cat([edit(latent, direction, a, unit="raw") for a in (0.0, *alphas.values())])
        pictures = [fit(p, SIDE, SIDE) for p in to_pil(model.decode(steps))]
        title = f"{of}, face {i}; {scale}"
        save_png(grid([pictures], [""], ["unedited", *alphas], title), folder / f"face-{i:02d}.png")


def layer_ranges(n_layers: int, width: int) -> Iterator[LayerRange]:
    """Every range of a width without a gap between them, then all layers."""
    for first in range(0, n_layers, width):
        yield LayerRange(first, min(first + width, n_layers) - 1)
    yield LayerRange(0, n_layers - 1)


class Effect(NamedTuple):
    """What a range of layers does to the faces: medians and means over those that show it.

    Attributes:
        reached: share of the faces that come to show the attribute.
        onset: median strength at which it appears, in standard deviations.
        leakage: mean change of the other attributes' probabilities there.
    """

    reached: float
    onset: float
    leakage: float


@torch.inference_mode()
def judged_ranges(
    model: LatentModel,
    direction: Direction,
    judge: AttributeClassifier,
    width: int,
    n_faces: int,
    seed: int,
) -> dict[str, Effect]:
    """What editing each range of layers does and costs.

    Args:
        model: draws faces, and edits those that lack the attribute for the judge.
        direction: put on each range of layers.
        judge: judges, and does nothing else.
        width: layers in a range.
        n_faces: faces edited.
        seed: of the faces.

    Raises:
        DataError: hardly any sample lacks the attribute.
    """
    n_drawn = 4 * n_faces
    latents = model.sample_latents(n_drawn, generator=torch.Generator().manual_seed(seed))
    column = judge.index(direction.attribute)

    def read(moved: Tensor) -> Tensor:
        return torch.cat([judge.probabilities(model.decode(part)) for part in moved.split(BATCH)])

    before = read(latents)
    lacking = (before[:, column] < PRESENT).nonzero().flatten()[:n_faces]
    if len(lacking) < 2:
        raise DataError(
            f"{len(lacking)} of {n_drawn} samples lack {direction.attribute}, says the judge; at "
            "least 2 are needed."
        )
    found = {}
    ranges = list(layer_ranges(model.latent_shape[0], width))
    for layers in tqdm(ranges, desc="layer ranges", unit="range"):
        moved = layers.of(direction).with_sigma(model)
        steps = [read(edit(latents[lacking], moved, s)) for s in STRENGTHS[1:]]
        seen = torch.stack([before[lacking], *steps], dim=1).numpy()  # (n, S, K)
        found[str(layers)] = _effect(seen, column)
    return found


def _effect(seen: np.ndarray, column: int) -> Effect:
    """Of probabilities (n, S, K)."""
    strengths, target = np.array(STRENGTHS), seen[:, :, column]
    onsets = np.array([onset(strengths, row >= PRESENT, row, PRESENT) for row in target])
    others = np.delete(np.abs(seen - seen[:, :1]), column, axis=2)
    costs = others.mean(axis=2) if others.shape[2] else np.zeros(target.shape)
    reached = np.isfinite(onsets)
    there = [np.interp(at, strengths, c) for at, c in zip(onsets, costs, strict=True)]
    if not reached.any():
        return Effect(0.0, float("inf"), float("nan"))
    leakage = float(np.array(there)[reached].mean())
    return Effect(float(reached.mean()), float(np.median(onsets[reached])), leakage)


def table(ranges: Mapping[str, Effect]) -> str:
    """The layer ranges as a Markdown table."""
    head = ["layers", "faces that come to show it", "strength there (σ)", "leakage"]
    rows = [
        [name, f"{effect.reached:.0%}", *(
            (f"{effect.onset:.2f}", f"{effect.leakage:.3f}") if effect.reached else ("–", "–")
        )]
        for name, effect in ranges.items()
    ]  # fmt: skip
    return cells.table(head, rows).strip()


def page(arguments: Arguments, direction: Direction, ranges: dict[str, Effect]) -> str:
    """What was done, the command that does it again, and the table of layer ranges."""
    assert direction.sigma is not None, "measured before"
    name = folder_name(Path(arguments.model))
    command = command_of("training/paper_experiment.py", arguments, out=arguments.out)
    return (
        f"# {direction.attribute} along {direction.method} in {name}\n\n"
        f"The paper's α = 1 is {1 / direction.sigma:.3g} standard deviations (σ) of this model's "
        f"coordinate. `alpha/` holds strips of {arguments.n_faces} samples at the paper's α, "
        "`sigma/` the same faces at multiples of σ.\n\n"
        "## Which layers edit best\n\n"
        f"The same direction put on each range of layers, on {arguments.n_judged} samples that "
        f"lack the attribute for {folder_name(Path(arguments.judge))}: how many come to show it, "
        "the median strength at which it appears, and the mean change of the other attributes' "
        f"probabilities there.\n\n{table(ranges)}\n\n```sh\n{command}\n```\n"
    )


def run(arguments: Arguments) -> None:
    """Draw the strips, judge the ranges, write all of it."""
    model = hublatent.load(arguments.model)
    if len(model.latent_shape) == 1:
        raise DataError(f"{arguments.model} has latents without layers; expected (L, D).")
    directions = DirectionSet.from_pretrained(arguments.model, model)
    direction = directions[arguments.attribute, arguments.method].with_sigma(model)
    judge = AttributeClassifier.from_pretrained(arguments.judge)
    draws = torch.Generator().manual_seed(arguments.seed)
    latents = model.sample_latents(arguments.n_faces, generator=draws)
    assert direction.sigma is not None, "just measured"
    scales = {
        "alpha": {f"α = {a:g}": a for a in arguments.alphas},
        "sigma": {f"{s:+g}σ": s * direction.sigma for s in arguments.sigmas},
    }
    for name, alphas in scales.items():
        draw_strips(model, direction, latents, alphas, arguments.out / name)
    ranges = judged_ranges(
        model, direction, judge, arguments.width, arguments.n_judged, arguments.seed
    )
    results: dict[str, Any] = {
        "model": model.fingerprint(),
        "direction": direction.name,
        "layers": direction.layers,
        "sigmas_of_alpha_1": 1 / direction.sigma,
        "n_judged": arguments.n_judged,
        "seed": arguments.seed,
        "layer_ranges": {name: effect._asdict() for name, effect in ranges.items()},
    }
    write_text(arguments.out / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(arguments.out / "layers.md", page(arguments, direction, ranges))
    print(f"α = 1 is {1 / direction.sigma:.4g} standard deviations of this model's coordinate")
    print(table(ranges))


def main() -> None:
    """Do what the command line asks for."""
    run(tyro.cli(Arguments))


if __name__ == "__main__":
    exit_on_user_error(main)
