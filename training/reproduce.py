"""From the data set to every table of the README and the cards:

python training/reproduce.py --data CELEBA [--dry-run]

Runs the scripts one after another and prints the time that is left. Killed, the same command goes
on where it stopped: finished steps are marked in the folder of runs, and every script resumes its
own. Each card names the commands that made it; these are the same.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.storage import write_text
from training.recipes import RECIPES
from training.trainers.commands import run_script

METHODS = "svm pattern joint"
CLASSIFIER = "{cards}/attributes-celeba"
JUDGE = "{cards}/judge-celeba"
# Recipe -> minutes of its training on two cores.
PUBLISHED = {
    "vae-celeba": 25,
    "betavae-celeba": 10,
    "btcvae-celeba": 12,
    "factorvae-celeba": 15,
    "ae-celeba": 8,
    "lsavae-celeba": 20,
}
# Trained several times, and not published: recipes that begin so, and minutes of one training.
PAPER, GRID, SPRITES = "paper-", "grid-", "sprites-"
REPEATED = {PAPER: 40, GRID: 5, SPRITES: 8}
N_TRAININGS = 3
OTHER_METHODS = {"lsavae-celeba": "svm pattern joint axis"}


@dataclass(frozen=True)
class Step:
    """One command; in its words {data}, {runs} and {cards} stand for folders."""

    name: str  # for --only and the folder of finished ones
    command: str
    minutes: float  # that it takes on two cores


@dataclass(frozen=True)
class Arguments:
    """Make every model, card and table anew."""

    data: str  # CelebA's folder, or a Hub dataset of labelled faces
    runs: Path = Path("runs")  # folder of the runs, and of the marks of finished steps
    cards: Path = Path("model_cards")  # folder of the models' folders and of the comparison
    only: tuple[str, ...] = ()  # names of steps; others are left out
    dry_run: bool = False  # print the commands and the time, and run nothing


def steps() -> Iterator[Step]:
    """Every step, in an order in which each finds what it needs."""
    out = "--data {data} --out {runs}"
    for name, minutes in (("attributes-celeba", 25), ("judge-celeba", 35)):
        train = f"training/train_classifier.py --recipe {name} {out}/{name}"
        yield Step(name, f"{train} --export {{cards}}/{name}", minutes)
    yield Step("eigenfaces-celeba", f"training/trainers/eigenfaces.py {out}/eigenfaces-celeba", 2)
    yield from _finished("eigenfaces-celeba", METHODS, "")
    for name, minutes in PUBLISHED.items():
        yield Step(name, f"training/train_vae.py --recipe {name} {out}/{name}", minutes)
        baseline = " --baseline {runs}/eigenfaces-celeba/model"
        yield from _finished(name, OTHER_METHODS.get(name, METHODS), baseline)
    yield from _stylegan2()
    for name in trainings(*REPEATED):
        recipe, _, seed = name.rpartition("-")
        data = "sprites" if name.startswith(SPRITES) else "{data}"
        train = f"training/train_vae.py --recipe {recipe} --data {data} --seed {seed}"
        minutes = next(m for start, m in REPEATED.items() if name.startswith(start))
        yield Step(name, f"{train} --out {{runs}}/trainings/{name}", minutes)
    yield from _tables()


def trainings(*starts: str) -> Iterator[str]:
    """RECIPE-SEED of every training of the recipes that begin so."""
    for recipe in RECIPES:
        if recipe.startswith(starts):
            yield from (f"{recipe}-{seed}" for seed in range(N_TRAININGS))


def _finished(name: str, methods: str, baseline: str) -> Iterator[Step]:
    """The directions and the card of a model that has just been trained."""
    run = f"{{runs}}/{name}"
    find = f"training/find_directions.py --model {run}/model --data {{data}} --methods {methods}"
    yield Step(f"{name}-directions", find, 4)
    card = f"training/cards/make_card.py --run {run} --out {{cards}}/{name}{baseline}"
    yield Step(f"{name}-card", card, 0.5)


def _stylegan2() -> Iterator[Step]:
    """StyleGAN2 has no encoder: directions come from its samples and from projected pictures."""
    name, data = "stylegan2-celeba", "--data {data}"
    run, model = f"{{runs}}/{name}", f"--model {{runs}}/{name}/best"
    train = f"training/train_stylegan2.py --recipe {name} {data} --out {run} --images 480000"
    yield Step(name, f"{train} --kid-classifier {CLASSIFIER}", 800)
    encode = f"training/train_encoder.py --recipe encoder-celeba {model} {data}"
    yield Step("encoder-celeba", f"{encode} --out {{runs}}/encoder-celeba", 60)
    find = f"training/find_directions.py {model}"
    yield Step(f"{name}-samples", f"{find} --samples 20000 --classifier {CLASSIFIER}", 30)
    project = f"training/project_images.py {model} {data} --attribute Eyeglasses --n 1000"
    project += f" --n-steps 100 --precision bf16 --classifier {CLASSIFIER}"
    yield Step("projected-train", f"{project} --out {{runs}}/projected-train", 90)
    found = f"{find} {data} --projected {{runs}}/projected-train --add"
    yield Step(f"{name}-directions", found, 5)
    card = f"training/cards/make_card.py --run {run} --model best --sample-rows 6"
    yield Step(f"{name}-card", f"{card} --out {{cards}}/{name}", 1)


def _tables() -> Iterator[Step]:
    """The comparison, the replication, the maps, and what the README shows of them."""
    bundled = ["eigenfaces-celeba", *PUBLISHED, "stylegan2-celeba"]
    models = " ".join(f"{{cards}}/{name}" for name in bundled)
    grid = " ".join(f"{{runs}}/trainings/{name}" for name in trainings(GRID))
    drawn = " ".join(f"{{runs}}/trainings/{name}/model" for name in trainings(SPRITES))
    data, judge = "--data {data}", f"--judge {JUDGE}"
    compare = f"-m hublatent compare {models} {grid} {data} {judge} --faces 100"
    yield Step("comparison", f"{compare} --out {{cards}}/comparison", 240)
    replicate = f"-m hublatent replicate {{runs}}/trainings {data}"
    yield Step("replication", f"{replicate} --out {{cards}}/replication", 10)
    measure = f"-m hublatent metrics {drawn} --data sprites"
    yield Step("sprites", f"{measure} --out {{cards}}/comparison/sprites.csv", 15)
    maps = f"-m hublatent map {models} {data} {judge} --out {{cards}}/latent-maps"
    yield Step("maps", maps, 60)
    experiment = f"training/paper_experiment.py --model {{cards}}/stylegan2-celeba {judge}"
    out = "--judges {cards} --out {cards}/paper-experiment"
    yield Step("paper-experiment", f"{experiment} {out}", 15)
    yield Step("readme", "training/cards/update_readme.py --cards {cards}", 3)


def chosen(only: Iterable[str]) -> list[Step]:
    """The steps of some names, in their order; all without names."""
    everything = {step.name: step for step in steps()}
    for name in only:
        if name not in everything:
            raise DataError(unknown_name("step", name, everything))
    return [step for name, step in everything.items() if not only or name in only]


def run(arguments: Arguments) -> None:
    """Run what was not finished yet by the very same command."""
    folders = {"data": arguments.data, "runs": arguments.runs, "cards": arguments.cards}
    marks = arguments.runs / "reproduced"
    everything, todo = chosen(arguments.only), {}
    for step in everything:
        words = [word.format(**folders) for word in step.command.split()]
        command, mark = shlex.join(["python", *words]), marks / step.name
        if not (mark.is_file() and mark.read_text(encoding="utf-8") == command + "\n"):
            todo[step] = words
    left = sum(step.minutes for step in todo)
    print(f"{len(everything)} steps, {len(todo)} to do: about {_duration(left)} on two cores")
    for step, words in todo.items():
        command = shlex.join(["python", *words])
        print(f"[{_duration(left)} left] {step.name}: {command}", flush=True)
        left -= step.minutes
        if arguments.dry_run:
            continue
        started = time.monotonic()
        if subprocess.run([sys.executable, *words], check=False).returncode:
            raise HublatentError(
                f"The step {step.name} failed; its message stands above. The same command goes on "
                "from here."
            )
        write_text(marks / step.name, command + "\n")
        print(f"{step.name}: done in {_duration((time.monotonic() - started) / 60)}", flush=True)


def _duration(minutes: float) -> str:
    return str(timedelta(minutes=round(minutes)))[:-3] + " h"


if __name__ == "__main__":
    run_script(Arguments, run)
