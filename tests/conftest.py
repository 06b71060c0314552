"""Fixtures every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forking_reader import ForkingReader
from tests.hub_standin import ClientState, HubStandIn, connected

# Sums depend on how many threads share them, and some tests compare weights bit by bit with those
# of other processes. Set before torch is first imported; child processes inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # whose state no copy of this process could use

PROJECT = Path(__file__).resolve().parent.parent
SHARED = PROJECT.parent / "shared"


@pytest.fixture(scope="module")
def model_cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of four tiny models with directions, one of them without an encoder."""
    from tests.tiny_models import build_model_folders  # imports torch

    root = tmp_path_factory.mktemp("model_cards")
    build_model_folders(root)
    return root


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    """A running stand-in for the Hub, empty; nobody is connected to it yet."""
    with HubStandIn() as running:
        yield running


@pytest.fixture
def client(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientState]:
    """The real huggingface_hub client of this process, logged in to the stand-in."""
    with connected(hub, tmp_path_factory.mktemp("client")) as state:
        yield state


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared test material beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("the shared test material (../shared) is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def celeba(shared: Path) -> Path:
    """The labelled part of CelebA, in CelebA's own layout."""
    return shared / "celeba"


@pytest.fixture(scope="session")
def forking_reader() -> Iterator[ForkingReader]:
    """A process that has imported what reading others' files takes."""
    from hublatent.interop.untrusted import reader_command

    reader = ForkingReader(reader_command())
    yield reader
    reader.close()


@pytest.fixture
def fast_reader(forking_reader: ForkingReader, monkeypatch: pytest.MonkeyPatch) -> ForkingReader:
    """Others' files are read by forks of that process, not each by a process that starts anew."""
    monkeypatch.setattr("hublatent.interop.untrusted._run", forking_reader.run)
    return forking_reader
