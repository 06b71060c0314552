"""The README's examples do what they say, with the checkpoints that are here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hublatent
from hublatent import models
from hublatent.images import to_pil
from tests.conftest import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_python_blocks_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model_cards").symlink_to(PROJECT / "model_cards")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "ARCHITECTURES", dict(models.ARCHITECTURES))
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        if "push_to_hub" not in block:  # needs a repository of one's own
            exec(block, names)
    with Image.open(tmp_path / "edited.png") as picture:
        assert picture.size == (64, 64)
    assert len(blocks) >= 4


def test_the_example_face_is_a_models() -> None:
    model = hublatent.load(PROJECT / "model_cards" / "vae-celeba")
    drawn = np.asarray(to_pil(model.sample(1, seed=7), 4)[0], dtype=int)
    with Image.open(PROJECT / "model_cards" / "example.png") as example:
        assert np.abs(np.asarray(example, dtype=int) - drawn).max() <= 2


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
    needed = re.findall(r'^  "([^"]+)"', block[1], re.MULTILINE)
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == needed
