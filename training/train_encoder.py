"""Train an encoder for a StyleGAN2:

python training/train_encoder.py --recipe encoder-celeba --model FOLDER --data DATA --out runs/NAME

The generator stays as it is; its folder gets the encoder at the end. The same command resumes a run
that was killed. Several devices: accelerate launch.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import tyro

from hublatent.images import save_png
from hublatent.models import StyleGAN2
from hublatent.perception.features import ImageFeatures
from hublatent.storage import only_writer
from training.trainers import loop
from training.trainers.commands import run_training
from training.trainers.stylegan2.encoder import EncoderRecipe, EncoderTrainer

RECIPES = {"encoder-celeba": EncoderRecipe()}
N_DRAWN = 24
DRAWN_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class Arguments(loop.TrainingArguments):
    """Train an encoder for a StyleGAN2; the same command resumes."""

    settings: Annotated[EncoderRecipe, tyro.conf.arg(name="")]  # the recipe's values
    model: Path  # folder of the generator, into which the encoder is written at the end
    # folder of the ImageFeatures that compare images
    image_features: Path = Path("model_cards/image-features")
    log_every: int = 6_400  # images between two log lines, each with a picture


class Reporter(loop.Reporter):
    """Logs and draws now and then; at the end the generator's folder gets the encoder."""

    trainer: EncoderTrainer

    def report(self) -> None:
        if self.is_due(self.arguments.log_every):
            self.log()
            self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        """Validation images, each with its reconstruction."""
        trainer, model = self.trainer, self.trainer.model
        trainer.encoder.eval()
        indices = trainer.dataset.indices("validation")[:N_DRAWN]
        images = trainer.dataset.batch(indices).to(trainer.device)
        pairs = torch.stack([images, model.decode(model.encode(images))], dim=1).flatten(0, 1)
        trainer.encoder.train()
        picture = loop.contact_sheet(pairs, DRAWN_COLUMNS)
        save_png(picture, self.run.folder / f"pairs-{trainer.images_seen:08d}.png")

    def finish(self) -> dict[str, Any]:
        """Write the generator with its encoder; returns the error on validation images."""
        model, dataset = self.trainer.model.eval(), self.trainer.dataset
        with only_writer(self.arguments.model):
            model.save_pretrained(self.arguments.model)
        results: dict[str, Any] = {"images_seen": self.trainer.images_seen}
        if len(validation := dataset.indices("validation")):
            results["validation_mse"] = loop.reconstruction_error(model, dataset, validation)
        # Not into the log: a run that is killed right here comes by once more.
        self.run.save_results(results)
        print(f"{self.arguments.model}: {results}")
        return results


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
    return loop.train(
        arguments, EncoderTrainer, Reporter, run_settings, model=model, features=features
    )


if __name__ == "__main__":
    run_training(Arguments, RECIPES, train)
