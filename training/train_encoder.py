"""Train an encoder for a StyleGAN2:

python training/train_encoder.py --recipe encoder-celeba --model FOLDER --data DATA --out runs/NAME

The generator stays as it is; its folder gets the encoder at the end. The same command resumes a run
that was killed. Several devices: accelerate launch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.evaluation.rate import rate_and_distortion
from hublatent.images import save_png
from hublatent.inversion.optimiser import REFINING_STEPS
from hublatent.inversion.projection import project
from hublatent.models import StyleGAN2
from hublatent.perception.features import ImageFeatures
from hublatent.storage import only_writer
from training.trainers import loop
from training.trainers.commands import Ranges, Recipe, run_training
from training.trainers.stylegan2.adversarial import draw_latents

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hublatent.stats import Ints

N_DRAWN = 24
N_REFINED = 16  # test images that projection comes closer to, for the card
DRAWN_COLUMNS = 8


@dataclass(frozen=True)
class EncoderRecipe(Recipe):
    """How an encoder is trained; lengths in images seen."""

    width: int = 40  # channels of the encoder's first stage
    # length of the training; half of them are photographs, half the generator's samples
    images: int = 150_000
    batch_size: int = 32  # images per step, over all processes
    learning_rate: float = 0.001  # of Adam; it falls to 0 as a cosine
    warm_up: float = 0.0  # share of the steps over which it rises first
    style_mixing: float = 0.5  # share of the samples with two styles
    # of the distance to a sample's own code, in units of the codes' variance
    latent_weight: float = 0.1
    # of the variance over the layers of a photograph's codes: it keeps them near W, where edits
    # work (Tov et al. 2021, arXiv:2102.02766, section 4.2)
    layer_weight: float = 0.02
    pixel_weight: float = 5.0  # of the squared error of the pixels, in [-1, 1]
    feature_size: int = 64  # height at which ImageFeatures sees the images
    image_size: int = 64  # of the generator, whatever is given
    seed: int = 0  # everything random follows from it

    ranges: ClassVar[Ranges] = {
        "at least 1": ("width", "images"),
        "at least 2": ("batch_size",),
        "at least 32": ("feature_size",),
        "a number above 0": ("learning_rate",),
        "0 or more": ("style_mixing", "latent_weight", "layer_weight", "pixel_weight", "seed"),
        "from 0 to below 1": ("warm_up",),
    }


RECIPES = {"encoder-celeba": EncoderRecipe()}


@dataclass(frozen=True, kw_only=True)
class Arguments(loop.TrainingArguments):
    """Train an encoder for a StyleGAN2; the same command resumes."""

    settings: Annotated[EncoderRecipe, tyro.conf.arg(name="")]  # the recipe's values
    model: Path  # folder of the generator, into which the encoder is written at the end
    # folder of the ImageFeatures that compare images
    image_features: Path = Path("model_cards/image-features")
    log_every: int = 6_400  # images between two log lines, each with a picture


class Trainer(loop.Trainer):
    """The encoder of a generator, its optimiser, and the frozen networks that judge it.

    `features` compare images and have seen no labels; the rest is as in the other trainers.
    """

    def __init__(
        self,
        arguments: Arguments,
        dataset: FaceDataset,
        accelerator: Accelerator,
        model: StyleGAN2,
        features: ImageFeatures,
    ) -> None:
        super().__init__(arguments, dataset, accelerator)
        assert model.encoder is not None, "the caller has added one"
        self.model = model.to(self.device).requires_grad_(False)
        self.encoder = model.encoder.train().requires_grad_(True)
        self.features = features.to(self.device)
        self.optimizer = torch.optim.Adam(self.encoder.parameters(), lr=self.recipe.learning_rate)
        self.parts = {"encoder": self.encoder, "optimizer": self.optimizer}

    @classmethod
    def check_data(cls, recipe: EncoderRecipe, dataset: FaceDataset, n_processes: int) -> None:
        super().check_data(recipe, dataset, n_processes)
        if recipe.batch_size < 2 * n_processes:
            raise DataError(f"--batch-size {recipe.batch_size} gives a process fewer than 2.")

    @property
    def n_images(self) -> int:
        return int(self.recipe.images)

    def update(self) -> loop.StepValues:
        """Update the encoder once; returns its losses."""
        recipe = self.recipe
        losses = self._losses()
        values = self.step_values(losses)
        loss = (
            recipe.pixel_weight * losses["pixels"]
            + losses["features"]
            + recipe.latent_weight * losses["latents"]
            + recipe.layer_weight * losses["layers"]
        )
        self.descend(self.optimizer, loss, self.learning_rate())
        return values

    def _losses(self) -> Mapping[str, Tensor]:
        recipe, model, draws = self.recipe, self.model, self.draws()
        positions = self.positions()
        photographs = self.images_at(positions[: len(positions) // 2], flip=True)
        n_real, n_drawn = len(photographs), len(positions) - len(photographs)
        with self.autocast():
            with torch.no_grad():
                known = draw_latents(model, n_drawn, recipe.style_mixing, draws)  # (N, L, D)
                images = torch.cat([photographs, model.decode(known)])  # (B, C, H, W)
            latents = model.encode(images)  # (B, L, D)
            drawn = model.synthesize(latents)  # (B, C, H, W)
            features = self._perceptual_distance(drawn, images)
        variance = model.latent_spread().square()
        return {
            "pixels": F.mse_loss(drawn, images),
            "features": features,
            "latents": F.mse_loss(latents[n_real:], known) / variance,
            "layers": latents[:n_real].var(dim=1).mean() / variance,
        }

    def _perceptual_distance(self, a: Tensor, b: Tensor) -> Tensor:
        """The mean squared distance of the features, summed over the four resolutions."""
        size = self.recipe.feature_size
        with torch.no_grad():
            wanted = self.features.feature_maps(b, size)
        pairs = zip(self.features.feature_maps(a, size), wanted, strict=True)
        distances = [(x - y).square().sum(dim=1).mean() for x, y in pairs]
        return torch.stack(distances).sum()

    @torch.no_grad()
    def report(self, journal: loop.Journal) -> None:
        """Log, and draw validation images, each with its reconstruction."""
        if not journal.is_due(self.arguments.log_every):
            return
        journal.log()
        indices = self.dataset.indices("validation")[:N_DRAWN]
        images = self.dataset.batch(indices).to(self.device)
        with loop.evaluating(self.encoder):
            drawn = self.model.decode(self.model.encode(images))
        pairs = torch.stack([images, drawn], dim=1).flatten(0, 1)
        path = journal.run.folder / f"pairs-{self.images_seen:08d}.png"
        save_png(loop.contact_sheet(pairs, DRAWN_COLUMNS), path)

    def finish(self, journal: loop.Journal) -> dict[str, Any]:
        """Write the generator with its encoder; returns the errors on test images."""
        model, test = self.model.eval(), self.dataset.indices("test")
        with only_writer(self.arguments.model):
            model.save_pretrained(self.arguments.model)
        results = {
            "command": self.arguments.command("training/train_encoder.py", RECIPES, **self.choice),
            "generator": model.fingerprint(),
            **self.results(self.encoder),
        }
        if len(test):
            results["test"] = self._errors(test)
        # Not into the log: a run that is killed right here comes by once more.
        journal.run.save_results(results)
        print(f"{self.arguments.model}: {results.get('test', 'no test images')}")
        return results

    def _errors(self, test: Ints) -> dict[str, float | int]:
        """Mean squared errors, pixels in [0, 1]: of encoded images, and of some when refined."""
        some = self.dataset.batch(test[:N_REFINED]).to(self.device)
        refined = project(self.model, some, n_steps=REFINING_STEPS)
        return {
            "mse": rate_and_distortion(self.model, self.dataset, test, self.recipe.seed)["mse"],
            "n_images": len(test),
            "refined_mse": float(refined.errors.mean()),
            "refining_steps": REFINING_STEPS,
            "n_refined": len(some),
        }


def train(arguments: Arguments) -> dict[str, Any] | None:
    """Train, or go on training, and write the encoder into the generator's folder."""
    model = StyleGAN2.from_pretrained(arguments.model)
    features = ImageFeatures.from_pretrained(arguments.image_features)
    recipe = replace(arguments.settings, image_size=model.image_size)
    recipe.check()
    torch.manual_seed(recipe.seed)
    model.add_encoder(recipe.width, model.fingerprint())
    arguments = replace(arguments, settings=recipe)
    run_settings = {"generator": model.fingerprint()}
    return loop.train(arguments, Trainer, run_settings, model=model, features=features)


if __name__ == "__main__":
    run_training(Arguments, RECIPES, train)
