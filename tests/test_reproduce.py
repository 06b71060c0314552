"""From the data set to every table: the steps, their order, and going on after one failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hublatent.errors import DataError, HublatentError
from tests.training_helpers import ENVIRONMENT, PROJECT
from training import reproduce
from training.recipes import RECIPES
from training.reproduce import Arguments, Step, chosen, run, steps


def test_every_recipe_is_trained_and_what_a_step_reads_was_written_before() -> None:
    written: set[str] = set()
    for step in steps():
        words = step.command.split()
        for option in ("--model", "--run", "--classifier", "--projected", "--baseline"):
            if option in words:
                read = words[words.index(option) + 1]
                within_a_run = not read.startswith("{")  # make_card.py --model best
                known = within_a_run or any(read.startswith(folder) for folder in written)
                assert known, (step.name, read)
        for option in ("--out", "--export"):
            if option in words:
                written.add(words[words.index(option) + 1])
    commands = " ".join(step.command for step in steps())
    assert all(f"--recipe {name} " in commands for name in RECIPES)


def script_of(step: Step) -> str:
    """What is run: a file, or a command of hublatent."""
    words = step.command.split()
    return " ".join(words[:3]) if words[0] == "-m" else words[0]


@pytest.mark.parametrize("script", sorted(set(map(script_of, steps()))))
def test_every_script_takes_the_options_it_is_given(script: str) -> None:
    options = {
        word
        for step in steps()
        if script_of(step) == script
        for word in step.command.split()
        if word.startswith("--")
    }
    recipe = "--recipe" in options and next(
        words[words.index("--recipe") + 1]
        for words in (step.command.split() for step in steps())
        if words[0] == script
    )
    command = [sys.executable, *script.split(), *(["--recipe", recipe] if recipe else []), "--help"]
    shown = subprocess.run(
        command, env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert [option for option in options if option not in shown] == []


def test_a_dry_run_prints_commands_and_time(tmp_path: Path, capsys: Any) -> None:
    run(Arguments("faces", runs=tmp_path / "runs", dry_run=True))
    printed = capsys.readouterr().out
    assert "--recipe btcvae-celeba --data faces" in printed and " h on two cores" in printed
    assert not (tmp_path / "runs").exists()


def test_it_goes_on_at_the_step_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    first = f"-c open('{tmp_path}/log','a').write('first')"
    second = f"-c open('{tmp_path}/needed').close()"
    both = [Step("first", first, 1), Step("second", second, 1)]
    monkeypatch.setattr(reproduce, "steps", lambda: iter(both))
    arguments = Arguments("faces", runs=tmp_path / "runs")
    with pytest.raises(HublatentError, match="step second failed"):
        run(arguments)
    (tmp_path / "needed").touch()
    run(arguments)
    assert (tmp_path / "log").read_text() == "first"
    assert "2 steps, 1 to do" in capsys.readouterr().out


def test_unknown_steps_get_the_nearest_names() -> None:
    with pytest.raises(DataError, match="comparison"):
        chosen(["comparisons"])
