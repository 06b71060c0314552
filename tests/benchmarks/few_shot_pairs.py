"""How many pairs of pictures a direction needs: leakage at equal effect, against joint."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import hublatent
from hublatent.data import load_dataset
from hublatent.direction_set import DirectionSet
from hublatent.discovery import encode
from hublatent.evaluation.few_shot import N_PAIRS, few_shot_curve
from hublatent.perception.classifier import AttributeClassifier


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
    parser.add_argument("--csv", type=Path, help="write the table there too")
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
    if given.csv is not None:
        table.to_csv(given.csv, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
