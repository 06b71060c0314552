"""Train an AttributeClassifier on CelebA, or on another data set of labelled faces.

python training/train_classifier.py --recipe attributes-celeba --data DATA --out runs/NAME

The same command resumes a run that was killed. Several devices: accelerate launch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import tyro

from hublatent.hub import CARD_NAME
from hublatent.perception.classifier import AttributeClassifier
from hublatent.publish import CardInput, render_card
from hublatent.storage import write_text
from training.trainers import loop
from training.trainers.classifier.distort import Distortion
from training.trainers.classifier.scores import (
    fit_temperature,
    logits_of,
    mean_auroc,
    mean_loss,
    test_scores,
)
from training.trainers.classifier.trainer import ClassifierRecipe, Trainer
from training.trainers.commands import run_training
from training.trainers.run import MODEL_FOLDER, RESULTS_NAME, Run

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

# What the published classifiers are for, as their cards say it.
PURPOSES = {
    "attributes-celeba": "Serves the rest of hublatent: features for perceptual losses and kernel "
    "distances, labels for generated samples, the app's read-out. Because models are chosen and "
    "fitted with it, it never judges them; judge-celeba does.",
    "judge-celeba": "Judges edits in hublatent's comparison, and does nothing else: nothing that "
    "fits, selects or labels may load it. Trained to bear blur, for the pictures it judges are "
    "soft.",
}


@dataclass(frozen=True, kw_only=True)
class Arguments(loop.TrainingArguments):
    """Train a classifier; the same command resumes. The recipe's name is the classifier's."""

    settings: Annotated[ClassifierRecipe, tyro.conf.arg(name="")]  # the recipe's values
    # folder to write the finished model and its card to; by default OUT/model
    export: Path | None = None


class Reporter(loop.Reporter):
    """Logs each epoch; at the end calibrates, tests and writes the model with its card."""

    trainer: Trainer

    def __init__(
        self, run: Run, trainer: Trainer, arguments: Arguments, progress: dict[str, Any] | None
    ) -> None:
        super().__init__(run, trainer, arguments, progress)
        self.name = arguments.recipe
        self.folder = arguments.export or run.folder / MODEL_FOLDER
        self.validation = trainer.dataset.indices("validation")
        self.validation_labels = trainer.dataset.labels[self.validation]

    def report(self) -> None:
        trainer, n = self.trainer, len(self.trainer.indices)
        if not self.is_due(n):
            return
        logits = logits_of(trainer.published, trainer.dataset, self.validation)
        self.log(
            epoch=trainer.images_seen // n,
            validation_loss=round(mean_loss(logits, self.validation_labels), 5),
            validation_auroc=round(mean_auroc(logits, self.validation_labels), 5),
        )

    def finish(self) -> dict[str, Any]:
        """Calibrate the model on the validation images, judge it on the test images, write both."""
        trainer = self.trainer
        recipe, dataset, model = trainer.recipe, trainer.dataset, trainer.published.eval()
        model.temperature.fill_(1.0)
        logits = logits_of(model, dataset, self.validation)
        temperature = fit_temperature(logits, torch.from_numpy(self.validation_labels))
        model.temperature.fill_(temperature)
        results = {
            "name": self.name,
            "recipe": asdict(recipe),
            "attributes": list(dataset.attributes),
            "dataset": dataset.name,
            "data": dataset.digest,
            "preprocessing": dataset.preprocessing,
            "n_train": len(trainer.indices),
            "n_parameters": loop.parameter_count(model),
            "precision": trainer.precision,
            "torch": torch.__version__,
            "temperature": temperature,
            "validation": {
                "n_images": len(self.validation),
                "loss_uncalibrated": mean_loss(logits, self.validation_labels),
                "loss": mean_loss(logits / temperature, self.validation_labels),
                "auroc": mean_auroc(logits, self.validation_labels),
            },
            "test": test_scores(model, dataset),
        }
        model.save_pretrained(self.folder)
        write_text(self.folder / RESULTS_NAME, json.dumps(results, indent=2) + "\n")
        write_text(self.folder / CARD_NAME, render_card(self._card(model, results)))
        mean = results["test"]["mean"] if results["test"] else None  # type: ignore[index]
        print(f"{self.folder}: temperature {temperature:.3f}; test {json.dumps(mean)}")
        return results

    def _card(self, model: AttributeClassifier, results: Mapping[str, Any]) -> CardInput:
        folder = f"model_cards/{self.name}"
        command = f"python training/train_classifier.py --recipe {self.name} --data DATA --out "
        return CardInput(
            repo=folder,
            model=model,
            results=results,
            dataset=self.trainer.dataset.name,
            about=PURPOSES.get(self.name, ""),
            commands=[f"{command}runs/{self.name} --export {folder}"],
        )


def train(arguments: Arguments) -> dict[str, Any] | None:
    """Train, or go on training, to the recipe's last epoch; then calibrate, test and export."""
    return loop.train(arguments, Trainer, Reporter)


if __name__ == "__main__":
    run_training(Arguments, RECIPES, train)
