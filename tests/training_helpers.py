"""What tests of several trainings share: tiny pictures, killed and launched processes, logs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": str(PROJECT),
}


def write_faces(folder: Path, n_train: int, n_validation: int, size: int = 16) -> None:
    """A folder with a CSV: smooth coloured pictures, each of another person."""
    generator = np.random.default_rng(0)
    rows = ["name,identity,partition,Smiling"]
    for i in range(n_train + n_validation):
        corners = generator.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        picture = Image.fromarray(corners).resize((size, size), Image.Resampling.BILINEAR)
        picture.save(folder / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{i},{int(i >= n_train)},{i % 2}")
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def forked(action: Callable[[], object], environment: dict[str, str]) -> int:
    """Begin an action in a copy of this process, which has everything imported; its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.environ.update(environment)
        AcceleratorState._reset_state(reset_partial_state=True)
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def kill_when(reached: Callable[[], bool], action: Callable[[], object]) -> None:
    """Begin an action in a process of its own, and kill it on its way."""
    process = forked(action, {})
    deadline = time.monotonic() + 120
    while not reached():
        if os.waitpid(process, os.WNOHANG)[0] or time.monotonic() > deadline:
            pytest.fail("it ended, or never got so far")
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def kill_after_lines(n: int, log: Path, action: Callable[[], object]) -> None:
    """Begin an action, and kill it as soon as its log has n lines."""
    kill_when(lambda: log.is_file() and log.read_bytes().count(b"\n") >= n, action)


def in_two_processes(action: Callable[[], object]) -> None:
    """Run an action in two processes that talk through gloo, as `accelerate launch` has them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [forked(action, {**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    assert codes == [0, 0]


def launch(*words: str) -> None:
    """Run a script in two processes that talk through gloo."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    fixed = ["--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    defaults = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    subprocess.run([*launcher, *fixed, *defaults, *words], env=ENVIRONMENT, check=True)


def read_log(run: Path) -> list[dict[str, Any]]:
    """A run's log lines without what a stopwatch wrote."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line) for line in lines]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in values]
