"""Train StyleGAN2: python training/train_stylegan2.py --recipe NAME --data DATA --out runs/NAME

The same command resumes a run that was killed. Several devices: accelerate launch. On a processor
that other programs use too, GOMP_SPINCOUNT=2000 keeps waiting threads from burning it (on two cores
beside three other trainings: 10.5 instead of 6.1 images/s), and tcmalloc by LD_PRELOAD saves page
faults.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import tyro
from tqdm import tqdm

from hublatent.hub import DISCRIMINATOR_NAME
from hublatent.images import save_png
from training.trainers import loop
from training.trainers.commands import run_training
from training.trainers.run import Run
from training.trainers.stylegan2.discriminator import save_discriminator
from training.trainers.stylegan2.kid import FeatureNetwork, KernelDistance
from training.trainers.stylegan2.trainer import StyleGAN2Recipe, Trainer

# On two cores 32 channels at 64 pixels take 0.8 of the time of 48. Noise stays on: without any, one
# shape served all codes after 67,000 images; without it from 80,000 on, samples at 96,000 were
# further from the faces (KID 1.08) than with it (0.74). A second discriminator of small heads on
# frozen ImageFeatures (Kumari et al. 2022) did not help from 480,000 images on, beside one that had
# learned alone for 12,000: KID 0.098, then 0.109 after 3,200 and 0.122 after 19,200.
# On a GPU, in batches of 128 (r1_gamma 0.1, learning rate 0.002), a discriminator that had learned
# alone for 780 steps was not enough either: KID 0.098, then 0.147 after 34,000 images of both and
# 0.29 after 85,000.
RECIPES: dict[str, StyleGAN2Recipe] = {"stylegan2-celeba": StyleGAN2Recipe(channel_min=32)}
LATEST_FOLDER = "latest"
BEST_FOLDER = "best"
N_DRAWN = 48
DRAWN_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class Arguments(loop.TrainingArguments):
    """Train StyleGAN2; the same command resumes."""

    settings: Annotated[StyleGAN2Recipe, tyro.conf.arg(name="")]  # the recipe's values
    images: int = 1_500_000  # length of the training, in images seen; may be raised later
    # folder of another run, or of a published model, to go on from
    start_from: Path | None = None
    # what that published model has seen; the count of images goes on from there
    start_images: int = 0
    # folder of the AttributeClassifier whose features choose the best checkpoint
    kid_classifier: Path | None = None
    state_seconds: float = 300.0  # time between two states on disk, and so what a kill can cost
    log_every: int = 1_600  # images between two log lines
    grid_every: int = 16_000  # images between two sample grids and copies of the averaged model
    kid_every: int = 32_000  # images between two kernel distances
    # generated images per kernel distance, and training images of its floor
    kid_samples: int = 2_000


class Reporter(loop.Reporter):
    """Writes what a run shows: log lines, sample grids, the averaged model and the best one."""

    trainer: Trainer

    def __init__(
        self, run: Run, trainer: Trainer, arguments: Arguments, progress: dict[str, Any] | None
    ) -> None:
        super().__init__(run, trainer, arguments, progress)
        self.progress.setdefault("best_kid", float("inf"))
        self.distance: KernelDistance | None = None
        network = load_feature_network(arguments.kid_classifier, trainer.device)
        if network is not None:
            self.distance = KernelDistance(network, trainer, arguments.kid_samples)
            if self.distance.floor != self.progress.get("floor"):  # distances of another network
                self.progress.update(best_kid=float("inf"), floor=self.distance.floor)

    def report(self) -> None:
        arguments = self.arguments
        if self.is_due(arguments.log_every):
            self.log(learning_rate=self.trainer.learning_rate())
        if self.is_due(arguments.grid_every):
            self.draw()
        if self.distance is not None and self.is_due(arguments.kid_every):
            self._judge(self.distance)

    def finish(self) -> dict[str, Any]:
        """Write what the end of the run leaves behind; results.json tells of the best model."""
        self.draw()
        if self.distance is None:  # nothing to choose a best one by: it tells of the latest
            self._save_results(None)
        seen = self.trainer.images_seen
        print(f"{self.run.folder / LATEST_FOLDER}: the model after {seen:,} images")
        return {}

    def draw(self) -> None:
        """Write the grid of fixed latents, and the averaged model."""
        model = self.trainer.average
        draws = torch.Generator().manual_seed(self.trainer.recipe.seed)
        images = model.decode(model.sample_latents(N_DRAWN, generator=draws))
        name = f"samples-{self.trainer.images_seen:08d}.png"
        save_png(loop.contact_sheet(images, DRAWN_COLUMNS), self.run.folder / name)
        self._save_model(LATEST_FOLDER)

    def _judge(self, distance: KernelDistance) -> None:
        """Log the kernel distance; keep the averaged model where it is the best so far."""
        seen, kid = self.trainer.images_seen, distance.measure()
        self.run.log(images=seen, kid=kid, kid_floor=distance.floor)
        tqdm.write(f"{seen:,} images: KID {kid:.5f} (floor {distance.floor:.5f})")
        if kid < self.progress["best_kid"]:
            self.progress["best_kid"] = kid
            self._save_model(BEST_FOLDER)
            counts = {"n_generated": distance.n_samples, "n_validation": len(distance.validation)}
            self._save_results({"kid": kid, "kid_floor": distance.floor, **counts})
            self.save_state()  # remembers what the best one is

    def _save_model(self, name: str) -> None:
        self.trainer.average.measure_latents()
        self.trainer.average.save_pretrained(self.run.folder / name)
        save_discriminator(self.trainer.discriminator, self.run.folder / name / DISCRIMINATOR_NAME)

    def _save_results(self, validation: dict[str, float] | None) -> None:
        """Write what a card says of the averaged model, which has just been saved."""
        trainer, dataset = self.trainer, self.trainer.dataset
        how = {"precision": trainer.precision, "images": trainer.images_seen}
        results = {
            "recipe": asdict(trainer.recipe),
            "command": self.arguments.command("training/train_stylegan2.py", RECIPES, **how),
            "fingerprint": trainer.average.fingerprint(),
            **loop.described(dataset, loop.parameter_count(trainer.average)),
            "images_seen": trainer.images_seen,
            "n_processes": trainer.accelerator.num_processes,
            "precision": trainer.precision,
            "validation": validation,
        }
        self.run.save_results(results)


def load_feature_network(folder: Path | None, device: torch.device) -> FeatureNetwork | None:
    """The classifier whose features measure the kernel distance; None, and one line, without it."""
    if folder is None:
        print("No --kid-classifier: no kernel distance is measured, and no best model is kept.")
        return None
    from hublatent.perception.classifier import AttributeClassifier

    return AttributeClassifier.from_pretrained(folder).to(device)


def train(arguments: Arguments) -> None:
    """Train, or go on training, until the given number of images has been seen."""
    loop.train(arguments, Trainer, Reporter)


if __name__ == "__main__":
    run_training(Arguments, RECIPES, train)
