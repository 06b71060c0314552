"""Train StyleGAN2: python training/train_stylegan2.py --recipe NAME --data DATA --out runs/NAME

The same command resumes a run that was killed. Several devices: accelerate launch. On a processor
that other programs use too, GOMP_SPINCOUNT=2000 keeps waiting threads from burning it (on two cores
beside three other trainings: 10.5 instead of 6.1 images/s), and tcmalloc by LD_PRELOAD saves page
faults.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from hublatent.checkpoint import CONFIG_NAME, read_config
from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.hub import DISCRIMINATOR_NAME
from hublatent.images import save_png
from hublatent.models.style_generator import Noise
from hublatent.models.stylegan2 import StyleGAN2
from training.trainers import loop
from training.trainers.commands import Ranges, Recipe, run_training
from training.trainers.loop import step_generator
from training.trainers.run import Run, read_results, read_settings
from training.trainers.stylegan2 import adversarial as losses
from training.trainers.stylegan2.augment import AdaptiveProbability, augment
from training.trainers.stylegan2.discriminator import (
    Discriminator,
    load_discriminator,
    save_discriminator,
)
from training.trainers.stylegan2.kid import FeatureNetwork, KernelDistance

if TYPE_CHECKING:
    from accelerate import Accelerator

LATEST_FOLDER = "latest"
BEST_FOLDER = "best"
N_DRAWN = 48
DRAWN_COLUMNS = 8
INITIAL_STREAM = 3_000_003  # of randomness, apart from the steps' own


@dataclass(frozen=True)
class StyleGAN2Recipe(Recipe):
    """What a StyleGAN2 is and how it is trained; lengths in images seen."""

    image_size: int = 64  # height and width of the images, in pixels
    latent_dim: int = 256  # D, width of a style code
    z_dim: int = 256  # width of the mapping network's input
    mapping_layers: int = 4  # depth of the mapping network
    channel_base: int = 2048  # feature maps of height r have max(min, min(base // r, max)) channels
    channel_max: int = 256  # channels never exceed this
    channel_min: int = 48  # channels never fall below this
    batch_size: int = 32  # images per step, over all processes
    # of both networks, before the correction for lazy regularisation
    learning_rate: float = 0.0025
    # the generator's share of it. One that is trained on needs a small one (0.1) for as long as the
    # discriminator beside it is younger than itself
    generator_share: float = 1.0
    # images before the end of the training (--images) over which it falls linearly to 0; 0: it
    # stays. May be changed when a run is resumed, as may ema_half_life
    learning_rate_falls_over: int = 0
    r1_gamma: float = 1.0  # weight of R1; gamma / 2 times the squared gradient, summed over pixels
    r1_every: int = 16  # steps between two R1 steps
    path_length_weight: float = 2.0  # of the path length regularisation; 0 for none
    path_length_every: int = 8  # steps between two path length steps
    path_length_from: int = 400_000  # images seen before it starts; early on it costs variety
    style_mixing: float = 0.9  # share of latents with two styles
    ema_half_life: float = 10_000  # half-life of the averaged weights
    ema_ramp_up: float = 0.05  # early on the half-life is this share of the images seen
    ada_target: float = 0.6  # mean sign of D on real images at which the augmentation holds still
    ada_images: int = 100_000  # images over which its probability could rise from 0 to 1
    # images seen before it starts. At first r_t is above its target because no faces are drawn yet,
    # not because the images are known by heart (p rose to 0.1 within 20,000 images).
    ada_from: int = 100_000
    # images for which a discriminator learns alone where a training starts from a generator without
    # one
    discriminator_alone: int = 20_000
    flip: bool = True  # mirror half of the training images
    # give the generator noise maps. A young one that has none draws one shape for all codes, and
    # finds another only slowly.
    noise: bool = True
    # blur the discriminator's feature maps before they are halved, as StyleGAN2 does
    discriminator_blurs: bool = True
    w_noise: float = 0.0  # Gaussian noise on the W+ codes, in standard deviations of W; 0 for none
    seed: int = 0  # everything random follows from it

    ranges: ClassVar[Ranges] = {
        "at least 1": ("batch_size", "r1_every", "path_length_every", "ada_images"),
        "a number above 0": ("learning_rate", "generator_share"),
        "0 or more": ("r1_gamma", "path_length_weight", "path_length_from", "ada_from",
                      "discriminator_alone", "learning_rate_falls_over", "ema_half_life",
                      "ema_ramp_up", "w_noise", "seed"),
        "from 0 to 1": ("style_mixing",),
        "from -1 to 1": ("ada_target",),
    }  # fmt: skip
    may_change: ClassVar[tuple[str, ...]] = ("learning_rate_falls_over", "ema_half_life")

    def build(self) -> tuple[StyleGAN2, Discriminator]:
        """Both networks, freshly initialised from torch's global generator."""
        widths = {f: getattr(self, f) for f in ("channel_base", "channel_max", "channel_min")}
        names = ("latent_dim", "z_dim", "mapping_layers")
        sizes = {name: getattr(self, name) for name in names}
        generator = StyleGAN2(self.image_size, **sizes, **widths)
        discriminator = Discriminator(self.image_size, **widths, blurs=self.discriminator_blurs)
        return generator, discriminator


