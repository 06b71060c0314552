"""Train a VAE: python training/train_vae.py --recipe btcvae-celeba --data DATA --out runs/NAME

The same command resumes a run that was killed. Several devices: accelerate launch.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import tyro

from hublatent.data import FaceDataset, load_dataset
from hublatent.errors import DataError
from hublatent.images import save_png
from hublatent.storage import write_text
from training.objectives import kl_divergence
from training.recipes import RECIPES, VAERecipe, parse_command
from training.run import (
    MODEL_FOLDER,
    RESULTS_NAME,
    Run,
    described,
    exit_on_user_error,
    parameter_count,
    run_steps,
    start_accelerator,
)
from training.vae_evaluation import evaluate, posteriors, preview, reconstruction_error
from training.vae_trainer import Trainer

# Held-out images of each epoch's log line and picture; the results use all.
N_WATCHED = 256


@dataclass(frozen=True)
class Arguments:
    """Train a VAE; the same command resumes.

    Attributes:
        data: folder or Hub dataset of faces.
        out: the run's folder.
        settings: the recipe's values.
        recipe: where the values that are not given come from.
        split: of a Hub dataset, the one split to take.
        cache: folder of the decoded images; by default ~/.cache/hublatent/datasets.
        precision: auto measures which is faster; a resumed run keeps it.
        memory_format: auto measures which is faster; a resumed run keeps it.
        state_seconds: time between two states on disk, and so what a kill can cost.
    """

    data: str
    out: Path
    settings: Annotated[VAERecipe, tyro.conf.arg(name="")]
    recipe: str
    split: str | None = None
    cache: Path | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    memory_format: Literal["auto", "contiguous", "channels-last"] = "auto"
    state_seconds: float = 60.0


class Reporter:
    """Writes what a run leaves behind: log lines, pictures, states, the model and its results.

    Args:
        run: the run's folder.
        trainer: what is trained.
        state_seconds: time between two states.
        progress: what an earlier part of the run had measured.
    """

    def __init__(
        self, run: Run, trainer: Trainer, state_seconds: float, progress: dict[str, Any] | None
    ) -> None:
        self.run = run
        self.trainer = trainer
        self.state_seconds = state_seconds
        empty = {"sums": {}, "n_summed": 0, "epoch_seconds": 0.0, "seconds": 0.0}
        self.progress: dict[str, Any] = progress or empty
        dataset = trainer.dataset
        held_out = dataset.indices("validation")
        watched = held_out if len(held_out) > 1 else trainer.indices
        spaced = np.linspace(0, len(watched) - 1, min(len(watched), N_WATCHED)).astype(int)
        self.watched = watched[spaced]
        self.saved = self.started = time.monotonic()

    def after_step(self, terms: dict[str, float]) -> None:
        """Log, draw and save what is due.

        Args:
            terms: of the step.
        """
        trainer, progress = self.trainer, self.progress
        for name, value in terms.items():
            progress["sums"][name] = progress["sums"].get(name, 0.0) + value
        progress["n_summed"] += 1
        now = time.monotonic()
        progress["epoch_seconds"] += now - self.started
        progress["seconds"] += now - self.started
        n, seen = len(trainer.indices), trainer.images_seen
        if seen // n > (seen - trainer.recipe.batch_size) // n:
            self._end_epoch(seen // n)
        # What is written here does not count as training.
        if time.monotonic() - self.saved >= self.state_seconds:
            self.save_state()
        self.started = time.monotonic()

    def save_state(self) -> None:
        """Write the state that a killed run goes on from."""
        self.run.save_state({**self.trainer.state(), "progress": self.progress})
        self.saved = time.monotonic()

    def _end_epoch(self, epoch: int) -> None:
        progress, trainer = self.progress, self.trainer
        means = {name: total / progress["n_summed"] for name, total in progress["sums"].items()}
        model, dataset = trainer.published, trainer.dataset
        found = posteriors(model, dataset, self.watched)
        n_images = progress["n_summed"] * trainer.recipe.batch_size
        self.run.log(
            epoch=epoch,
            images=trainer.images_seen,
            **means,
            watched_mse=reconstruction_error(model, dataset, self.watched, found.mean),
            watched_kl=float(kl_divergence(found.mean, found.log_variance)),
            learning_rate=trainer.learning_rate(),
            images_per_second=round(n_images / progress["epoch_seconds"], 1),
        )
        picture = preview(model, dataset.batch(self.watched), trainer.recipe.seed)
        save_png(picture, self.run.folder / f"epoch-{epoch:04d}.png")
        progress.update(sums={}, n_summed=0, epoch_seconds=0.0)

    def finish(self) -> dict[str, Any]:
        """Fix the latent statistics, save the model, and judge it on the test images.

        Returns:
            What results.json holds.
        """
        trainer = self.trainer
        recipe, dataset, model = trainer.recipe, trainer.dataset, trainer.published.eval()
        known = posteriors(model, dataset, dataset.indices("train", "validation"))
        model.set_latent_statistics(known.mean)
        model.save_pretrained(self.run.folder / MODEL_FOLDER)
        test = dataset.indices("test")
        results = {
            "recipe": asdict(recipe),
            **described(model, dataset, parameter_count(model)),
            "images_seen": trainer.images_seen,
            "seconds": round(self.progress["seconds"], 1),
            "images_per_second": round(trainer.images_seen / self.progress["seconds"], 1),
            "n_processes": trainer.accelerator.num_processes,
            "precision": trainer.precision,
            "memory_format": trainer.memory_format,
            "test": evaluate(model, dataset, test, recipe.seed) if len(test) else None,
        }
        write_text(self.run.folder / RESULTS_NAME, json.dumps(results, indent=2) + "\n")
        return results


def train(arguments: Arguments) -> None:
    """Train, or go on training, to the recipe's last epoch."""
    recipe = arguments.settings
    recipe.check()
    accelerator = start_accelerator()
    is_main = accelerator.is_main_process
    dataset = load_dataset(
        arguments.data,
        recipe.image_size,
        cache=arguments.cache,
        split=arguments.split,
        progress=is_main,
    )
    _check_batch_size(recipe, dataset, accelerator.num_processes)
    with accelerator.main_process_first():
        run = Run.open(arguments.out, {**asdict(recipe), "data": dataset.digest})
    state = run.load_state()
    trainer = Trainer(
        recipe, dataset, accelerator, arguments.precision, arguments.memory_format, state
    )
    accelerator.print(_announcement(arguments, trainer), flush=True)
    reporter = None
    if is_main:
        run.trim_log("images", trainer.images_seen)
        progress = state["progress"] if state else None
        reporter = Reporter(run, trainer, arguments.state_seconds, progress)
    run_steps(
        trainer,
        trainer.n_total_steps * recipe.batch_size,
        lambda terms: {"loss": f"{terms['loss']:.1f}"},
        reporter.after_step if reporter else None,
    )
    if reporter is not None:
        reporter.save_state()
        results = reporter.finish()
        print(f"{run.folder / MODEL_FOLDER}: {json.dumps(results['test'])}")
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _check_batch_size(recipe: VAERecipe, dataset: FaceDataset, n_processes: int) -> None:
    n = len(dataset.indices("train"))
    if recipe.batch_size > n:
        raise DataError(
            f"--batch-size {recipe.batch_size} is more than the {n} training images; "
            "give a smaller one."
        )
    if recipe.batch_size % n_processes:
        raise DataError(
            f"--batch-size {recipe.batch_size} is not divisible by {n_processes} processes."
        )


def _announcement(arguments: Arguments, trainer: Trainer) -> str:
    recipe = trainer.recipe
    start = f"resumes at {trainer.images_seen:,} images" if trainer.n_steps else "starts"
    return (
        f"{arguments.recipe} {start}: {parameter_count(trainer.model):,} parameters; "
        f"{len(trainer.indices):,} training images; {trainer.n_total_steps:,} steps of "
        f"{recipe.batch_size}; {trainer.precision}, {trainer.memory_format}; seed {recipe.seed}; "
        f"{trainer.accelerator.num_processes} process(es) on {trainer.accelerator.device.type}"
    )


def main() -> None:
    """Train what the command line asks for."""
    train(parse_command(Arguments, RECIPES))


if __name__ == "__main__":
    exit_on_user_error(main)
