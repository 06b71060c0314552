"""The wheel holds everything that the library needs, and works outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import PROJECT


def test_a_wheel_is_installed_and_used(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("hublatent", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(PROJECT / name)
    subprocess.run([*build, "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    for part in (
        "py.typed",
        "demo/static/page.css",
        "demo/templates/edit.html.jinja",
        "publish/templates/card.md.jinja",
    ):
        assert f"hublatent/{part}" in names
    script = (
        "import hublatent, hublatent.demo.webpage, hublatent.publish\n"
        f"assert hublatent.__file__.startswith({str(site)!r})\n"
        f"model = hublatent.load({str(PROJECT / 'model_cards' / 'eigenfaces-celeba')!r})\n"
        "print(tuple(model.sample(1).shape))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "(1, 3, 64, 64)"
    version = [sys.executable, "-m", "hublatent", "--version"]
    done = subprocess.run(version, env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert done.stdout.startswith(b"hublatent ")
