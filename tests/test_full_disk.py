"""A full disk costs nothing that was there: one sentence, no torn file, and a whole cache."""

from __future__ import annotations

import errno
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hublatent
from hublatent.direction import Direction
from hublatent.errors import HubError
from hublatent.images import save_image, to_pil
from hublatent.model import LatentModel
from tests.hub_standin import HubStandIn, connected
from tests.tiny_models import random_directions, save_model, tiny_eigenfaces, tiny_vae

KILOBYTES = 200  # the models here take more, a config less


class Disk:
    """A folder on a disk, and a way to make it full.

    `kind` is "disk", a file system of its own, where it may be mounted; or "limit", the limit that
    the kernel sets to the size of every file that this process writes.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    @property
    def error(self) -> int:
        return errno.ENOSPC if self.kind == "disk" else errno.EFBIG

    def fill(self) -> None:
        if self.kind == "disk":
            rest = shutil.disk_usage(self.folder).free
            (self.folder / "ballast").write_bytes(bytes(rest - 8192))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (256, self.limits[1]))

    def empty(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)
        (self.folder / "ballast").unlink(missing_ok=True)


@pytest.fixture(params=["disk", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={KILOBYTES * 4}k", "tmpfs", str(folder)]
    mounted = request.param == "disk"
    if mounted and (not shutil.which("mount") or subprocess.run(mount, check=False).returncode):
        pytest.skip("a small file system cannot be mounted here; the kernel's limit is tested")
    disk = Disk(request.param, folder)
    try:
        yield disk
    finally:
        disk.empty()
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def model() -> LatentModel:
    torch.manual_seed(0)
    return tiny_vae()


def contents(folder: Path) -> dict[str, bytes]:
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    found.pop("ballast", None)
    return found


def refusal(action: Callable[[], Any], disk: Disk) -> OSError:
    """Do it on the full disk; returns the error."""
    disk.fill()
    with pytest.raises(OSError) as caught:
        action()
    disk.empty()
    assert caught.value.errno == disk.error
    return caught.value


def test_a_model_is_saved_whole_or_not_at_all(model: LatentModel, disk: Disk) -> None:
    folder = save_model(tiny_eigenfaces(), disk.folder / "model")
    before = contents(folder)
    error = refusal(lambda: model.save_pretrained(folder), disk)
    assert error.filename == str(folder / "model.safetensors")
    assert contents(folder) == before
    model.save_pretrained(folder)
    assert hublatent.load(folder).fingerprint() == model.fingerprint()


def test_directions_are_saved_whole_or_not_at_all(model: LatentModel, disk: Disk) -> None:
    path = disk.folder / "directions.safetensors"
    found = random_directions(model)
    if disk.kind == "disk":  # enough of them for the last two blocks
        many = [Direction(f"A{i}", "svm", torch.ones(8)) for i in range(100)]
        found = type(found).of(model, [*found, *many])
    found.save(path)
    before = contents(disk.folder)
    error = refusal(lambda: found.save(path), disk)
    assert error.filename == str(path) and contents(disk.folder) == before


def test_a_picture(disk: Disk) -> None:
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    path = disk.folder / "edited.png"
    error = refusal(lambda: save_image(to_pil(noise)[0], path), disk)
    assert error.filename == str(path) and not contents(disk.folder)


def test_a_download(model: LatentModel, disk: Disk, tmp_path: Path) -> None:
    """The old commit stays, nothing torn is taken for the new one, and a second try succeeds."""
    old = save_model(tiny_eigenfaces(), tmp_path / "old")
    new = save_model(model, tmp_path / "new")
    cache = disk.folder / "cache"
    with HubStandIn() as hub, connected(hub, tmp_path):
        hub.create("user/model", contents(old))
        first = hublatent.load("user/model", cache_dir=cache)
        hub.commit("user/model", contents(new))
        disk.fill()
        with pytest.raises(HubError, match="user/model could not be written") as caught:
            hublatent.load("user/model", cache_dir=cache)
        assert "\n" not in str(caught.value)
        disk.empty()
        again = hublatent.load("user/model", cache_dir=cache, local_files_only=True)
        assert again.commit == first.commit and again.fingerprint() == first.fingerprint()
        assert hublatent.load("user/model", cache_dir=cache).fingerprint() == model.fingerprint()
