"""Find directions without labels: python training/find_unlabelled.py --model FOLDER

Principal components of the latents (GANSpace) or factors of the first weights (SeFa). Each is named
by what a classifier sees change most, if that is more than random directions change.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tyro

import hublatent
from hublatent.classifier import AttributeClassifier
from hublatent.direction_set import DirectionSet
from hublatent.discovery import discover_unlabelled
from hublatent.errors import DataError
from hublatent.hub import DIRECTIONS_NAME
from training.run import exit_on_user_error


@dataclass(frozen=True)
class Arguments:
    """Find directions without labels; those that the direction file holds already are kept.

    Attributes:
        model: folder or Hub id of the model.
        method: how to find them.
        n: how many, the first ones.
        samples: of the model, that are edited to see what changes.
        classifier: folder or Hub id of the classifier that names them; not the judge.
        out: the direction file; by default directions.safetensors in the model's folder.
        seed: of the samples and of the random directions.
    """

    model: str
    method: Literal["components", "factorisation"] = "components"
    n: int = 20
    samples: int = 64
    classifier: str = "model_cards/attributes-celeba"
    out: Path | None = None
    seed: int = 0


def run(arguments: Arguments) -> None:
    """Find, print and save.

    Raises:
        DataError: nothing is asked for, or there is no folder to write to.
    """
    if arguments.n < 1 or arguments.samples < 2:
        raise DataError("--n is at least 1, and --samples at least 2.")
    if arguments.out is None and not Path(arguments.model).is_dir():
        raise DataError(f"{arguments.model} is not a folder here; say with --out where they go.")
    path = arguments.out or Path(arguments.model) / DIRECTIONS_NAME
    model = hublatent.load(arguments.model)
    found = discover_unlabelled(
        model,
        arguments.method,
        AttributeClassifier.from_pretrained(arguments.classifier),
        n_directions=arguments.n,
        n_samples=arguments.samples,
        seed=arguments.seed,
    )
    earlier = DirectionSet.load(path, model) if path.is_file() else ()
    kept = [d for d in earlier if not d.method.startswith(f"{arguments.method}-")]
    DirectionSet.of(model, [*kept, *found]).save(path)
    print(f"effect, in deviations of the logit per sigma; seed {arguments.seed}")
    for direction in found:
        effect, band = direction.scores["effect"], direction.scores["null band"]
        print(
            f"{direction.name:36} {effect.value:.3f} [{effect.low:.3f}, {effect.high:.3f}], "
            f"null band {band.value:.3f}"
        )
    print(f"{path}: {len(found)} directions beside {len(kept)}")


def main() -> None:
    """Find what the command line asks for."""
    run(tyro.cli(Arguments))


if __name__ == "__main__":
    exit_on_user_error(main)
