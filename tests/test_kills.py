"""Commands killed at random moments: the benchmark, with a few kills of two of its commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.training_helpers import ENVIRONMENT, PROJECT


@pytest.mark.slow
def test_killed_commands_given_again_end_like_unbroken_ones() -> None:
    script = PROJECT / "tests" / "benchmarks" / "kills.py"
    words = [sys.executable, str(script), "--kills", "2", "--commands", "train_vae"]
    ended = subprocess.run(
        [*words, "find_directions"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("the second stops") == 2
