"""Projecting many images: which ones, killed, resumed, shared out, and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from hublatent import AttributeClassifier, load
from hublatent.data import FaceDataset, load_dataset
from hublatent.errors import DataError, HublatentError, exit_on_user_error
from hublatent.inversion.latents_file import read_projected
from hublatent.inversion.optimiser import DescentSettings
from hublatent.model import LatentModel
from tests.test_projection import SIZE, faint_stylegan2
from tests.training_helpers import in_two_processes, kill_when, write_faces
from training import project_images
from training.project_images import Arguments, choose_images

N_TRAIN, N_VALIDATION = 20, 6
FAST = DescentSettings(n_steps=4, n_candidates=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a classifier, pictures and their cache."""
    root = tmp_path_factory.mktemp("root")
    (root / "faces").mkdir()
    write_faces(root / "faces", N_TRAIN, N_VALIDATION, SIZE)
    faint_stylegan2(0).save_pretrained(root / "gan")
    torch.manual_seed(1)
    AttributeClassifier(SIZE, width=8, attributes="Smiling").save_pretrained(root / "attributes")
    return root


@pytest.fixture(scope="module")
def dataset(root: Path) -> FaceDataset:
    return load_dataset(root / "faces", SIZE, cache=root / "cache", progress=False)


@pytest.fixture(scope="module")
def model(root: Path) -> LatentModel:
    return load(root / "gan")


def arguments(root: Path, out: Path, **options) -> Arguments:
    fixed = {"classifier": str(root / "attributes"), "descent": FAST, "cache": root / "cache"}
    where = {"model": str(root / "gan"), "data": str(root / "faces"), "out": out}
    return Arguments(**{**where, **fixed, "batch_size": 4, **options})


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that one unbroken run made."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    project_images.run(arguments(root, out))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(capsys: pytest.CaptureFixture[str], action) -> str:
    with pytest.raises(SystemExit) as stop:
        exit_on_user_error(action)
    assert stop.value.code == 2
    return capsys.readouterr().err.rsplit("error: ")[-1]


def test_what_is_read_back(root, whole, model, dataset):
    found = read_projected(whole, model)
    assert (
        found.indices.tolist() == list(range(N_TRAIN + N_VALIDATION)) and len(found.indices) == 26
    )
    assert found.latents.shape == (26, *model.latent_shape) and found.latents.dtype == torch.float32
    with torch.no_grad():
        drawn = model.decode(found.latents)
    difference = (drawn - dataset.batch(found.indices)) / 2
    torch.testing.assert_close(found.errors, difference.square().mean(dim=(1, 2, 3)))
    assert found.dataset == dataset.digest and found.settings["n_steps"] == 4
    assert len(list(whole.iterdir())) == 7  # 26 images, 4 at a time


def test_a_shard_says_what_it_is(whole, model, dataset):
    with safe_open(whole / "shard-000001.safetensors", framework="pt") as file:
        document = json.loads(file.metadata()["hublatent-projected"])
        assert file.get_tensor("indices").tolist() == [4, 5, 6, 7]
    assert document["format"] == "hublatent-projected" and document["version"] == 1
    assert document["fingerprint"] == model.fingerprint()
    assert document["dataset"] == dataset.digest and document["shard"] == 1


