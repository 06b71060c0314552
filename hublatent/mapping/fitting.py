"""The same images read by several models; ridge regression between what they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hublatent import stats
from hublatent.data import FaceDataset
from hublatent.direction import Origin
from hublatent.errors import DataError
from hublatent.images import as_rgb
from hublatent.stats import Bools, Estimate, Floats, Ints

if TYPE_CHECKING:
    from hublatent.model import LatentModel

PENALTIES = np.logspace(-6, 1, 8)  # of the ridge, per image, for latents of variance 1
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
    """A map one way."""

    matrix: Tensor  # (D_in, D_out), of latents less their mean
    penalty: float  # of the ridge, which held-out people chose
    scores: Mapping[str, Estimate]  # those of SCORES
    curve: Mapping[int, float]  # how many images it was fitted to -> R2 on held-out people


@dataclass(frozen=True, eq=False)
class SharedImages:
    """N images that several models read."""

    batch: Callable[[Ints], Tensor]  # positions (b,) -> those images (b, C, H, W), in [-1, 1]
    identities: Ints  # (N,), who is on each
    held_out: Bools  # (N,), those that give scores alone
    origin: Origin  # what they are
    # Fingerprint -> latents (N, D) that this model has read, or has drawn the images from.
    latents: dict[str, Floats] = field(default_factory=dict)

    @classmethod
    def of(
        cls, images: Tensor | FaceDataset | int, models: Sequence[LatentModel],
        identities: Ints | None = None, seed: int = 0,
    ) -> SharedImages:  # fmt: skip
        """Images as `LatentMap.fit` takes them; samples are of the model that is best sampled."""
        n = images if isinstance(images, int) else len(images)
        if isinstance(images, FaceDataset):
            identities = images.identities
        who = np.arange(n) if identities is None else np.asarray(identities)
        if n < MIN_IMAGES or len(who) != n:
            raise DataError(
                f"{n} images and {len(who)} identities; a map needs at least {MIN_IMAGES} images, "
                "and to know who is on each."
            )
        held_out = stats.identity_folds(who, N_FOLDS, seed) == 0
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
        fingerprint = sampler.fingerprint()
        origin = Origin("sampled", sampler.architecture, fingerprint, n)
        return cls(lambda i: drawn[i], who, held_out, origin, {fingerprint: _pooled(latents)})

    def __len__(self) -> int:
        return len(self.identities)

    @torch.inference_mode()
    def read(self, model: LatentModel) -> Floats:
        """(N, D): the latents that a model reads; those with layers averaged over them."""
        key = model.fingerprint()
        if key not in self.latents:
            parts = np.split(np.arange(len(self)), range(BATCH, len(self), BATCH))
            read = torch.cat([model.encode(self.shown_to(model, i)).cpu() for i in parts])
            self.latents[key] = _pooled(read)
        return self.latents[key]

    @torch.inference_mode()
    def shown_to(self, model: LatentModel, indices: Ints) -> Tensor:
        """Some of the images, in a model's size and channels, on its device."""
        return as_images_of(model, self.batch(indices))


def _pooled(latents: Tensor) -> Floats:
    pooled = latents if latents.ndim == 2 else latents.mean(dim=1)
    return np.asarray(pooled.double().cpu().numpy())


def is_sampled(model: LatentModel) -> bool:
    """Whether a model's latents are known best of its own samples, as W of a mapping network.

    An encoder beside such a generator reads latents that lie elsewhere than W: a map fitted to
    those loses the directions that were found in samples.
    """
    return model.space != "z" or not model.has_encoder


def as_images_of(model: LatentModel, images: Tensor) -> Tensor:
    """Images (B, C, H, W) in a model's size and channels, on its device."""
    images, size = images.to(model.latent_mean), model.image_size
    if images.shape[-1] != size:
        images = interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(-1, 1)
    if images.shape[1] == model.channels:
        return images
    rgb = as_rgb(images)
    if model.channels == 3:
        return rgb
    if model.channels == 1:
        return rgb.mean(dim=1, keepdim=True)
    return torch.cat([rgb, torch.ones_like(rgb[:, :1])], dim=1)


