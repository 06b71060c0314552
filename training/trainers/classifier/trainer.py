"""One step of training a classifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import accelerate
import torch
import tyro
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.inversion.optimiser import autocast
from hublatent.perception.classifier import AttributeClassifier, join_names
from training.trainers import loop
from training.trainers.classifier.distort import Distortion, distort
from training.trainers.classifier.scores import cross_entropy
from training.trainers.commands import Ranges, Recipe


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


class Trainer(loop.Trainer):
    """A classifier, its average and its optimiser."""

    def __init__(
        self,
        recipe: ClassifierRecipe,
        dataset: FaceDataset,
        accelerator: accelerate.Accelerator,
        precision: str = "auto",
        state: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(recipe, dataset, accelerator)
        self.labels = torch.from_numpy(dataset.labels[self.indices]).float()
        torch.manual_seed(recipe.seed)
        attributes = join_names(dataset.attributes)
        self.model = AttributeClassifier(
            recipe.image_size, 3, recipe.width, recipe.n_blocks, recipe.dropout, attributes
        ).to(self.device)
        self.model.to(memory_format=torch.channels_last)
        _start_from_prevalence(self.model, self.labels)
        self.precision = self.fastest(loop.precisions(precision, state), self._trial)
        self.average = loop.exponential_average(self.model, recipe.ema)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        if state is not None:
            self.load_state(state)

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
        with autocast(self.precision, self.device.type):
            logits = self.model(images)
        loss = cross_entropy(logits, labels)
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

    def _trial(self, precision: str) -> None:
        """A forward and a backward pass, whose gradients and statistics are dropped."""
        images, labels = self.next_batch()
        statistics = {name: value.clone() for name, value in self.model.named_buffers()}
        with autocast(precision, self.device.type):
            cross_entropy(self.model(images), labels).backward()
        self.model.zero_grad(set_to_none=True)
        self.model.load_state_dict(statistics, strict=False)


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
