"""project(): the latents of given images, by gradient descent from samples or an encoder's.

Karras et al. 2020 (arXiv:1912.04958, appendix D) with one code per layer (Abdal et al. 2019,
arXiv:1904.03189). Each image has a loss and an end of its own, so that its
result does not depend on the images beside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hublatent.errors import HublatentError
from hublatent.inversion.optimiser import Descent, DescentSettings
from hublatent.inversion.perceptual import Embedding, Perceptual, perceptual_embedding, with_pixels

if TYPE_CHECKING:
    from hublatent.model import LatentModel
    from hublatent.perception.classifier import AttributeClassifier

Progress = Callable[[int, int], object]
Watch = Callable[[Tensor], object]

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
        super().__init__(
            f"The projection of image {', '.join(map(str, indices))} diverged (its loss is not "
            f"finite), also at a tenth of the learning rate {learning_rate:g}. Choose a lower one; "
            "if that changes nothing, the model draws values that are not finite."
        )


@dataclass(frozen=True, eq=False)
class Projection:
    """The latents that were found for B images."""

    latents: Tensor  # (B, *latent_shape)
    # (B, C, H, W) in [-1, 1], drawn by decode(), with the model's own noise: an edit starts there.
    images: Tensor
    errors: Tensor  # (B,), mean squared error of those images, for pixels in [0, 1]
    losses: Tensor  # (T, B), each step's loss; NaN after an image stopped
    steps: Tensor  # (B,) int64, how many steps each image took


def project(
    model: LatentModel, images: Tensor, *, classifier: AttributeClassifier | None = None,
    perceptual: Perceptual | None = None, batch_size: int = 32, progress: Progress | None = None,
    watch: Watch | None = None, **descent: Any,
) -> Projection:  # fmt: skip
    """Find latents from which a model draws given images.

    Args:
        images: (B, C, H, W) in [-1, 1], of the model's size.
        classifier: whose feature maps the perceptual loss "features" compares; not the judge.
        perceptual: "image-features", which have seen no labels; "features" (needs the classifier)
            or "lpips" (downloads VGG). By default the classifier's where one is given.
        batch_size: images that are projected together; halved where memory does not suffice.
        progress: called as progress(steps done, steps in all), counted over all images.
        watch: called before that with the best latents so far of a batch, (b, *latent_shape).
        descent: n_steps=300, n_candidates=256, learning_rate=0.1, seed=0 and the other settings of
            `hublatent.inversion.optimiser.DescentSettings`.

    Returns:
        The projection, on the model's device.

    Raises:
        DivergedError: an image's loss is not finite, at a lower learning rate too.
        HublatentError: there are no images, or they do not fit the model; a setting is out of
            range; a perceptual loss cannot be had; memory does not suffice for one image.
    """
    settings = DescentSettings(**descent)
    if batch_size < 1:
        raise HublatentError(f"batch_size {batch_size}; expected at least 1.")
    _check(model, images)
    device = model.latent_mean.device
    if perceptual is None:
        perceptual = "image-features" if classifier is None else "features"
    embed = perceptual_embedding(perceptual, classifier, device)
    embed = with_pixels(embed, settings.pixel_weight)
    modules: list[nn.Module] = [model] if classifier is None else [model, classifier]
    with _evaluating(modules), torch.inference_mode(False), torch.enable_grad():
        # A copy: tensors made in inference mode cannot take part in gradients.
        images = images.detach().clone().to(device, torch.float32)
        projector = _Projector(model, embed, settings, progress, watch, len(images))
        parts = zip(*projector.in_batches(images, batch_size), strict=True)
        latents, losses = map(torch.cat, parts, (0, 1))
    steps = losses.isfinite().sum(dim=0)
    with torch.no_grad():
        drawn = torch.cat([model.decode(part) for part in latents.split(CHUNK)])
        errors = ((drawn - images) / 2).square().flatten(1).mean(dim=1)  # (B,)
    return Projection(latents, drawn, errors, losses[: int(steps.max())], steps)


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


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode for a while: batch statistics would mix the images."""
    for module in modules:
        if any(parameter.is_inference() for parameter in module.parameters()):
            raise HublatentError(
                f"The {type(module).__name__} was built in torch.inference_mode(), so nothing can "
                "be differentiated through it. Load it outside."
            )
    training = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.train(mode)