# On two cores 32 channels at 64 pixels take 0.8 of the time of 48. Noise stays on: without any, one
# shape served all codes after 67,000 images; without it from 80,000 on, samples at 96,000 were
# further from the faces (KID 1.08) than with it (0.74).
#
# The blur of StyleGAN2's discriminator hides most of so small an image from it: after 8,000 images
# it ranks unseen faces above the bundled generator's with an AUROC of 0.588, without the blur of
# 0.874 (a plain network: 0.885; tests/benchmarks/discriminators.py). KID after so many images:
#
#   images     with the blur   without
#    96,000    0.74            0.585
#   240,000                    0.149
#   384,000                    0.081
#   480,000    0.098           0.063
#   560,000                    0.053, r1_gamma 0.1 since 494,464
#   672,000                    0.042, at two fifths of the rate, which falls since 552,000
#   752,000                    0.060, where it is 0
#
# The generator of 480,000 images with the blur could not be trained on: eleven ways (other
# discriminators, heads on ImageFeatures, their moments, smaller rates) came to 0.090 at best and
# mostly ended worse.
RECIPES: dict[str, StyleGAN2Recipe] = {
    "stylegan2-celeba": StyleGAN2Recipe(channel_min=32, discriminator_blurs=False)
}


@dataclass(frozen=True, kw_only=True)
class Arguments(loop.TrainingArguments):
    """Train StyleGAN2; the same command resumes."""

    settings: Annotated[StyleGAN2Recipe, tyro.conf.arg(name="")]  # the recipe's values
    images: int = 1_500_000  # length of the training, in images seen; may be raised later
    # folder of another run, or of a published model, to go on from
    start_from: Path | None = None
    # what that published model has seen; the count of images goes on from there
    start_images: int = 0
    # folder of the AttributeClassifier whose features choose the best checkpoint
    kid_classifier: Path | None = None
    state_seconds: float = 300.0  # time between two states on disk, and so what a kill can cost
    log_every: int = 1_600  # images between two log lines
    grid_every: int = 16_000  # images between two sample grids and copies of the averaged model
    kid_every: int = 32_000  # images between two kernel distances
    # generated images per kernel distance, and training images of its floor
    kid_samples: int = 2_000


