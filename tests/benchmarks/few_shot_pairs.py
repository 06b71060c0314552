"""How many pairs of pictures a direction needs: leakage at equal effect, against joint.

Pairs are of one person each, without and with the attribute. Every direction is edited as far as
moves the judge's logit as much as joint does at +3 sigma; what it costs is the mean change of the
other attributes' logits, in their deviations over the unedited faces.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch
from torch import Tensor

import hublatent
from hublatent.classifier import AttributeClassifier
from hublatent.data import load_dataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery import encode
from hublatent.discovery.methods.pairs import direction_of_pairs, same_person_pairs
from hublatent.model import LatentModel

STRENGTHS = (1.0, 2.0, 3.0, 4.5, 6.0)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="model_cards/vae-celeba")
    parser.add_argument("--data", required=True)
    parser.add_argument("--judge", default="model_cards/judge-celeba")
    parser.add_argument("--attributes", nargs="+", default=("Eyeglasses", "Smiling"))
    parser.add_argument("--pairs", type=int, nargs="+", default=(1, 3, 5, 10, 20))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--faces", type=int, default=100)
    parser.add_argument("--estimate", choices=("singular", "mean"), default="singular")
    arguments = parser.parse_args()
    model = hublatent.load(arguments.model)
    judge = AttributeClassifier.from_pretrained(arguments.judge)
    directions = DirectionSet.from_pretrained(arguments.model, model)
    dataset = load_dataset(arguments.data, model.image_size)
    data = encode(model, dataset, mirror=False, name=Path(arguments.data).name)
    print(f"{'direction':24} {'pairs agree':>11} {'effect':>7} {'leakage at equal effect':>26}")
    for attribute in arguments.attributes:
        test = dataset.indices("test")
        test = test[~dataset.label(attribute)[test]][: arguments.faces]
        with torch.no_grad():
            faces = model.encode(dataset.batch(test))
        scale = Scale(model, judge, faces, attribute)
        joint = directions[attribute, "joint"]
        wanted, cost = scale.along(joint)[STRENGTHS.index(3.0)]
        print(f"{joint.name:24} {'':>11} {wanted:>7.2f} {cost:>26.3f}", flush=True)
        for n in arguments.pairs:
            found = [
                few_shot(model, data, attribute, n, seed, arguments.estimate)
                for seed in range(arguments.draws)
            ]
            curves = [scale.along(direction) for direction in found]
            costs = [np.interp(wanted, *zip(*curve, strict=True), right=np.nan) for curve in curves]
            share = [d.scores["singular share"].value for d in found if d.scores]
            known = [cost for cost in costs if np.isfinite(cost)]
            leakage = f"{np.mean(known):.3f}" if known else "not reached"
            effect = np.mean([curve[STRENGTHS.index(3.0)][0] for curve in curves])
            agree = f"{np.mean(share):.2f}" if share else ""
            print(
                f"{f'{attribute}, {n} pairs':24} {agree:>11} {effect:>7.2f} "
                f"{f'{leakage} ({len(known)} of {len(costs)})':>26}",
                flush=True,
            )


def few_shot(
    model: LatentModel,
    data: hublatent.discovery.LabelledLatents,
    attribute: str,
    n: int,
    seed: int,
    estimate: str,
) -> Direction:
    """The direction of n pairs that are drawn by the seed."""
    without, having = same_person_pairs(data.label(attribute), data.identities, n, seed).T
    before, after = (torch.from_numpy(data.latents[i]) for i in (without, having))
    return direction_of_pairs(model, before, after, attribute, estimate=estimate)


class Scale:
    """What the judge sees change along directions."""

    def __init__(
        self, model: LatentModel, judge: AttributeClassifier, faces: Tensor, attribute: str
    ) -> None:
        self.model, self.judge, self.faces = model, judge, faces
        self.column = judge.index(attribute)
        self.unedited = self.logits(faces)

    @torch.inference_mode()
    def logits(self, latents: Tensor) -> Tensor:
        """(n, K)."""
        return torch.cat([self.judge(self.model.decode(part)) for part in latents.split(50)])

    def along(self, direction: Direction) -> list[tuple[float, float]]:
        """The target's change and the others' leakage, at each of STRENGTHS."""
        found = []
        for strength in STRENGTHS:
            moved = self.logits(hublatent.edit(self.faces, direction, strength)) - self.unedited
            share = (moved.abs() / self.unedited.std(dim=0)).mean(dim=0)
            others = torch.cat([share[: self.column], share[self.column + 1 :]]).mean()
            found.append((float(moved[:, self.column].mean()), float(others)))
        return found


if __name__ == "__main__":
    main()
