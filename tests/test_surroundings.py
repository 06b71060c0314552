"""Every command that writes: on a full disk, a read-only one, without a home, in odd places.

Each runs in a copy of this process that has everything imported. The folder's name holds a space,
quotes and an umlaut, the table a BOM and CRLF, and the terminal knows ASCII alone.
"""

from __future__ import annotations

import io
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hublatent import cli
from hublatent.data import load_dataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.errors import exit_on_user_error
from hublatent.evaluation import replication
from hublatent.evaluation.judges import Judges
from hublatent.models import BetaVAE
from tests.comparison_helpers import known_judge, linear_model, write_known_faces
from tests.foreign_writers import nvidia_generator, nvidia_weights, write_nvidia
from tests.hub_standin import HubStandIn, connected
from tests.test_audit import AllWhole
from tests.tiny_models import divided_judge, random_directions, save_model, tiny_stylegan2, tiny_vae
from tests.training_helpers import PROJECT, write_faces
from training import (
    find_directions,
    paper_experiment,
    project_images,
    train_classifier,
    train_encoder,
    train_stylegan2,
    train_vae,
)
from training.cards import make_card
from training.trainers import eigenfaces
from training.trainers.commands import run_script, run_training

SIZE = 16
READ_ONLY = Path("/sys")  # not even root makes files there
FACES = "--data {base}/faces --cache {base}/cache"
VAE = "--image-size 16 --latent-dim 4 --width 4 --max-width 8 --n-stages 2 --precision fp32"
GAN = (
    "--image-size 16 --latent-dim 8 --z-dim 8 --mapping-layers 2 --channel-base 64 --channel-max 8"
    " --channel-min 4 --batch-size 8 --images 16 --log-every 8 --grid-every 8 --precision fp32"
)
FEATURES = f"--image-features {PROJECT}/model_cards/image-features"
SCRIPTS: dict[str, tuple[Any, str]] = {
    "train_vae": (
        train_vae,
        f"--recipe vae-celeba {FACES} {VAE} --memory-format channels-last --epochs 1"
        " --batch-size 8 --out {out}",
    ),
    "train_classifier": (
        train_classifier,
        f"--recipe attributes-celeba {FACES} --image-size 16 --width 8 --epochs 1 --batch-size 8"
        " --out {out}",
    ),
    "train_stylegan2": (
        train_stylegan2, f"--recipe stylegan2-celeba {FACES} {GAN} --out {{out}}",
    ),
    "train_encoder": (
        train_encoder,
        f"--recipe encoder-celeba --model {{base}}/gan {FACES} {FEATURES} --width 4 --batch-size 4"
        " --feature-size 32 --images 8 --log-every 8 --precision fp32 --out {out}",
    ),
    "eigenfaces": (
        eigenfaces, f"{FACES} --image-size 16 --latent-dim 4 --out {{out}}",
    ),
    "find_directions": (
        find_directions,
        f"--model {{base}}/vae {FACES} --methods joint --out {{out}}/found.safetensors",
    ),
    "project_images": (
        project_images,
        f"--model {{base}}/gan {FACES} --n-steps 2 --classifier {{base}}/attributes --perceptual"
        " features --n-candidates 8 --batch-size 4 --n 4 --out {out}",
    ),
    "paper_experiment": (
        paper_experiment,
        "--model {base}/gan --attribute Smiling --n-faces 1 --n-judged 4 --width 4"
        " --judge {base}/attributes --judges {cards} --out {out}",
    ),
    "make_card": (make_card, "--run {base}/run --out {out}"),
}  # fmt: skip
COMMANDS = {
    "edit": "edit {base}/vae {base}/faces/000.png --direction Smiling=2 --out {out}/edited.png",
    "project": "project {base}/gan {base}/faces/000.png --steps 2 --perceptual features"
    " --classifier {base}/attributes --out {out}",
    "find-unlabelled": "find-unlabelled {base}/vae --n 2 --samples 16"
    " --classifier {base}/attributes --out {out}/found.safetensors",
    "find-measured": "find-measured {base}/linear --data {base}/known --cache {base}/cache"
    " --quantities Brightness --detector {cards}/face-detector --out {out}/found.safetensors",
    "convert": "convert {base}/net.pkl {out}",
    "import-directions": "import-directions {base}/age.npy --attribute Age --space z"
    " --out {out}/age.safetensors",
    "pull": "pull user/vae --out {out}",
    "compare": "compare {base}/linear {base}/turned --data {base}/known --cache {base}/cache"
    " --attributes Bright --methods svm --faces 4 --out {out}",
    "audit": "audit {base}/linear --model {base}/linear --data {base}/known --cache {base}/cache"
    " --faces 4 --out {out}",
    "replicate": "replicate {base}/paper --data {base}/known --cache {base}/cache --out {out}",
    "metrics": "metrics {base}/linear --data {base}/known --cache {base}/cache --n 200"
    " --metrics mig --out {out}/scores.csv",
    "data": "data sprites --count 20 --out {out}/sprites.npz",
    "map": "map {base}/linear {base}/turned --data {base}/known --cache {base}/cache --out {out}",
    "carry": "carry {base}/linear --map {base}/maps/linear--turned.safetensors"
    " --out {out}/carried.safetensors",
}
ALL = [*SCRIPTS, *COMMANDS]


# Not here: measure_judges and extract_judges read packages and data of
# others; update_readme and reproduce write through what is tested.


