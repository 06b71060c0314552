"""The paper's StyleGAN2 experiment, and the one that it only mentions: which layers edit best.

python training/paper_experiment.py --model model_cards/stylegan2-celeba --out runs/paper-experiment

Writes a strip per randomly drawn face at the paper's own α, another at multiples of sigma, counts
what becomes of them, and compares layer ranges. Any model with layers will do, and needs no data.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup
from torch import Tensor
from tqdm import tqdm

import hublatent
from hublatent.checkpoint import folder_name
from hublatent.direction import Direction, LayerRange
from hublatent.direction_set import DirectionSet
from hublatent.editing import edit
from hublatent.errors import DataError
from hublatent.evaluation import outcomes
from hublatent.evaluation.edits import (
    MAX_CLOSELY,
    SAMPLES_PER_FACE,
    STRENGTHS,
    edit_rows,
    sampled_faces,
)
from hublatent.evaluation.judges import BATCH, MIN_FACES, Judges
from hublatent.evaluation.outcomes import ABSENT
from hublatent.evaluation.subjects import Subject
from hublatent.evaluation.table import join
from hublatent.figures import fit, grid
from hublatent.images import save_png, to_pil
from hublatent.model import LatentModel
from hublatent.publish import cells
from hublatent.publish.card import fill
from hublatent.storage import write_text
from training.trainers.commands import command_of, run_script

TEMPLATE = Path(__file__).parent / "templates" / "paper_experiment.md.jinja"
SIDE = 96
ALPHA_STEP = 6  # of the paper's sweep, in which outcomes are counted; pictures show some of it
SUMMARY = {"strong": ".0%", "decohered": ".0%", "no effect": ".0%", "reached": ".0%",
           "onset": ".2f", "leakage": ".3f", "identity": ".0%"}  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """Repeat the paper's section 5.1 with a model of one's own."""

    model: str  # folder or Hub id of a model whose latents have layers, with its directions
    out: Path  # the folder to write
    attribute: str = "Eyeglasses"  # what to change
    method: str = "svm"  # which of its directions
    n_faces: int = 20  # faces that strips are drawn of
    # the paper's coefficients, of a vector that moves all layers and has norm 1 over them together
    alphas: tuple[float, ...] = (1.0, 50.0, 100.0, 150.0, 200.0, 250.0)
    # strengths of the second set of strips, in standard deviations
    sigmas: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
    width: int = 3  # layers in a range of the table
    # folder or Hub id of the classifier that says which faces show the attribute
    judge: str = "model_cards/judge-celeba"
    # folder of face-detector, face-identity and image-features, which say whether it is still a
    # face
    judges: Path = Path("model_cards")
    n_judged: int = 40  # faces that are judged
    seed: int = 0  # of the faces


@torch.inference_mode()
def load_judges(arguments: Arguments, model: LatentModel) -> Judges:
    """The judges of an edit; the model's own samples say how its whole faces look."""
    draws = torch.Generator().manual_seed(arguments.seed + 1)
    latents = model.sample_latents(MIN_FACES, generator=draws)
    faces = torch.cat([model.decode(part) for part in latents.split(BATCH)])
    return Judges.of_faces(arguments.judge, arguments.judges, faces)


class Experiment:
    """Samples of a model that lack an attribute, which are edited and judged."""

    def __init__(
        self, model: LatentModel, judges: Judges, attribute: str, n: int, seed: int
    ) -> None:
        no_data: Any = None  # samples need none
        self.subject = Subject("samples", "samples", model, no_data, Path())
        self.judges, self.attribute = judges, attribute
        n_drawn = SAMPLES_PER_FACE * n
        pool, probabilities = sampled_faces(self.subject, judges, n_drawn, seed)
        shows = probabilities[:, judges.classifier.index(attribute)] >= ABSENT
        if (~shows).sum() < 2 or not shows.any():
            raise DataError(
                f"{(~shows).sum()} of {n_drawn} samples lack {attribute} and {shows.sum()} show "
                f"it, says {judges.name}; at least 2 and 1 are needed."
            )
        self.without, self.having = pool.parted(shows, n)

    def strips(self, directions: Sequence[Direction], strengths: Sequence[float]) -> pd.DataFrame:
        """What becomes of each face along each direction (outcomes.edits), strengths in sigma."""
        rows = edit_rows(
            self.subject, self.judges, self.attribute, directions, self.without, self.having,
            strengths,
        )  # fmt: skip
        return outcomes.edits(join([rows.assign(model="samples", training="samples")]))


