"""The `hublatent` command: each subcommand, and how the user's mistakes end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hublatent
from hublatent.cli import main
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.images import open_image, to_tensor
from hublatent.model import LatentModel
from hublatent.models import StyleGAN2
from tests.foreign_writers import nvidia_generator, nvidia_weights, write_nvidia
from tests.hub_standin import ClientState, HubStandIn
from tests.tiny_models import random_directions, save_model, tiny_stylegan2, tiny_vae

REPO = "user/vae"
CARD = "---\nlicense: mit\n---\n# A model\n"
Run = Callable[..., str]
Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def model() -> LatentModel:
    torch.manual_seed(0)
    return tiny_vae()


@pytest.fixture(scope="module")
def folder(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save_model(model, tmp_path_factory.mktemp("model"), random_directions(model))
    (path / "README.md").write_text(CARD)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that succeeds; returns what it prints."""

    def run_main(*words: object) -> str:
        main([str(word) for word in words])
        return capsys.readouterr().out

    return run_main


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a command that the user got wrong; returns the sentence."""

    def run_main(*words: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        assert caught.value.code == 2 and "Traceback" not in printed.err
        return printed.err

    return run_main


def test_info(folder: Path, model: LatentModel, run: Run) -> None:
    printed = run("info", folder)
    assert "architecture: vae" in printed and f"fingerprint: {model.fingerprint()}" in printed
    assert "directions: 6" in printed and "Eyeglasses.joint; sigma" in printed


def test_info_without_directions(tmp_path: Path, model: LatentModel, run: Run) -> None:
    assert "directions: none" in run("info", save_model(model, tmp_path / "bare"))


@pytest.mark.parametrize(
    ("strength", "unit"), [(-2.0, "sigma"), (1.5, "raw"), (0.9, "probability")]
)
def test_edit_draws_what_the_library_draws(
    strength: float,
    unit: str,
    folder: Path,
    picture: Path,
    tmp_path: Path,
    model: LatentModel,
    run: Run,
) -> None:
    out = tmp_path / "edited.png"
    run(
        "edit", folder, picture, "--attribute", "Smiling", "--strength", strength, "--unit", unit,
        "--out", out,
    )  # fmt: skip
    z = model.encode(to_tensor([open_image(picture)], model.image_size))
    direction = random_directions(model)["Smiling", "joint"]
    drawn = model.decode(hublatent.edit(z, direction, strength, unit))  # type: ignore[arg-type]
    found = to_tensor([open_image(out)], model.image_size)
    assert (found - drawn).abs().max() <= 1 / 127.5


def test_edit_with_directions_of_its_own_file(
    folder: Path, picture: Path, tmp_path: Path, model: LatentModel, run: Run
) -> None:
    mine = Direction("Hat", "mine", torch.eye(8)[0])
    DirectionSet.of(model, [mine]).save(tmp_path / "hat.safetensors")
    out = tmp_path / "hat.png"
    words = ("edit", folder, picture, "--attribute", "Hat", "--method", "mine", "--strength", 1)
    run(*words, "--directions", tmp_path / "hat.safetensors", "--out", out)
    assert open_image(out).size == (model.image_size, model.image_size)


def test_mistakes_of_edit(folder: Path, picture: Path, tmp_path: Path, refuse: Refuse) -> None:
    out = tmp_path / "edited.png"
    rest = ("--strength", 1, "--out", out)
    assert "Did you mean Smiling?" in refuse(
        "edit", folder, picture, "--attribute", "Smilling", *rest
    )
    assert "does not exist" in refuse(
        "edit", folder, tmp_path / "no.png", "--attribute", "Smiling", *rest
    )
    assert "neither an existing folder" in refuse(
        "edit", "no such/model/here", picture, "--attribute", "Smiling", *rest
    )
    gan = tiny_stylegan2()
    gan_folder = save_model(gan, tmp_path / "gan", random_directions(gan))
    wanted = ("--attribute", "Smiling", *rest, "--classifier", tmp_path / "no-classifier")
    assert "no-classifier" in refuse("edit", gan_folder, picture, *wanted)
    assert not out.exists()
    refuse("edit", folder, picture, "--strength", 1, "--out", out)
    refuse("paint", folder)


def test_an_output_that_cannot_be_written(
    folder: Path, picture: Path, tmp_path: Path, refuse: Refuse
) -> None:
    (tmp_path / "file").write_text("")
    words = ("edit", folder, picture, "--attribute", "Smiling", "--strength", 1, "--out")
    assert "file" in refuse(*words, tmp_path / "file" / "edited.png")


def test_convert(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    weights = nvidia_weights(32)
    path = write_nvidia(tmp_path / "net.pkl", nvidia_generator(weights))
    assert "architecture: stylegan2" in run("convert", path, tmp_path / "gan")
    loaded = StyleGAN2.from_pretrained(tmp_path / "gan")
    assert torch.equal(loaded.latent_mean, weights["mapping.w_avg"])
    (tmp_path / "bad.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    refuse("convert", tmp_path / "bad.pkl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_import_directions(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    torch.manual_seed(0)
    gan = tiny_stylegan2()
    folder, out = save_model(gan, tmp_path / "gan"), tmp_path / "age.safetensors"
    vector = np.random.default_rng(0).normal(size=(1, 16))
    np.save(tmp_path / "age_w.npy", vector)
    words = ("import-directions", tmp_path / "age_w.npy", "--attribute", "Age", "--out", out)
    layers = ("--layers", 2, 3)
    assert "1 directions" in run(*words, "--for", folder, "--space", "w", *layers)
    (direction,) = DirectionSet.load(out, gan)
    assert direction.layers == (2, 3) and direction.sigma is not None
    torch.testing.assert_close(direction.vector[2], torch.from_numpy(vector[0]).float())
    np.save(tmp_path / "age_w.npy", vector[:, :5])
    sentence = refuse(*words, "--for", folder, "--space", "w")
    assert "5" in sentence and "16" in sentence
    assert len(DirectionSet.load(out, gan)) == 1  # the good file is still there
    assert "No file" in refuse("import-directions", "--attribute", "Age", "--out", out)


def test_push_and_pull(
    hub: HubStandIn, client: ClientState, folder: Path, tmp_path: Path, model: LatentModel, run: Run
) -> None:
    printed = run("push", folder, REPO, "--private")
    commit = hub.commits(REPO)[0].oid
    assert printed.splitlines()[-1].endswith(commit) and hub.repositories[REPO].private
    run("push", folder, REPO)
    assert hub.commits(REPO)[0].oid == commit
    out = tmp_path / "pulled"
    assert f"commit: {commit}" in run("pull", REPO, "--revision", commit, "--out", out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }
    assert f"commit: {commit}" in run("info", REPO)
    run("push", folder, REPO, "--revision", "trial")
    hub.create("other/vae", {"README.md": CARD})
    assert "/discussions/" in run("push", folder, "other/vae", "--pr")


def test_what_is_not_fit_is_not_pushed(
    hub: HubStandIn,
    client: ClientState,
    folder: Path,
    tmp_path: Path,
    model: LatentModel,
    refuse: Refuse,
) -> None:
    bare = save_model(model, tmp_path / "bare")
    assert "card" in refuse("push", bare, REPO)
    (bare / "README.md").write_text(CARD)
    (bare / "model.safetensors").write_bytes(b"\0" * 100)
    assert "safetensors" in refuse("push", bare, REPO)
    assert "not a folder" in refuse("push", tmp_path / "nothing", REPO)
    assert not hub.requests


def test_push_directions_alone(
    client: ClientState, folder: Path, tmp_path: Path, model: LatentModel, run: Run, refuse: Refuse
) -> None:
    run("push-directions", folder / "directions.safetensors", "user/glasses")
    assert len(DirectionSet.from_pretrained("user/glasses", model)) == 6
    assert "directions: 6" in run("pull", "user/glasses", "--only-directions")
    assert "config.json" in refuse("pull", "user/glasses")
    assert "not a readable" in refuse("push-directions", folder / "README.md", "user/glasses")


def test_python_m_hublatent(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hublatent", "info", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "config.json" in done.stderr
    assert done.stdout == ""
