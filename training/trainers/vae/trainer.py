"""One step of training a VAE or an autoencoder."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import accelerate
import torch

from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.inversion.precision import autocast
from hublatent.models.vae import ConvolutionalModel
from training.objectives import OBJECTIVES, Batch
from training.recipes import VAERecipe
from training.trainers import loop

MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels-last": torch.channels_last,
}
SECOND_ORDER = 1  # of the images that an objective's own network sees


class Trainer(loop.Trainer):
    """A model, its objective, its optimiser and its average.

    Args:
        recipe: what to train and how.
        dataset: the images.
        accelerator: gives the device, and averages gradients over processes.
        precision: "fp32" or "bf16"; "auto" measures which is faster.
        memory_format: "contiguous" or "channels-last"; "auto" measures which is faster.
        state: a saved state to go on from; its precision and memory format are kept unless others
            are asked for.
    """

    def __init__(
        self,
        recipe: VAERecipe,
        dataset: FaceDataset,
        accelerator: accelerate.Accelerator,
        precision: str = "auto",
        memory_format: str = "auto",
        state: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(recipe, dataset, accelerator)
        self.labels = torch.from_numpy(dataset.labels[self.indices]).float().to(self.device)
        # A stopwatch could choose other sums in a resumed run: one seed, one result per device.
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        torch.manual_seed(recipe.seed)
        self.model: Any = recipe.build(dataset.attributes).to(self.device)
        self.objective = OBJECTIVES[recipe.objective](
            recipe, len(self.indices), self.model.latent_dim, self.device
        )
        if memory_format == "auto" and state is not None:
            memory_format = state["memory_format"]
        formats = MEMORY_FORMATS if memory_format == "auto" else (memory_format,)
        options = [(p, f) for p in loop.precisions(precision, state) for f in formats]
        trials = {
            option: partial(self._trial, copy.deepcopy(self.model), *option) for option in options
        }
        self.precision, self.memory_format = self.fastest(trials)
        self.model.to(memory_format=MEMORY_FORMATS[self.memory_format])
        self.optimizer = torch.optim.Adam(self.model.parameters(), recipe.learning_rate, fused=True)
        self.parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            **self.objective.parts,
        }
        self.average = loop.exponential_average(self.model, recipe.ema) if recipe.ema else None
        if self.average is not None:
            self.parts["average"] = self.average
        if state is not None:
            self.load_state(state)

    @classmethod
    def check_data(cls, recipe: VAERecipe, dataset: FaceDataset, n_processes: int) -> None:
        n = len(dataset.indices("train"))
        if recipe.batch_size > n:
            raise DataError(
                f"--batch-size {recipe.batch_size} is more than the {n} training images; "
                "give a smaller one."
            )

    @property
    def published(self) -> ConvolutionalModel:
        """The model to publish: the averaged weights where the recipe averages them."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def update(self) -> loop.StepValues:
        """Update the model once, then the objective's own network where it has one.

        Returns:
            The objective's terms, averaged over the processes.
        """
        draws = self.device_draws()
        self.model.train()
        with autocast(self.precision, self.device.type):
            terms = self.objective.terms(self.model, self.batch(draws))
        values = dict(self.step_values(terms))
        self.descend(self.optimizer, terms["loss"], self.learning_rate())
        if self.objective.optimizer is not None:
            with autocast(self.precision, self.device.type):
                own = self.objective.own_terms(self.model, self.batch(draws, SECOND_ORDER))
            values |= self.step_values(own)
            self.descend(self.objective.optimizer, own["own_loss"])
        if self.average is not None:
            self.average.update_parameters(self.model)
        return values

    def batch(self, draws: torch.Generator, order: int = 0) -> Batch:
        """This process's images of the step; another order gives an independent second batch."""
        positions = self.positions(order)
        images = self.images_at(positions, self.recipe.flip)
        return Batch(images, self.labels[self.on_device(positions)], draws, self.images_seen)

    def learning_rate(self) -> float:
        n_steps = self.n_steps
        if self.recipe.schedule == "constant":  # beyond the warm-up
            n_steps = min(n_steps, round(self.recipe.warm_up * self.n_total_steps))
        return loop.cosine_rate(self.recipe, n_steps, self.n_total_steps)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "memory_format": self.memory_format}

    def _trial(self, model: ConvolutionalModel, precision: str, memory_format: str) -> None:
        """A forward and a backward pass of a copy of the model."""
        model.to(memory_format=MEMORY_FORMATS[memory_format])
        with autocast(precision, self.device.type):
            terms = self.objective.terms(model, self.batch(torch.Generator(self.device)))
        terms["loss"].backward(inputs=list(model.parameters()))
        model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
