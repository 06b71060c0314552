"""Train a VAE or an autoencoder: python training/train_vae.py --recipe NAME --data DATA --out OUT

The same command resumes a run that was killed. Several devices: accelerate launch.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.discovery import encode
from hublatent.discovery.cross_validation import cross_validate
from hublatent.errors import DataError
from hublatent.evaluation.rate import rate_and_distortion
from hublatent.images import save_png
from hublatent.models import LSAVAE
from hublatent.models.vae import ConvolutionalModel
from training.objectives import OBJECTIVES, Batch
from training.recipes import RECIPES, VAERecipe
from training.trainers import loop
from training.trainers.commands import run_training
from training.trainers.run import MODEL_FOLDER

if TYPE_CHECKING:
    from accelerate import Accelerator

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
SECOND_ORDER = 1  # of the images that an objective's own network sees
# Held-out images of each epoch's log line and picture; the results use all.
N_WATCHED = 256
N_COLUMNS = 8
N_TRAVERSED = 5
READ_ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")  # from an LSA-VAE's style part


@dataclass(frozen=True, kw_only=True)
class Arguments(loop.TrainingArguments):
    """Train a VAE or an autoencoder; the same command resumes."""

    settings: Annotated[VAERecipe, tyro.conf.arg(name="")]  # the recipe's values
    # auto measures which is faster; a resumed run keeps it
    memory_format: Literal["auto", "contiguous", "channels-last"] = "auto"


class Trainer(loop.Trainer):
    """A model, its objective, its optimiser and its average."""

    arithmetic: ClassVar[dict[str, tuple[str, ...]]] = {
        **loop.Trainer.arithmetic, "memory_format": tuple(MEMORY_FORMATS),
    }  # fmt: skip
    memory_format = "contiguous"

    def __init__(
        self, arguments: Arguments, dataset: FaceDataset, accelerator: Accelerator
    ) -> None:
        super().__init__(arguments, dataset, accelerator)
        recipe: VAERecipe = self.recipe
        self.labels = torch.from_numpy(dataset.labels[self.indices]).float().to(self.device)
        # A stopwatch could choose other sums in a resumed run: one seed, one result per device.
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        torch.manual_seed(recipe.seed)
        self.model: Any = recipe.build(dataset.attributes).to(self.device)
        self.objective = OBJECTIVES[recipe.objective](
            recipe, len(self.indices), self.model.latent_dim, self.device
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), recipe.learning_rate, fused=True)
        self.parts = {"model": self.model, "optimizer": self.optimizer, **self.objective.parts}
        self.average = loop.exponential_average(self.model, recipe.ema) if recipe.ema else None
        if self.average is not None:
            self.parts["average"] = self.average

    @classmethod
    def check_data(cls, recipe: VAERecipe, dataset: FaceDataset, n_processes: int) -> None:
        n = len(dataset.indices("train"))
        if recipe.batch_size > n:
            raise DataError(
                f"--batch-size {recipe.batch_size} is more than the {n} training images; "
                "give a smaller one."
            )

    def use(self, **choice: str) -> None:
        super().use(**choice)
        for network in (self.model, self.average):
            if network is not None:
                network.to(memory_format=MEMORY_FORMATS[self.memory_format])

    @property
    def published(self) -> ConvolutionalModel:
        """The model to publish: the averaged weights where the recipe averages them."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def update(self) -> loop.StepValues:
        """Update the model once, then the objective's own network where it has one."""
        draws = self.noise_draws(self.draws())
        self.model.train()
        with self.autocast():
            terms = self.objective.terms(self.model, self.batch(draws))
        values = dict(self.step_values(terms))
        self.descend(self.optimizer, terms["loss"], self.learning_rate())
        if self.objective.optimizer is not None:
            with self.autocast():
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

    @cached_property
    def watched(self) -> np.ndarray:
        """The positions of the images that each epoch's line and picture are about."""
        held_out = self.dataset.indices("validation")
        watched = held_out if len(held_out) > 1 else self.indices
        spaced = np.linspace(0, len(watched) - 1, min(len(watched), N_WATCHED)).astype(int)
        return watched[spaced]

    def report(self, journal: loop.Journal) -> None:
        n, seed = len(self.indices), self.recipe.seed
        if not journal.is_due(n):
            return
        model, epoch = self.published, self.images_seen // n
        with loop.evaluating(model):
            found = rate_and_distortion(model, self.dataset, self.watched, seed)
        watched = {f"watched_{name}": found[name] for name in ("mse", "kl") if name in found}
        journal.log(epoch=epoch, **watched, learning_rate=self.learning_rate())
        picture = preview(model, self.dataset.batch(self.watched), seed)
        save_png(picture, journal.run.folder / f"epoch-{epoch:04d}.png")

    @torch.no_grad()
    def finish(self, journal: loop.Journal) -> dict[str, Any]:
        """Fix the latent statistics, save the model, and judge it on the test images."""
        recipe, dataset, model = self.recipe, self.dataset, self.published.eval()
        seconds, folder = journal.progress["seconds"], journal.run.folder / MODEL_FOLDER
        known = loop.batches(dataset, dataset.indices("train", "validation"), self.device)
        model.set_latent_statistics(torch.cat([model.encode(images) for images in known]))
        model.save_pretrained(folder)
        test = dataset.indices("test")
        results = {
            "command": self.arguments.command("training/train_vae.py", RECIPES, **self.choice),
            "fingerprint": model.fingerprint(),
            **self.results(model),
            "seconds": round(seconds, 1),
            "images_per_second": round(self.images_seen / max(seconds, 1e-9), 1),
            "test": None,
        }
        if len(test):
            found = rate_and_distortion(model, dataset, test, recipe.seed)
            results["test"] = {"n_images": len(test), **found}
        if isinstance(model, LSAVAE):
            results["style"] = style_reading(model, dataset, recipe.seed)
        journal.run.save_results(results)
        print(f"{folder}: {json.dumps(results['test'])}")
        return results


