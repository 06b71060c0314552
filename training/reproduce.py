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

from jinja2 import Environment, StrictUndefined

from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.storage import write_text
from training.recipes import RECIPES
from training.trainers.commands import run_script

TEMPLATE = Path(__file__).parent / "templates" / "reproduce.txt.jinja"
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
REPEATED = {"paper-": 40, "grid-": 5, "sprites-": 8}
N_TRAININGS = 3
# Five for one recipe of each objective, as many as tell whether three were enough.
N_TRAININGS_OF = {"grid-vae-1": 5, "grid-betavae-4": 5, "grid-btcvae-4": 5}


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
    trainings = {
        f"{recipe}-{seed}": (recipe, seed, minutes)
        for recipe in RECIPES
        for start, minutes in REPEATED.items()
        if recipe.startswith(start)
        for seed in range(N_TRAININGS_OF.get(recipe, N_TRAININGS))
    }
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    lines = template.render(published=PUBLISHED, trainings=trainings).splitlines()
    for name, minutes, command in (line.split(maxsplit=2) for line in lines if line):
        yield Step(name, command, float(minutes))


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
