"""Train an AttributeClassifier on CelebA, or on another data set of labelled faces.

python training/train_classifier.py --recipe attributes-celeba --data DATA --out runs/NAME

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
import torch
import tyro
from torch import Tensor

from hublatent.classifier import AttributeClassifier
from hublatent.data import FaceDataset, load_dataset
from hublatent.errors import DataError
from hublatent.hub import CARD_NAME
from hublatent.storage import write_text
from training.classifier_scores import (
    BLURS,
    cross_entropy,
    fit_temperature,
    held_out_scores,
    logits_of,
    mean_auroc,
    render_card,
)
from training.classifier_trainer import ClassifierRecipe, Trainer
from training.distort import Distortion, blur
from training.recipes import parse_command
from training.run import (
    MODEL_FOLDER,
    RESULTS_NAME,
    Run,
    exit_on_user_error,
    parameter_count,
    run_steps,
    start_accelerator,
)

RECIPES: dict[str, ClassifierRecipe] = {
    "attributes-celeba": ClassifierRecipe(),
    # Another seed, width, dropout and variation, so that it does not share the other's mistakes.
    "judge-celeba": ClassifierRecipe(
        width=40,
        dropout=0.3,
        distortion=Distortion(
            shift=0.08, scale=0.08, blur=0.03, blur_share=0.3, noise=0.03, contrast=0.4
        ),
        mixup=0.15,
        epochs=24,
        seed=1_234,
    ),
}


@dataclass(frozen=True)
class Arguments:
    """Train a classifier; the same command resumes.

    Attributes:
        data: folder or Hub dataset of faces.
        out: the run's folder.
        settings: the recipe's values.
        recipe: where the values that are not given come from; also the classifier's name.
        export: folder to write the finished model and its card to; by default OUT/model.
        split: of a Hub dataset, the one split to take.
        cache: folder of the decoded images; by default ~/.cache/hublatent/datasets.
        precision: auto measures which is faster; a resumed run keeps it.
        state_seconds: time between two states on disk, and so what a kill can cost.
    """

    data: str
    out: Path
    settings: Annotated[ClassifierRecipe, tyro.conf.arg(name="")]
    recipe: str
    export: Path | None = None
    split: str | None = None
    cache: Path | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    state_seconds: float = 60.0


class Reporter:
    """Writes what a run leaves behind: log lines, states, the model, its results and its card.

    Args:
        run: the run's folder.
        trainer: what is trained.
        state_seconds: time between two states.
    """

    def __init__(self, run: Run, trainer: Trainer, state_seconds: float) -> None:
        self.run = run
        self.trainer = trainer
        self.state_seconds = state_seconds
        self.losses: list[float] = []
        self.saved = self.started = time.monotonic()
        dataset = trainer.dataset
        self.validation = dataset.indices("validation")
        self.validation_labels = dataset.labels[self.validation]

    def after_step(self, loss: float) -> None:
        """Log and save what is due."""
        trainer = self.trainer
        self.losses.append(loss)
        n, seen = len(trainer.indices), trainer.images_seen
        if seen // n > (seen - trainer.recipe.batch_size) // n:
            self._log(seen // n)
        if time.monotonic() - self.saved >= self.state_seconds:
            self.save_state()

    def save_state(self) -> None:
        """Write the state that a killed run goes on from."""
        self.run.save_state(self.trainer.state())
        self.saved = time.monotonic()

    def _log(self, epoch: int) -> None:
        trainer = self.trainer
        logits = logits_of(trainer.published, trainer.dataset, self.validation)
        rate = len(self.losses) * trainer.recipe.batch_size / (time.monotonic() - self.started)
        self.run.log(
            epoch=epoch,
            images=trainer.images_seen,
            loss=round(float(np.mean(self.losses)), 5),
            validation_loss=round(
                float(cross_entropy(logits, torch.from_numpy(self.validation_labels))), 5
            ),
            validation_auroc=round(mean_auroc(logits, self.validation_labels), 5),
            images_per_second=round(rate, 1),
        )
        self.losses.clear()
        self.started = time.monotonic()

    def finish(self, name: str, folder: Path) -> dict[str, Any]:
        """Calibrate the model on the validation images, judge it on the test images, write both.

        Args:
            name: the classifier's name.
            folder: where config.json, model.safetensors, README.md and results.json go.

        Returns:
            What results.json holds.
        """
        trainer = self.trainer
        recipe, dataset, model = trainer.recipe, trainer.dataset, trainer.published.eval()
        model.temperature.fill_(1.0)
        logits = logits_of(model, dataset, self.validation)
        temperature = fit_temperature(logits, torch.from_numpy(self.validation_labels))
        model.temperature.fill_(temperature)
        results = {
            "name": name,
            "recipe": asdict(recipe),
            "attributes": list(dataset.attributes),
            "data": dataset.digest,
            "preprocessing": dataset.preprocessing,
            "n_train": len(trainer.indices),
            "n_parameters": parameter_count(model),
            "precision": trainer.precision,
            "torch": torch.__version__,
            "temperature": temperature,
            "validation": {
                "n_images": len(self.validation),
                "loss_uncalibrated": _loss(logits, self.validation_labels),
                "loss": _loss(logits / temperature, self.validation_labels),
                "auroc": mean_auroc(logits, self.validation_labels),
            },
            "test": _test(model, dataset),
        }
        model.save_pretrained(folder)
        write_text(folder / RESULTS_NAME, json.dumps(results, indent=2) + "\n")
        write_text(folder / CARD_NAME, render_card(results))
        return results


def _loss(logits: Tensor, labels: np.ndarray) -> float:
    return float(cross_entropy(logits, torch.from_numpy(labels)))


def _test(model: AttributeClassifier, dataset: FaceDataset) -> dict[str, Any] | None:
    indices = dataset.indices("test")
    if not len(indices):
        return None
    labels, identities = dataset.labels[indices], dataset.identities[indices]
    logits = logits_of(model, dataset, indices)
    blurred = {}
    for sigma in BLURS:
        soft = logits_of(model, dataset, indices, lambda images, s=sigma: blur(images, s))  # type: ignore[misc]
        blurred[str(sigma)] = mean_auroc(soft, labels)
    return {
        "n_images": len(indices),
        "n_identities": len(np.unique(identities)),
        "loss": _loss(logits, labels),
        "auroc_blurred": blurred,
        **held_out_scores(logits, labels, identities, dataset.attributes),
    }


def train(arguments: Arguments) -> dict[str, Any] | None:
    """Train, or go on training, to the recipe's last epoch; then calibrate, test and export.

    Returns:
        On the main process what results.json holds.
    """
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
    _check_data(recipe, dataset, accelerator.num_processes)
    with accelerator.main_process_first():
        run = Run.open(arguments.out, {**asdict(recipe), "data": dataset.digest})
    trainer = Trainer(recipe, dataset, accelerator, arguments.precision, run.load_state())
    accelerator.print(_announcement(arguments.recipe, trainer), flush=True)
    reporter = None
    if is_main:
        run.trim_log("images", trainer.images_seen)
        reporter = Reporter(run, trainer, arguments.state_seconds)
    run_steps(
        trainer,
        trainer.n_total_steps * recipe.batch_size,
        lambda loss: {"loss": f"{loss:.3f}"},
        reporter.after_step if reporter else None,
    )
    results = None
    if reporter is not None:
        reporter.save_state()
        folder = arguments.export or run.folder / MODEL_FOLDER
        results = reporter.finish(arguments.recipe, folder)
        mean = results["test"]["mean"] if results["test"] else None
        print(f"{folder}: temperature {results['temperature']:.3f}; test {json.dumps(mean)}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def _check_data(recipe: ClassifierRecipe, dataset: FaceDataset, n_processes: int) -> None:
    n_train, n_validation = len(dataset.indices("train")), len(dataset.indices("validation"))
    if not n_train or not n_validation:
        raise DataError(
            f"The data has {n_train} training and {n_validation} validation images; a classifier "
            "needs both: it is calibrated on images it was not trained on."
        )
    if recipe.batch_size % n_processes or recipe.batch_size // n_processes < 2:
        raise DataError(
            f"--batch-size {recipe.batch_size} with {n_processes} process(es); expected a multiple "
            "of the processes with at least 2 images for each."
        )


def _announcement(name: str, trainer: Trainer) -> str:
    recipe = trainer.recipe
    start = f"resumes at {trainer.images_seen:,} images" if trainer.n_steps else "starts"
    return (
        f"{name} {start}: {parameter_count(trainer.model):,} parameters; "
        f"{len(trainer.indices):,} training images; {trainer.n_total_steps:,} steps of "
        f"{recipe.batch_size}; {trainer.precision}; seed {recipe.seed}; "
        f"{trainer.accelerator.num_processes} process(es) on {trainer.accelerator.device.type}"
    )


if __name__ == "__main__":
    exit_on_user_error(lambda: train(parse_command(Arguments, RECIPES)))
