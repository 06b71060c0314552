"""One step of training a VAE, and the state between two steps.

Everything a step does follows from the recipe, the step's number and the process's index, so a run
resumed from a saved state ends with the weights of an unbroken one.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache, partial
from typing import Any, TypeVar

import accelerate
import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hublatent.data import FaceDataset
from hublatent.errors import HublatentError
from hublatent.inversion.precision import autocast
from hublatent.models.vae import VAE
from training import objectives
from training.recipes import VAERecipe
from training.run import step_generator

PRECISIONS = ("fp32", "bf16")
MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels-last": torch.channels_last,
}
# Streams of randomness apart from the processes' own, which count from 0.
ORDER_STREAM = 1_000_003
FLIP_STREAM = 2_000_003
Key = TypeVar("Key", bound=Hashable)


class TrainedVAE(nn.Module):
    """A model with the objective of its recipe; the forward pass gives the objective's terms.

    One module, so that Accelerate averages the gradients of everything in it.

    Args:
        recipe: what to build and minimise.
        n_examples: N, size of the training set.
    """

    def __init__(self, recipe: VAERecipe, n_examples: int) -> None:
        super().__init__()
        self.model = recipe.build()
        self.recipe = recipe
        self.n_examples = n_examples
        self.precision = "fp32"

    def forward(
        self, images: Tensor, generator: torch.Generator, images_seen: int = 0
    ) -> dict[str, Tensor]:
        """The terms of one batch.

        Args:
            images: (B, C, H, W), in [-1, 1].
            generator: draws the posterior's noise.
            images_seen: how far the training is, for the capacity schedule.

        Returns:
            Scalars: "loss", the objective's terms in nats, and "mse" for pixels in [0, 1].
        """
        with autocast(self.precision, images.device.type):
            mean, log_variance = self.model.encode_distribution(images)  # (B, D) each
            z = objectives.sample_posterior(mean, log_variance, generator)  # (B, D)
            decoded = self.model.decode_unclamped(z)  # (B, C, H, W)
        reconstruction = self._reconstruction(decoded, images)
        terms = self._objective(reconstruction, z, mean, log_variance, images_seen)
        return {**terms, "mse": objectives.pixel_mse(decoded, images).detach()}

    def _reconstruction(self, decoded: Tensor, images: Tensor) -> Tensor:
        if self.recipe.likelihood == "gaussian":
            return objectives.gaussian_reconstruction(decoded, images, self.recipe.sigma)
        return objectives.calibrated_reconstruction(decoded, images)

    def _objective(
        self, reconstruction: Tensor, z: Tensor, mean: Tensor, log_variance: Tensor, seen: int
    ) -> dict[str, Tensor]:
        recipe = self.recipe
        if recipe.objective == "beta-tcvae":
            weights = objectives.importance_weights(
                len(z), self.n_examples, recipe.estimator, z.device
            )
            parts = objectives.decompose_kl(z, mean, log_variance, weights)
            return objectives.beta_tcvae(
                reconstruction, parts, recipe.beta, recipe.alpha, recipe.gamma
            )
        kl = objectives.kl_divergence(mean, log_variance)
        if recipe.objective == "capacity-vae":
            capacity = objectives.capacity_at(seen, recipe.capacity_images, recipe.capacity)
            return objectives.capacity_vae(reconstruction, kl, capacity, recipe.capacity_weight)
        return objectives.beta_vae(reconstruction, kl, recipe.beta)


class Trainer:
    """A model, its optimiser and its average: all that a state holds.

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
        self.recipe = recipe
        self.dataset = dataset
        self.accelerator = accelerator
        self.indices = dataset.indices("train")
        self.n_local = recipe.batch_size // accelerator.num_processes
        self.n_total_steps = math.ceil(recipe.epochs * len(self.indices) / recipe.batch_size)
        torch.manual_seed(recipe.seed)
        module = TrainedVAE(recipe, len(self.indices)).to(accelerator.device)
        if state is not None:
            precision = state["precision"] if precision == "auto" else precision
            memory_format = state["memory_format"] if memory_format == "auto" else memory_format
        self.precision, self.memory_format = self._choose_arithmetic(
            module, precision, memory_format
        )
        module.precision = self.precision
        module.to(memory_format=MEMORY_FORMATS[self.memory_format])
        self.model = module.model
        self.optimizer = torch.optim.Adam(module.parameters(), recipe.learning_rate, fused=True)
        self.average = (
            AveragedModel(
                self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True
            )
            if recipe.ema
            else None
        )
        self.n_steps = 0
        if state is not None:
            self._load_state(state)
        self.module = accelerator.prepare(module)

    @property
    def images_seen(self) -> int:
        """Images seen so far, over all processes."""
        return self.n_steps * self.recipe.batch_size

    @property
    def published(self) -> VAE:
        """The model to publish: the averaged weights where the recipe averages them."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def step(self) -> dict[str, float]:
        """Update the model once.

        Returns:
            The objective's terms, averaged over the processes.

        Raises:
            HublatentError: the loss is no longer a number; the last saved state is whole.
        """
        terms = self.backward(self.next_batch(), self.accelerator.process_index)
        names = list(terms)
        stacked = torch.stack([terms[name].detach().float().to("cpu") for name in names])
        if self.accelerator.num_processes > 1:
            stacked = self.accelerator.reduce(
                stacked.to(self.accelerator.device), reduction="mean"
            ).cpu()
        values = dict(zip(names, stacked.tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise HublatentError(
                f"The training diverged after {self.images_seen:,} images (loss {values['loss']}). "
                "Its last state is whole: try a lower --learning-rate with another --out."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.n_steps += 1
        return values

    def backward(self, images: Tensor, stream: int, share: float = 1.0) -> dict[str, Tensor]:
        """Add a batch's gradients to the model's.

        Args:
            images: (B, C, H, W), in [-1, 1].
            stream: number of the process, which draws its own noise.
            share: of the gradient in a step's mean; below 1 where several batches accumulate.

        Returns:
            The objective's terms.
        """
        draws = step_generator(self.recipe.seed, self.n_steps, stream)
        self.module.train()
        terms: dict[str, Tensor] = self.module(images, draws, self.images_seen)
        self.accelerator.backward(terms["loss"] * share)
        return terms

    def next_batch(self) -> Tensor:
        """This process's images of this step, (B, C, H, W); epochs are in random order."""
        process, n = self.accelerator.process_index, self.accelerator.num_processes
        positions = np.arange(self.recipe.batch_size) + self.images_seen
        return self.batch_at(positions[process::n], process)

    def batch_at(self, positions: np.ndarray, stream: int) -> Tensor:
        """The images at some positions of the training's whole order.

        Args:
            positions: (B,), counted in images seen.
            stream: number of the process, which draws its own mirroring.
        """
        n = len(self.indices)
        picks = [_epoch_order(n, self.recipe.seed, int(p) // n)[p % n] for p in positions]
        images = self.dataset.batch(self.indices[picks]).to(self.accelerator.device)
        if not self.recipe.flip:
            return images
        draws = step_generator(self.recipe.seed, self.n_steps, FLIP_STREAM + stream)
        mirrored = torch.rand(len(images), generator=draws) < 0.5
        images[mirrored] = images[mirrored].flip(3)
        return images

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
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "n_steps": self.n_steps,
            "precision": self.precision,
            "memory_format": self.memory_format,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        # The fused optimiser walks through memory: moments must lie there as their parameters do.
        for parameter, moments in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name] = torch.empty_like(parameter).copy_(moments[name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.n_steps = state["n_steps"]

    def _choose_arithmetic(
        self, module: TrainedVAE, precision: str, memory_format: str
    ) -> tuple[str, str]:
        """Settle what was left open by timing a step's passes on a copy of the model."""
        options = [
            (p, f)
            for p in (PRECISIONS if precision == "auto" else (precision,))
            for f in (MEMORY_FORMATS if memory_format == "auto" else (memory_format,))
        ]
        if len(options) == 1:
            return options[0]
        images = self.dataset.batch(self.indices[: self.n_local]).to(self.accelerator.device)
        passes = {}
        for option in options:
            trial = copy.deepcopy(module).to(memory_format=MEMORY_FORMATS[option[1]])
            trial.precision = option[0]
            passes[option] = partial(_passes, trial, images)
        seconds = _fastest_rounds(passes)
        # Every process has to do the same; the first one's stopwatch counts.
        fastest = broadcast_object_list([min(seconds, key=seconds.__getitem__)])[0]
        self.accelerator.print(
            "measured seconds per step: "
            + ", ".join(f"{p} {f} {s:.3f}" for (p, f), s in seconds.items())
        )
        return fastest[0], fastest[1]


def _passes(module: TrainedVAE, images: Tensor) -> None:
    """A forward and a backward pass."""
    draws = torch.Generator().manual_seed(0)
    module(images, draws)["loss"].backward()
    module.zero_grad(set_to_none=True)
    if images.is_cuda:
        torch.cuda.synchronize()


def _fastest_rounds(actions: Mapping[Key, Callable[[], object]], n: int = 5) -> dict[Key, float]:
    """Seconds of each action's fastest round, after one to warm up.

    They take turns, so that other load on the machine meets all of them alike.
    """
    seconds = dict.fromkeys(actions, math.inf)
    for turn in range(n + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


@lru_cache(maxsize=2)
def _epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    return torch.randperm(n, generator=step_generator(seed, epoch, ORDER_STREAM)).numpy()
