"""How many pairs of pictures a direction needs: leakage at equal effect, against joint."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import pandas as pd
import torch

import hublatent
from hublatent.checkpoint import folder_name
from hublatent.data import FaceDataset, load_dataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery import LabelledLatents, encode
from hublatent.discovery.methods.pairs import direction_of_pairs, same_person_pairs
from hublatent.evaluation.judged_edits import JudgedEdits
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.publish import cells
from hublatent.storage import portable, write_text

N_PAIRS = (1, 3, 5, 10, 20)
STRENGTHS = (1.0, 2.0, 3.0, 4.5, 6.0)
REFERENCE = 3.0  # sigma along joint: the effect at which costs are compared


def few_shot_curve(
    model: LatentModel,
    judge: AttributeClassifier,
    directions: DirectionSet,
    dataset: FaceDataset,
    data: LabelledLatents,
    attributes: Sequence[str] = ("Eyeglasses", "Smiling"),
    *,
    n_pairs: Sequence[int] = N_PAIRS,
    n_draws: int = 5,
    n_faces: int = 100,
    estimate: Literal["singular", "mean"] = "singular",
) -> pd.DataFrame:
    """Compare directions of few pairs with the joint direction of all labels.

    Every direction moves the test faces as far as changes the judge's logit as much as joint does
    at +3 sigma; the cost there is the mean change of the other attributes' logits, in their
    deviations over the unedited faces. Pairs are photographs of one person each, drawn anew n_draws
    times from the latents of the dataset's other partitions.

    Returns:
        One row for each attribute's joint direction and each number of pairs: attribute,
        direction, n_pairs, singular_share (how well the pairs agree), effect at +3 sigma, leakage
        at equal effect with the lowest and highest draw's, n_reached of n_draws that reach it.
    """
    rows: list[dict[str, Any]] = []
    for attribute in attributes:
        edits = JudgedEdits.of_test_faces(model, judge, dataset, attribute, n_faces)
        joint = edits.along(directions[attribute, "joint"], STRENGTHS)
        wanted = joint[STRENGTHS.index(REFERENCE), 0]
        rows.append(_row(attribute, "joint", [joint], wanted))
        for n in n_pairs:
            found = list(_drawn(model, data, attribute, n, n_draws, estimate))
            curves = [edits.along(direction, STRENGTHS) for direction in found]
            shares = [d.scores["singular share"].value for d in found if d.scores]
            row = _row(attribute, f"{n} pairs" if n > 1 else "1 pair", curves, wanted)
            rows.append({**row, "n_pairs": n, "singular_share": np.mean(shares or [1.0])})
    return pd.DataFrame(rows)


def _drawn(
    model: LatentModel,
    data: LabelledLatents,
    attribute: str,
    n: int,
    n_draws: int,
    estimate: Literal["singular", "mean"],
) -> Iterator[Direction]:
    """The directions of n pairs, drawn anew each time."""
    for seed in range(n_draws):
        without, having = same_person_pairs(data.label(attribute), data.identities, n, seed).T
        before, after = (torch.from_numpy(data.latents[i]) for i in (without, having))
        yield direction_of_pairs(model, before, after, attribute, estimate=estimate)


def _row(
    attribute: str, direction: str, curves: Sequence[np.ndarray], wanted: float
) -> dict[str, Any]:
    costs = np.array([_cost_at(curve, wanted) for curve in curves])
    reached = costs[np.isfinite(costs)]
    return {
        "attribute": attribute,
        "direction": direction,
        "n_pairs": None,
        "singular_share": None,
        "effect": np.mean([curve[STRENGTHS.index(REFERENCE), 0] for curve in curves]),
        "leakage": reached.mean() if len(reached) else np.nan,
        "leakage_low": reached.min() if len(reached) else np.nan,
        "leakage_high": reached.max() if len(reached) else np.nan,
        "n_reached": len(reached),
        "n_draws": len(curves),
    }


def _cost_at(curve: np.ndarray, wanted: float) -> float:
    """The cost (S, 2) at an effect, by linear interpolation from no edit; NaN beyond the last."""
    effects, costs = np.vstack([[0.0, 0.0], curve]).T
    rising = np.maximum.accumulate(effects)  # the first strength that reaches it counts
    return float(np.interp(wanted, rising, costs, right=np.nan))


def page(table: pd.DataFrame, given: Namespace) -> str:
    """What was measured, the table, and the command."""
    rows = [
        [
            row.attribute,
            row.direction,
            f"{row.effect:.2f}",
            f"{row.n_reached} of {row.n_draws}",
            "–" if row.n_reached == 0 else f"{row.leakage:.3f}",
            "" if row.n_draws == 1 or row.n_reached == 0 else
            f"{row.leakage_low:.3f} to {row.leakage_high:.3f}",
        ]
        for row in table.itertuples()
    ]  # fmt: skip
    command = (
        f"python tests/benchmarks/few_shot_pairs.py --model {portable(given.model)} --data CELEBA "
        f"--judge {portable(given.judge)} --attributes {' '.join(given.attributes)} --draws "
        f"{given.draws} --faces {given.faces} --estimate {given.estimate} --out "
        f"{portable(given.out)}"
    )
    head = ("attribute", "direction", "effect at 3σ", "reach joint's", "leakage there", "of draws")
    return (
        f"# How many pairs of pictures a direction needs: {folder_name(Path(given.model))}\n\n"
        f"Directions of a few pairs of photographs of one person each, without and with the "
        f"attribute (`pairs`, {given.estimate}), beside `joint`, which all labels gave, on at most "
        f"{given.faces} test faces that lack it. Effect: mean change of the judge's logit at 3σ. "
        f"Each direction is then taken as far (at most {STRENGTHS[-1]:g}σ) as changes the logit as "
        "much as joint at 3σ does. Leakage there: mean change of the other attributes' logits, in "
        "their standard deviations, over the draws of pairs that come that far, and the lowest and "
        f"highest of them.\n\n{cells.table(head, rows)}```sh\n{command}\n```\n"
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="model_cards/vae-celeba")
    parser.add_argument("--data", required=True)
    parser.add_argument("--judge", default="model_cards/judge-celeba")
    parser.add_argument("--attributes", nargs="+", default=("Eyeglasses", "Smiling"))
    parser.add_argument("--pairs", type=int, nargs="+", default=N_PAIRS)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--faces", type=int, default=100)
    parser.add_argument("--estimate", choices=("singular", "mean"), default="singular")
    parser.add_argument("--out", type=Path, help="write the table there, as Markdown")
    given = parser.parse_args()
    model = hublatent.load(given.model)
    dataset = load_dataset(given.data, model.image_size)
    table = few_shot_curve(
        model,
        AttributeClassifier.from_pretrained(given.judge),
        DirectionSet.from_pretrained(given.model, model),
        dataset,
        encode(model, dataset, mirror=False),
        given.attributes,
        n_pairs=given.pairs,
        n_draws=given.draws,
        n_faces=given.faces,
        estimate=given.estimate,
    )
    print(table.to_string(index=False, float_format="%.3f", na_rep=""))
    if given.out is not None:
        write_text(given.out, page(table, given))


if __name__ == "__main__":
    main()