def run(name: str, base: Path, out: Path) -> None:
    """Run a command in this process, to its exit; judges are known in closed form, draws few."""
    judges = Judges(known_judge(), AllWhole(), AllWhole(), "judge", np.ones(2))  # type: ignore[arg-type]
    Judges.load = lambda *_: judges  # type: ignore[method-assign, assignment]
    replication.N_DRAWS = 2
    script, words = SCRIPTS.get(name) or (None, COMMANDS[name])
    given = [
        word.format(base=base, out=out, cards=PROJECT / "model_cards") for word in words.split()
    ]
    sys.argv = [name, *given]
    if script is None:
        exit_on_user_error(cli.main)
    elif hasattr(script, "RECIPES"):
        run_training(script.Arguments, script.RECIPES, script.train)
    else:
        run_script(script.Arguments, getattr(script, "run", None) or script.assemble)


def forked(action: Callable[[], None]) -> tuple[int, str]:
    """Exit code and output of an action in a copy of this process, at an ASCII terminal."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        code = 1
        try:
            for number in (1, 2):
                os.dup2(writing, number)
            sys.stdout, sys.stderr = (
                io.TextIOWrapper(io.FileIO(n, "w"), "ascii", write_through=True) for n in (1, 2)
            )
            torch.set_num_threads(1)
            action()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        output = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), output


def prepare_comparison(folder: Path) -> None:
    """Faces and models whose readings are known, a map between them, and the paper's trainings."""
    write_known_faces(folder / "known", attributes=("Bright", "Eyeglasses", "Male", "Smiling"))
    load_dataset(folder / "known", SIZE, cache=folder / "cache", progress=False)
    for name, turn in (("linear", torch.eye(4)), ("turned", torch.eye(4).flip(0))):
        model = linear_model()
        model.components.copy_(turn @ model.components)
        model.latent_covariance.copy_(turn @ model.latent_covariance @ turn.T)
        planted = Direction("Bright", "svm", turn[:, 0]).with_sigma(model)
        save_model(model, folder / name, DirectionSet.of(model, [planted]))
    run("map", folder, folder / "maps")
    for name in ("paper-vae-0", "paper-vae-1", "paper-betavae-0", "paper-betavae-1"):
        save_model(
            BetaVAE(SIZE, latent_dim=4, width=4, n_stages=2, blocks="plain"),
            folder / "paper" / name / "model",
        )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, models and a run, in a folder of a difficult name."""
    folder = tmp_path_factory.mktemp("surroundings") / 'it\'s a "földér"'

    def prepare() -> None:
        (folder / "faces").mkdir(parents=True)
        write_faces(folder / "faces", 48, 8, SIZE)
        table = folder / "faces" / "attributes.csv"
        lines = table.read_text(encoding="utf-8").replace("\n", "\r\n")
        table.write_bytes(b"\xef\xbb\xbf" + lines.encode())
        load_dataset(folder / "faces", SIZE, cache=folder / "cache", progress=False)
        torch.manual_seed(0)
        vae, gan = tiny_vae(size=SIZE), tiny_stylegan2(SIZE)
        save_model(vae, folder / "vae", random_directions(vae))
        directions = random_directions(gan)
        for place in ("gan", "encoded"):
            save_model(gan, folder / place, directions)
        divided_judge(gan, "Smiling").save_pretrained(folder / "attributes")
        weights = nvidia_weights(16, width=4, channel_base=32, channel_max=2)
        write_nvidia(folder / "net.pkl", nvidia_generator(weights))
        np.save(folder / "age.npy", np.ones((1, 8)))
        run("train_vae", folder, folder / "run")
        prepare_comparison(folder)

    code, output = forked(prepare)
    assert code == 0, output
    return folder


def surrounded(name: str, base: Path, out: Path, limit: int | None = None) -> tuple[int, str]:
    """Run a command without a home, and with a limit to the size of the files that it writes."""

    def action() -> None:
        os.environ["HOME"] = str(READ_ONLY / "nobody")
        if limit is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        run(name, base, out)

    if name != "pull":
        return forked(action)
    client = base / f"client-{out.parent.name}"
    client.mkdir()
    with HubStandIn() as hub, connected(hub, client):
        hub.create("user/vae", {p.name: p.read_bytes() for p in (base / "vae").iterdir()})
        return forked(action)


@pytest.mark.parametrize("name", ALL)
def test_odd_places_no_home_and_an_ascii_terminal(name: str, base: Path) -> None:
    out = base / "fine" / name
    code, output = surrounded(name, base, out)
    assert code == 0, output
    assert any(path.is_file() for path in out.rglob("*"))
    assert not [path for path in base.rglob("*.tmp") if path.is_file()]


def check_refusal(code: int, output: str) -> None:
    assert code == 2 and "Traceback" not in output, output
    (sentence,) = [s for s in output.splitlines() if s.startswith(("error:", "hublatent:"))]
    assert len(sentence) < 400


@pytest.mark.parametrize("name", ALL)
def test_a_full_disk(name: str, base: Path) -> None:
    out = base / "full" / name
    check_refusal(*surrounded(name, base, out, limit=64))
    assert not [path for path in base.rglob("*.tmp") if path.is_file()]


@pytest.mark.skipif(not READ_ONLY.is_dir(), reason="no read-only file system here")
@pytest.mark.parametrize("name", ALL)
def test_a_read_only_disk(name: str, base: Path) -> None:
    check_refusal(*surrounded(name, base, READ_ONLY / "out"))
