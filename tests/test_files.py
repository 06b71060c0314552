"""What files are named in commands that others read."""

from __future__ import annotations

from pathlib import Path

import pytest

from hublatent.storage import portable


def test_a_published_command_names_no_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert portable(tmp_path / "model_cards" / "mine") == "model_cards/mine"
    assert portable(tmp_path.parent / "elsewhere" / "mine") == "mine"
    assert portable("../elsewhere/mine") == "../elsewhere/mine"
    assert portable("user/model") == "user/model"
