"""Train a VAE or an autoencoder: python training/train_vae.py --recipe NAME --data DATA --out OUT

The same command resumes a run that was killed. Several devices: accelerate launch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import tyro

from hublatent.evaluation.rate import kl_divergence
from hublatent.images import save_png
from hublatent.models import LSAVAE
from training.recipes import RECIPES, VAERecipe
from training.trainers import loop
from training.trainers.commands import run_training
from training.trainers.run import MODEL_FOLDER
from training.trainers.vae import Trainer, evaluate, posteriors, preview, style_reading

# Held-out images of each epoch's log line and picture; the results use all.
N_WATCHED = 256
READ_ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")  # from an LSA-VAE's style part


@dataclass(frozen=True, kw_only=True)
class Arguments(loop.TrainingArguments):
    """Train a VAE or an autoencoder; the same command resumes."""

    settings: Annotated[VAERecipe, tyro.conf.arg(name="")]  # the recipe's values
    # auto measures which is faster; a resumed run keeps it
    memory_format: Literal["auto", "contiguous", "channels-last"] = "auto"


class Reporter(loop.Reporter):
    """Logs and draws each epoch; at the end writes the model and its results."""

    trainer: Trainer

    @cached_property
    def watched(self) -> np.ndarray:
        """The positions of the images that each epoch's line and picture are about."""
        held_out = self.trainer.dataset.indices("validation")
        watched = held_out if len(held_out) > 1 else self.trainer.indices
        spaced = np.linspace(0, len(watched) - 1, min(len(watched), N_WATCHED)).astype(int)
        return watched[spaced]

    def report(self) -> None:
        trainer, n = self.trainer, len(self.trainer.indices)
        if not self.is_due(n):
            return
        model, dataset, epoch = trainer.published, trainer.dataset, trainer.images_seen // n
        kl = float(kl_divergence(*posteriors(model, dataset, self.watched)))
        self.log(
            epoch=epoch,
            watched_mse=loop.reconstruction_error(model, dataset, self.watched),
            **({"watched_kl": kl} if np.isfinite(kl) else {}),
            learning_rate=trainer.learning_rate(),
        )
        picture = preview(model, dataset.batch(self.watched), trainer.recipe.seed)
        save_png(picture, self.run.folder / f"epoch-{epoch:04d}.png")

    def finish(self) -> dict[str, Any]:
        """Fix the latent statistics, save the model, and judge it on the test images."""
        trainer, seconds = self.trainer, self.progress["seconds"]
        recipe, dataset, model = trainer.recipe, trainer.dataset, trainer.published.eval()
        known, _ = posteriors(model, dataset, dataset.indices("train", "validation"))
        model.set_latent_statistics(known)
        model.save_pretrained(self.run.folder / MODEL_FOLDER)
        test = dataset.indices("test")
        how = {"precision": trainer.precision, "memory_format": trainer.memory_format}
        results = {
            "recipe": asdict(recipe),
            "command": self.arguments.command("training/train_vae.py", RECIPES, **how),
            "fingerprint": model.fingerprint(),
            **loop.described(dataset, loop.parameter_count(model)),
            "images_seen": trainer.images_seen,
            "seconds": round(seconds, 1),
            "images_per_second": round(trainer.images_seen / max(seconds, 1e-9), 1),
            "n_processes": trainer.accelerator.num_processes,
            **how,
            "test": evaluate(model, dataset, test, recipe.seed) if len(test) else None,
        }
        if isinstance(model, LSAVAE):
            read = [name for name in READ_ATTRIBUTES if name in model.attribute_axes]
            results["style"] = style_reading(model, dataset, read, recipe.seed)
        self.run.save_results(results)
        print(f"{self.run.folder / MODEL_FOLDER}: {json.dumps(results['test'])}")
        return results


def train(arguments: Arguments) -> Mapping[str, Any] | None:
    """Train, or go on training, to the recipe's last epoch."""
    return loop.train(arguments, Trainer, Reporter, memory_format=arguments.memory_format)


if __name__ == "__main__":
    run_training(Arguments, RECIPES, train)
