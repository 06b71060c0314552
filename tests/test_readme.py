"""The README's examples do what they say, with the checkpoints that are here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import hublatent
from hublatent.images import save_png, to_pil
from tests.conftest import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to work in, with the checkpoints and somebody's picture."""
    (tmp_path / "model_cards").symlink_to(PROJECT / "model_cards")
    model = hublatent.load(PROJECT / "model_cards" / "vae-celeba")
    face = model.decode(model.sample_latents(1, generator=torch.Generator().manual_seed(1)))
    save_png(to_pil(face.detach())[0].resize((178, 218)), tmp_path / "face.png")
    (tmp_path / "face.png").rename(tmp_path / "face.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_load_edit_save(folder: Path) -> None:
    first, second, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(first + second, names)
    with Image.open(folder / "edited.png") as picture:
        assert picture.size == (64, 64)


def test_files_that_are_named_exist() -> None:
    named = re.findall(r"`((?:hublatent|training|model_cards)/[\w./-]+)`", README)
    named += re.findall(r"\]\(((?!http)[\w./-]+)\)", README)
    scripts = re.findall(r"python (training/\w+\.py|app\.py)", README)
    scripts += [f"training/{name}" for name in re.findall(r"`(\w+\.py)`", README)]
    assert len(named) > 5 and len(scripts) > 5
    assert [name for name in (*named, *scripts) if not (PROJECT / name).exists()] == []


def test_a_space_installs_what_the_package_needs() -> None:
    """Spaces read requirements.txt alone."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    needed = re.findall(r'"([^"]+)"', block[1])
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == needed
