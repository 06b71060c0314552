"""Train an AttributeClassifier on CelebA, or on another data set of labelled faces.

python training/train_classifier.py --recipe attributes-celeba --data DATA --out runs/NAME

The same command resumes a run that was killed. Several devices: accelerate launch.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import tyro
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.hub import CARD_NAME
from hublatent.perception.classifier import AttributeClassifier, join_names
from hublatent.publish import CardInput, render_card
from hublatent.storage import write_text
from training.trainers import loop
from training.trainers.classifier import scores
from training.trainers.classifier.distort import Distortion, distort
from training.trainers.commands import Ranges, Recipe, run_training
from training.trainers.run import MODEL_FOLDER, Run

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class ClassifierRecipe(Recipe):
    """What a classifier is and how it is trained."""

    image_size: int = 64  # height and width that the network sees, in pixels
    width: int = 36  # channels of the first stage
    n_blocks: int = 1  # residual blocks per stage
    dropout: float = 0.2  # share of the features dropped before the logits
    # how strongly the photographs are varied
    distortion: Annotated[Distortion, tyro.conf.arg(name="")] = field(default_factory=Distortion)
    mixup: float = 0.2  # largest share of another photograph, and of its labels, in each
    epochs: int = 20  # passes over the training images
    batch_size: int = 32  # images per step, over all processes
    learning_rate: float = 3e-3  # of AdamW, the highest
    weight_decay: float = 0.1  # of AdamW
    # share of the steps over which the rate rises from 0; then it falls as a cosine
    warm_up: float = 0.1
    ema: float = 0.995  # decay per step of the averaged weights, which are the ones published
    seed: int = 0  # everything random follows from it

    ranges: ClassVar[Ranges] = {
        "at least 1": ("epochs", "batch_size"),
        "a number above 0": ("learning_rate",),
        "0 or more": ("weight_decay",),
        "from 0 to below 1": ("warm_up", "ema"),
        "from 0 to 1": ("mixup",),
    }


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


class Trainer(loop.Trainer):
    """A classifier, its average and its optimiser."""

    def __init__(
        self, arguments: Arguments, dataset: FaceDataset, accelerator: Accelerator
    ) -> None:
        super().__init__(arguments, dataset, accelerator)
        recipe: ClassifierRecipe = self.recipe
        self.labels = torch.from_numpy(dataset.labels[self.indices]).float()
        torch.manual_seed(recipe.seed)
        names = join_names(dataset.attributes)
        self.model = AttributeClassifier(
            recipe.image_size, 3, recipe.width, recipe.n_blocks, recipe.dropout, names
        ).to(self.device)
        self.model.to(memory_format=torch.channels_last)
        _start_from_prevalence(self.model, self.labels)
        self.average = loop.exponential_average(self.model, recipe.ema)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}

    @classmethod
    def check_data(cls, recipe: ClassifierRecipe, dataset: FaceDataset, n_processes: int) -> None:
        n_train, n_validation = len(dataset.indices("train")), len(dataset.indices("validation"))
        if not n_train or not n_validation:
            raise DataError(
                f"The data has {n_train} training and {n_validation} validation images; a "
                "classifier needs both: it is calibrated on images it was not trained on."
            )
        if recipe.batch_size // n_processes < 2:
            raise DataError(
                f"--batch-size {recipe.batch_size} with {n_processes} process(es); expected at "
                "least 2 images for each."
            )

    @property
    def published(self) -> AttributeClassifier:
        """The averaged model."""
        return self.average.module  # type: ignore[return-value]

    def update(self) -> loop.StepValues:
        """Update the model once; returns the loss, in nats per attribute."""
        images, labels = self.next_batch()
        # Dropout draws from the global generator, so that one has to follow the step too.
        torch.manual_seed(self.draws(stream=2).initial_seed())
        self.model.train()
        with self.autocast():
            logits = self.model(images)
        loss = scores.cross_entropy(logits, labels)
        values = self.step_values({"loss": loss})
        self.descend(self.optimizer, loss, self.learning_rate())
        self.average.update_parameters(self.model)
        return values

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """This process's images (B, 3, H, W) of this step, varied and mixed, and labels (B, K)."""
        positions, draws = self.positions(), self.draws(stream=1)
        images = self.dataset.batch(self.indices[positions])
        images = distort(images, self.recipe.distortion, draws)
        images, labels = mix(images, self.labels[positions], self.recipe.mixup, draws)
        return images.to(self.device), labels.to(self.device)

    def report(self, journal: loop.Journal) -> None:
        """Log each epoch."""
        n, validation = len(self.indices), self.dataset.indices("validation")
        if journal.is_due(n):
            logits = scores.logits_of(self.published, self.dataset, validation)
            found = scores.loss_and_auroc(logits, self.dataset.labels[validation])
            rounded = {f"validation_{name}": round(value, 5) for name, value in found.items()}
            journal.log(epoch=self.images_seen // n, **rounded)

    def finish(self, journal: loop.Journal) -> dict[str, Any]:
        """Calibrate the model on the validation images, judge it on the test images, write both."""
        dataset, name = self.dataset, self.arguments.recipe
        folder = self.arguments.export or journal.run.folder / MODEL_FOLDER
        model = self.published.eval()
        model.temperature.fill_(1.0)
        validation = dataset.indices("validation")
        logits, labels = scores.logits_of(model, dataset, validation), dataset.labels[validation]
        temperature = scores.fit_temperature(logits, torch.from_numpy(labels))
        model.temperature.fill_(temperature)
        test = scores.test_scores(model, dataset)
        results = {
            "name": name,
            "attributes": list(dataset.attributes),
            **self.results(model),
            "temperature": temperature,
            "validation": {
                "n_images": len(validation),
                "loss_uncalibrated": scores.loss_and_auroc(logits, labels)["loss"],
                **scores.loss_and_auroc(logits / temperature, labels),
            },
            "test": test,
        }
        model.save_pretrained(folder)
        Run(folder).save_results(results)
        export = f"model_cards/{name}"
        command = self.arguments.command("training/train_classifier.py", RECIPES, export=export)
        card = CardInput(
            repo=export,
            model=model,
            results=results,
            dataset=dataset.name,
            about=PURPOSES.get(name, ""),
            commands=[command],
        )
        write_text(folder / CARD_NAME, render_card(card))
        print(f"{folder}: temperature {temperature:.3f}; test {json.dumps(test and test['mean'])}")
        return results


def mix(
    images: Tensor, labels: Tensor, largest_share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each example, image (B, C, H, W) and labels (B, K) in [0, 1], with the next one (mixup;
    Zhang et al. 2018, arXiv:1710.09412, eq. 1).

    Few photographs are soon known by heart; mixtures of them are not. The other's share is drawn
    uniformly up to `largest_share`, instead of from their Beta distribution.
    """
    share = largest_share * torch.rand(len(images), 1, generator=generator)  # (B, 1)
    mixed_labels = torch.lerp(labels, labels.roll(1, 0), share)
    return torch.lerp(images, images.roll(1, 0), share[:, :, None, None]), mixed_labels


@torch.no_grad()
def _start_from_prevalence(model: AttributeClassifier, labels: Tensor) -> None:
    """Let the first prediction be each attribute's prevalence (Lin et al. 2017, 1708.02002, 4.1).

    Otherwise many steps go by until the biases of rare attributes have come down.
    """
    prevalence = (labels.sum(dim=0) + 1) / (len(labels) + 2)  # finite where none or all show it
    model.head.bias.copy_(prevalence.logit())
    model.head.weight.zero_()


def train(arguments: Arguments) -> dict[str, Any] | None:
    """Train, or go on training, to the recipe's last epoch; then calibrate, test and export."""
    return loop.train(arguments, Trainer)


if __name__ == "__main__":
    run_training(Arguments, RECIPES, train)