@dataclass
class _Projector:
    """Everything that all batches of one projection share."""

    model: LatentModel
    embed: Embedding
    settings: DescentSettings
    progress: Progress | None
    watch: Watch | None
    n_images: int
    reported: int = 0

    def report(self, done: int) -> None:
        """Tell the caller; after a halved batch the count waits until it is caught up."""
        self.reported = max(self.reported, done)
        if self.progress is not None:
            self.progress(self.reported, self.n_images * self.settings.n_steps)

    def in_batches(self, images: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Latents (b, *latent_shape) and losses (n_steps, b) of each batch."""
        start = 0
        while start < len(images):
            batch = images[start : start + size]
            try:
                found = self.project_batch(batch, start)
            except (RuntimeError, MemoryError) as error:
                # torch.cuda.OutOfMemoryError says so too.
                if not isinstance(error, MemoryError) and not any(
                    words in str(error) for words in OUT_OF_MEMORY
                ):
                    raise
                size = len(batch) // 2
                if not size:
                    raise HublatentError(
                        f"Memory does not suffice to project a single image ({error})."
                    ) from error
                words = f"{len(batch)} images at once; going on with {size}"
                warnings.warn(f"Memory does not suffice for {words}.", stacklevel=2)
                continue
            yield found
            start += len(batch)

    def project_batch(self, images: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Project (b, C, H, W); `first` is the first one's position among all images.

        Those that diverge get a second attempt at a lower rate.
        """
        rate = self.settings.learning_rate
        done_before = first * self.settings.n_steps
        self.report(done_before)  # the search for starts takes seconds itself
        with torch.no_grad():
            targets = self.embed(images)  # (b, F)
            starts, start_losses = self.starts(images, targets)

        def descend(rows: Tensor, settings: DescentSettings) -> Descent:
            given = targets[rows], starts[rows], start_losses[rows]
            descent = Descent(self.model, self.embed, *given, settings)

            def tell(done: int) -> None:
                if self.watch is not None:
                    self.watch(descent.best)
                self.report(done_before + done)

            descent.run(tell)
            return descent

        everything = torch.arange(len(images), device=targets.device)
        descent = descend(everything, self.settings)
        again = everything[descent.diverged]
        if len(again):
            second = descend(again, replace(self.settings, learning_rate=rate * SECOND_RATE))
            if bool(second.diverged.any()):
                raise DivergedError([first + i for i in again[second.diverged].tolist()], rate)
            descent.best[again], descent.losses[:, again] = second.best, second.losses
        return descent.best, descent.losses

    def starts(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Where each image's descent begins (b, *latent_shape), and its loss there (b,).

        At its encoding, or at the nearest of the mean latent and some samples.
        """
        if self.model.has_encoder:
            encoded = self.model.encode(images)
            losses = (self.embed(self.model.synthesize(encoded)) - targets).square().sum(dim=1)
            return encoded, losses.nan_to_num(math.inf)
        generator = torch.Generator().manual_seed(self.settings.seed)
        mean = self.model.latent_mean.expand(1, *self.model.latent_shape)
        samples = self.model.sample_latents(self.settings.n_candidates, generator=generator)
        nearest = mean.repeat(len(targets), *[1] * (mean.ndim - 1))  # (b, *latent_shape)
        lowest = torch.full((len(targets),), math.inf, device=targets.device)
        for part in torch.cat([mean, samples]).split(CHUNK):
            embedded = self.embed(self.model.synthesize(part))  # (n, F)
            distances = torch.cdist(targets, embedded).square().nan_to_num(math.inf)  # (b, n)
            values, positions = distances.min(dim=1)
            nearer = values < lowest
            nearest[nearer], lowest[nearer] = part[positions[nearer]], values[nearer]
        return nearest, lowest