def test_the_same_command_again_does_nothing(root, whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    project_images.run(arguments(root, whole))
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before
    assert "7 files, 7 of them there" in capsys.readouterr().out


def test_balanced_choice(root, dataset, tmp_path):
    chosen = choose_images(dataset, arguments(root, tmp_path, attribute="Smiling", n=10))
    assert len(set(chosen.tolist())) == 10 and (np.diff(chosen) > 0).all()
    assert dataset.label("Smiling")[chosen].sum() == 5
    again = choose_images(dataset, arguments(root, tmp_path, attribute="Smiling", n=10))
    assert np.array_equal(chosen, again)
    other = replace(FAST, seed=1)
    different = arguments(root, tmp_path, attribute="Smiling", n=10, descent=other)
    assert not np.array_equal(chosen, choose_images(dataset, different))
    everybody = choose_images(dataset, arguments(root, tmp_path, attribute="Smiling"))
    assert len(everybody) == 26


def test_the_partition_limits_the_choice(root, dataset, tmp_path):
    chosen = choose_images(dataset, arguments(root, tmp_path, partition="validation"))
    assert np.array_equal(chosen, dataset.indices("validation"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "--n 0"),
        ({"attribute": "Smiling", "n": 7}, "must be even"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"n": 27}, "has 26 images in train.validation; 27 are needed"),
        ({"attribute": "Smiling", "n": 40}, "13 images with Smiling .* 20 are needed"),
        ({"attribute": "Simling"}, "Did you mean Smiling"),
        ({"partition": "test"}, "0 images in test; 1 are needed"),
        ({"partition": "tset"}, "Did you mean test"),
    ],
)
def test_what_cannot_be_chosen(root, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        project_images.run(arguments(root, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_another_runs_folder_is_refused(root, whole, tmp_path, capsys):
    before = contents(whole)
    slower = arguments(root, whole, descent=replace(FAST, n_steps=5))
    assert "n_steps 4 -> 5" in refusal(capsys, lambda: project_images.run(slower))
    faint_stylegan2(7).save_pretrained(tmp_path / "other")
    other = replace(arguments(root, whole), model=str(tmp_path / "other"))
    assert "fingerprint" in refusal(capsys, lambda: project_images.run(other))
    (tmp_path / "faces").mkdir()
    write_faces(tmp_path / "faces", N_TRAIN + 1, N_VALIDATION - 1, SIZE)
    moved = replace(arguments(root, whole), data=str(tmp_path / "faces"))
    assert "dataset" in refusal(capsys, lambda: project_images.run(moved))
    with pytest.raises(DataError, match="latents of another model: its fingerprint"):
        read_projected(whole, load(tmp_path / "other"))
    assert contents(whole) == before


def test_an_unfinished_folder_is_not_read(whole, model, tmp_path):
    with pytest.raises(DataError, match="holds no projected images"):
        read_projected(tmp_path, model)
    for name, content in list(contents(whole).items())[:3]:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="of 26 projected images"):
        read_projected(tmp_path, model)
    (tmp_path / "shard-000009.safetensors").write_bytes(b"cut short")
    with pytest.raises(DataError, match="Delete it, and the same command makes it again"):
        read_projected(tmp_path, model)


def test_what_is_missing_is_made_again(root, whole, tmp_path, model):
    """With temporary files of a kill lying about; images do not depend on their companions."""
    for name, content in contents(whole).items():
        if name not in ("shard-000002.safetensors", "shard-000006.safetensors"):
            (tmp_path / name).write_bytes(content)
    (tmp_path / ".shard-000002.safetensors.abcdefgh.tmp").write_bytes(b"torn")
    project_images.run(arguments(root, tmp_path))
    assert contents(tmp_path) == contents(whole)


def test_a_picture_that_diverges_is_named(root, dataset, tmp_path, monkeypatch):
    from hublatent.inversion.projection import DivergedError

    def diverge(*args, **options):
        raise DivergedError([2], 0.1)

    monkeypatch.setattr(project_images, "project", diverge)
    with pytest.raises(HublatentError, match=r"002\.png: .* diverged"):
        project_images.run(arguments(root, tmp_path))


def test_killed_and_resumed(root, tmp_path, model):
    """A run that is killed after two files keeps them, and ends with every image, once each."""
    longer = arguments(root, tmp_path, descent=replace(FAST, n_steps=12))

    def two_files() -> bool:
        return len(list(tmp_path.glob("shard-*"))) >= 2

    kill_when(two_files, lambda: project_images.run(longer))
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")}
    assert 2 <= len(kept) < 7
    project_images.run(longer)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept
    assert read_projected(tmp_path, model).indices.tolist() == list(range(26))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


def test_two_processes_share_the_work(root, tmp_path, whole):
    in_two_processes(lambda: project_images.run(arguments(root, tmp_path)))
    assert contents(tmp_path) == contents(whole)
