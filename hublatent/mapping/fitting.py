"""The same images read by several models; ridge regression between what they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from hublatent.data import FaceDataset
from hublatent.direction import Origin
from hublatent.errors import DataError
from hublatent.images import as_rgb
from hublatent.stats import Bools, Estimate, Ints, bootstrap_weights, identity_folds, interval

if TYPE_CHECKING:
    from hublatent.model import LatentModel

Latents = NDArray[np.float64]

PENALTIES: NDArray[np.float64] = np.logspace(
    -6, 1, 8
)  # of the ridge, per image, for latents of variance 1
CURVE_SIZES = (50, 100, 200, 500, 1000, 2000, 5000)
N_FOLDS = 5
MIN_IMAGES = 50
MAX_DRAWN = 200  # held-out images that the models redraw
BATCH = 128

# What is measured on images of held-out people; R, L and M are the paper's.
SCORES = {
    "r2": "share of the variance of the target's latents that the map explains",
    "procrustes r2": "the same of the best rotation and scale",
    "latent": "L, mean squared error of the mapped latents",
    "reconstruction": "R, mean squared error of the source's reconstructions, pixels in [0, 1]",
    "mapped": "M, of what the target draws from mapped latents",
    "target reconstruction": "of what the target draws from its own latents",
    "procrustes": "of what the target draws from rotated latents",
    "mean face": "of what the target draws from its mean latent",
}


@dataclass(frozen=True, eq=False)
class Fit:
    """A map one way.

    Attributes:
        matrix: (D_in, D_out), of latents less their mean.
        penalty: of the ridge, which held-out people chose.
        scores: those of SCORES.
        curve: how many images it was fitted to -> R2 on held-out people.
    """

    matrix: Tensor
    penalty: float
    scores: Mapping[str, Estimate] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SharedImages:
    """N images that several models read.

    Attributes:
        batch: positions (b,) -> those images (b, C, H, W), in [-1, 1].
        identities: (N,), who is on each.
        held_out: (N,), those that give scores alone.
        origin: what they are.
        sampler: the model that drew them; None for given images.
        sampled: (N, *latent_shape), what it drew them from.
    """

    batch: Callable[[Ints], Tensor]
    identities: Ints
    held_out: Bools
    origin: Origin
    sampler: LatentModel | None = None
    sampled: Tensor | None = None

    @classmethod
    def of(
        cls,
        images: Tensor | FaceDataset | int,
        models: Sequence[LatentModel],
        identities: Ints | None = None,
        seed: int = 0,
    ) -> SharedImages:
        """Images as `LatentMap.fit` takes them; samples are of the model that is best sampled.

        Raises:
            DataError: there are fewer than 50, or not an identity for each.
        """
        n = images if isinstance(images, int) else len(images)
        if isinstance(images, FaceDataset):
            identities = images.identities
        who = np.arange(n) if identities is None else np.asarray(identities)
        if n < MIN_IMAGES or len(who) != n:
            raise DataError(
                f"{n} images and {len(who)} identities; a map needs at least {MIN_IMAGES} images, "
                "and to know who is on each."
            )
        held_out = identity_folds(who, N_FOLDS, seed) == 0
        if isinstance(images, FaceDataset):
            if len(test := images.indices("test")):
                held_out = np.isin(np.arange(n), test)
            origin = Origin("encoded", images.name, images.digest, n)
            return cls(images.batch, who, held_out, origin)
        if isinstance(images, Tensor):
            return cls(lambda i: images[i], who, held_out, Origin("encoded", "given images", n=n))
        sampler = next(filter(is_sampled, models), models[0])
        latents = sampler.sample_latents(n, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            drawn = torch.cat([sampler.decode(part).cpu() for part in latents.split(BATCH)])
        origin = Origin("sampled", sampler.architecture, sampler.fingerprint(), n)
        return cls(lambda i: drawn[i], who, held_out, origin, sampler, latents)

    def __len__(self) -> int:
        return len(self.identities)

    @torch.inference_mode()
    def read(self, model: LatentModel) -> Latents:
        """(N, D): the latents that a model reads; those with layers averaged over them."""
        if model is self.sampler and self.sampled is not None:
            latents = self.sampled.cpu()
        else:
            parts = np.split(np.arange(len(self)), range(BATCH, len(self), BATCH))
            latents = torch.cat([model.encode(self.shown_to(model, i)).cpu() for i in parts])
        pooled = latents if latents.ndim == 2 else latents.mean(dim=1)
        return np.asarray(pooled.double().numpy())

    @torch.inference_mode()
    def shown_to(self, model: LatentModel, indices: Ints) -> Tensor:
        """Some of the images, in a model's size and channels, on its device."""
        return as_images_of(model, self.batch(indices))


