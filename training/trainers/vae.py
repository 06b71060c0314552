"""Training a VAE or an autoencoder: its step, and what is measured and shown of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import accelerate
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.discovery import LabelledLatents, encode
from hublatent.discovery.cross_validation import cross_validate
from hublatent.errors import DataError
from hublatent.evaluation.rate import rate_and_distortion
from hublatent.inversion.optimiser import autocast
from hublatent.models.lsavae import LSAVAE
from hublatent.models.vae import VAE, ConvolutionalModel
from hublatent.stats import Estimate
from training.objectives import OBJECTIVES, Batch
from training.recipes import VAERecipe
from training.trainers import loop

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
SECOND_ORDER = 1  # of the images that an objective's own network sees
N_COLUMNS = 8
N_TRAVERSED = 5


class Trainer(loop.Trainer):
    """A model, its objective, its optimiser and its average.

    `precision` and `memory_format` "auto" keep the state's, or measure which is faster.
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
        options = [f"{p} {f}" for p in loop.precisions(precision, state) for f in formats]
        self.precision, self.memory_format = self.fastest(options, self._trial).split()
        self.model.to(memory_format=MEMORY_FORMATS[self.memory_format])
        self.optimizer = torch.optim.Adam(self.model.parameters(), recipe.learning_rate, fused=True)
        self.parts = {"model": self.model, "optimizer": self.optimizer, **self.objective.parts}
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
        """Update the model once, then the objective's own network where it has one."""
        draws = self.noise_draws(self.draws())
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
        labels = self.labels[self.on_device(positions)]
        return Batch(images, labels, draws, self.images_seen)

    def learning_rate(self) -> float:
        n_steps = self.n_steps
        if self.recipe.schedule == "constant":  # beyond the warm-up
            n_steps = min(n_steps, round(self.recipe.warm_up * self.n_total_steps))
        return loop.cosine_rate(self.recipe, n_steps, self.n_total_steps)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "memory_format": self.memory_format}

    def _trial(self, option: str) -> None:
        """A forward and a backward pass of a copy of the model."""
        precision, memory_format = option.split()
        model = copy.deepcopy(self.model).to(memory_format=MEMORY_FORMATS[memory_format])
        with autocast(precision, self.device.type):
            terms = self.objective.terms(model, self.batch(torch.Generator(self.device)))
        terms["loss"].backward(inputs=list(model.parameters()))
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def posteriors(
    model: ConvolutionalModel, dataset: FaceDataset, indices: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Encode some images of a dataset; the model's mode is left as it was.

    Returns:
        The posteriors' means (N, D), which are the latents, and their log variances (N, D); of an
        autoencoder, which has no variance, -infinity.
    """
    means, log_variances = [], []
    with loop.evaluating(model) as device:
        for images in loop.batches(dataset, indices, device):
            if isinstance(model, VAE):
                mean, log_variance = model.encode_distribution(images)  # (B, D) each
            else:
                mean = model.encode(images)  # (B, D)
                log_variance = torch.full_like(mean, -torch.inf)
            means.append(mean.cpu())
            log_variances.append(log_variance.cpu())
    return torch.cat(means), torch.cat(log_variances)


def evaluate(
    model: ConvolutionalModel, dataset: FaceDataset, indices: np.ndarray, seed: int
) -> dict[str, float | int]:
    """Judge a model on held-out images; the seed is of the latents that the decomposition draws.

    Returns:
        n_images, and what `rate_and_distortion` gives.
    """
    with loop.evaluating(model):
        return {"n_images": len(indices), **rate_and_distortion(model, dataset, indices, seed)}


def style_reading(
    model: LSAVAE, dataset: FaceDataset, attributes: Iterable[str], seed: int
) -> dict[str, dict[str, Any]]:
    """How well a linear SVM reads attributes from an LSA-VAE's style part, which should not know.

    Training and validation images are read, each by an SVM that never saw the person.

    Returns:
        attribute -> accuracy from the style part, and from its own dimension alone; 0.5 is chance.
        An attribute that is too rare is left out.
    """
    data = encode(model, dataset)
    found = {}
    for attribute in attributes:
        axis = model.attribute_axes[attribute]
        parts = {"style": slice(model.style_dim), "own_dimension": slice(axis, axis + 1)}
        try:
            found[attribute] = {
                name: asdict(_accuracy(data, part, attribute, seed)) for name, part in parts.items()
            }
        except DataError as error:
            print(f"style not read: {error}")
    return found


def _accuracy(data: LabelledLatents, part: slice, attribute: str, seed: int) -> Estimate:
    """Of a linear SVM on some dimensions of the latents."""
    assert data.mirrored is not None, "encoded with mirror images"
    some = replace(data, latents=data.latents[:, part], mirrored=data.mirrored[:, part])
    return cross_validate(some, attribute, "svm", seed=seed).scores(seed)["accuracy"]


@torch.no_grad()
def preview(model: ConvolutionalModel, images: Tensor, seed: int) -> Image.Image:
    """Draw originals, reconstructions, samples, and traversals of the most varied dimensions.

    At least 2 images (N, C, H, W) give the spread of the latents; the first 8 are shown.
    """
    shown = copy.deepcopy(model).eval()
    latents = shown.encode(images.to(shown.latent_mean.device))  # (N, D)
    shown.set_latent_statistics(latents)
    first = latents[:N_COLUMNS]
    rows = [_padded(images[:N_COLUMNS]), _padded(shown.decode(first).cpu())]
    draws = torch.Generator().manual_seed(seed)
    rows.append(shown.decode(shown.sample_latents(N_COLUMNS, generator=draws)).cpu())
    deviations = shown.latent_covariance.diagonal().sqrt()
    for dimension in deviations.argsort(descending=True)[:N_TRAVERSED]:
        z = first[:1].repeat(N_COLUMNS, 1)
        offsets = torch.linspace(-3, 3, N_COLUMNS, device=z.device) * deviations[dimension]
        z[:, dimension] = shown.latent_mean[dimension] + offsets
        rows.append(shown.decode(z).cpu())
    return loop.contact_sheet(torch.cat(rows), N_COLUMNS)


def _padded(images: Tensor) -> Tensor:
    """Fill a row with black."""
    missing = N_COLUMNS - len(images)
    return torch.cat([images, images.new_full((missing, *images.shape[1:]), -1.0)])
