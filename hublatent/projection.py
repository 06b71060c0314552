"""project(): the latents of given images, for a model without an encoder, by gradient descent.

Karras et al. 2020 (arXiv:1912.04958, appendix D) with one code per layer (Abdal et al. 2019,
arXiv:1904.03189). Each image has a loss, noise and an end of its own, so that its result does not
depend on the images beside it.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from hublatent.errors import HublatentError
from hublatent.perceptual import (
    Embedding,
    Perceptual,
    join_embeddings,
    perceptual_embedding,
    pixel_embedding,
)

if TYPE_CHECKING:
    from hublatent.classifier import AttributeClassifier
    from hublatent.model import LatentModel

Progress = Callable[[int, int], object]

# Karras et al. 2020, appendix D: the shares of the steps in which the rate rises, in which it
# falls, and in which the noise on the code shrinks; and the weight of the noise regularisation.
RATE_RISE, RATE_FALL, NOISE_PHASE = 0.05, 0.25, 0.75
NOISE_WEIGHT = 1e5
SMALLEST_NOISE_MAP = 8  # the pyramid of the regularisation ends there
# An image has converged when so large a share of the steps improved its loss by less than this.
PATIENCE, TOLERANCE = 0.1, 0.005
SECOND_RATE = 0.1  # the learning rate of a second attempt, relative to the first
CHUNK = 32  # candidates that are drawn together
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class DivergedError(HublatentError):
    """Images whose loss became NaN or infinite, at a lower learning rate too.

    Attributes:
        indices: their positions among the given images.
    """

    def __init__(self, indices: Sequence[int], learning_rate: float) -> None:
        self.indices = tuple(indices)
        names = ", ".join(map(str, self.indices))
        super().__init__(
            f"The projection of image {names} diverged (its loss is not finite), also at a tenth "
            f"of the learning rate {learning_rate:g}. Choose a lower one; if that changes "
            "nothing, the model draws values that are not finite."
        )


@dataclass(frozen=True, eq=False)
class Projection:
    """The latents that were found for B images.

    Attributes:
        latents: (B, *latent_shape).
        images: (B, C, H, W) in [-1, 1], drawn from them by decode(), with the model's own noise:
            what an edit starts from.
        errors: (B,), mean squared error of those images, for pixels in [0, 1].
        losses: (T, B), each step's loss; NaN after an image stopped.
        steps: (B,) int64, how many steps each image took.
    """

    latents: Tensor
    images: Tensor
    errors: Tensor
    losses: Tensor
    steps: Tensor


@dataclass(frozen=True)
class ProjectionSettings:
    """How a projection descends; lengths are in units of the spread of the model's latents.

    Attributes:
        n_steps: at most so many steps per image.
        n_candidates: samples of the model that compete, with the mean latent, as the start.
        learning_rate: Adam's largest rate.
        latent_noise: standard deviation of noise on the code in every step, which makes for
            codes whose neighbours look alike.
        shrinking_noise: the same, shrinking to 0 over three quarters of the steps.
        optimize_noise: whether noise maps are fitted beside the code, so that the code need not
            explain what is noise.
        pixel_weight: weight of the mean squared error (pixels in [-1, 1]) beside the perceptual loss.
        seed: of the candidates and the noise.
    """

    n_steps: int = 300
    n_candidates: int = 256
    learning_rate: float = 0.1
    latent_noise: float = 0.0
    shrinking_noise: float = 0.0
    optimize_noise: bool = True
    pixel_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_steps < 1 or self.n_candidates < 0:
            raise HublatentError(
                f"n_steps {self.n_steps} and n_candidates {self.n_candidates}; expected at least "
                "1 and 0."
            )
        if not 0 < self.learning_rate < math.inf:
            raise HublatentError(f"learning_rate {self.learning_rate}; expected above 0.")
        for name in ("latent_noise", "shrinking_noise", "pixel_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise HublatentError(f"{name} {getattr(self, name)}; expected 0 or more.")

    def rate(self, step: int) -> float:
        """The learning rate of a step (Karras et al. 2020, appendix D): up, level, down."""
        t = (step + 1) / self.n_steps
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - step / self.n_steps) / RATE_FALL))
        return self.learning_rate * fall * min(1.0, t / RATE_RISE)

    def noise_on_code(self, step: int) -> float:
        """The standard deviation of a step's noise on the code."""
        left = max(0.0, 1 - step / self.n_steps / NOISE_PHASE)
        return max(self.latent_noise, self.shrinking_noise * left**2)

    @property
    def first_judged(self) -> int:
        """The step from which losses can tell whether an image has converged."""
        return math.ceil(self.n_steps * (NOISE_PHASE if self.shrinking_noise else RATE_RISE))

    @property
    def patience(self) -> int:
        """How many steps without improvement end an image."""
        return max(10, math.ceil(PATIENCE * self.n_steps))