def is_sampled(model: LatentModel) -> bool:
    """Whether a model's latents are known best of its own samples, as W of a mapping network.

    An encoder beside such a generator reads latents that lie elsewhere than W: a map fitted to
    those loses the directions that were found in samples.
    """
    return model.space != "z" or not model.has_encoder


def as_images_of(model: LatentModel, images: Tensor) -> Tensor:
    """Images (B, C, H, W) in a model's size and channels, on its device."""
    images = images.to(model.latent_mean)
    if images.shape[-1] != model.image_size:
        size = (model.image_size, model.image_size)
        images = interpolate(images, size, mode="bilinear", antialias=True).clamp(-1, 1)
    if images.shape[1] == model.channels:
        return images
    rgb = as_rgb(images)
    if model.channels == 3:
        return rgb
    if model.channels == 1:
        return rgb.mean(dim=1, keepdim=True)
    return torch.cat([rgb, torch.ones_like(rgb[:, :1])], dim=1)


def fit_way(
    source: LatentModel,
    target: LatentModel,
    x: Latents,
    y: Latents,
    shown: SharedImages,
    seed: int = 0,
) -> Fit:
    """Fit the map from latents x (N, D_in) to y (N, D_out), and measure it on held-out people."""
    held = np.flatnonzero(shown.held_out)
    seen = np.flatnonzero(~shown.held_out)
    order = np.random.default_rng(seed).permutation(seen)
    people = shown.identities

    def r2_of(n: int) -> float:
        part = order[:n]
        matrix, _ = ridge(x[part], y[part], people[part], seed)
        rest = y[held] - _mapped(x[held], x[part], y[part], matrix)
        return float(1 - np.square(rest).sum() / np.square(y[held] - y[part].mean(0)).sum())

    matrix, penalty = ridge(x[seen], y[seen], people[seen], seed)
    guesses = {
        "ridge": _mapped(x[held], x[seen], y[seen], matrix),
        "procrustes": _mapped(x[held], x[seen], y[seen], procrustes(x[seen], y[seen])),
        "mean face": np.broadcast_to(y[seen].mean(axis=0), y[held].shape),
    }
    squares = {name: np.square(y[held] - guess).sum(axis=1) for name, guess in guesses.items()}
    pictures = _pictures(source, target, x[held], y[held], guesses, shown, held)
    sums: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {
        "r2": (squares["mean face"] - squares["ridge"], squares["mean face"]),
        "procrustes r2": (squares["mean face"] - squares["procrustes"], squares["mean face"]),
        "latent": (squares["ridge"], np.full(len(held), float(y.shape[1]))),
        **{name: (errors, np.ones(len(errors))) for name, errors in pictures.items()},
    }
    scores = {name: _ratio(*sums[name], people[held], seed) for name in SCORES}
    curve = {n: r2_of(n) for n in CURVE_SIZES if n < len(seen)}
    curve[len(seen)] = scores["r2"].value
    return Fit(torch.from_numpy(matrix).float(), penalty, scores, curve)


