"""Train StyleGAN2: python training/train_stylegan2.py --recipe stylegan2-celeba --data D --out runs/X

The same command resumes a run that was killed. Several devices: accelerate launch.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import accelerate
import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.images import save_png, to_pil
from hublatent.models.stylegan2 import StyleGAN2
from training.adversarial import (
    PATH_LENGTH_DECAY,
    average_keep,
    discriminator_loss,
    draw_latents,
    generator_loss,
    lazy_adam,
    path_lengths,
    perturbed,
    r1_penalty,
    update_average,
)
from training.augment import AdaptiveProbability, augment
from training.data import FaceDataset, load_dataset
from training.discriminator import Discriminator
from training.kid import FeatureNetwork, features_of, squared_mmd
from training.run import (
    Run,
    autocast,
    choose_precision,
    exit_on_user_error,
    parameter_count,
    step_generator,
)

ORDER_STREAM = 1_000_003  # apart from the processes' streams, which count from 0


@dataclass(frozen=True)
class StyleGAN2Recipe:
    """What a StyleGAN2 is and how it is trained; lengths in images seen."""

    image_size: int = 64
    latent_dim: int = 256
    z_dim: int = 256
    mapping_layers: int = 4
    channel_base: int = 2048  # channels at height r: max(min, min(base // r, max))
    channel_max: int = 256
    channel_min: int = 48
    batch_size: int = 32  # over all processes
    learning_rate: float = 0.0025  # of both networks, before the lazy correction
    r1_gamma: float = 1.0  # weight of the squared gradient, summed over pixels
    r1_every: int = 16  # steps
    path_length_weight: float = 2.0  # 0 for none
    path_length_every: int = 8  # steps
    path_length_from: int = 400_000  # earlier it costs variety
    style_mixing: float = 0.9  # share of latents with two styles
    ema_half_life: float = 10_000
    ema_ramp_up: float = 0.05
    ada_target: float = 0.6  # mean sign of D on real images
    ada_images: int = 100_000  # over which the probability could rise from 0 to 1
    flip: bool = True  # mirror half of the real images
    w_noise: float = 0.0  # Gaussian noise on W+, in standard deviations of W
    seed: int = 0
    precision: str = "auto"  # auto, fp32 or bf16


RECIPES: dict[str, StyleGAN2Recipe] = {
    "stylegan2-celeba": StyleGAN2Recipe(),
    # A minute's look whether everything works; the faces are blobs.
    "stylegan2-tiny": StyleGAN2Recipe(
        image_size=32, latent_dim=64, z_dim=64, channel_base=512, channel_max=64, channel_min=16
    ),
}


@dataclass(frozen=True)
class Arguments:
    """Train StyleGAN2; the same command resumes.

    Attributes:
        data: folder or Hub dataset of faces.
        out: the run's folder.
        recipe: where the values that are not given come from.
        settings: the recipe's values.
        images: length of the training, in images seen; may be raised later.
        start_from: folder of another run whose state this one goes on from, to fine-tune it.
        kid_classifier: folder of the AttributeClassifier whose features choose the best checkpoint.
        state_minutes: longest time between two states on disk.
        report_every: images between two log lines.
        grid_every: images between two sample grids and copies of the averaged model.
        kid_every: images between two kernel distances.
        kid_samples: generated images per kernel distance, and training images of its floor.
    """

    data: str
    out: Path
    settings: Annotated[StyleGAN2Recipe, tyro.conf.arg(name="")]
    recipe: str = "stylegan2-celeba"
    images: int = 1_500_000
    start_from: Path | None = None
    kid_classifier: Path | None = None
    state_minutes: float = 5.0
    report_every: int = 1_600
    grid_every: int = 16_000
    kid_every: int = 32_000
    kid_samples: int = 2_000


class Trainer:
    """Both networks, the average, the optimisers and the augmentation: all that a state holds.

    Args:
        recipe: what to train and how.
        accelerator: gives the device, and averages over processes.
    """

    def __init__(self, recipe: StyleGAN2Recipe, accelerator: accelerate.Accelerator) -> None:
        self.recipe = recipe
        self.accelerator = accelerator
        self.device = accelerator.device
        torch.manual_seed(recipe.seed)
        widths = (recipe.channel_base, recipe.channel_max, recipe.channel_min)
        sizes = (recipe.latent_dim, recipe.z_dim, recipe.mapping_layers)
        self.generator = StyleGAN2(recipe.image_size, 3, *sizes, 0.01, *widths)
        self.discriminator = Discriminator(recipe.image_size, 3, *widths)
        self.average = StyleGAN2(recipe.image_size, 3, *sizes, 0.01, *widths)
        self.average.load_state_dict(self.generator.state_dict())
        self.average.requires_grad_(False)
        for network in (self.generator, self.discriminator, self.average):
            network.to(self.device)
        path_every = recipe.path_length_every if recipe.path_length_weight else 0
        self.g_parameters = list(self.generator.parameters())
        self.d_parameters = list(self.discriminator.parameters())
        self.g_optimizer = lazy_adam(self.g_parameters, recipe.learning_rate, path_every)
        self.d_optimizer = lazy_adam(self.d_parameters, recipe.learning_rate, recipe.r1_every)
        self.probability = AdaptiveProbability(recipe.ada_target, recipe.ada_images)
        self.path_mean = 0.0
        self.n_steps = 0
        self.precision = "fp32"

    @property
    def images_seen(self) -> int:
        """Real images seen so far."""
        return self.n_steps * self.recipe.batch_size

    def step(self, real: Tensor) -> dict[str, float]:
        """Update both networks once.

        Both losses are taken at the same weights from one pass of D over the generated images.

        Args:
            real: this process's images (B, 3, H, W) in [-1, 1].

        Returns:
            Losses and statistics of this step.
        """
        recipe = self.recipe
        draws = step_generator(recipe.seed, self.n_steps, self.accelerator.process_index)
        real = augment(real.to(self.device), self.probability.p, draws)
        with autocast(self.precision, self.device.type):
            latents = draw_latents(self.generator, len(real), recipe.style_mixing, draws)
            latents = perturbed(latents, recipe.w_noise, draws)
            fake = self.generator.synthesize(latents, noise="random", generator=draws)
            fake_logits = self.discriminator(augment(fake, self.probability.p, draws))
            real_logits = self.discriminator(real)
        g_loss = generator_loss(fake_logits)
        d_loss = discriminator_loss(fake_logits, real_logits)
        g_gradients = torch.autograd.grad(g_loss, self.g_parameters, retain_graph=True)
        d_gradients = torch.autograd.grad(d_loss, self.d_parameters)
        self._update(self.g_optimizer, self.g_parameters, g_gradients)
        self._update(self.d_optimizer, self.d_parameters, d_gradients)
        values = torch.stack([g_loss, d_loss, real_logits.sign().mean()]).detach()
        g_value, d_value, sign = self._mean(values).tolist()
        if not np.isfinite(g_value + d_value):
            raise HublatentError(
                f"The training diverged at {self.images_seen:,} images (losses {g_value}, "
                f"{d_value}). Its last state is whole: try a lower --learning-rate in another run."
            )
        report = {"g_loss": g_value, "d_loss": d_value, "r_t": sign, "p": self.probability.p}
        if self.n_steps % recipe.r1_every == 0:
            report["r1"] = self._regularise_discriminator(real)
        path_due = self.n_steps % recipe.path_length_every == 0
        if recipe.path_length_weight and path_due and self.images_seen >= recipe.path_length_from:
            report["path_length"] = self._regularise_generator(max(len(real) // 2, 1), draws)
        self.probability.update(sign, recipe.batch_size)
        keep = average_keep(
            self.images_seen, recipe.batch_size, recipe.ema_half_life, recipe.ema_ramp_up
        )
        update_average(self.average, self.generator, keep)
        self.n_steps += 1
        return report

    def _regularise_discriminator(self, real: Tensor) -> float:
        """R1 at the augmented images: grid_sample has no second derivative."""
        real = real.detach().requires_grad_()
        with autocast(self.precision, self.device.type):
            penalty = r1_penalty(real, self.discriminator(real))
        loss = penalty * (self.recipe.r1_gamma / 2 * self.recipe.r1_every)
        gradients = torch.autograd.grad(loss, self.d_parameters, allow_unused=True)
        self._update(self.d_optimizer, self.d_parameters, gradients)
        return float(self._mean(penalty.detach()))

    def _regularise_generator(self, n: int, draws: torch.Generator) -> float:
        """Path length (arXiv:1912.04958, section 3.2), at half the batch as in appendix B."""
        with autocast(self.precision, self.device.type):
            latents = draw_latents(self.generator, n, self.recipe.style_mixing, draws)
            images = self.generator.synthesize(latents, noise="random", generator=draws)
            noise = torch.randn(images.shape, generator=draws).to(self.device)
            lengths = path_lengths(images, latents, noise)
        mean = float(self._mean(lengths.detach().mean()))
        self.path_mean += (mean - self.path_mean) * (PATH_LENGTH_DECAY if self.path_mean else 1)
        penalty = (lengths - self.path_mean).square().mean()
        loss = penalty * (self.recipe.path_length_weight * self.recipe.path_length_every)
        gradients = torch.autograd.grad(loss, self.g_parameters, allow_unused=True)
        self._update(self.g_optimizer, self.g_parameters, gradients)
        return mean

    def _update(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        gradients: tuple[Tensor | None, ...],
    ) -> None:
        """One optimiser step with gradients averaged over the processes.

        Second-order gradients and several losses per network fit no hook-based wrapper, so the
        gradients are averaged here, as one flat tensor.
        """
        present = [gradient for gradient in gradients if gradient is not None]
        if self.accelerator.num_processes > 1:
            flat = self._mean(torch.cat([gradient.flatten() for gradient in present]))
            parts = flat.split([gradient.numel() for gradient in present])
            present = [p.view_as(g) for p, g in zip(parts, present, strict=True)]
        remaining = iter(present)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else next(remaining)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _mean(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="mean")  # type: ignore[no-any-return]

    def settle_precision(self) -> None:
        """Choose fp32 or bf16 by measuring the networks' forward and backward passes."""

        def one_pass(precision: str) -> None:
            draws = torch.Generator().manual_seed(0)
            with autocast(precision, self.device.type):
                latents = draw_latents(self.generator, self.recipe.batch_size, 0.0, draws)
                loss = self.discriminator(self.generator.synthesize(latents)).mean()
            torch.autograd.grad(loss, [*self.g_parameters, *self.d_parameters])

        self.precision = choose_precision(self.recipe.precision, one_pass)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict(),
            "g_optimizer": self.g_optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            "probability": self.probability.state_dict(),
            "path_mean": self.path_mean,
            "n_steps": self.n_steps,
            "precision": self.precision,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        for name in (
            "generator", "discriminator", "average", "g_optimizer", "d_optimizer", "probability",
        ):  # fmt: skip
            getattr(self, name).load_state_dict(state[name])
        self.path_mean = state["path_mean"]
        self.n_steps = state["n_steps"]
        self.precision = state["precision"]


