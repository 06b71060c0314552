"""One step of training StyleGAN2, and the state between two steps.

Everything a step does follows from the recipe, the step's number and the process's index, so a run
resumed from a saved state ends with the weights of an unbroken one.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from hublatent.checkpoint import WEIGHTS_NAME, load_weights
from hublatent.data import FaceDataset
from hublatent.errors import DataError, HublatentError
from hublatent.features import ImageFeatures, enlarged
from hublatent.inversion.precision import autocast
from hublatent.models.style_generator import Noise
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
from training.discriminator import DISCRIMINATOR_NAME, Discriminator
from training.feature_heads import FeatureHeads, heads_discriminator_loss, heads_generator_loss
from training.run import choose_precision, step_generator

# Streams of randomness apart from the processes' own, which count from 0.
ORDER_STREAM = 1_000_003
FLIP_STREAM = 2_000_003
INITIAL_STREAM = 3_000_003


@dataclass(frozen=True)
class StyleGAN2Recipe:
    """What a StyleGAN2 is and how it is trained; lengths in images seen.

    Attributes:
        image_size: height and width of the images, in pixels.
        latent_dim: D, width of a style code.
        z_dim: width of the mapping network's input.
        mapping_layers: depth of the mapping network.
        channel_base: feature maps of height r have max(min, min(base // r, max)) channels.
        channel_max: channels never exceed this.
        channel_min: channels never fall below this.
        batch_size: images per step, over all processes.
        learning_rate: of both networks, before the correction for lazy regularisation.
        discriminator_learning_rate: where the discriminator needs another one; 0 for the same.
        r1_gamma: weight of R1; gamma / 2 times the squared gradient, summed over pixels.
        r1_every: steps between two R1 steps.
        path_length_weight: of the path length regularisation; 0 for none.
        path_length_every: steps between two path length steps.
        path_length_from: images seen before it starts; early on it costs variety.
        style_mixing: share of latents with two styles.
        ema_half_life: half-life of the averaged weights.
        ema_ramp_up: early on the half-life is this share of the images seen.
        ada_target: mean sign of D on real images at which the augmentation holds still.
        ada_images: images over which its probability could rise from 0 to 1.
        generator_from: images seen before the generator learns; until then a discriminator that
            is new to a trained generator learns alone.
        ada_from: images seen before it starts. At first r_t is above its target because no
            faces are drawn yet, not because the images are known by heart (p rose to 0.1 within
            20,000 images).
        heads_weight: weight of the heads on image features in the generator's loss; 0 for none.
        heads_learning_rate: of those heads.
        flip: mirror half of the training images.
        noise: give the generator noise maps. A young one that has none draws one shape for all
            codes, and finds another only slowly.
        w_noise: Gaussian noise on the W+ codes, in standard deviations of W; 0 for none.
        seed: everything random follows from it.
    """

    image_size: int = 64
    latent_dim: int = 256
    z_dim: int = 256
    mapping_layers: int = 4
    channel_base: int = 2048
    channel_max: int = 256
    channel_min: int = 48
    batch_size: int = 32
    learning_rate: float = 0.0025
    discriminator_learning_rate: float = 0.0
    r1_gamma: float = 1.0
    r1_every: int = 16
    path_length_weight: float = 2.0
    path_length_every: int = 8
    path_length_from: int = 400_000
    style_mixing: float = 0.9
    ema_half_life: float = 10_000
    ema_ramp_up: float = 0.05
    ada_target: float = 0.6
    ada_images: int = 100_000
    ada_from: int = 100_000
    generator_from: int = 0
    heads_weight: float = 0.0
    heads_learning_rate: float = 0.0003
    flip: bool = True
    noise: bool = True
    w_noise: float = 0.0
    seed: int = 0

    def build(self) -> tuple[StyleGAN2, Discriminator]:
        """Both networks, freshly initialised from torch's global generator."""
        widths = {f: getattr(self, f) for f in ("channel_base", "channel_max", "channel_min")}
        generator = StyleGAN2(
            self.image_size,
            latent_dim=self.latent_dim,
            z_dim=self.z_dim,
            mapping_layers=self.mapping_layers,
            **widths,
        )
        return generator, Discriminator(self.image_size, **widths)

    def check(self) -> None:
        """Refuse values that cannot be trained with.

        Raises:
            DataError: says which value, and what would do.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            lowest, highest, expected = _RANGES.get(field.name, _ANY)
            if not lowest <= value <= highest:
                option = field.name.replace("_", "-")
                raise DataError(f"--{option} {value}; expected {expected}.")


_ANY = (-math.inf, math.inf, "a number")
_RANGES: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(
        ("batch_size", "r1_every", "path_length_every", "ada_images"),
        (1, math.inf, "at least 1"),
    ),
    **dict.fromkeys(
        ("discriminator_learning_rate", "r1_gamma", "path_length_weight", "path_length_from",
         "ada_from", "generator_from", "heads_weight", "ema_half_life", "ema_ramp_up", "w_noise",
         "seed"),
        (0, math.inf, "0 or more"),
    ),
    **dict.fromkeys(
        ("learning_rate", "heads_learning_rate"), (1e-12, math.inf, "a number above 0")
    ),
    "style_mixing": (0, 1, "a share from 0 to 1"),
    "ada_target": (-1, 1, "a mean sign from -1 to 1; -1 always augments more, 1 never"),
}  # fmt: skip


class Trainer:
    """Both networks, the average, the optimisers and the augmentation: all that a state holds.

    Args:
        recipe: what to train and how.
        dataset: the images.
        accelerator: gives the device, and averages over processes.
        precision: "fp32" or "bf16"; "auto" measures which is faster, or keeps the state's.
        features: what the heads look at; None without heads.
        state: what an earlier part of the run left behind; None starts a new one.
    """

    def __init__(
        self,
        recipe: StyleGAN2Recipe,
        dataset: FaceDataset,
        accelerator: accelerate.Accelerator,
        precision: str,
        state: dict[str, Any] | None = None,
        features: ImageFeatures | None = None,
    ) -> None:
        self.recipe = recipe
        self.dataset = dataset
        self.accelerator = accelerator
        self.device = accelerator.device
        self.indices = dataset.indices("train")
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
        self.g_parameters = [p for p in self.generator.parameters() if p.requires_grad]
        self.d_parameters = list(self.discriminator.parameters())
        path_every = recipe.path_length_every if recipe.path_length_weight else 0
        self.g_optimizer = lazy_adam(self.g_parameters, recipe.learning_rate, path_every)
        d_rate = recipe.discriminator_learning_rate or recipe.learning_rate
        self.d_optimizer = lazy_adam(self.d_parameters, d_rate, recipe.r1_every)
        self.features = None if features is None else features.to(self.device)
        self.heads = FeatureHeads().to(self.device)
        self.h_parameters = [p for p in self.heads.parameters() if p.requires_grad]
        self.h_optimizer = lazy_adam(self.h_parameters, recipe.heads_learning_rate, 0)
        self.probability = AdaptiveProbability(recipe.ada_target, recipe.ada_images)
        self.path_mean = 0.0
        self.n_steps = 0
        if state is not None:
            self._load_state(state)
            precision = state["precision"] if precision == "auto" else precision
        self.precision = self._settle_precision(precision)

    @property
    def images_seen(self) -> int:
        """Real images seen so far, over all processes."""
        return self.n_steps * self.recipe.batch_size

    def next_batch(self) -> Tensor:
        """This process's share of the step's images: epochs in random order, half of them mirrored.

        Returns:
            (B, C, H, W), in [-1, 1].
        """
        recipe, process = self.recipe, self.accelerator.process_index
        n = len(self.indices)
        positions = np.arange(recipe.batch_size) + self.images_seen
        picks = [
            _epoch_order(n, recipe.seed, int(position) // n)[position % n]
            for position in positions[process :: self.accelerator.num_processes]
        ]
        images = self.dataset.batch(self.indices[picks])
        if recipe.flip:
            draws = step_generator(recipe.seed, self.n_steps, FLIP_STREAM + process)
            mirrored = torch.rand(len(images), 1, 1, 1, generator=draws) < 0.5
            images = torch.where(mirrored, images.flip(3), images)
        return images.to(self.device)

    def step(self) -> dict[str, float]:
        """Update both networks once.

        Both losses are taken at the same weights, from one pass of D over the generated images.

        Returns:
            Losses and statistics of this step.

        Raises:
            HublatentError: the losses are no numbers any more; the weights are then left alone.
        """
        recipe, p = self.recipe, self.probability.p
        draws = step_generator(recipe.seed, self.n_steps, self.accelerator.process_index)
        generator_learns = self.images_seen >= recipe.generator_from
        real = augment(self.next_batch(), p, draws)
        with autocast(self.precision, self.device.type):
            with torch.set_grad_enabled(generator_learns):
                latents = draw_latents(self.generator, len(real), recipe.style_mixing, draws)
                latents = perturbed(latents, recipe.w_noise, draws)
                fake = self._synthesize(latents, draws)
            fake = augment(fake, p, draws)
            fake_logits = self.discriminator(fake)
            real_logits = self.discriminator(real)
        g_loss = generator_loss(fake_logits)
        d_loss = discriminator_loss(fake_logits, real_logits)
        report = self._report(g_loss, d_loss, real_logits)
        if self.features is not None:
            g_heads_loss, h_loss = self._heads_losses(self.features, fake, real)
            report["h_loss"] = float(self._mean(h_loss.detach()))
            g_loss = g_loss + recipe.heads_weight * g_heads_loss
            h_gradients = torch.autograd.grad(h_loss, self.h_parameters, retain_graph=True)
            self._update(self.h_optimizer, self.h_parameters, h_gradients)
        if generator_learns:
            g_gradients = torch.autograd.grad(g_loss, self.g_parameters, retain_graph=True)
        d_gradients = torch.autograd.grad(d_loss, self.d_parameters)
        self._update(self.d_optimizer, self.d_parameters, d_gradients)
        if self.n_steps % recipe.r1_every == 0:
            report["r1"] = self._regularise_discriminator(real)
        if self.images_seen >= recipe.ada_from:
            self.probability.update(report["r_t"], recipe.batch_size)
        if generator_learns:
            self._update(self.g_optimizer, self.g_parameters, g_gradients)
            if self._path_length_is_due():
                report["path_length"] = self._regularise_generator(max(len(real) // 2, 1), draws)
            self._update_average()
        self.n_steps += 1
        return report

    def _path_length_is_due(self) -> bool:
        recipe = self.recipe
        due = self.n_steps % recipe.path_length_every == 0
        return (
            bool(recipe.path_length_weight) and due and self.images_seen >= recipe.path_length_from
        )

    def _synthesize(self, latents: Tensor, draws: torch.Generator) -> Tensor:
        noise: Noise = "random" if self.recipe.noise else "none"
        return self.generator.synthesize(latents, noise, draws)

    def _heads_losses(
        self, features: ImageFeatures, fake: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the heads on image features give the generator to lose, and themselves."""
        with autocast(self.precision, self.device.type):
            fake_logits = self.heads(features(enlarged(fake))).float()
            with torch.no_grad():
                real_features = features(enlarged(real))
            real_logits = self.heads(real_features).float()
        return (
            heads_generator_loss(fake_logits),
            heads_discriminator_loss(fake_logits, real_logits),
        )

    def _report(self, g_loss: Tensor, d_loss: Tensor, real_logits: Tensor) -> dict[str, float]:
        values = torch.stack([g_loss, d_loss, real_logits.sign().mean()]).detach()
        g_value, d_value, mean_sign = self._mean(values).tolist()
        if not math.isfinite(g_value + d_value):
            raise HublatentError(
                f"The training diverged after {self.images_seen:,} images (losses {g_value} and "
                f"{d_value}). Try a lower --learning-rate, with another --out."
            )
        return {"g_loss": g_value, "d_loss": d_value, "r_t": mean_sign, "p": self.probability.p}

    def _regularise_discriminator(self, real: Tensor) -> float:
        """R1 at the augmented images, since grid_sample has no second derivative."""
        real = real.detach().requires_grad_()
        with autocast(self.precision, self.device.type):
            penalty = r1_penalty(real, self.discriminator(real))
        loss = penalty * (self.recipe.r1_gamma / 2 * self.recipe.r1_every)
        gradients = torch.autograd.grad(loss, self.d_parameters, allow_unused=True)
        self._update(self.d_optimizer, self.d_parameters, gradients)
        return float(self._mean(penalty.detach()))

    def _regularise_generator(self, n: int, draws: torch.Generator) -> float:
        """Path length (arXiv:1912.04958, section 3.2), at half the batch as in its appendix B."""
        with autocast(self.precision, self.device.type):
            latents = draw_latents(self.generator, n, self.recipe.style_mixing, draws)
            images = self._synthesize(latents, draws)
        noise = torch.randn(images.shape, generator=draws).to(self.device)
        lengths = path_lengths(images, latents, noise)  # (n,)
        mean = float(self._mean(lengths.detach().mean()))
        # The running mean starts at the first value: from 0 the first steps would flatten W.
        self.path_mean += (mean - self.path_mean) * (PATH_LENGTH_DECAY if self.path_mean else 1.0)
        penalty = (lengths - self.path_mean).square().mean()
        loss = penalty * (self.recipe.path_length_weight * self.recipe.path_length_every)
        gradients = torch.autograd.grad(loss, self.g_parameters, allow_unused=True)
        self._update(self.g_optimizer, self.g_parameters, gradients)
        return mean

    def _update_average(self) -> None:
        recipe = self.recipe
        keep = average_keep(
            self.images_seen, recipe.batch_size, recipe.ema_half_life, recipe.ema_ramp_up
        )
        update_average(self.average, self.generator, keep)

    def _update(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        gradients: tuple[Tensor | None, ...],
    ) -> None:
        """One optimiser step with gradients averaged over the processes.

        Second derivatives, and two losses over one network, fit no wrapper that averages during
        the backward pass, so the gradients are averaged here, as one flat tensor.
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
        return self.accelerator.reduce(values, reduction="mean")

    def _settle_precision(self, precision: str) -> str:
        """Measure what was left open; every process has to do the same, so the first decides."""

        def one_pass(candidate: str) -> None:
            draws = torch.Generator().manual_seed(0)
            with autocast(candidate, self.device.type):
                latents = draw_latents(self.generator, self.recipe.batch_size, 0.0, draws)
                loss = self.discriminator(self.generator.synthesize(latents)).mean()
            torch.autograd.grad(loss, [*self.g_parameters, *self.d_parameters])

        chosen = choose_precision(precision, one_pass) if self.accelerator.is_main_process else ""
        return str(broadcast_object_list([chosen])[0])

    def start_from(self, folder: Path, images_seen: int) -> None:
        """Go on from a published generator, and from the discriminator that may lie beside it.

        Args:
            folder: holds config.json and model.safetensors, perhaps discriminator.safetensors.
            images_seen: what the generator has seen; the count of images goes on from there.

        Raises:
            CheckpointError: a file is damaged, or does not fit the recipe's networks.
        """
        load_weights(self.generator, folder / WEIGHTS_NAME)
        self.average.load_state_dict(self.generator.state_dict())
        if (folder / DISCRIMINATOR_NAME).is_file():
            load_weights(self.discriminator, folder / DISCRIMINATOR_NAME)
        self.n_steps = images_seen // self.recipe.batch_size

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "heads": self.heads.state_dict(),
            "average": self.average.state_dict(),
            "g_optimizer": self.g_optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            "h_optimizer": self.h_optimizer.state_dict(),
            "probability": self.probability.state_dict(),
            "path_mean": self.path_mean,
            "n_steps": self.n_steps,
            "precision": self.precision,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        for name in ("generator", "discriminator", "average", "heads", "probability"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("g_optimizer", "d_optimizer", "h_optimizer"):
            optimizer = getattr(self, name)
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state[name])
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate  # the recipe's, where the state is of a run with another one
        self.path_mean = state["path_mean"]
        self.n_steps = state["n_steps"]


@lru_cache(maxsize=2)
def _epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    return torch.randperm(n, generator=step_generator(seed, epoch, ORDER_STREAM)).numpy()