def style_reading(model: LSAVAE, dataset: FaceDataset, seed: int) -> dict[str, dict[str, Any]]:
    """How well a linear SVM reads attributes from an LSA-VAE's style part, which should not know.

    Training and validation images are read, each by an SVM that never saw the person.

    Returns:
        attribute -> accuracy from the style part, and from its own dimension alone; 0.5 is chance.
        An attribute that is too rare is left out.
    """
    data = encode(model, dataset)
    assert data.mirrored is not None, "encoded with mirror images"
    found: dict[str, dict[str, Any]] = {}
    for attribute in filter(model.attribute_axes.__contains__, READ_ATTRIBUTES):
        axis = model.attribute_axes[attribute]
        parts = {"style": slice(model.style_dim), "own_dimension": slice(axis, axis + 1)}
        try:
            for name, part in parts.items():
                latents, mirrored = data.latents[:, part], data.mirrored[:, part]
                some = replace(data, latents=latents, mirrored=mirrored)
                scores = cross_validate(some, attribute, "svm", seed=seed).scores(seed)
                found.setdefault(attribute, {})[name] = asdict(scores["accuracy"])
        except DataError as error:
            print(f"style not read: {error}")
    return found


@torch.no_grad()
def preview(model: ConvolutionalModel, images: Tensor, seed: int) -> Image.Image:
    """Draw originals, reconstructions, samples, and traversals of the most varied dimensions.

    At least 2 images (N, C, H, W) give the spread of the latents; the first 8 are shown.
    """
    shown = copy.deepcopy(model).eval()
    latents = shown.encode(images.to(shown.latent_mean.device))  # (N, D)
    shown.set_latent_statistics(latents)
    first = latents[:N_COLUMNS]
    missing = (0, 0, 0, 0, 0, 0, 0, N_COLUMNS - len(first))  # filled with black
    pairs = (images[:N_COLUMNS], shown.decode(first).cpu())
    rows = [torch.nn.functional.pad(row, missing, value=-1.0) for row in pairs]
    draws = torch.Generator().manual_seed(seed)
    rows.append(shown.decode(shown.sample_latents(N_COLUMNS, generator=draws)).cpu())
    deviations = shown.latent_covariance.diagonal().sqrt()
    for dimension in deviations.argsort(descending=True)[:N_TRAVERSED]:
        z = first[:1].repeat(N_COLUMNS, 1)
        offsets = torch.linspace(-3, 3, N_COLUMNS, device=z.device) * deviations[dimension]
        z[:, dimension] = shown.latent_mean[dimension] + offsets
        rows.append(shown.decode(z).cpu())
    return loop.contact_sheet(torch.cat(rows), N_COLUMNS)


def train(arguments: Arguments) -> dict[str, Any] | None:
    """Train, or go on training, to the recipe's last epoch."""
    return loop.train(arguments, Trainer)


if __name__ == "__main__":
    run_training(Arguments, RECIPES, train)
