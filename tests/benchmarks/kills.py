"""Commands killed at random moments, then given again: python tests/benchmarks/kills.py

Each command runs once unbroken. Then, for every kill, it starts in a fresh folder, gets SIGKILL at
a moment drawn over the unbroken run's length, and is given again. What lies there in the end must
be the unbroken run's files, byte for byte but for what a stopwatch wrote, and nothing else. At
last two of the same command meet in one folder, and the second has to stop with a sentence.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch
from safetensors.torch import load_file

from hublatent import cli
from hublatent.data import load_dataset
from hublatent.errors import exit_on_user_error
from hublatent.evaluation.judges import Judges
from hublatent.models import BetaTCVAE, StyleGAN2
from hublatent.perception.classifier import AttributeClassifier
from tests.comparison_helpers import known_judge, linear_model, write_known_faces
from tests.test_audit import AllWhole
from tests.training_helpers import PROJECT, write_faces
from training import find_directions, project_images, train_encoder, train_stylegan2, train_vae
from training.trainers.commands import run_script, run_training

SIZE = 16
STOPWATCH = {"seconds", "images_per_second"}
VAE = (
    "--image-size 16 --latent-dim 4 --width 4 --max-width 8 --n-stages 2 --epochs 6 --batch-size 8"
    " --precision fp32 --memory-format channels-last --state-seconds 0 --ema 0.9"
)
STYLEGAN2 = (
    "--image-size 16 --latent-dim 8 --z-dim 8 --mapping-layers 2 --channel-base 64 --channel-max 8"
    " --channel-min 4 --batch-size 8 --r1-every 3 --path-length-every 2 --path-length-from 16"
    " --ada-from 0 --images 160 --log-every 16 --grid-every 80 --precision fp32 --state-seconds 0"
)
# Name -> the script, or None for the hublatent command, and its options but for --out.
COMMANDS: dict[str, tuple[Any, str]] = {
    "train_vae": (
        train_vae,
        "--recipe factorvae-celeba --discriminator-width 8 --data {data}/faces --cache {data}/cache"
        f" {VAE}",
    ),
    "train_stylegan2": (
        train_stylegan2,
        f"--recipe stylegan2-celeba --data {{data}}/faces --cache {{data}}/cache {STYLEGAN2}",
    ),
    "train_encoder": (
        train_encoder,
        "--recipe encoder-celeba --model {model} --data {data}/faces --cache {data}/cache --width 4"
        f" --image-features {PROJECT}/model_cards/image-features --batch-size 4 --feature-size 32"
        " --images 160 --log-every 32 --precision fp32 --state-seconds 0",
    ),
    "project_images": (
        project_images,
        "--model {data}/gan --data {data}/faces --cache {data}/cache --n-steps 6"
        " --classifier {data}/attributes --n-candidates 8 --batch-size 4 --n 24",
    ),
    "find_directions": (
        find_directions,
        "--model {data}/vae --data {data}/faces --cache {data}/cache --methods svm joint",
    ),
    "compare": (
        None,
        "compare {data}/linear {data}/bright --data {data}/known --cache {data}/cache"
        " --attributes Bright Green --faces 10",
    ),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25, help="of each command")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draws = random.Random(arguments.seed)
    print("command            unbroken  kills  while running  equal afterwards")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        finished(lambda: prepare(data))  # in a process of its own: no thread pool is forked later
        for name in arguments.commands:
            seconds, running, equal = trial(name, data, arguments.kills, draws)
            print(f"{name:18} {seconds:6.1f} s {arguments.kills:6} {running:14} {equal:17}")
            failed |= equal < arguments.kills
            refused = second_is_refused(name, data)
            print(f"{'':18} two at once: {'the second stops' if refused else 'BOTH RAN'}")
            failed |= not refused
    raise SystemExit(int(failed))


def prepare(data: Path) -> None:
    """Pictures, their cache, and two models of random weights."""
    (data / "faces").mkdir()
    write_faces(data / "faces", 72, 8, SIZE)
    load_dataset(data / "faces", SIZE, cache=data / "cache", progress=False)
    torch.manual_seed(0)
    BetaTCVAE(SIZE, latent_dim=4, width=4, max_width=8, n_stages=2).save_pretrained(data / "vae")
    gan = StyleGAN2(
        SIZE, latent_dim=8, z_dim=8, mapping_layers=2, channel_base=64, channel_max=8, channel_min=4
    )
    gan.save_pretrained(data / "gan")
    AttributeClassifier(SIZE, width=8, attributes="Smiling").save_pretrained(data / "attributes")
    write_known_faces(data / "known")
    load_dataset(data / "known", SIZE, cache=data / "cache", progress=False)
    linear = linear_model()
    linear.save_pretrained(data / "linear")
    linear.latent_mean += 0.1
    linear.save_pretrained(data / "bright")


def trial(name: str, data: Path, n_kills: int, draws: random.Random) -> tuple[float, int, int]:
    """Seconds of the unbroken run, kills that met it running, and runs that ended like it."""
    unbroken = place(data, f"{name}-unbroken")
    start = time.monotonic()
    assert finished(lambda: run(name, data, unbroken)) == 0, f"{name} fails by itself"
    seconds = time.monotonic() - start
    expected, running, equal = contents(unbroken), 0, 0
    for _ in range(n_kills):
        folder = place(data, f"{name}-killed")
        process = fork(lambda folder=folder: run(name, data, folder))  # type: ignore[misc]
        time.sleep(draws.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        running += os.WIFSIGNALED(os.waitpid(process, 0)[1])
        code = finished(lambda folder=folder: run(name, data, folder))  # type: ignore[misc]
        found = contents(folder)
        same = code == 0 and found == expected
        if not same:
            names = [n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)]
            print(f"{name}: exit code {code}, different: {sorted(names)}")
        equal += same
        shutil.rmtree(folder)
    return seconds, running, equal


def place(data: Path, name: str) -> Path:
    """A folder for a run and, beside it, a generator that the run may add to."""
    folder = data / name
    shutil.copytree(data / "gan", folder / "gan")
    return folder


def second_is_refused(name: str, data: Path) -> bool:
    """Whether a command stops, with exit code 2, while another writes into its folder."""
    folder = place(data, f"{name}-twice")
    first = fork(lambda: run(name, data, folder))
    while not (folder / "out" / ".lock").exists():
        time.sleep(0.001)
    os.kill(first, signal.SIGSTOP)  # however fast it is, it is still at it when the second comes
    code = finished(lambda: run(name, data, folder))
    os.kill(first, signal.SIGCONT)
    return code == 2 and os.waitpid(first, 0)[1] == 0


def run(name: str, data: Path, folder: Path) -> None:
    """Run a command in this process; compare's judges are known in closed form."""
    judges = Judges(known_judge(), AllWhole(), AllWhole(), "judge", np.ones(2))  # type: ignore[arg-type]
    Judges.load = lambda *_: judges  # type: ignore[method-assign, assignment]
    script, options = COMMANDS[name]
    out = folder / "out"
    where = out / "directions.safetensors" if name == "find_directions" else out
    words = options.format(data=data, model=folder / "gan").split()
    sys.argv = [name, *words, "--out", str(where)]
    if script is None:
        exit_on_user_error(cli.main)
    elif hasattr(script, "RECIPES"):
        run_training(script.Arguments, script.RECIPES, script.train)
    else:
        run_script(script.Arguments, script.run)


def fork(action: Callable[[], None]) -> int:
    """Start an action in a copy of this process, which has everything imported; its number."""
    process = os.fork()
    if process:
        return process
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        code = 1
        try:
            action()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        finally:
            os._exit(code)


def finished(action: Callable[[], None]) -> int:
    """Exit code of an action in a copy of this process."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(action), 0)[1])


def contents(folder: Path) -> dict[str, object]:
    """Every file below a folder, by name; what a stopwatch wrote is left out."""
    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix in (".json", ".jsonl"):
            values = [json.loads(line) for line in _documents(path)]
            found[name] = [
                {k: v for k, v in value.items() if k not in STOPWATCH | {"commands", "command"}}
                for value in values
            ]
        elif path.name == "state.safetensors":  # its header knows how long the run took
            found[name] = {k: v.numpy().tobytes() for k, v in load_file(path).items()}
        elif path.suffix == ".gz":  # its header knows when it was written
            found[name] = gzip.decompress(path.read_bytes())
        else:
            found[name] = path.read_bytes()
    return found


def _documents(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return text.splitlines() if path.suffix == ".jsonl" else [text]


if __name__ == "__main__":
    main()
