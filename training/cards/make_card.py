"""Assemble a folder for the Hub: python training/cards/make_card.py --run runs/btcvae-celeba

Takes the run's model, its results and its directions, draws samples, and writes the card. Nothing
of an existing folder is replaced before all is written.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tyro

import hublatent
from hublatent.direction_set import DirectionSet
from hublatent.errors import DataError, exit_on_user_error
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
from training.recipes import RECIPES
from training.trainers.commands import changes, command_of, words_of
from training.trainers.run import MODEL_FOLDER, RESULTS_NAME

CARDS = "model_cards"
MADE_HERE = (CARD_NAME, SAMPLES_NAME)


@dataclass(frozen=True)
class Arguments:
    """Assemble a model's folder for the Hub.

    Attributes:
        run: the run's folder, holding results.json and the model.
        model: folder of the model and its directions, within the run.
        out: the folder to write; by default model_cards/ and the run's name.
        baseline: folder of a model whose directions, found on the same data, are compared with.
        source: what the card's example loads; by default model_cards/ and the name.
        seed: of the samples.
        sample_rows: rows of eight samples; the last is edited.
    """

    run: Path
    model: str = MODEL_FOLDER
    out: Path | None = None
    baseline: Path | None = None
    source: str = ""
    seed: int = 0
    sample_rows: int = 1


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read what a command has measured.

    Args:
        path: the JSON file.
        made_by: the script that writes it, for the message.

    Raises:
        DataError: it is missing or no JSON object.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; it is written by training/{made_by}.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no JSON object.")
    return values


def training_command(name: str, results: Mapping[str, Any]) -> str | None:
    """The command that trained a model, from what its results say.

    Args:
        name: of the run.
        results: results.json; its `recipe` is matched with the known ones.
    """
    if "command" in results:
        return str(results["command"])
    trained = results.get("recipe")
    if trained is None:
        return None
    changed = {recipe: changes(trained, asdict(usual)) for recipe, usual in RECIPES.items()}
    recipe = min(changed, key=lambda key: (len(changed[key]), key != name))
    choices = {k: results[k] for k in ("precision", "memory_format") if k in results}
    words = {"recipe": recipe, "data": "DATA", "out": f"runs/{name}", **changed[recipe], **choices}
    return shlex.join(["python", "training/train_vae.py", *words_of(words)])


def _commands(
    arguments: Arguments, results: Mapping[str, Any], found: Mapping[str, Any] | None
) -> Iterator[str]:
    name = arguments.run.resolve().name
    trained = training_command(name, results)
    if trained is not None:
        yield trained
    if found is not None:
        yield from found["commands"]
    run, seed = f"runs/{name}", arguments.seed
    yield command_of("training/cards/make_card.py", arguments, run=run, seed=seed, source=None)


def _baselines(folder: Path | None, seed: int) -> dict[str, DirectionSet]:
    """The baseline's directions, under its architecture's name."""
    if folder is None:
        return {}
    model = hublatent.load(folder)
    found = read_found(folder)
    if found["seed"] != seed:
        raise DataError(
            f"The baseline's directions were found with seed {found['seed']}, the model's with "
            f"{seed}; only equal seeds give equal folds."
        )
    return {model.architecture: DirectionSet.load(folder / DIRECTIONS_NAME, model)}


def read_found(folder: Path) -> dict[str, Any]:
    """What find_directions.py wrote beside the directions of a model's folder."""
    path = (folder / DIRECTIONS_NAME).with_suffix(".json")
    found = read_json(path, "find_directions.py")
    if "commands" not in found:
        raise DataError(f"{path} does not say how its directions were found; find them anew.")
    return found


def style_sentence(results: Mapping[str, Any]) -> str:
    """What an LSA-VAE's style part gives away of the attributes; empty for other models."""
    read = []
    for attribute, found in results.get("style", {}).items():
        style, own = (
            "{value:.3f} ({low:.3f} to {high:.3f})".format(**found[part])
            for part in ("style", "own_dimension")
        )
        read.append(f"{attribute} {style} from style, {own} from its own dimension")
    if not read:
        return ""
    return (
        "A style part without the attributes would leave a linear SVM at chance, 0.5. Its accuracy "
        f"for people it was not fitted on: {'; '.join(read)}."
    )


def gather(arguments: Arguments, model: LatentModel) -> CardInput:
    """Collect what the commands have measured."""
    folder = arguments.run / arguments.model
    name = (arguments.out or arguments.run).resolve().name
    results = read_json(arguments.run / RESULTS_NAME, "the script that trained the model")
    directions, found = None, None
    if (folder / DIRECTIONS_NAME).is_file():
        directions = DirectionSet.load(folder / DIRECTIONS_NAME, model)
        found = read_found(folder)
        if not model.matches(found["fingerprint"]):
            raise DataError(f"The .json beside {folder / DIRECTIONS_NAME} is about other weights.")
    return CardInput(
        repo=arguments.source or f"{CARDS}/{name}",
        model=model,
        directions=directions,
        results=results,
        dataset=results.get("dataset"),
        about=style_sentence(results),
        shares=found["training_shares"] if found else {},
        left_out=list(found["left_out"].values()) if found else (),
        baselines=_baselines(arguments.baseline, found["seed"]) if found else {},
        commands=list(_commands(arguments, results, found)),
        discriminator=(folder / DISCRIMINATOR_NAME).is_file(),
    )


def assemble(arguments: Arguments) -> Path:
    """Write the folder.

    Returns:
        The folder.

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
    copied = [n for n in PUBLISHED_FILES if n not in MADE_HERE and (folder / n).is_file()]
    with atomic_folder_update(out, (*copied, *MADE_HERE)) as paths:
        for name in copied:
            shutil.copyfile(folder / name, paths[name])
        paths[CARD_NAME].write_text(card, encoding="utf-8")
        save_png(picture, paths[SAMPLES_NAME])
    for name in {*PUBLISHED_FILES} - {*copied, *MADE_HERE}:  # of earlier weights
        (out / name).unlink(missing_ok=True)
    return out


def main() -> None:
    """Assemble what the command line asks for."""
    out = assemble(tyro.cli(Arguments))
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    exit_on_user_error(main)
