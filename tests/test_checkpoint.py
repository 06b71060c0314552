"""A model's folder is read strictly and written whole: what does not fit is refused by name."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import hublatent
from hublatent import checkpoint, storage
from hublatent.errors import CheckpointError, HublatentError
from hublatent.model import LatentModel
from hublatent.models import BetaTCVAE, Eigenfaces, StyleGAN2
from tests.tiny_models import save_model, tiny_vae


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save_model(tiny_vae(), tmp_path / "model")


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(folder: Path) -> str:
    """Load a folder that is to be refused; returns the sentence."""
    with pytest.raises(CheckpointError) as caught:
        hublatent.load(folder)
    return str(caught.value)


def test_another_architecture(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'vae'; BetaTCVAE reads 'btcvae'"):
        BetaTCVAE.from_pretrained(folder)
    change_config(folder, architecture="eigenfaces")
    assert "width" in refusal(folder)


def test_an_unknown_architecture(folder: Path) -> None:
    change_config(folder, architecture="btcvea")
    assert "Did you mean btcvae" in refusal(folder)
    change_config(folder, architecture=None)
    assert "names no architecture" in refusal(folder)


def test_missing_and_extra_weights(folder: Path) -> None:
    change_weights(folder, lambda w: w.pop("latent_mean"))
    assert "lacks latent_mean" in refusal(folder)
    change_weights(folder, lambda w: w.update(latent_mean=torch.zeros(8), more=torch.zeros(1)))
    assert "has extra more" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_another_float_format_are_cast_with_a_word(
    dtype: torch.dtype, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    true = hublatent.load(folder).state_dict()
    floats = [name for name, tensor in true.items() if tensor.is_floating_point()]
    change_weights(folder, lambda w: w.update({name: w[name].to(dtype) for name in floats}))
    with caplog.at_level("WARNING", "hublatent"):
        loaded = hublatent.load(folder).state_dict()
    assert str(dtype) in caplog.text and "cast" in caplog.text
    for name in floats:
        assert torch.equal(loaded[name], true[name].to(dtype).float())


def test_a_cast_that_overflows_is_refused(folder: Path) -> None:
    huge = torch.full((8,), 1e300, dtype=torch.float64)
    change_weights(folder, lambda w: w.update(latent_mean=huge))
    assert "latent_mean holds NaN or infinite" in refusal(folder)


def test_a_byte_order_mark_is_no_harm(folder: Path) -> None:
    path = folder / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    hublatent.load(folder)


def test_a_pointer_in_the_weights_place_is_named(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    (folder / "model.safetensors").write_text(pointer)
    assert "Git LFS pointer" in refusal(folder) and "git lfs pull" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(value: float, folder: Path) -> None:
    change_weights(folder, lambda w: w["latent_mean"].__setitem__(3, value))
    assert "latent_mean holds NaN or infinite" in refusal(folder)


def test_wrong_shapes_and_types(folder: Path) -> None:
    change_weights(folder, lambda w: w.update(latent_mean=torch.zeros(9)))
    sentence = refusal(folder)
    assert "latent_mean" in sentence and "(9,)" in sentence and "(8,)" in sentence
    change_weights(folder, lambda w: w.update(latent_mean=torch.zeros(8, dtype=torch.int64)))
    sentence = refusal(folder)
    assert "I64" in sentence and "F32" in sentence
    change_config(folder, latent_dim=16)
    assert "shape" in refusal(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_dim": 10**12},
        {"image_size": 1 << 20},
        {"image_size": 0},
        {"image_size": -64},
        {"image_size": 36},
        {"channels": 10**9},
        {"width": 10**9},
        {"n_stages": 10**6},
        {"latent_dim": 8.5},
        {"latent_dim": True},
        {"latent_dim": "8"},
        {"latent_dim": [8]},
        {"latent_dim": float("nan")},
        {"latent_dim": float("inf")},
    ],
    ids=str,
)
def test_absurd_values_are_refused_before_memory_is_taken(
    changes: dict[str, Any], folder: Path
) -> None:
    change_config(folder, **changes)
    assert next(iter(changes)) in refusal(folder)


@pytest.mark.parametrize("model_class", [Eigenfaces, StyleGAN2])
@pytest.mark.parametrize("argument", ["image_size", "channels", "latent_dim"])
def test_absurd_sizes_of_other_architectures(argument: str, model_class: type[LatentModel]) -> None:
    for value in (0, -1, 10**12):
        with pytest.raises(CheckpointError, match=argument):
            model_class(**{argument: value})


def test_unknown_config_keys(folder: Path) -> None:
    change_config(folder, latent_dims=8)
    sentence = refusal(folder)
    assert "latent_dims" in sentence and "latent_dim," in sentence


@pytest.mark.parametrize("version", [2, 0, "1", 1.0, True, None])
def test_other_format_versions(version: object, folder: Path) -> None:
    change_config(folder, format_version=version)
    assert "format_version" in refusal(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "[" * 100_000, '{"architecture": ["vae"]}', " " * (2 << 20)]
)
def test_configs_that_are_none(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    assert "not JSON" in refusal(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "last.ckpt"])
def test_pickles_are_refused_by_name(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / name)
    sentence = refusal(folder)
    assert name in sentence and "pickle" in sentence and "model.safetensors" in sentence


@pytest.mark.parametrize("n_bytes", [0, 4, 8, 100, -1])
def test_torn_weights(n_bytes: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert "safetensors" in refusal(folder)


def test_a_header_that_lies_about_its_length(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])
    assert "not a readable safetensors file" in refusal(folder)


def test_folders_that_hold_no_model(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "It holds: nothing" in refusal(tmp_path / "empty")
    (folder / "config.json").unlink()
    assert "It holds: model.safetensors" in refusal(folder)


def test_a_refused_load_leaves_a_model_as_it_was(folder: Path) -> None:
    torch.manual_seed(1)
    model = tiny_vae()
    before = model.fingerprint()
    change_weights(folder, lambda w: w["latent_mean"].fill_(float("nan")))
    with pytest.raises(CheckpointError):
        checkpoint.load_weights(model, folder / "model.safetensors")
    assert model.fingerprint() == before


@pytest.mark.parametrize("when", ["at once", "half-way", "at the config"])
def test_a_full_disk_leaves_the_old_files_whole(
    when: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def save_half(tensors: dict[str, Tensor], path: Path, **options: Any) -> None:
        if when == "half-way":
            Path(path).write_bytes(b"half")
        raise full

    def write_nothing(*words: Any, **options: Any) -> None:
        raise full

    before = contents(folder)
    torch.manual_seed(1)
    other = tiny_vae()
    with monkeypatch.context() as patch:
        if when == "at the config":
            patch.setattr(Path, "write_text", write_nothing)
        else:
            patch.setattr(storage, "save_file", save_half)
        with pytest.raises(OSError, match="No space left"):
            other.save_pretrained(folder)
    assert contents(folder) == before  # nothing torn, and no temporary file left
    other.save_pretrained(folder)
    assert hublatent.load(folder).fingerprint() == other.fingerprint()


def test_other_files_of_the_folder_stay(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    hublatent.load(folder).save_pretrained(folder)
    assert sorted(contents(folder)) == ["README.md", "config.json", "model.safetensors"]
    assert contents(folder)["README.md"] == b"mine"


def test_refusals_are_user_errors() -> None:
    assert issubclass(CheckpointError, HublatentError) and issubclass(HublatentError, ValueError)
