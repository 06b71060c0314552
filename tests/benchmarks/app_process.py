"""The app in a process of its own, for the benchmarks."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class RunningApp:
    """Where an app answers, and its process."""

    url: str
    pid: int

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes in memory now ("VmRSS") or at most so far ("VmHWM"); Linux only."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


@contextlib.contextmanager
def served_app(
    *models: str, options: tuple[str, ...] = (), seconds: float = 120
) -> Iterator[RunningApp]:
    """Run app.py with the models (those of model_cards/ beside them), until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(PROJECT / "app.py"), "--port", str(port), *options]
    command += ["--models", *models] if models else []
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, seconds)
        yield RunningApp(url, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"app.py stopped with exit code {process.returncode}.")
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.3)
    raise SystemExit(f"app.py did not answer within {seconds:.0f} s.")
