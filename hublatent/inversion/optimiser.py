"""The descent of projection: codes and noise maps of a batch of images, by Adam.

Karras et al. 2020 (arXiv:1912.04958, appendix D). Nothing here mixes images: losses are summed,
and an image that has converged or diverged leaves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from hublatent.errors import HublatentError, unknown_name
from hublatent.inversion.perceptual import Embedding

if TYPE_CHECKING:
    from hublatent.model import LatentModel

Precision = Literal["fp32", "bf16"]

# Karras et al. 2020, appendix D: the shares of the steps in which the rate rises, and in which it
# falls; and the weight of the noise regularisation.
RATE_RISE, RATE_FALL = 0.05, 0.25
NOISE_WEIGHT = 1e5
# Noise maps move at this share of the rate. At the full one, as in the paper, they run ahead of
# the code, and the picture that is finally drawn with the model's own maps is a worse one.
NOISE_RATE = 0.1
SMALLEST_NOISE_MAP = 8  # the pyramid of the regularisation ends there
REFINING_STEPS = 60  # that an encoder's estimate gets
# An image has converged when its loss has not fallen by this much in so large a share of the steps.
TOLERANCE, PATIENCE = 0.005, 0.1


def autocast(precision: str, device: str = "cpu") -> AbstractContextManager[Any]:
    """The autocast context of a precision, "fp32" or "bf16"."""
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()


@dataclass(frozen=True)
class DescentSettings:
    """How a projection descends.

    Attributes:
        n_steps: at most so many steps; an image that no longer improves leaves its batch.
        n_candidates: samples of the model that compete, with the mean latent, as the start; a
            model's own encoder serves instead where it has one.
        learning_rate: Adam's largest rate, in units of the spread of the model's latents, the root
            mean variance of their coordinates.
        tied_layers: share of the steps, from the first, in which all layers have one code; then
            each layer gets its own.
        optimize_noise: whether noise maps are fitted beside the code, where the model has any, so
            that the code need not explain what is noise; the result is drawn with the model's own.
        pixel_weight: weight of the pixels' mean squared error beside the perceptual loss.
        seed: of the candidates.
        precision: "bf16" takes the steps' passes through the networks in bfloat16, which is faster
            on processors that have it; codes, optimiser and the result stay in float32.

    Raises:
        HublatentError: a setting is out of range.
    """

    n_steps: int = 300
    n_candidates: int = 256
    learning_rate: float = 0.1
    # A trade: with 0.6, an SVM on averaged codes of 320 faces read Eyeglasses with an accuracy of
    # 0.85, with 0 of 0.72; the mean squared error was 0.0094 instead of 0.0068 (100 steps). Adam
    # keeps its moments when the layers part: with fresh ones 8 faces had 0.0114, not 0.0091.
    tied_layers: float = 0.6
    optimize_noise: bool = True
    pixel_weight: float = 5.0
    seed: int = 0
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise HublatentError(unknown_name("precision", self.precision, get_args(Precision)))
        for name, fits, expected in (
            ("n_steps", self.n_steps >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "above 0"),
            ("tied_layers", 0 <= self.tied_layers <= 1, "a share from 0 to 1"),
            ("n_candidates", self.n_candidates >= 0, "0 or more"),
            ("pixel_weight", 0 <= self.pixel_weight < math.inf, "0 or more"),
        ):
            if not fits:
                raise HublatentError(f"{name} {getattr(self, name)}; expected {expected}.")

    def rate(self, step: int) -> float:
        """The learning rate of a step (Karras et al. 2020, appendix D): up, level, down."""
        t = (step + 1) / self.n_steps
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - step / self.n_steps) / RATE_FALL))
        return self.learning_rate * fall * min(1.0, t / RATE_RISE)


class Descent:
    """The descent of some images, from their starts to the best codes on their ways.

    Attributes:
        best: (b, *latent_shape), each image's code where its loss was lowest.
        losses: (n_steps, b), NaN after an image stopped.
        diverged: (b,) bool, images whose loss was not finite; their codes mean nothing.
    """

    def __init__(
        self, model: LatentModel, embed: Embedding, targets: Tensor, starts: Tensor,
        start_losses: Tensor, settings: DescentSettings,
    ) -> None:  # fmt: skip
        self.model, self.embed, self.targets, self.starts = model, embed, targets, starts
        # The root mean variance of a latent's coordinates; 0 where nothing was ever measured.
        self.spread = float(model.latent_covariance.diagonal().mean().sqrt()) or 1.0
        if starts.dim() == 2:  # no layers to tie, and nothing to wait for
            settings = replace(settings, tied_layers=0.0)
        self.settings, self.n_steps = settings, settings.n_steps
        n, device = len(starts), starts.device
        self.offsets = torch.zeros_like(starts).requires_grad_()  # in units of the spread
        self.own_maps = [m.detach() for m in model.noise_maps()] if settings.optimize_noise else []
        self.noise_maps = [
            m.expand(n, 1, *m.shape).clone().requires_grad_() for m in self.own_maps
        ]  # (b, 1, H, W) each
        self.variables = [self.offsets, *self.noise_maps]
        shares = [1.0, *(NOISE_RATE for _ in self.noise_maps)]  # of the learning rate
        groups = zip(self.variables, shares, strict=True)
        self.optimizer = torch.optim.Adam([{"params": [v], "share": share} for v, share in groups])
        self.best, self.lowest = starts.clone(), start_losses.clone()
        self.losses = torch.full((self.n_steps, n), math.nan, device=device)
        self.diverged = torch.zeros(n, dtype=torch.bool, device=device)
        # Losses tell of convergence once the rate has risen and the layers, which let them fall
        # anew, have parted; from then on an image has to improve on its record.
        self.first_judged = math.ceil(self.n_steps * max(RATE_RISE, settings.tied_layers))
        self.record = start_losses.clone()
        self.record_step = torch.full((n,), self.first_judged, device=device)

    def run(self, report: Callable[[int], object]) -> None:
        """Descend until every image has stopped.

        After each step `report` is told how many of the b * n_steps steps need not be taken again.
        """
        active = torch.arange(len(self.starts), device=self.starts.device)
        for step in range(self.n_steps):
            losses = self._step(step, active)
            stopped = self.diverged[active] | self._converged(step, active, losses)
            active = active[~stopped]
            report(len(self.starts) * self.n_steps - len(active) * (self.n_steps - step - 1))
            if not len(active):
                return

    def _step(self, step: int, active: Tensor) -> Tensor:
        """One step of the images at the positions `active` (a,): their losses before it."""
        codes = self.starts[active] + self.spread * self.offsets[active]
        maps = [m[active] for m in self.noise_maps]
        with autocast(self.settings.precision, codes.device.type):
            images = self.model.synthesize(codes, maps or "const")  # (a, C, H, W)
            embedded = self.embed(images).float()  # (a, F)
        losses = (embedded - self.targets[active]).square().sum(dim=1)  # (a,)
        # A sum, not a mean: an image's gradient must not depend on how many others there are.
        total = losses.sum() + NOISE_WEIGHT * sum(noise_regularization(m).sum() for m in maps)
        # Not backward(), which would leave gradients in the caller's model.
        gradients = torch.autograd.grad(total, self.variables, allow_unused=True)
        for variable, gradient in zip(self.variables, gradients, strict=True):
            variable.grad = gradient
        if step < self.settings.tied_layers * self.n_steps:
            # All layers of a code (L, D) move alike; the starts, samples or the mean, have one.
            # Codes near one style per picture are easier to read and to edit than those that fit
            # it best (Tov et al. 2021, arXiv:2102.02766).
            mean = gradients[0].mean(dim=1, keepdim=True)
            self.offsets.grad = mean.expand_as(self.offsets).contiguous()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(step) * group["share"]
        self.optimizer.step()
        self._normalize_noise()
        losses, finite = losses.detach(), losses.isfinite()
        self.losses[step, active] = torch.where(finite, losses, math.nan)
        self.diverged[active] = ~finite
        better = losses < self.lowest[active]
        self.lowest[active[better]] = losses[better]
        self.best[active[better]] = codes.detach()[better]
        return losses

    @torch.no_grad()
    def _normalize_noise(self) -> None:
        """Keep each noise map's mean and variance (Karras et al. 2020, appendix D).

        They stay those of the model's own map rather than become exactly 0 and 1: the smallest
        maps are far from that, and the code has to suit the model's own ones.
        """
        for maps, own in zip(self.noise_maps, self.own_maps, strict=True):
            maps -= maps.mean(dim=(2, 3), keepdim=True)
            maps *= own.std() / (maps.std(dim=(2, 3), keepdim=True) + 1e-8)
            maps += own.mean()

    def _converged(self, step: int, active: Tensor, losses: Tensor) -> Tensor:
        """Which active images (a,) have not improved for a while."""
        improved = losses < self.record[active] * (1 - TOLERANCE)
        self.record[active[improved]] = losses[improved]
        self.record_step[active[improved]] = max(step, self.first_judged)
        return step - self.record_step[active] >= max(10, math.ceil(PATIENCE * self.n_steps))


def noise_regularization(maps: Tensor) -> Tensor:
    """(B,), how far noise maps (B, 1, H, W) are from white noise (Karras et al. 2020, appendix D).

    Over the map and its halvings down to 8x8 (averages of 2x2, times 2 to keep the variance):
    the squared means of the products of each value with its left and its upper neighbour,
    round the edges.
    """
    total = maps.new_zeros(len(maps))
    while True:
        for axis in (2, 3):
            products = maps * maps.roll(1, dims=axis)
            total = total + products.mean(dim=(1, 2, 3)).square()
        if maps.shape[-1] <= SMALLEST_NOISE_MAP:
            return total
        maps = functional.avg_pool2d(maps, 2) * 2