def draw_strips(
    model: LatentModel,
    direction: Direction,
    latents: Tensor,
    alphas: Mapping[str, float],
    endings: Sequence[str],
    folder: Path,
) -> None:
    """Write a strip per latent, unedited, then by the coefficients of the direction's own vector.

    `endings` say, in the titles, what became of each face.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of = f"{direction.attribute} along {direction.method}"
    for i, (latent, ending) in enumerate(zip(latents.split(1), endings, strict=True)):
        steps = torch.cat([edit(latent, direction, a, unit="raw") for a in (0.0, *alphas.values())])
        pictures = [fit(p, SIDE, SIDE) for p in to_pil(model.decode(steps))]
        title = f"{of}, face {i}: {ending}"
        save_png(grid([pictures], [""], ["unedited", *alphas], title), folder / f"face-{i:02d}.png")


def layer_ranges(n_layers: int, width: int) -> Iterator[LayerRange]:
    """Every range of a width without a gap between them, then all layers."""
    for first in range(0, n_layers, width):
        yield LayerRange(first, min(first + width, n_layers) - 1)
    yield LayerRange(0, n_layers - 1)


def sigmas_of_alpha(direction: Direction) -> float:
    """How far α = 1 goes, in standard deviations: the paper's vector has norm 1 over all layers."""
    assert direction.sigma is not None, "measured before"
    return 1 / (direction.squared_norm**0.5 * direction.sigma)


def table(what: str, summaries: Mapping[str, Mapping[str, float]]) -> Markup:
    """Summaries of strips as a Markdown table."""
    head = [what, "strong", "decohered", "no effect", "come to show it",
            "strength there (σ)", "leakage", "same person"]  # fmt: skip
    rows = []
    for name, found in summaries.items():
        shown = ((found[key], form) for key, form in SUMMARY.items())
        rows.append([name, *(format(v, form) if np.isfinite(v) else "–" for v, form in shown)])
    return cells.table(head, rows).strip()


def run(arguments: Arguments) -> None:
    """Draw the strips, judge them and the ranges, write all of it."""
    model = hublatent.load(arguments.model)
    if len(model.latent_shape) == 1:
        raise DataError(f"{arguments.model} has latents without layers; expected (L, D).")
    directions = DirectionSet.from_pretrained(arguments.model, model)
    everywhere = LayerRange(0, model.latent_shape[0] - 1)  # as the paper
    direction = everywhere.of(directions[arguments.attribute, arguments.method]).with_sigma(model)
    sigma, alpha = direction.sigma, sigmas_of_alpha(direction)
    assert sigma is not None, "just measured"
    n = max(arguments.n_faces, arguments.n_judged)
    judges = load_judges(arguments, model)
    experiment = Experiment(model, judges, arguments.attribute, n, arguments.seed)
    scales = {
        "alpha": {f"α = {a:g}": a * alpha * sigma for a in arguments.alphas},
        "sigma": {f"{s:+g}σ": s * sigma for s in arguments.sigmas},
    }
    sweeps = {
        "alpha": np.arange(1, max(arguments.alphas) + 1, ALPHA_STEP) * alpha,
        "sigma": np.array(arguments.sigmas),
    }
    figures = {}
    for name, alphas in scales.items():
        strips = experiment.strips([direction], [0.0, *sweeps[name]])
        figures[name] = outcomes.summary(strips)
        endings = strips.set_index("face")["outcome"].reindex(experiment.without.names)
        latents = torch.from_numpy(experiment.without.latents[: arguments.n_faces])
        shown = endings.fillna("not judged")[: arguments.n_faces].tolist()
        draw_strips(model, direction, latents, alphas, shown, arguments.out / name)
    ranges = {}
    for layers in tqdm(list(layer_ranges(model.latent_shape[0], arguments.width)), unit="range"):
        moved = replace(layers.of(direction).with_sigma(model), method=f"layers {layers}")
        ranges[str(layers)] = outcomes.summary(experiment.strips([moved], STRENGTHS))
    results: dict[str, Any] = {
        "model": model.fingerprint(),
        "direction": direction.name,
        "sigmas_of_alpha_1": alpha,
        "n_judged": arguments.n_judged,
        "seed": arguments.seed,
        "strips": figures,
        "layer_ranges": ranges,
    }
    text = json.dumps(results, indent=2).replace("NaN", "null").replace("Infinity", "null")
    write_text(arguments.out / "results.json", text + "\n")
    tables = {"strips": table("strips", figures), "layers": table("layers", ranges)}
    page = fill(
        TEMPLATE, arguments=arguments, direction=direction, alpha=alpha, strongest=STRENGTHS[-1],
        model=folder_name(Path(arguments.model)), judge=folder_name(Path(arguments.judge)),
        max_closely=MAX_CLOSELY, **tables,
        command=command_of("training/paper_experiment.py", arguments, out=arguments.out),
    )  # fmt: skip
    write_text(arguments.out / "layers.md", page)
    print(f"α = 1 is {alpha:.4g} standard deviations of this model's coordinate")
    print("\n\n".join(tables.values()))


if __name__ == "__main__":
    run_script(Arguments, run)