class Trainer(loop.Trainer):
    """Both networks, the average, the optimisers, the augmentation, and what chooses the best."""

    def __init__(
        self, arguments: Arguments, dataset: FaceDataset, accelerator: Accelerator
    ) -> None:
        super().__init__(arguments, dataset, accelerator)
        recipe: StyleGAN2Recipe = self.recipe
        self.reads_each_step = True  # ADA follows r_t
        # Not the plain seed: the first mapping layer would consist of the very numbers that anybody
        # draws as z from a generator of the same seed, and those samples would be far from typical.
        torch.manual_seed(step_generator(recipe.seed, 0, INITIAL_STREAM).initial_seed())
        generator, discriminator = recipe.build()
        self.generator = generator.to(self.device)
        self.discriminator = discriminator.to(self.device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        if not recipe.noise:  # its strengths are 0 at the start, and stay so
            for name, parameter in self.generator.named_parameters():
                parameter.requires_grad_(not name.endswith("noise_strength"))
        trained = [p for p in self.generator.parameters() if p.requires_grad]
        self.path_every = recipe.path_length_every if recipe.path_length_weight else 0
        self.g_optimizer = losses.lazy_adam(trained, recipe.learning_rate, self.path_every)
        self.d_optimizer = losses.lazy_adam(
            list(self.discriminator.parameters()), recipe.learning_rate, recipe.r1_every
        )
        self.probability = AdaptiveProbability(recipe.ada_target, recipe.ada_images)
        self.path_mean = 0.0
        self.generator_from = 0  # images seen before the generator learns
        self.parts = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average,
            "g_optimizer": self.g_optimizer,
            "d_optimizer": self.d_optimizer,
            "probability": self.probability,
        }
        self.distance: KernelDistance | None = None
        if accelerator.is_main_process:
            network = load_feature_network(arguments.kid_classifier, self.device)
            if network is not None:
                self.distance = KernelDistance(network, self, arguments.kid_samples)

    @property
    def n_images(self) -> int:
        return int(self.arguments.images)

    def state(self) -> dict[str, Any]:
        own = {"path_mean": self.path_mean, "generator_from": self.generator_from}
        return {**super().state(), **own}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.path_mean = state["path_mean"]
        self.generator_from = state["generator_from"]

    def next_batch(self) -> Tensor:
        """This process's share of the step's images, (B, C, H, W) in [-1, 1]."""
        return self.images_at(self.positions(), self.recipe.flip)

    def update(self) -> dict[str, float]:
        """Update both networks once, by losses at the same weights, from one pass of D."""
        recipe, p, draws = self.recipe, self.probability.p, self.draws()
        self._set_learning_rates()
        generator_learns = self.images_seen >= self.generator_from
        real = augment(self.next_batch(), p, draws)
        with self.autocast(), torch.set_grad_enabled(generator_learns):
            latents = losses.draw_latents(self.generator, len(real), recipe.style_mixing, draws)
            latents = losses.perturbed(latents, recipe.w_noise, draws)
            fake = self._synthesize(latents, draws)
        # Outside of autocast: colours in bfloat16 would tell generated images from real ones.
        fake = augment(fake, p, draws)
        with self.autocast():
            fake_logits = self.discriminator(fake)
            real_logits = self.discriminator(real)
        g_loss = losses.generator_loss(fake_logits)
        d_loss = losses.discriminator_loss(fake_logits, real_logits)
        terms = {"g_loss": g_loss, "d_loss": d_loss, "r_t": real_logits.sign().mean()}
        report = {**self.step_values(terms), "p": p}
        # Both gradients before any step: the losses share their passes.
        if generator_learns:
            g_loss.backward(inputs=loop.parameters_of(self.g_optimizer), retain_graph=True)
        d_loss.backward(inputs=loop.parameters_of(self.d_optimizer))
        self.apply(self.d_optimizer)
        if generator_learns:
            self.apply(self.g_optimizer)
        if self.n_steps % recipe.r1_every == 0:
            report["r1"] = self._regularise_discriminator(real)
        if self.images_seen >= recipe.ada_from:
            self.probability.update(report["r_t"], recipe.batch_size)
        if generator_learns:
            is_due = self.path_every and self.n_steps % self.path_every == 0
            if is_due and self.images_seen >= recipe.path_length_from:
                report["path_length"] = self._regularise_generator(max(len(real) // 2, 1), draws)
            keep = losses.average_keep(
                self.images_seen, recipe.batch_size, recipe.ema_half_life, recipe.ema_ramp_up
            )
            losses.update_average(self.average, self.generator, keep)
        return report

    def learning_rate(self) -> float:
        left, recipe = self.n_images - self.images_seen, self.recipe
        return recipe.learning_rate * losses.falling(left, recipe.learning_rate_falls_over)

    def _set_learning_rates(self) -> None:
        rate, share = self.learning_rate(), self.recipe.generator_share
        loop.set_rate(self.g_optimizer, rate * share * losses.lazy_ratio(self.path_every))
        loop.set_rate(self.d_optimizer, rate * losses.lazy_ratio(self.recipe.r1_every))

    def _synthesize(self, latents: Tensor, draws: torch.Generator) -> Tensor:
        noise: Noise = "random" if self.recipe.noise else "none"
        return self.generator.synthesize(latents, noise, self.noise_draws(draws))

    def _regularise_discriminator(self, real: Tensor) -> float:
        """R1 at the augmented images, since grid_sample has no second derivative."""
        real = real.detach().requires_grad_()
        with self.autocast():
            penalty = losses.r1_penalty(real, self.discriminator(real))
        loss = penalty * (self.recipe.r1_gamma / 2 * self.recipe.r1_every)
        self.descend(self.d_optimizer, loss)
        return self._mean(penalty)

    def _regularise_generator(self, n: int, draws: torch.Generator) -> float:
        """Path length (arXiv:1912.04958, section 3.2), at half the batch as in its appendix B."""
        with self.autocast():
            latents = losses.draw_latents(self.generator, n, self.recipe.style_mixing, draws)
            images = self._synthesize(latents, draws)
        noise = torch.randn(images.shape, generator=self.noise_draws(draws), device=self.device)
        lengths = losses.path_lengths(images, latents, noise)  # (n,)
        mean = self._mean(lengths.mean())
        # The running mean starts at the first value: from 0 the first steps would flatten W.
        decay = losses.PATH_LENGTH_DECAY if self.path_mean else 1.0
        self.path_mean += (mean - self.path_mean) * decay
        penalty = (lengths - self.path_mean).square().mean()
        loss = penalty * (self.recipe.path_length_weight * self.recipe.path_length_every)
        self.descend(self.g_optimizer, loss)
        return mean

    def _mean(self, value: Tensor) -> float:
        return float(self.accelerator.reduce(value.detach(), reduction="mean"))

    def begin(self) -> None:
        """Go on from another run, or from a published generator."""
        folder = self.arguments.start_from
        if folder is None:
            return
        state = Run(folder).load_state()
        if (folder / CONFIG_NAME).is_file():
            self.check_network(folder, read_config(folder))
            self.start_from(folder, self.arguments.start_images)
        elif state is not None:
            settings = read_settings(folder)
            self.check_network(folder, settings)
            self.discriminator.check_blurs(settings.get("discriminator_blurs", True), folder)
            self.load_state(state)
        else:
            raise DataError(
                f"--start-from {folder} holds no state and no model; expected the folder of a run "
                "or of a StyleGAN2."
            )

    def check_network(self, folder: Path, theirs: Mapping[str, Any]) -> None:
        """Refuse, with a DataError, a generator of other sizes than this one's."""
        different = [
            f"{name} {theirs[name]!r} (recipe: {ours!r})"
            for name, ours in self.generator.config.items()
            if not name.startswith(StyleGAN2.auxiliary) and theirs.get(name, ours) != ours
        ]
        if different:
            raise DataError(f"--start-from {folder} is another network: {', '.join(different)}.")

    def start_from(self, folder: Path, images_seen: int) -> None:
        """Go on from a published generator that has seen so many images, and from the discriminator
        that may lie beside it: a new one's gradients would ruin the generator, so it first learns
        alone.
        """
        published = StyleGAN2.from_pretrained(folder)
        published.encoder = None  # it reads the old generator's codes
        self.generator.load_state_dict(published.state_dict())
        self.average.load_state_dict(published.state_dict())
        self.n_steps = images_seen // self.recipe.batch_size
        if (folder / DISCRIMINATOR_NAME).is_file():
            load_discriminator(self.discriminator, folder / DISCRIMINATOR_NAME)
            return
        alone = self.recipe.discriminator_alone
        self.generator_from = self.images_seen + alone
        self.accelerator.print(
            f"{folder} holds no {DISCRIMINATOR_NAME}: a new discriminator learns alone for the "
            f"first {alone:,} images (--discriminator-alone)."
        )

    def report(self, journal: loop.Journal) -> None:
        """Log, draw and judge what is due."""
        arguments = self.arguments
        if journal.is_due(arguments.log_every):
            journal.log(learning_rate=self.learning_rate())
        if journal.is_due(arguments.grid_every):
            self._draw(journal.run.folder)
        if self.distance is not None and journal.is_due(arguments.kid_every):
            self._judge(journal, self.distance)

    def finish(self, journal: loop.Journal) -> dict[str, Any]:
        """Draw and save the model; results.json tells of the best one, without one of this."""
        self._draw(journal.run.folder)
        if self.distance is None:
            self._save_results(journal.run, None)
        elif found := read_results(journal.run.folder):
            # Only a run of this length has this learning rate at its best model.
            journal.run.save_results({**found, "command": self._command(self.n_images)})
        print(f"{journal.run.folder / LATEST_FOLDER}: the model after {self.images_seen:,} images")
        return {}

    def _draw(self, folder: Path) -> None:
        """Write the grid of fixed latents, and the averaged model."""
        draws = torch.Generator().manual_seed(self.recipe.seed)
        images = self.average.decode(self.average.sample_latents(N_DRAWN, generator=draws))
        picture = loop.contact_sheet(images, DRAWN_COLUMNS)
        save_png(picture, folder / f"samples-{self.images_seen:08d}.png")
        self._save_model(folder / LATEST_FOLDER)

    def _judge(self, journal: loop.Journal, distance: KernelDistance) -> None:
        """Log the kernel distance; keep the averaged model where it is the best so far."""
        seen, progress = self.images_seen, journal.progress
        figures = {"kid": distance.measure(), "kid_floor": distance.floor}
        journal.run.log(images=seen, **figures)
        tqdm.write(f"{seen:,} images: KID {figures['kid']:.5f} (floor {distance.floor:.5f})")
        # Distances of another network do not compare.
        is_first = progress.get("floor") != distance.floor
        if is_first or figures["kid"] < progress["best_kid"]:
            progress.update(best_kid=figures["kid"], floor=distance.floor)
            self._save_model(journal.run.folder / BEST_FOLDER)
            counts = {"n_generated": distance.n_samples, "n_validation": len(distance.validation)}
            self._save_results(journal.run, {**figures, **counts})
            journal.save_state()  # remembers what the best one is

    def _save_model(self, folder: Path) -> None:
        self.average.measure_latents()
        self.average.save_pretrained(folder)
        save_discriminator(self.discriminator, folder / DISCRIMINATOR_NAME)

    def _save_results(self, run: Run, validation: dict[str, float] | None) -> None:
        """Write what a card says of the averaged model, which has just been saved."""
        folder = self.arguments.start_from
        earlier = read_results(folder) if folder else {}
        commands = [*earlier.get("earlier_commands", ()), earlier["command"]] if earlier else []
        results = {
            "earlier_commands": commands,
            "command": self._command(self.images_seen),
            "fingerprint": self.average.fingerprint(),
            **self.results(self.average),
            "validation": validation,
        }
        run.save_results(results)

    def _command(self, n_images: int) -> str:
        """What trains the same again, for so many images."""
        how = {**self.choice, "images": n_images}
        return self.arguments.command("training/train_stylegan2.py", RECIPES, **how)


def load_feature_network(folder: Path | None, device: torch.device) -> FeatureNetwork | None:
    """The classifier whose features measure the kernel distance; None, and one line, without it."""
    if folder is None:
        print("No --kid-classifier: no kernel distance is measured, and no best model is kept.")
        return None
    from hublatent.perception.classifier import AttributeClassifier

    return AttributeClassifier.from_pretrained(folder).to(device)


def train(arguments: Arguments) -> None:
    """Train, or go on training, until the given number of images has been seen."""
    loop.train(arguments, Trainer)


if __name__ == "__main__":
    run_training(Arguments, RECIPES, train)
