"""Command lines: the images that scripts read, recipes by name, and what to type again."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import tyro

from hublatent.data import DataSource, FaceDataset
from hublatent.errors import DataError, exit_on_user_error, unknown_name
from hublatent.images import CELEBA_CROP
from hublatent.storage import portable

Arguments = TypeVar("Arguments")
Ranges = Mapping[str, tuple[str, ...]]  # key of RANGES -> fields that lie there
RANGES: dict[str, Callable[[Any], bool]] = {
    "at least 1": lambda value: value >= 1,
    "at least 2": lambda value: value >= 2,
    "at least 32": lambda value: value >= 32,
    "a number above 0": lambda value: value > 0,
    "0 or more": lambda value: value >= 0,
    "from 0 to below 1": lambda value: 0 <= value < 1,
    "from 0 to 1": lambda value: 0 <= value <= 1,
    "from -1 to 1": lambda value: -1 <= value <= 1,
}
# What concerns this machine alone, or is written in a place of its own.
LEFT_OUT = ("cache", "data", "recipe", "settings", "state_seconds", "out", "export")


@dataclass(frozen=True, kw_only=True)
class DataArguments(DataSource):
    """The images that a script reads, and what is seen of them."""

    crop: int = CELEBA_CROP  # of CelebA, the side of the central square that is seen, of 178 x 218

    def load(self, image_size: int, progress: bool = True, crop: int | None = None) -> FaceDataset:
        """The data set, its images so many pixels wide."""
        return super().load(image_size, progress, crop or self.crop)


class Recipe:
    """A frozen dataclass of all that defines a training: image_size, batch_size, seed and more."""

    ranges: ClassVar[Ranges] = {}
    may_change: ClassVar[tuple[str, ...]] = ()  # fields of which a resumed run may have others

    def check(self) -> None:
        """Refuse, with a DataError, values that cannot be trained with."""
        for expected, names in self.ranges.items():
            for name in names:
                if not RANGES[expected](value := getattr(self, name)):
                    raise DataError(f"--{_option(name)} {value}; expected {expected}.")


def run_script(arguments: type[Arguments], run: Callable[[Arguments], object]) -> None:
    """Run a script with what the command line gives; a user's error ends with one sentence."""
    exit_on_user_error(lambda: run(tyro.cli(arguments)))


def run_training(
    arguments: type[Arguments], recipes: Mapping[str, Any], train: Callable[[Arguments], object]
) -> None:
    """The same with a recipe by name."""
    exit_on_user_error(lambda: train(parse_command(arguments, recipes)))


def parse_command(
    arguments: type[Arguments], recipes: Mapping[str, Any], words: list[str] | None = None
) -> Arguments:
    """Read a command line, by default this process's: the named recipe first, which becomes the
    arguments' `settings`, then every value that overrides it.
    """
    words = sys.argv[1:] if words is None else words
    first = ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe")
    name = first.parse_known_args(words)[0].recipe
    if name is None and {"-h", "--help"} & set(words):
        name = next(iter(recipes))  # any one, to have defaults to show
    if name is None:
        raise DataError(f"--recipe is missing. Available: {', '.join(sorted(recipes))}.")
    if name not in recipes:
        raise DataError(unknown_name("recipe", name, recipes))
    required = {f.name: tyro.MISSING for f in fields(arguments) if f.default is MISSING}  # type: ignore[arg-type]
    defaults = arguments(**{**required, "recipe": name, "settings": recipes[name]})
    return tyro.cli(arguments, args=words, default=defaults, config=(tyro.conf.OmitArgPrefixes,))


def command_of(script: str, arguments: Any, **others: Any) -> str:
    """The command that does the same again, on any machine: what differs from the defaults.

    `others` are named in any case, in the arguments' place; None leaves one out.
    """
    usual = {f.name: f.default for f in fields(arguments) if f.name not in LEFT_OUT}
    given = {name: getattr(arguments, name) for name in usual}
    where = {"data": "DATA"} if getattr(arguments, "data", None) else {}
    return shlex.join(["python", script, *words_of({**changes(given, usual), **where, **others})])


def changes(given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The given values that differ from the usual ones."""
    return {name: value for name, value in given.items() if usual.get(name) != value}


def words_of(values: Mapping[str, Any]) -> list[str]:
    """The words of a command line that give these values; those that are None are left out."""
    words = []
    for name, value in values.items():
        option = _option(name)
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, (tuple, list)):
            words += [f"--{option}", *map(str, value)]
        elif value is not None:
            is_path = isinstance(value, Path) or str(value).startswith("/")
            words += [f"--{option}", portable(value) if is_path else str(value)]
    return words


def _option(name: str) -> str:
    return name.replace("_", "-")
