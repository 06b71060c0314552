"""From the data set to every table: the steps, their order, and going on after one failed."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hublatent import cli
from hublatent.errors import DataError, HublatentError
from tests.training_helpers import PROJECT, forked
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
def test_every_script_takes_the_options_it_is_given(script: str, tmp_path: Path) -> None:
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
    words = [script, *(["--recipe", recipe] if recipe else []), "--help"]
    process = forked(lambda: run_as_file(words, tmp_path / "shown"), {})
    assert os.waitpid(process, 0)[1] == 0
    shown = (tmp_path / "shown").read_text(encoding="utf-8")
    assert [option for option in options if option not in shown] == []


def run_as_file(words: list[str], output: Path) -> None:
    """Run what `python` would, in this copy of the process: the file finds its library itself."""
    with output.open("w", encoding="utf-8") as sys.stdout, suppress(SystemExit):
        if words[0].startswith("-m hublatent"):
            cli.main([*words[0].split()[2:], *words[1:]])
            return
        for name in [name for name in sys.modules if name.partition(".")[0] == "training"]:
            del sys.modules[name]
        script = PROJECT / words[0]
        elsewhere = [path for path in sys.path if Path(path).resolve() != PROJECT]
        sys.path[:], sys.argv = [str(script.parent), *elsewhere], words
        runpy.run_path(str(script), run_name="__main__")


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


def test_every_script_says_what_to_install(tmp_path: Path) -> None:
    code = """
import runpy, sys
from pathlib import Path
sys.modules["accelerate"] = None  # as if it were not installed
for script in sorted(Path("training").rglob("*.py")):
    if "run_script(" not in script.read_text() and "run_training(" not in script.read_text():
        continue
    for name in [name for name in sys.modules if name.partition(".")[0] == "training"]:
        del sys.modules[name]
    sys.argv = [str(script), "--help"]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        print(script.name, end.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    ended = done.stdout.splitlines()
    assert {"train_vae.py 2", "train_stylegan2.py 2", "find_directions.py 2"} <= set(ended)
    assert all(line.endswith(" 2") for line in ended)
    sentence = "error: the training scripts need: pip install -e '.[training]'"
    assert done.stderr.splitlines() == [sentence] * len(ended)
