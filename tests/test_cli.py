"""The `hublatent` command: each subcommand, and how the user's mistakes end."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import app
import hublatent
from hublatent import AttributeClassifier
from hublatent.cli import main
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.errors import HublatentError
from hublatent.images import open_image, to_tensor
from hublatent.inversion.latents_file import PROJECTED, describe
from hublatent.model import LatentModel
from hublatent.models import StyleGAN2
from tests.conftest import PROJECT
from tests.foreign_writers import (
    conditional_generator,
    nvidia_generator,
    nvidia_weights,
    write_nvidia,
)
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
    assert "directions: 6" in printed and "attributes: Eyeglasses, Smiling, Male" in printed
    assert "Eyeglasses.joint; sigma" not in printed
    assert "Eyeglasses.joint; sigma" in run("info", folder, "--all")


def test_info_says_what_a_classifiers_folder_is(tmp_path: Path, run: Run) -> None:
    names = [f"Name_{i}" for i in range(9)]
    classifier = AttributeClassifier(image_size=32, attributes=",".join(names), width=4)
    classifier.save_pretrained(tmp_path / "judge")
    printed = run("info", tmp_path / "judge")
    assert "reads 9 attributes" in printed and "Name_5 and 3 more" in printed
    assert "Name_6" not in printed
    assert set(names) <= set(run("info", tmp_path / "judge", "--all").split())


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


def test_a_method_need_not_be_named_where_there_is_one(
    folder: Path, picture: Path, tmp_path: Path, model: LatentModel, run: Run
) -> None:
    mine = Direction("Hat", "mine", torch.eye(8)[0])
    DirectionSet.of(model, [mine]).save(tmp_path / "hat.safetensors")
    words = ("edit", folder, picture, "--directions", tmp_path / "hat.safetensors")
    assert "Hat.mine by +1.00" in run(*words, "--direction", "Hat=1", "--out", tmp_path / "o.png")


def test_several_directions_at_once_and_the_strip_beside(
    folder: Path, picture: Path, tmp_path: Path, model: LatentModel, run: Run
) -> None:
    out = tmp_path / "edited.jpg"
    words = ("--direction", "Smiling=2", "--direction", "Male=-1", "--out", out)
    assert "Smiling.joint by +2.00, Male.joint by -1.00" in run("edit", folder, picture, *words)
    with Image.open(out) as written:
        assert written.format == "JPEG"
    with Image.open(tmp_path / "edited-strip.jpg") as strip:
        assert strip.width > 8 * 128, "original, reconstruction, edit and five steps"
    run("edit", folder, picture, *words[:4], "--out", tmp_path / "edited.png")
    z = model.encode(to_tensor([open_image(picture)], model.image_size))
    for name, strength in (("Smiling", 2.0), ("Male", -1.0)):
        z = hublatent.edit(z, random_directions(model)[name, "joint"], strength)
    found = to_tensor([open_image(tmp_path / "edited.png")], model.image_size)
    assert (found - model.decode(z)).abs().max() <= 1 / 127.5


def test_a_folder_of_pictures_and_projected_latents_are_edited(
    folder: Path, picture: Path, tmp_path: Path, model: LatentModel, run: Run
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(picture.read_bytes())
    words = ("--direction", "Smiling=2", "--out", tmp_path / "out")
    run("edit", folder, tmp_path / "in", *words)
    names = {"a.png", "a-strip.png", "b.png", "b-strip.png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    z = model.encode(to_tensor([open_image(tmp_path / "in" / "a.png")], model.image_size))
    latents = tmp_path / "latents.safetensors"
    document = describe(model, names=["a"])
    PROJECTED.write(latents, {"latents": z, "errors": torch.zeros(1)}, document)
    run("edit", folder, latents, "--direction", "Smiling=2", "--out", tmp_path / "again.png")
    first, second = (open_image(tmp_path / name) for name in ("out/a.png", "again.png"))
    assert first.tobytes() == second.tobytes()


def test_mistakes_of_edit(folder: Path, picture: Path, tmp_path: Path, refuse: Refuse) -> None:
    out = tmp_path / "edited.png"
    rest = ("--strength", 1, "--out", out)
    assert "Did you mean Smiling?" in refuse(
        "edit", folder, picture, "--attribute", "Smilling", *rest
    )
    assert "does not exist" in refuse(
        "edit", folder, tmp_path / "no.png", "--attribute", "Smiling", *rest
    )
    for latents in ("no.npz", "latents.safetensors"):
        words = ("edit", folder, tmp_path / latents, "--attribute", "Smiling", *rest)
        assert "hublatent project" in refuse(*words)
    assert "neither an existing folder" in refuse(
        "edit", "no such/model/here", picture, "--attribute", "Smiling", *rest
    )
    gan = tiny_stylegan2()
    gan_folder = save_model(gan, tmp_path / "gan", random_directions(gan))
    wanted = ("--attribute", "Smiling", *rest, "--classifier", tmp_path / "no-classifier")
    assert "no-classifier" in refuse("edit", gan_folder, picture, *wanted)
    assert not out.exists()
    assert "go together" in refuse("edit", folder, picture, "--strength", 1, "--out", out)
    assert "Smiling=2" in refuse("edit", folder, picture, "--direction", "Smiling", "--out", out)
    assert "Smiling=2" in refuse("edit", folder, picture, "--out", out)
    for strength in ("nan", "inf", "-1e999"):
        words = ("--direction", f"Smiling={strength}", "--out", out)
        assert "finite" in refuse("edit", folder, picture, *words)
    for place in (folder, gan_folder):  # before anything is projected
        words = ("--direction", "Smiling=1", "--out", tmp_path / "edited.txt")
        assert ".png" in refuse("edit", place, picture, *words)
    assert "Did you mean edit" in refuse("edti", folder)


def test_strengths_that_ruin_every_picture(
    folder: Path, picture: Path, tmp_path: Path, run: Run, refuse: Refuse
) -> None:
    def words(strength: float, unit: str) -> tuple[object, ...]:
        move = ("--direction", f"Smiling={strength}", "--unit", unit)
        return ("edit", folder, picture, *move, "--out", tmp_path / "edit.png")

    limit = "expected at most 100 standard deviations"
    for strength, shown in ((1e9, "Smiling by 1e+09;"), (-1e30, "by -1e+30;"), (101, "by 101;")):
        sentence = refuse(*words(strength, "sigma"))
        assert limit in sentence and shown in sentence
    assert limit in refuse(*words(1e300, "raw"))
    assert not (tmp_path / "edit.png").exists()
    run(*words(-100, "sigma"))


@pytest.mark.parametrize(
    ("name", "what"),
    [("attributes-celeba", "is a classifier"), ("image-features", "features compare pictures")],
)
def test_what_draws_nothing_is_named_for_what_it_is(
    name: str, what: str, picture: Path, tmp_path: Path, refuse: Refuse
) -> None:
    place = PROJECT / "model_cards" / name
    rest = ("--direction", "Smiling=1", "--out", tmp_path / "edit.png")
    sentence = refuse("edit", place, picture, *rest)
    assert what in sentence and "expected a generative model: vae, " in sentence


def test_a_file_where_directions_of_a_folder_are_expected(tmp_path: Path) -> None:
    path = tmp_path / "directions.safetensors"
    random_directions(tiny_vae()).save(path)
    with pytest.raises(HublatentError, match=r"is a file; .*DirectionSet\.load"):
        DirectionSet.from_pretrained(path)


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


def test_convert_one_class(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    path = write_nvidia(tmp_path / "net.pkl", conditional_generator())
    assert "3 classes; choose one with --class 0 to 2" in refuse("convert", path, tmp_path / "gan")
    run("convert", path, tmp_path / "gan", "--class", 2)
    assert "number 2" in (tmp_path / "gan" / "README.md").read_text()
    first = StyleGAN2.from_pretrained(tmp_path / "gan")
    run("convert", path, tmp_path / "gan", "--class", 0)
    second = StyleGAN2.from_pretrained(tmp_path / "gan")
    assert not first.matches(second.fingerprint())


def test_edit_takes_what_nvidias_projector_wrote(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    torch.manual_seed(0)
    gan = tiny_stylegan2()
    folder = save_model(gan, tmp_path / "gan", random_directions(gan))
    codes = gan.sample_latents(1)
    words = ("--direction", "Smiling=2", "--out", tmp_path / "edited.png")
    np.savez(tmp_path / "projected_w.npz", w=codes.numpy())
    run("edit", folder, tmp_path / "projected_w.npz", *words)
    edited = gan.decode(hublatent.edit(codes, random_directions(gan)["Smiling", "joint"], 2.0))
    found = to_tensor([open_image(tmp_path / "edited.png")], gan.image_size)
    assert (found - edited).abs().max() <= 1 / 127.5
    np.savez(tmp_path / "projected_w.npz", w=np.ones((1, 18, 512)))
    sentence = refuse("edit", folder, tmp_path / "projected_w.npz", *words)
    assert "(1, 18, 512)" in sentence and str(gan.latent_shape) in sentence


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
    words = ("import-directions", tmp_path / "age_w.npy", "--out", out, "--for", "no/model")
    assert "'A/B' is no attribute" in refuse(*words, "--attribute", "A/B")  # before all else


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


@pytest.mark.parametrize(
    "command",
    ["find-measured", "choose-defaults", "audit", "compare", "replicate", "metrics", "map"],
)
def test_every_command_that_reads_labelled_pictures_takes_the_same_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert all(f"--{name}" in printed for name in ("data", "split", "identity-column", "cache"))


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["edit", "--help"], ["edit"], ["x"]])
def test_help_and_usage_errors_need_no_torch(words: list[str]) -> None:
    script = (
        "import sys; from hublatent.cli import main\n"
        f"try: main({words})\n"
        "except SystemExit as end: assert end.code in (None, 0, 2)\n"
        "assert not {'torch', 'gradio', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT, capture_output=True)


def test_a_closed_pipe_is_no_mistake(folder: Path) -> None:
    command = f"{sys.executable} -m hublatent info {folder} --all | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=PROJECT, capture_output=True, check=False
    )
    assert done.returncode == 0 and done.stderr == b""


def test_python_m_hublatent(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hublatent", "info", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=PROJECT,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "config.json" in done.stderr
    assert done.stdout == ""


def test_the_app_looks_at_its_port_before_it_loads_models(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HublatentError, match=f"Port {port} is in use"):
            app.main(app.Arguments(port=port))
    with pytest.raises(HublatentError, match="expected 1 to 65535"):
        app.main(app.Arguments(port=70_000))
    assert capsys.readouterr().out == ""
    app.check_port(port)
