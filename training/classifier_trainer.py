"""One step of training a classifier, and the state between two steps.

Everything a step does follows from the recipe, the step's number and the process's index, so a run
resumed from a saved state ends with the weights of an unbroken one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any

import accelerate
import numpy as np
import torch
import tyro
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hublatent.classifier import AttributeClassifier, join_names
from hublatent.data import FaceDataset
from hublatent.errors import DataError, HublatentError
from hublatent.inversion.precision import autocast
from training.classifier_scores import cross_entropy
from training.distort import Distortion, distort
from training.run import choose_precision, step_generator

ORDER_STREAM = 1_000_003  # apart from the processes' streams, which count from 0


@dataclass(frozen=True)
class ClassifierRecipe:
    """What a classifier is and how it is trained.

    Attributes:
        image_size: height and width that the network sees, in pixels.
        width: channels of the first stage.
        n_blocks: residual blocks per stage.
        dropout: share of the features dropped before the logits.
        distortion: how strongly the photographs are varied.
        mixup: largest share of another photograph, and of its labels, in each.
        epochs: passes over the training images.
        batch_size: images per step, over all processes.
        learning_rate: of AdamW, the highest.
        weight_decay: of AdamW.
        warm_up: share of the steps over which the rate rises from 0; then it falls as a cosine.
        ema: decay per step of the averaged weights, which are the ones that are published.
        seed: everything random follows from it.
    """

    image_size: int = 64
    width: int = 36
    n_blocks: int = 1
    dropout: float = 0.2
    distortion: Annotated[Distortion, tyro.conf.arg(name="")] = field(default_factory=Distortion)
    mixup: float = 0.2
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warm_up: float = 0.1
    ema: float = 0.995
    seed: int = 0

    def check(self) -> None:
        """Refuse values that cannot be trained with.

        Raises:
            DataError: says which value, and what would do.
        """
        checks = (
            *((n, getattr(self, n) >= 1, "at least 1") for n in ("epochs", "batch_size")),
            ("learning_rate", self.learning_rate > 0, "a number above 0"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            *((n, 0 <= getattr(self, n) < 1, "from 0 to below 1") for n in ("warm_up", "ema")),
            ("mixup", 0 <= self.mixup <= 1, "from 0 to 1"),
        )
        for name, fits, expected in checks:
            if not fits:
                option = name.replace("_", "-")
                raise DataError(f"--{option} {getattr(self, name)}; expected {expected}.")


class Trainer:
    """A classifier, its average and its optimiser: all that a state holds.

    Args:
        recipe: what to train and how.
        dataset: the photographs and their labels.
        accelerator: gives the device, and averages gradients over processes.
        precision: "fp32" or "bf16"; "auto" measures which is faster.
        state: a saved state to go on from; its precision is kept unless another is asked for.
    """

    def __init__(
        self,
        recipe: ClassifierRecipe,
        dataset: FaceDataset,
        accelerator: accelerate.Accelerator,
        precision: str = "auto",
        state: dict[str, Any] | None = None,
    ) -> None:
        self.recipe = recipe
        self.dataset = dataset
        self.accelerator = accelerator
        self.indices = dataset.indices("train")
        self.labels = torch.from_numpy(dataset.labels[self.indices]).float()
        self.n_total_steps = math.ceil(recipe.epochs * len(self.indices) / recipe.batch_size)
        self.n_steps = 0
        torch.manual_seed(recipe.seed)
        attributes = join_names(dataset.attributes)
        self.model = AttributeClassifier(
            recipe.image_size, 3, recipe.width, recipe.n_blocks, recipe.dropout, attributes
        ).to(accelerator.device)
        self.model.to(memory_format=torch.channels_last)
        _start_from_prevalence(self.model, self.labels)
        self.average = AveragedModel(
            self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        if precision == "auto" and state is not None:
            precision = state["precision"]
        # Every process has to do the same; the first one's stopwatch counts.
        chosen = choose_precision(precision, self._trial)
        self.precision = broadcast_object_list([chosen])[0]
        if state is not None:
            self._load_state(state)
        else:
            self.average.module.load_state_dict(self.model.state_dict())
        self.module = accelerator.prepare(self.model)

    @property
    def images_seen(self) -> int:
        """Images seen so far, over all processes."""
        return self.n_steps * self.recipe.batch_size

    @property
    def published(self) -> AttributeClassifier:
        """The averaged model."""
        return self.average.module  # type: ignore[return-value]

    def step(self) -> float:
        """Update the model once.

        Returns:
            The cross-entropy, in nats per attribute, averaged over the processes.

        Raises:
            HublatentError: the loss is no longer a number; the last saved state is whole.
        """
        images, labels = self.next_batch()
        # Dropout draws from the global generator, so that one has to follow the step too.
        torch.manual_seed(self._draws(stream=2).initial_seed())
        self.module.train()
        with autocast(self.precision, images.device.type):
            logits = self.module(images)
        loss = cross_entropy(logits, labels)
        self.accelerator.backward(loss)
        value = float(self.accelerator.reduce(loss.detach(), reduction="mean"))
        if not math.isfinite(value):
            raise HublatentError(
                f"The training diverged after {self.images_seen:,} images (loss {value}). "
                "Its last state is whole: try a lower --learning-rate with another --out."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
        self.n_steps += 1
        return value

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """This process's images (B, 3, H, W) of this step, varied and mixed, and labels (B, K)."""
        n, device = len(self.indices), self.accelerator.device
        positions = np.arange(self.recipe.batch_size) + self.images_seen
        mine = positions[self.accelerator.process_index :: self.accelerator.num_processes]
        picks = [_epoch_order(n, self.recipe.seed, int(p) // n)[p % n] for p in mine]
        images = self.dataset.batch(self.indices[picks])
        draws = self._draws(stream=1)
        images = distort(images, self.recipe.distortion, draws)
        images, labels = mix(images, self.labels[picks], self.recipe.mixup, draws)
        return images.to(device), labels.to(device)

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine down to 0 (Loshchilov & Hutter, arXiv:1608.03983)."""
        n_warm = self.recipe.warm_up * self.n_total_steps
        if self.n_steps < n_warm:
            return self.recipe.learning_rate * (self.n_steps + 1) / (n_warm + 1)
        progress = (self.n_steps - n_warm) / max(1.0, self.n_total_steps - n_warm)
        return self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "n_steps": self.n_steps,
            "precision": self.precision,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.n_steps = state["n_steps"]

    def _draws(self, stream: int) -> torch.Generator:
        process, n = self.accelerator.process_index, self.accelerator.num_processes
        return step_generator(self.recipe.seed, self.n_steps, stream * n + process)

    def _trial(self, precision: str) -> None:
        """A forward and a backward pass, whose gradients are dropped."""
        images, labels = self.next_batch()
        statistics = {name: value.clone() for name, value in self.model.named_buffers()}
        with autocast(precision, images.device.type):
            cross_entropy(self.model(images), labels).backward()
        self.model.zero_grad(set_to_none=True)
        self.model.load_state_dict(statistics, strict=False)


def mix(
    images: Tensor, labels: Tensor, largest_share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each example with the next one (mixup; Zhang et al. 2018, arXiv:1710.09412, eq. 1).

    Few photographs are soon known by heart; mixtures of them are not. The share is drawn uniformly
    up to `largest_share`, instead of from their Beta distribution.

    Args:
        images: (B, C, H, W).
        labels: (B, K), in [0, 1].
        largest_share: of the other example; 0 leaves everything as it is.
        generator: CPU generator of the draws.

    Returns:
        Images (B, C, H, W) and labels (B, K).
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


@lru_cache(maxsize=2)
def _epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    return torch.randperm(n, generator=step_generator(seed, epoch, ORDER_STREAM)).numpy()
