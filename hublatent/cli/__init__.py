"""The `hublatent` command: one file per group of commands.

A new command is a function in one of the files and its name in COMMANDS. What is heavy is imported
inside the functions, so that help and usage errors answer without torch.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import tyro

from hublatent import __version__
from hublatent.cli.discovery import find_measured, find_unlabelled, join_styles
from hublatent.cli.editing import edit, project
from hublatent.cli.evaluation import audit, choose_defaults, compare, replicate
from hublatent.cli.files import convert, import_directions, info, pull, push, push_directions
from hublatent.cli.mapping import carry, map
from hublatent.cli.metrics import data, metrics
from hublatent.errors import HublatentError, exit_on_user_error, unknown_name

COMMANDS = {
    function.__name__.replace("_", "-"): function
    for function in (
        info, edit, project, find_unlabelled, find_measured, join_styles, choose_defaults, audit,
        compare, replicate, data, metrics, map, carry, convert, import_directions, push,
        push_directions, pull,
    )
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one sentence on stderr and exit code 2.

    Args:
        arguments: the words after `hublatent`; None takes the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    exit_on_user_error(lambda: _run(words), "hublatent")


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
    elif words[0] == "--version":
        print(f"hublatent {__version__}")
    elif words[0] not in COMMANDS:
        raise HublatentError(unknown_name("command", words[0], COMMANDS))
    else:
        tyro.cli(
            COMMANDS[words[0]],
            prog=f"hublatent {words[0]}",
            args=words[1:],
            config=(tyro.conf.FlagCreatePairsOff,),
        )


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [
        f"  {name:{width}}  {(function.__doc__ or '').splitlines()[0]}"
        for name, function in COMMANDS.items()
    ]
    return "\n".join(
        [
            "usage: hublatent COMMAND ... | --help | --version\n",
            "Find, share, apply and compare semantic directions in latent spaces.\n",
            *lines,
            "\nEach explains itself: hublatent COMMAND --help",
        ]
    )
