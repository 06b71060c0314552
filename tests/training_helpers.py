"""What tests of several trainings share: tiny pictures, killed and launched processes, logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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


def kill_after_lines(command: list[str], log: Path, n: int) -> None:
    """Start a command, and kill it as soon as its log has n lines."""
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and len(log.read_text(encoding="utf-8").splitlines()) >= n:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"{log} never reached {n} lines; exit code {process.poll()}")


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
