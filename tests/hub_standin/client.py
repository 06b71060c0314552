"""Point the real huggingface_hub client at the stand-in, in this process or in a fresh one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.hub_standin.hub import HubStandIn

PROJECT = Path(__file__).resolve().parents[2]


@dataclass
class ClientState:
    """What `connected` set up.

    Attributes:
        cache: the client's download cache.
        slept: the seconds the client would have waited between its retries.
    """

    cache: Path
    slept: list[float] = field(default_factory=list)

    def log_in(self, token: str | None) -> None:
        """Store a token as `hf auth login` does; None logs out."""
        path = self.cache.parent / "token"
        path.unlink(missing_ok=True)
        if token is not None:
            path.write_text(token)


class _Clock:
    """The time module as the client's retry loops see it: sleeping only takes a note."""

    def __init__(self, slept: list[float]) -> None:
        self._slept = slept

    def sleep(self, seconds: float) -> None:
        self._slept.append(seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


@contextmanager
def connected(
    hub: HubStandIn, folder: Path, *, token: str | None = "hf_write"
) -> Iterator[ClientState]:
    """Point this process's huggingface_hub client at the stand-in.

    Args:
        hub: the running stand-in.
        folder: for the client's cache and token; nothing is read from the user's own.
        token: the stored login; None for nobody.

    Yields:
        The cache's place, and how long the client would have slept.
    """
    from huggingface_hub import constants, file_download, hf_api
    from huggingface_hub.utils import _http

    state = ClientState(folder / "hub")
    state.log_in(token)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    values = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(state.cache),
        "HF_TOKEN_PATH": str(folder / "token"),
        "HF_STORED_TOKENS_PATH": str(folder / "stored_tokens"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        "HF_HUB_OFFLINE": False,
    }
    _http.close_session()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in values.items():
                patch.setattr(constants, name, value)
            patch.setattr(hf_api.api, "endpoint", hub.url)
            for module in (_http, file_download):
                patch.setattr(module, "time", _Clock(state.slept))
            for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
                patch.delenv(name, raising=False)
            for name in ("NO_PROXY", "no_proxy"):
                patch.setenv(name, "127.0.0.1")
            yield state
    finally:
        _http.close_session()


def run_python(
    hub: HubStandIn,
    code: str,
    folder: Path,
    *,
    token: str | None = "hf_write",
    environment: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a snippet in a fresh interpreter whose HF_ENDPOINT is the stand-in.

    Args:
        hub: the running stand-in.
        code: what `python -c` gets.
        folder: HF_HOME.
        token: HF_TOKEN; None for nobody.
        environment: further variables, such as HF_HUB_OFFLINE.
        timeout: seconds.

    Returns:
        The finished process, with its output as text.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    variables = {
        **inherited,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(PROJECT),
        **({} if token is None else {"HF_TOKEN": token}),
        **(environment or {}),
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env=variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
