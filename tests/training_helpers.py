"""What tests of several trainings share: tiny pictures, killed and launched processes, logs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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


def kill_when(reached: Callable[[], bool], action: Callable[[], object]) -> None:
    """Begin an action in a copy of this process, which has everything imported, and kill it."""
    process = os.fork()
    if not process:
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for number in (1, 2):
                os.dup2(nowhere, number)
            action()
        finally:
            os._exit(1)
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


def launch(*words: str) -> None:
    """Run a script in two processes that talk through gloo, as `accelerate launch` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, *words], env={**ENVIRONMENT, **shared, "RANK": i, "LOCAL_RANK": i}
        )
        for i in "01"
    ]
    codes = [process.wait() for process in processes]
    assert codes == [0, 0]


def read_log(run: Path) -> list[dict[str, Any]]:
    """A run's log lines without what a stopwatch wrote."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line) for line in lines]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in values]
