"""Train an AttributeClassifier on CelebA, or on another data set of labelled faces.

python training/train_classifier.py --recipe attributes-celeba --data DATA --out runs/NAME

The same command resumes a run that was killed. Several devices: accelerate launch.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import tyro

from hublatent.hub import CARD_NAME
from hublatent.publish import CardInput, render_card
from hublatent.storage import write_text
from training.trainers import loop
from training.trainers.classifier.distort import Distortion
from training.trainers.classifier.scores import (
    fit_temperature,
    logits_of,
    loss_and_auroc,
    test_scores,
)
from training.trainers.classifier.trainer import ClassifierRecipe, Trainer
from training.trainers.commands import run_training
from training.trainers.run import MODEL_FOLDER, Run

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

SCRIPT = "training/train_classifier.py"

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

    def report(self) -> None:
        trainer, dataset, n = self.trainer, self.trainer.dataset, len(self.trainer.indices)
        if not self.is_due(n):
            return
        validation = dataset.indices("validation")
        logits = logits_of(trainer.published, dataset, validation)
        found = loss_and_auroc(logits, dataset.labels[validation])
        rounded = {f"validation_{name}": round(value, 5) for name, value in found.items()}
        self.log(epoch=trainer.images_seen // n, **rounded)

    def finish(self) -> dict[str, Any]:
        """Calibrate the model on the validation images, judge it on the test images, write both."""
        trainer, dataset, name = self.trainer, self.trainer.dataset, self.arguments.recipe
        folder = self.arguments.export or self.run.folder / MODEL_FOLDER
        model = trainer.published.eval()
        model.temperature.fill_(1.0)
        validation = dataset.indices("validation")
        logits, labels = logits_of(model, dataset, validation), dataset.labels[validation]
        temperature = fit_temperature(logits, torch.from_numpy(labels))
        model.temperature.fill_(temperature)
        test = test_scores(model, dataset)
        results = {
            "name": name,
            "recipe": asdict(trainer.recipe),
            "attributes": list(dataset.attributes),
            **loop.described(dataset, loop.parameter_count(model)),
            "precision": trainer.precision,
            "temperature": temperature,
            "validation": {
                "n_images": len(validation),
                "loss_uncalibrated": loss_and_auroc(logits, labels)["loss"],
                **loss_and_auroc(logits / temperature, labels),
            },
            "test": test,
        }
        model.save_pretrained(folder)
        Run(folder).save_results(results)
        export = f"model_cards/{name}"
        card = CardInput(
            repo=export,
            model=model,
            results=results,
            dataset=dataset.name,
            about=PURPOSES.get(name, ""),
            commands=[self.arguments.command(SCRIPT, RECIPES, export=export)],
        )
        write_text(folder / CARD_NAME, render_card(card))
        print(f"{folder}: temperature {temperature:.3f}; test {json.dumps(test and test['mean'])}")
        return results


def train(arguments: Arguments) -> dict[str, Any] | None:
    """Train, or go on training, to the recipe's last epoch; then calibrate, test and export."""
    return loop.train(arguments, Trainer, Reporter)


if __name__ == "__main__":
    run_training(Arguments, RECIPES, train)