def ridge(x: Latents, y: Latents, identities: Ints, seed: int = 0) -> tuple[Latents, float]:
    """Ridge regression of y on x, both centred; the penalty is the best one for held-out people.

    Args:
        x, y: (N, D_in), (N, D_out).
        identities: (N,).
        seed: of the folds.

    Returns:
        (D_in, D_out), and the penalty.
    """
    errors = np.zeros(len(PENALTIES))
    folds = identity_folds(identities, min(N_FOLDS, len(np.unique(identities))), seed)
    for fold in np.unique(folds):
        out = folds == fold
        for i, matrix in enumerate(_ridge_path(x[~out], y[~out], PENALTIES)):
            errors[i] += np.square(y[out] - _mapped(x[out], x[~out], y[~out], matrix)).sum()
    best = PENALTIES[[int(errors.argmin())]]
    return next(iter(_ridge_path(x, y, best))), float(best[0])


def _ridge_path(x: Latents, y: Latents, penalties: NDArray[np.float64]) -> list[Latents]:
    """A = (Z'Z + n penalty I)^-1 Z'Y on standardised Z, for each penalty; one decomposition."""
    spread = np.maximum(x.std(axis=0), 1e-12 + 1e-6 * x.std())  # unused dimensions stay unused
    z = (x - x.mean(axis=0)) / spread
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    rotated = vectors.T @ (z.T @ (y - y.mean(axis=0))) / len(z)  # (D_in, D_out)
    return [
        (vectors @ (rotated / (np.maximum(values, 0) + penalty)[:, None])) / spread[:, None]
        for penalty in penalties
    ]


def procrustes(x: Latents, y: Latents) -> Latents:
    """The rotation and scale that bring x closest to y: (D_in, D_out)."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    left, values, right = np.linalg.svd(x.T @ y, full_matrices=False)
    rotation = left @ right
    return np.asarray(rotation * values.sum() / np.square(x @ rotation).sum())


def on_layers(rows: Tensor, latent_shape: tuple[int, ...]) -> Tensor:
    """Rows (B, D) on every layer of latents of a shape."""
    return rows if len(latent_shape) == 1 else rows[:, None].expand(-1, *latent_shape)


def _mapped(new: Latents, x: Latents, y: Latents, matrix: Latents) -> Latents:
    return np.asarray(y.mean(axis=0) + (new - x.mean(axis=0)) @ matrix)


def _pictures(
    source: LatentModel,
    target: LatentModel,
    x: Latents,
    y: Latents,
    guesses: Mapping[str, Latents],
    shown: SharedImages,
    held: Ints,
) -> dict[str, NDArray[np.float64]]:
    """Squared errors of what is drawn from each kind of latents, of the first held-out images."""
    drawn = {
        "reconstruction": (source, x),
        "target reconstruction": (target, y),
        "mapped": (target, guesses["ridge"]),
        "procrustes": (target, guesses["procrustes"]),
        "mean face": (target, guesses["mean face"]),
    }
    n = min(MAX_DRAWN, len(held))
    return {name: _errors(model, z[:n], shown, held[:n]) for name, (model, z) in drawn.items()}


@torch.inference_mode()
def _errors(
    model: LatentModel, rows: Latents, shown: SharedImages, indices: Ints
) -> NDArray[np.float64]:
    """(n,): mean squared errors of the images that a model draws from rows (n, D)."""
    errors = []
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        z = torch.from_numpy(np.array(rows[part])).to(model.latent_mean)
        images = shown.shown_to(model, indices[part])
        drawn = model.decode(on_layers(z, model.latent_shape))
        errors.append(((drawn - images) / 2).square().flatten(1).mean(dim=1).double().cpu())
    return np.asarray(torch.cat(errors).numpy())


def _ratio(
    above: NDArray[np.float64], below: NDArray[np.float64], identities: Ints, seed: int
) -> Estimate:
    """sum(above) / sum(below), with the bootstrap's interval over people."""
    weights = bootstrap_weights(identities[: len(above)], seed=seed)
    drawn = [(w @ above) / (w @ below) for w in weights]
    return interval(np.concatenate(drawn), float(above.sum() / below.sum()))
