"""How many pairs of pictures a direction needs: leakage at equal effect, against joint."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import pandas as pd

import hublatent
from hublatent.checkpoint import folder_name
from hublatent.data import load_dataset
from hublatent.direction_set import DirectionSet
from hublatent.discovery import encode
from hublatent.evaluation.few_shot import N_PAIRS, STRENGTHS, few_shot_curve
from hublatent.perception.classifier import AttributeClassifier
from hublatent.publish import cells
from hublatent.storage import portable, write_text


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
