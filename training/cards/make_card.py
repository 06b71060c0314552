"""Assemble a folder for the Hub: python training/cards/make_card.py --run runs/btcvae-celeba

Takes the run's model, its results and its directions, draws samples, and writes the card. Nothing
of an existing folder is replaced before all is written.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import hublatent
from hublatent.direction_set import DirectionSet
from hublatent.errors import DataError
from hublatent.hub import (
    CARD_NAME,
    DIRECTIONS_NAME,
    DISCRIMINATOR_NAME,
    PUBLISHED_FILES,
    SAMPLES_NAME,
)
from hublatent.images import save_png
from hublatent.model import LatentModel
from hublatent.publish import CardInput, render_card
from hublatent.publish.card_tables import best_of_each, of_headline
from hublatent.publish.push import draw_samples
from hublatent.storage import atomic_folder_update
from training.trainers.commands import command_of, run_script
from training.trainers.run import MODEL_FOLDER, RESULTS_NAME

CARDS = "model_cards"


@dataclass(frozen=True)
class Arguments:
    """Assemble a model's folder for the Hub."""

    run: Path  # the run's folder, holding results.json and the model
    model: str = MODEL_FOLDER  # folder of the model and its directions, within the run
    out: Path | None = None  # the folder to write; by default model_cards/ and the run's name
    # folder of a model whose directions, found on the same data, are compared with
    baseline: Path | None = None
    encoder: Path | None = None  # the run of train_encoder.py that gave the model its encoder
    source: str = ""  # what the card's example loads; by default model_cards/ and the name
    seed: int = 0  # of the samples
    sample_rows: int = 1  # rows of eight samples; the last is edited


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read what a command has measured; `made_by` says which, where there is nothing."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; it is written by training/{made_by}.")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a JSON object: {error}.") from error


def read_found(folder: Path, model: LatentModel) -> tuple[DirectionSet, dict[str, Any]]:
    """A folder's directions, and what find_directions.py wrote beside them."""
    path = folder / DIRECTIONS_NAME
    beside = path.with_suffix(".json")
    found = read_json(beside, "find_directions.py")
    if "commands" not in found:
        raise DataError(f"{beside} does not say how its directions were found; find them anew.")
    if not model.matches(found["fingerprint"]):
        raise DataError(f"{beside} is about other weights.")
    return DirectionSet.load(path, model), found


def baselines(folder: Path, seed: int) -> dict[str, DirectionSet]:
    """A baseline's directions, under its architecture's name."""
    model = hublatent.load(folder)
    directions, found = read_found(folder, model)
    if found["seed"] != seed:
        raise DataError(
            f"The baseline's directions were found with seed {found['seed']}, the model's with "
            f"{seed}; only equal seeds give equal folds."
        )
    return {model.architecture: directions}


def read_encoder(run: Path, model: LatentModel) -> dict[str, Any]:
    """What train_encoder.py wrote of a generator's encoder."""
    found = read_json(run / RESULTS_NAME, "train_encoder.py")
    if "generator" not in found or not model.matches(found["generator"]):
        raise DataError(f"{run} is about another model's encoder.")
    return found


def style_sentence(results: Mapping[str, Any]) -> str:
    """What an LSA-VAE's style part gives away of the attributes; empty for other models."""
    accuracy = "{value:.3f} ({low:.3f} to {high:.3f})".format
    read = [
        f"{attribute} {accuracy(**found['style'])} from style, "
        f"{accuracy(**found['own_dimension'])} from its own dimension"
        for attribute, found in results.get("style", {}).items()
    ]
    if not read:
        return ""
    return (
        "A style part without the attributes would leave a linear SVM at chance, 0.5. Its accuracy "
        f"for people it was not fitted on: {'; '.join(read)}."
    )


def gather(arguments: Arguments, model: LatentModel) -> CardInput:
    """Collect what the commands have measured."""
    folder = arguments.run / arguments.model
    results = read_json(arguments.run / RESULTS_NAME, "the script that trained the model")
    commands = [*results.get("earlier_commands", ())]
    commands += [results["command"]] if "command" in results else []
    if arguments.encoder is not None:
        results["encoder"] = read_encoder(arguments.encoder, model)
        commands.append(results["encoder"]["command"])
    of_directions: dict[str, Any] = {}
    if (folder / DIRECTIONS_NAME).is_file():
        directions, found = read_found(folder, model)
        commands += found["commands"]
        of_directions = {
            "directions": directions,
            "shares": found["training_shares"],
            "left_out": list(found["left_out"].values()),
        }
        if arguments.baseline is not None:
            of_directions["baselines"] = baselines(arguments.baseline, found["seed"])
    own = {"run": f"runs/{arguments.run.resolve().name}", "seed": arguments.seed, "source": None}
    if arguments.encoder is not None:
        own["encoder"] = f"runs/{arguments.encoder.resolve().name}"
    commands.append(command_of("training/cards/make_card.py", arguments, **own))
    return CardInput(
        repo=arguments.source or f"{CARDS}/{(arguments.out or arguments.run).resolve().name}",
        model=model,
        results=results,
        dataset=results.get("dataset"),
        about=style_sentence(results),
        commands=commands,
        discriminator=(folder / DISCRIMINATOR_NAME).is_file(),
        **of_directions,
    )


def assemble(arguments: Arguments) -> Path:
    """Write the folder, and return it.

    Raises:
        HublatentError: something is missing, damaged, of other weights, or not a finite number.
    """
    folder = arguments.run / arguments.model
    model = hublatent.load(folder)
    given = gather(arguments, model)
    out = arguments.out or Path(CARDS) / given.name
    shown = best_of_each(of_headline(given.directions))
    picture, caption = draw_samples(model, shown, arguments.seed, arguments.sample_rows)
    card = render_card(replace(given, samples_caption=caption))
    made = (CARD_NAME, SAMPLES_NAME)
    copied = [n for n in PUBLISHED_FILES if n not in made and (folder / n).is_file()]
    with atomic_folder_update(out, (*copied, *made)) as paths:
        for name in copied:
            shutil.copyfile(folder / name, paths[name])
        paths[CARD_NAME].write_text(card, encoding="utf-8")
        save_png(picture, paths[SAMPLES_NAME])
    for name in {*PUBLISHED_FILES} - {*copied, *made}:  # of earlier weights
        (out / name).unlink(missing_ok=True)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB")
    return out


if __name__ == "__main__":
    run_script(Arguments, assemble)