def project(
    model: LatentModel,
    images: Tensor,
    *,
    classifier: AttributeClassifier | None = None,
    perceptual: Perceptual = "features",
    n_steps: int = 300,
    n_candidates: int = 256,
    learning_rate: float = 0.1,
    latent_noise: float = 0.0,
    shrinking_noise: float = 0.0,
    optimize_noise: bool = True,
    pixel_weight: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Projection:
    """Find latents from which a model draws given images.

    Karras et al. 2020 (appendix D) and Abdal et al. 2019. Lengths in latent space are in units of
    the root mean variance of the model's latents.

    Args:
        model: any latent model.
        images: (B, C, H, W) in [-1, 1], of the model's size.
        classifier: whose feature maps the perceptual loss "features" compares; not the judge.
        perceptual: "features" (needs the classifier, works offline) or "lpips" (downloads VGG).
        n_steps: at most so many steps; an image that no longer improves leaves its batch.
        n_candidates: samples of the model that compete, with the mean latent, as the start.
        learning_rate: Adam's largest rate.
        latent_noise: standard deviation of noise on the code in every step.
        shrinking_noise: the same, shrinking to 0 over three quarters of the steps.
        optimize_noise: whether to fit the noise maps too, where the model has any; the result is
            drawn with the model's own all the same.
        pixel_weight: weight of the pixels' mean squared error beside the perceptual loss.
        seed: of the candidates and of the noise on the code.
        batch_size: images that are projected together; halved where memory does not suffice.
        progress: called as progress(steps done, steps in all), counted over all images.

    Returns:
        The projection, on the model's device.

    Raises:
        DivergedError: an image's loss is not finite, at a lower learning rate too.
        HublatentError: there are no images, or they do not fit the model; a setting is out of
            range; a perceptual loss cannot be had; memory does not suffice for one image.
    """
    settings = ProjectionSettings(
        n_steps, n_candidates, learning_rate, latent_noise, shrinking_noise, optimize_noise,
        pixel_weight, seed,
    )  # fmt: skip
    if batch_size < 1:
        raise HublatentError(f"batch_size {batch_size}; expected at least 1.")
    _check(model, images)
    device = model.latent_mean.device
    embed = join_embeddings(
        perceptual_embedding(perceptual, classifier, device), pixel_embedding, pixel_weight
    )
    modules: list[nn.Module] = [model] if classifier is None else [model, classifier]
    with _evaluating(modules), torch.inference_mode(False), torch.enable_grad():
        # A copy: tensors made in inference mode cannot take part in gradients.
        images = images.detach().clone().to(device, torch.float32)
        projector = _Projector(model, embed, settings, progress, len(images))
        parts = list(projector.in_batches(images, batch_size))
    joined = [
        torch.cat(column, dim=-1 if i == 1 else 0)
        for i, column in enumerate(zip(*parts, strict=True))
    ]
    return _result(model, images, *joined)


def _check(model: LatentModel, images: Tensor) -> None:
    model.check_images(images)
    if not len(images):
        raise HublatentError("project got no images (a batch of 0); expected at least one.")
    for i, image in enumerate(images):
        if not bool(torch.isfinite(image).all()):
            raise HublatentError(f"Image {i} holds values that are not finite.")
        largest = float(image.abs().max())
        if largest > 1.01:
            raise HublatentError(
                f"Image {i} has values up to {largest:g}; expected [-1, 1], as "
                "hublatent.images.to_tensor makes them."
            )


@torch.no_grad()
def _result(
    model: LatentModel, images: Tensor, latents: Tensor, losses: Tensor, steps: Tensor
) -> Projection:
    drawn = torch.cat([model.decode(part) for part in latents.split(CHUNK)])
    errors = ((drawn - images) / 2).square().flatten(1).mean(dim=1)  # (B,)
    return Projection(latents, drawn, errors, losses[: int(steps.max())], steps)


class _Projector:
    """Everything that all batches of one projection share."""

    def __init__(
        self,
        model: LatentModel,
        embed: Embedding,
        settings: ProjectionSettings,
        progress: Progress | None,
        n_images: int,
    ) -> None:
        self.model = model
        self.embed = embed
        self.settings = settings
        # The root mean variance of a latent's coordinates; a random model's may be 0.
        spread = float(model.latent_covariance.diagonal().mean().sqrt())
        self.spread = spread if spread > 0 else 1.0
        self.progress = progress
        self.total = n_images * settings.n_steps
        self.reported = 0

    def report(self, done: int) -> None:
        """Tell the caller; after a halved batch the count waits until it is caught up."""
        self.reported = max(self.reported, done)
        if self.progress is not None:
            self.progress(self.reported, self.total)

    def in_batches(self, images: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Latents (b, *latent_shape), losses (n_steps, b) and steps (b,) of each batch."""
        start = 0
        while start < len(images):
            batch = images[start : start + size]
            try:
                found = self.project_batch(batch, start)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise HublatentError(
                        f"Memory does not suffice to project a single image ({error})."
                    ) from error
                size = len(batch) // 2
                warnings.warn(
                    f"Memory does not suffice for {len(batch)} images at once; going on with "
                    f"{size}.",
                    stacklevel=2,
                )
                continue
            yield found
            start += len(batch)

    def project_batch(self, images: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Project some images; those that diverge get a second attempt at a lower rate.

        Args:
            images: (b, C, H, W).
            first: the first one's position among all images.
        """
        with torch.no_grad():
            targets = self.embed(images)  # (b, F)
            starts, start_losses = self.best_candidates(targets)
        seeds = [_noise_seed(image, self.settings.seed) for image in images]
        done = first * self.settings.n_steps
        descent = _Descent(self, targets, starts, start_losses, seeds, self.settings)
        descent.run(done)
        again = descent.diverged.nonzero().flatten()
        if len(again):
            slower = replace(self.settings, learning_rate=self.settings.learning_rate * SECOND_RATE)
            second = _Descent(
                self, targets[again], starts[again], start_losses[again],
                [seeds[i] for i in again.tolist()], slower,
            )  # fmt: skip
            second.run(done)
            if bool(second.diverged.any()):
                bad = again[second.diverged].tolist()
                raise DivergedError([first + i for i in bad], self.settings.learning_rate)
            descent.best[again] = second.best
            descent.losses[:, again] = second.losses
        self.report(done + len(images) * self.settings.n_steps)
        steps = descent.losses.isfinite().sum(dim=0)
        return descent.best, descent.losses, steps

    def best_candidates(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """For each target (b, F) the nearest of the mean latent and some samples, and its loss."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        mean = self.model.latent_mean.expand(1, *self.model.latent_shape)
        samples = self.model.sample_latents(self.settings.n_candidates, generator=generator)
        nearest = mean.repeat(len(targets), *[1] * (mean.ndim - 1))  # (b, *latent_shape)
        lowest = torch.full((len(targets),), math.inf, device=targets.device)
        for part in torch.cat([mean, samples]).split(CHUNK):
            embedded = self.embed(self.model.synthesize(part))  # (n, F)
            distances = torch.cdist(targets, embedded).square().nan_to_num(math.inf)  # (b, n)
            values, positions = distances.min(dim=1)
            nearest = torch.where(_like(values < lowest, nearest), part[positions], nearest)
            lowest = torch.minimum(values, lowest)
        return nearest, lowest


class _Descent:
    """The descent of some images, from their starts to the best codes on their ways.

    Attributes:
        best: (b, *latent_shape), each image's code where its loss was lowest.
        losses: (n_steps, b), NaN after an image stopped.
        diverged: (b,) bool, images whose loss was not finite; their codes mean nothing.
    """

    def __init__(
        self,
        projector: _Projector,
        targets: Tensor,
        starts: Tensor,
        start_losses: Tensor,
        seeds: Sequence[int],
        settings: ProjectionSettings,
    ) -> None:
        self.projector = projector
        self.targets = targets
        self.starts = starts
        self.settings = settings
        n, device = len(starts), starts.device
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.offsets = torch.zeros_like(starts).requires_grad_()  # in units of the spread
        own = projector.model.noise_maps() if settings.optimize_noise else []
        self.noise_maps = [
            m.detach().expand(n, 1, *m.shape).clone().requires_grad_() for m in own
        ]  # (b, 1, H, W) each
        self.optimizer = torch.optim.Adam([self.offsets, *self.noise_maps])
        self.best = starts.clone()
        self.lowest = start_losses.clone()
        self.losses = torch.full((settings.n_steps, n), math.nan, device=device)
        self.diverged = torch.zeros(n, dtype=torch.bool, device=device)

    def run(self, done: int) -> None:
        """Descend until every image has stopped.

        Args:
            done: steps already reported.
        """
        active = torch.arange(len(self.starts), device=self.starts.device)
        for step in range(self.settings.n_steps):
            self.step(step, active)
            stopped = self.diverged[active] | self.converged(step, active)
            active = active[~stopped]
            n_left = len(active) * (self.settings.n_steps - step - 1)
            self.projector.report(done + len(self.starts) * self.settings.n_steps - n_left)
            if not len(active):
                return

    def step(self, step: int, active: Tensor) -> None:
        """One step of the images at the positions `active` (a,)."""
        codes = self.starts[active] + self.projector.spread * self.offsets[active]
        drawn = codes + self.noise(step, active)
        maps = [m[active] for m in self.noise_maps]
        images = self.projector.model.synthesize(drawn, maps or "const")  # (a, C, H, W)
        difference = self.projector.embed(images) - self.targets[active]  # (a, F)
        losses = difference.square().sum(dim=1)  # (a,)
        self.note(step, active, codes.detach(), losses.detach())
        # A sum, not a mean: an image's gradient must not depend on how many others there are.
        total = losses.sum() + NOISE_WEIGHT * sum(noise_regularization(m).sum() for m in maps)
        variables = [self.offsets, *self.noise_maps]
        # Not backward(), which would leave gradients in the caller's model.
        gradients = torch.autograd.grad(total, variables, allow_unused=True)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.grad = gradient
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        self.optimizer.step()
        self.normalize_noise()

    def note(self, step: int, active: Tensor, codes: Tensor, losses: Tensor) -> None:
        """Record the losses (a,) of codes (a, *latent_shape), and keep the best."""
        finite = losses.isfinite()
        self.losses[step, active] = torch.where(finite, losses, math.nan)
        self.diverged[active] = ~finite
        better = losses < self.lowest[active]
        self.lowest[active[better]] = losses[better]
        self.best[active[better]] = codes[better]

    def noise(self, step: int, active: Tensor) -> Tensor | float:
        """Noise on the codes of the active images, each from a generator of its own."""
        scale = self.settings.noise_on_code(step)
        if not scale:
            return 0.0
        shape = self.starts.shape[1:]
        drawn = [torch.randn(shape, generator=self.generators[i]) for i in active.tolist()]
        return torch.stack(drawn).to(self.starts) * (scale * self.projector.spread)

    @torch.no_grad()
    def normalize_noise(self) -> None:
        """Give each noise map mean 0 and variance 1 (Karras et al. 2020, appendix D)."""
        for maps in self.noise_maps:
            maps -= maps.mean(dim=(2, 3), keepdim=True)
            maps *= (maps.square().mean(dim=(2, 3), keepdim=True) + 1e-12).rsqrt()

    def converged(self, step: int, active: Tensor) -> Tensor:
        """Which active images (a,) no longer improve."""
        first, last = self.settings.first_judged, step + 1 - self.settings.patience
        if last <= first:
            return torch.zeros(len(active), dtype=torch.bool, device=active.device)
        before = self.losses[first:last, active].amin(dim=0)
        recent = self.losses[last : step + 1, active].amin(dim=0)
        return recent > before * (1 - TOLERANCE)


def noise_regularization(maps: Tensor) -> Tensor:
    """How far noise maps are from white noise (Karras et al. 2020, appendix D).

    Over the map and its halvings down to 8x8 (averages of 2x2, times 2 to keep the variance):
    the squared means of the products of each value with its left and its upper neighbour,
    round the edges.

    Args:
        maps: (B, 1, H, W).

    Returns:
        (B,), 0 for maps without correlations.
    """
    total = maps.new_zeros(len(maps))
    while True:
        for axis in (2, 3):
            products = maps * maps.roll(1, dims=axis)
            total = total + products.mean(dim=(1, 2, 3)).square()
        if maps.shape[-1] <= SMALLEST_NOISE_MAP:
            return total
        maps = functional.avg_pool2d(maps, 2) * 2


def _noise_seed(image: Tensor, seed: int) -> int:
    """A seed that follows from the image, so that its noise is the same in any batch."""
    pixels = image.cpu().contiguous().numpy().tobytes()
    digest = hashlib.sha256(seed.to_bytes(16, "little", signed=True) + pixels).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _like(mask: Tensor, values: Tensor) -> Tensor:
    """A mask (B,) shaped to select rows of values (B, ...)."""
    return mask.reshape(-1, *[1] * (values.ndim - 1))


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode for a while: batch statistics would mix the images."""
    training = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.train(mode)