class Reporter:
    """Writes what a run shows: log lines, sample grids, the averaged model, kernel distances.

    Args:
        run: the run's folder.
        trainer: what is trained.
        dataset: for the kernel distance.
        arguments: how often, and with which classifier.
    """

    def __init__(
        self, run: Run, trainer: Trainer, dataset: FaceDataset, arguments: Arguments
    ) -> None:
        self.run = run
        self.trainer = trainer
        self.dataset = dataset
        self.arguments = arguments
        self.best_kid = float("inf")
        self.sums: dict[str, list[float]] = {}
        self.started = time.perf_counter()
        self.saved = time.monotonic()
        self.network = _load_feature_network(arguments.kid_classifier)
        if self.network is not None:
            self._measure_real_features(self.network)

    def after_step(self, report: dict[str, float], bar: tqdm) -> None:
        """Log, draw, judge and save what is due."""
        seen, size = self.trainer.images_seen, self.trainer.recipe.batch_size
        for name, value in report.items():
            self.sums.setdefault(name, []).append(value)

        def due(every: int) -> bool:
            return seen // every > (seen - size) // every

        if due(self.arguments.report_every):
            self._log(bar)
        if due(self.arguments.grid_every):
            self.draw()
        if self.network is not None and due(self.arguments.kid_every):
            self._judge(self.network)
        if time.monotonic() - self.saved >= 60 * self.arguments.state_minutes:
            self.save_state()

    def save_state(self) -> None:
        """Write the state that a killed run goes on from."""
        self.run.save_state({**self.trainer.state_dict(), "best_kid": self.best_kid})
        self.saved = time.monotonic()

    def draw(self) -> None:
        """Write the grid of fixed latents and the averaged model with its latent statistics."""
        model = self.trainer.average
        draws = torch.Generator().manual_seed(self.trainer.recipe.seed)
        images = model.decode(model.sample_latents(48, generator=draws))
        save_png(_grid(images, 8), self.run.folder / f"samples-{self.trainer.images_seen:08d}.png")
        model.measure_latents()
        model.save_pretrained(self.run.folder / "latest")

    def _log(self, bar: tqdm) -> None:
        means = {name: round(float(np.mean(v)), 5) for name, v in self.sums.items()}
        self.sums.clear()
        elapsed = time.perf_counter() - self.started
        self.started = time.perf_counter()
        rate = round(self.arguments.report_every / elapsed, 2)
        self.run.log(images=self.trainer.images_seen, **means, images_per_second=rate)
        bar.set_postfix({k: f"{v:.3f}" for k, v in means.items() if k in ("d_loss", "r_t", "p")})

    def _measure_real_features(self, network: FeatureNetwork) -> None:
        validation = self.dataset.indices("validation")
        train = self.dataset.indices("train")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        some = train[order[: self.arguments.kid_samples].numpy()]
        self.validation_features = features_of(network, self._real(validation))
        floor = squared_mmd(features_of(network, self._real(some)), self.validation_features)
        self.floor = floor
        print(
            f"KID floor: {floor:.5f} ({len(some)} training images against {len(validation)} "
            "validation images)"
        )

    def _real(self, indices: np.ndarray) -> list[Tensor]:
        parts = np.array_split(indices, max(len(indices) // 100, 1))
        return [self.dataset.batch(part).to(self.trainer.device) for part in parts]

    def _judge(self, network: FeatureNetwork) -> None:
        """Measure KID against the validation images; keep the model where it is the best so far."""
        model = self.trainer.average
        draws = torch.Generator().manual_seed(self.trainer.recipe.seed + 1)
        latents = model.sample_latents(self.arguments.kid_samples, generator=draws)
        batches = ((model.decode(part)) for part in latents.split(100))
        kid = squared_mmd(features_of(network, batches), self.validation_features)
        self.run.log(images=self.trainer.images_seen, kid=kid, kid_floor=self.floor)
        tqdm.write(f"{self.trainer.images_seen:,} images: KID {kid:.5f} (floor {self.floor:.5f})")
        if kid < self.best_kid:
            self.best_kid = kid
            model.measure_latents()
            model.save_pretrained(self.run.folder / "best")
            # The state remembers that this one was the best.
            self.save_state()


def train(arguments: Arguments) -> None:
    """Train, or go on training, until the given number of images has been seen."""
    recipe = arguments.settings
    accelerator = accelerate.Accelerator()
    if recipe.batch_size % accelerator.num_processes:
        raise DataError(
            f"--batch-size {recipe.batch_size} is not divisible by "
            f"{accelerator.num_processes} processes."
        )
    dataset = load_dataset(arguments.data, recipe.image_size)
    train_indices = dataset.indices("train")
    # The precision is left out: a state remembers it, and another machine may need another one.
    settings = {k: v for k, v in asdict(recipe).items() if k != "precision"}
    settings["data"] = dataset.digest
    run = Run.open(arguments.out, settings)
    trainer = Trainer(recipe, accelerator)
    state = run.load_state() or _other_state(arguments.start_from, trainer)
    if state is None:
        trainer.settle_precision()
    else:
        trainer.load_state_dict(state)
        if recipe.precision != "auto":
            trainer.precision = recipe.precision
    run.trim_log("images", trainer.images_seen)
    reporter = Reporter(run, trainer, dataset, arguments) if accelerator.is_main_process else None
    if reporter is not None:
        reporter.best_kid = state["best_kid"] if state else float("inf")
        print(
            f"generator {parameter_count(trainer.generator):,} parameters, discriminator "
            f"{parameter_count(trainer.discriminator):,}; {len(train_indices):,} training images; "
            f"{trainer.precision}; seed {recipe.seed}; from {trainer.images_seen:,} images",
            flush=True,
        )
    bar = tqdm(
        total=arguments.images, initial=trainer.images_seen, unit="image", mininterval=10,
        disable=reporter is None,
    )  # fmt: skip
    with bar:
        while trainer.images_seen < arguments.images:
            report = trainer.step(_real_batch(dataset, train_indices, trainer))
            bar.update(recipe.batch_size)
            if reporter is not None:
                reporter.after_step(report, bar)
    if reporter is not None:
        reporter.draw()
        reporter.save_state()


def _real_batch(dataset: FaceDataset, train_indices: np.ndarray, trainer: Trainer) -> Tensor:
    """This process's share of the step's images: epochs in random order, half of them mirrored."""
    recipe, accelerator = trainer.recipe, trainer.accelerator
    positions = np.arange(recipe.batch_size) + trainer.images_seen
    mine = positions[accelerator.process_index :: accelerator.num_processes]
    orders = [_epoch_order(len(train_indices), recipe.seed, int(p) // len(train_indices)) for p in mine]
    picks = [order[p % len(train_indices)] for order, p in zip(orders, mine, strict=True)]
    images = dataset.batch(train_indices[picks])
    if not recipe.flip:
        return images
    stream = ORDER_STREAM + 1 + accelerator.process_index
    draws = step_generator(recipe.seed, trainer.n_steps, stream)
    mirrored = torch.rand(len(images), 1, 1, 1, generator=draws) < 0.5
    return torch.where(mirrored, images.flip(3), images)


@lru_cache(maxsize=2)
def _epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    return torch.randperm(n, generator=step_generator(seed, epoch, ORDER_STREAM)).numpy()


def _other_state(folder: Path | None, trainer: Trainer) -> dict[str, Any] | None:
    """The state of the run that this one is to fine-tune."""
    if folder is None:
        return None
    state = Run(folder, {}).load_state()
    if state is None:
        raise DataError(f"--start-from {folder} holds no state; expected the folder of a run.")
    theirs = {k: tuple(v.shape) for k, v in state["generator"].items()}
    ours = {k: tuple(v.shape) for k, v in trainer.generator.state_dict().items()}
    if theirs != ours:
        raise DataError(
            f"--start-from {folder} is a run of another network; give the same sizes as there."
        )
    return state


def _load_feature_network(folder: Path | None) -> FeatureNetwork | None:
    if folder is None:
        print("No --kid-classifier: no kernel distance is measured, and no best model is kept.")
        return None
    from hublatent.classifier import AttributeClassifier

    return AttributeClassifier.from_pretrained(folder)


def _grid(images: Tensor, n_columns: int) -> Image.Image:
    pictures = to_pil(images)
    size = pictures[0].width
    n_rows = -(-len(pictures) // n_columns)
    sheet = Image.new("RGB", (n_columns * size, n_rows * size))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % n_columns * size, i // n_columns * size))
    return sheet


def parse(words: list[str] | None = None) -> Arguments:
    """Read the command line: the named recipe first, then every value that overrides it."""
    first = ArgumentParser(add_help=False)
    first.add_argument("--recipe", default="stylegan2-celeba")
    name = first.parse_known_args(words)[0].recipe
    if name not in RECIPES:
        raise DataError(unknown_name("recipe", name, RECIPES))
    defaults = Arguments(
        data=tyro.MISSING, out=tyro.MISSING, settings=RECIPES[name], recipe=name
    )
    return tyro.cli(
        Arguments, args=words, default=defaults, config=(tyro.conf.OmitArgPrefixes,)
    )


if __name__ == "__main__":
    exit_on_user_error(lambda: train(parse()))
