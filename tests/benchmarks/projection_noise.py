"""Whether noise on the code during projection makes edits of the projected faces more coherent.

The same test faces are projected once per amount of noise, then edited along the model's own
directions; the judge says what that costs where 80% of the faces show the attribute.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch

import hublatent
from hublatent.comparison.editability import (
    Resamples,
    equal_effect,
    measure,
    rank_correlations,
)
from hublatent.comparison.latents import Faces
from hublatent.data import load_dataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.stats import Estimate

ATTRIBUTES = ("Smiling", "Male", "Eyeglasses")
COLUMNS = ("strength", "leakage", "distance", "similarity")


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="model_cards/stylegan2-celeba")
    parser.add_argument("--data", required=True)
    parser.add_argument("--classifier", default="model_cards/attributes-celeba")
    parser.add_argument("--judge", default="model_cards/judge-celeba")
    parser.add_argument("--noise", type=float, nargs="+", default=(0.0, 0.1, 0.3))
    parser.add_argument("--method", default="svm")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--n-steps", type=int, default=100)
    parser.add_argument("--precision", default="bf16")
    arguments = parser.parse_args()
    model = hublatent.load(arguments.model)
    classifier = AttributeClassifier.from_pretrained(arguments.classifier)
    judge = AttributeClassifier.from_pretrained(arguments.judge)
    directions = DirectionSet.from_pretrained(arguments.model, model)
    dataset = load_dataset(arguments.data, model.image_size)
    chosen = np.random.default_rng(0).permutation(dataset.indices("test"))[: arguments.n]
    print(f"{arguments.n} test faces, {arguments.n_steps} steps, along {arguments.method}")
    heads = ("effect at +3σ", *COLUMNS, "monotonicity")
    print(
        f"{'noise':>6} {'MSE':>8} {'attribute':>10} {'n':>4} " + " ".join(f"{h:>22}" for h in heads)
    )
    for noise in arguments.noise:
        found = hublatent.project(
            model,
            dataset.batch(chosen),
            classifier=classifier,
            n_steps=arguments.n_steps,
            latent_noise=noise,
            precision=arguments.precision,
        )
        for attribute in ATTRIBUTES:
            lacking = ~dataset.label(attribute)[chosen]
            faces = Faces(found.latents.numpy()[lacking], dataset.identities[chosen[lacking]])
            direction = directions[attribute, arguments.method].with_sigma(model)
            cells = " ".join(f"{cell:>22}" for cell in cost(model, judge, faces, direction))
            error = found.errors.mean().item()
            print(f"{noise:6.2f} {error:8.5f} {attribute:>10} {len(faces):4d} {cells}", flush=True)


@torch.inference_mode()
def cost(
    model: LatentModel, judge: AttributeClassifier, faces: Faces, direction: Direction
) -> list[str]:
    """The effect, its costs at equal effect, and how steadily it grows, each with its interval."""
    column = judge.index(direction.attribute)
    strips = measure(model, judge, faces, direction, column, None)
    resamples = Resamples(faces.identities, seed=0)
    at_three = int(np.flatnonzero(strips.strengths == 3)[0])
    effect = resamples.score(strips.changes()[:, at_three, column])
    equal = equal_effect(strips, column, resamples)
    steady = resamples.score(rank_correlations(strips.strengths, strips.logits))
    return [cell(s) for s in (effect, *(getattr(equal, name) for name in COLUMNS), steady)]


def cell(score: Estimate | None) -> str:
    """A score, or that the equal effect was not reached."""
    if score is None:
        return "not reached"
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


if __name__ == "__main__":
    main()