def fit_way(
    source: LatentModel, target: LatentModel, x: Floats, y: Floats, shown: SharedImages,
    seed: int = 0,
) -> Fit:  # fmt: skip
    """Fit the map from latents x (N, D_in) to y (N, D_out), and measure it on held-out people."""
    held, seen = np.flatnonzero(shown.held_out), np.flatnonzero(~shown.held_out)
    order = np.random.default_rng(seed).permutation(seen)
    people, truth = shown.identities, y[held]
    matrix, penalty = ridge(x[seen], y[seen], people[seen], seed)
    guesses = {
        "ridge": _mapped(x[held], x[seen], y[seen], matrix),
        "procrustes": _mapped(x[held], x[seen], y[seen], procrustes(x[seen], y[seen])),
        "mean face": np.broadcast_to(y[seen].mean(axis=0), truth.shape),
    }
    squares = {name: np.square(truth - guess).sum(axis=1) for name, guess in guesses.items()}
    total = squares["mean face"]
    sums: dict[str, tuple[Floats, Floats]] = {
        "r2": (total - squares["ridge"], total),
        "procrustes r2": (total - squares["procrustes"], total),
        "latent": (squares["ridge"], np.full(len(held), float(y.shape[1]))),
    }
    for name, model, rows in (
        ("reconstruction", source, x[held]),
        ("target reconstruction", target, truth),
        ("mapped", target, guesses["ridge"]),
        ("procrustes", target, guesses["procrustes"]),
        ("mean face", target, guesses["mean face"]),
    ):
        errors = _errors(model, rows[:MAX_DRAWN], shown, held)
        sums[name] = (errors, np.ones(len(errors)))
    scores = {name: _ratio(*sums[name], people[held], seed) for name in SCORES}

    def r2_of(n: int) -> float:
        part = order[:n]
        fewer, _ = ridge(x[part], y[part], people[part], seed)
        rest = truth - _mapped(x[held], x[part], y[part], fewer)
        return float(1 - np.square(rest).sum() / np.square(truth - y[part].mean(0)).sum())

    curve = {n: r2_of(n) for n in CURVE_SIZES if n < len(seen)} | {len(seen): scores["r2"].value}
    return Fit(torch.from_numpy(matrix).float(), penalty, scores, curve)


def ridge(x: Floats, y: Floats, identities: Ints, seed: int = 0) -> tuple[Floats, float]:
    """Ridge regression of y (N, D_out) on x (N, D_in), both centred.

    Returns the matrix (D_in, D_out), and the penalty that is best for held-out people.
    """
    errors = np.zeros(len(PENALTIES))
    folds = stats.identity_folds(identities, min(N_FOLDS, len(np.unique(identities))), seed)
    for fold in np.unique(folds):
        out = folds == fold
        for i, matrix in enumerate(_ridge_path(x[~out], y[~out], PENALTIES)):
            errors[i] += np.square(y[out] - _mapped(x[out], x[~out], y[~out], matrix)).sum()
    best = PENALTIES[[int(errors.argmin())]]
    return _ridge_path(x, y, best)[0], float(best[0])


def _ridge_path(x: Floats, y: Floats, penalties: Floats) -> list[Floats]:
    """A = (Z'Z + n penalty I)^-1 Z'Y on standardised Z, for each penalty; one decomposition."""
    spread = np.maximum(x.std(axis=0), 1e-12 + 1e-6 * x.std())  # unused dimensions stay unused
    z = (x - x.mean(axis=0)) / spread
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    rotated = vectors.T @ (z.T @ (y - y.mean(axis=0))) / len(z)  # (D_in, D_out)
    return [
        (vectors @ (rotated / (np.maximum(values, 0) + penalty)[:, None])) / spread[:, None]
        for penalty in penalties
    ]


def procrustes(x: Floats, y: Floats) -> Floats:
    """The rotation and scale that bring x closest to y: (D_in, D_out)."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    left, values, right = np.linalg.svd(x.T @ y, full_matrices=False)
    rotation = left @ right
    return np.asarray(rotation * values.sum() / np.square(x @ rotation).sum())


def on_layers(rows: Tensor, latent_shape: tuple[int, ...]) -> Tensor:
    """Rows (B, D) on every layer of latents of a shape."""
    return rows if len(latent_shape) == 1 else rows[:, None].expand(-1, *latent_shape)


def _mapped(new: Floats, x: Floats, y: Floats, matrix: Floats) -> Floats:
    return np.asarray(y.mean(axis=0) + (new - x.mean(axis=0)) @ matrix)


@torch.inference_mode()
def _errors(model: LatentModel, rows: Floats, shown: SharedImages, indices: Ints) -> Floats:
    """(n,): mean squared errors of what a model draws from rows (n, D) for the first n images."""
    errors = []
    for start in range(0, len(rows), BATCH):
        z = torch.from_numpy(np.array(rows[start : start + BATCH])).to(model.latent_mean)
        images = shown.shown_to(model, indices[start : start + len(z)])
        drawn = model.decode(on_layers(z, model.latent_shape))
        errors.append(((drawn - images) / 2).square().flatten(1).mean(dim=1).double().cpu())
    return np.asarray(torch.cat(errors).numpy())


def _ratio(above: Floats, below: Floats, identities: Ints, seed: int) -> Estimate:
    """sum(above) / sum(below), with the bootstrap's interval over people."""
    weights = stats.bootstrap_weights(identities[: len(above)], seed=seed)
    drawn = [(w @ above) / (w @ below) for w in weights]
    return stats.interval(np.concatenate(drawn), float(above.sum() / below.sum()))
