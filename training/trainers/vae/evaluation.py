"""What a trained model shows: errors and terms on held-out images, and a picture per epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from hublatent.data import FaceDataset
from hublatent.discovery import LabelledLatents, encode
from hublatent.discovery.cross_validation import cross_validate
from hublatent.errors import DataError
from hublatent.evaluation import rate
from hublatent.images import to_pil
from hublatent.models.lsavae import LSAVAE
from hublatent.models.vae import VAE, ConvolutionalModel
from hublatent.stats import Estimate
from training import objectives
from training.trainers import loop

N_COLUMNS = 8
N_TRAVERSED = 5


@dataclass(frozen=True)
class Posteriors:
    """The posteriors of some images.

    Attributes:
        mean: (N, D), the latents.
        log_variance: (N, D); of an autoencoder, which has no variance, -infinity.
    """

    mean: Tensor
    log_variance: Tensor


def posteriors(model: ConvolutionalModel, dataset: FaceDataset, indices: np.ndarray) -> Posteriors:
    """Encode some images of a dataset; the model's mode is left as it was."""
    means, log_variances = [], []
    with loop.evaluating(model) as device:
        for images in loop.batches(dataset, indices, device):
            if isinstance(model, VAE):
                mean, log_variance = model.encode_distribution(images)  # (B, D) each
            else:
                mean = model.encode(images)  # (B, D)
                log_variance = torch.full_like(mean, -torch.inf)
            means.append(mean.cpu())
            log_variances.append(log_variance.cpu())
    return Posteriors(torch.cat(means), torch.cat(log_variances))


def evaluate(
    model: ConvolutionalModel, dataset: FaceDataset, indices: np.ndarray, seed: int
) -> dict[str, float | int]:
    """Judge a model on held-out images.

    Args:
        model: the model.
        dataset: the images.
        indices: (N,) positions in it; at least one.
        seed: of the latents that the decomposition draws.

    Returns:
        n_images; mse (pixels in [0, 1]); active_dimensions. Of a model with the prior N(0, I) also
        kl, mutual_information, total_correlation and dimension_wise_kl (nats; the last three over
        n_decomposed images).
    """
    found = posteriors(model, dataset, indices)
    results: dict[str, float | int] = {
        "n_images": len(indices),
        "mse": loop.reconstruction_error(model, dataset, indices),
        "active_dimensions": rate.active_dimensions(found.mean),
    }
    if not getattr(model, "standard_prior", False):
        return results
    # On the model's device: there are D * N^2 densities to compute.
    device = model.latent_mean.device
    mean, log_variance = (
        part[: rate.MAX_IMAGES].to(device) for part in (found.mean, found.log_variance)
    )
    return {
        **results,
        "kl": float(objectives.kl_divergence(found.mean, found.log_variance)),
        **rate.decomposed_kl(mean, log_variance, seed),
        "n_decomposed": len(mean),
    }


def style_reading(
    model: LSAVAE, dataset: FaceDataset, attributes: Iterable[str], seed: int
) -> dict[str, dict[str, Any]]:
    """How well a linear SVM reads attributes from an LSA-VAE's style part, which should not know.

    Args:
        model: the model.
        dataset: the images; training and validation are read, each by an SVM that never saw the
            person.
        attributes: which of them; one that is too rare is left out.
        seed: of the balanced sets and the folds.

    Returns:
        attribute -> accuracy from the style part, and from its own dimension alone; 0.5 is chance.
    """
    data = encode(model, dataset)
    found = {}
    for attribute in attributes:
        axis = model.attribute_axes[attribute]
        parts = {"style": slice(model.style_dim), "own_dimension": slice(axis, axis + 1)}
        try:
            found[attribute] = {
                name: asdict(_accuracy(data, part, attribute, seed)) for name, part in parts.items()
            }
        except DataError as error:
            print(f"style not read: {error}")
    return found


def _accuracy(data: LabelledLatents, part: slice, attribute: str, seed: int) -> Estimate:
    """Of a linear SVM on some dimensions of the latents."""
    assert data.mirrored is not None, "encoded with mirror images"
    some = replace(data, latents=data.latents[:, part], mirrored=data.mirrored[:, part])
    return cross_validate(some, attribute, "svm", seed=seed).scores(seed)["accuracy"]


@torch.no_grad()
def preview(model: ConvolutionalModel, images: Tensor, seed: int) -> Image.Image:
    """Draw originals, reconstructions, samples, and traversals of the most varied dimensions.

    Args:
        model: the model, on any device; left as it was.
        images: (N, C, H, W), at least 2; the first 8 are shown, all of them give the spread of
            the latents.
        seed: of the samples.

    Returns:
        A picture 8 images wide.
    """
    shown = copy.deepcopy(model).eval()
    latents = shown.encode(images.to(shown.latent_mean.device))  # (N, D)
    shown.set_latent_statistics(latents)
    first = latents[:N_COLUMNS]
    rows = [_padded(images[:N_COLUMNS]), _padded(shown.decode(first).cpu())]
    draws = torch.Generator().manual_seed(seed)
    rows.append(shown.decode(shown.sample_latents(N_COLUMNS, generator=draws)).cpu())
    deviations = shown.latent_covariance.diagonal().sqrt()
    for dimension in deviations.argsort(descending=True)[:N_TRAVERSED]:
        z = first[:1].repeat(N_COLUMNS, 1)
        offsets = torch.linspace(-3, 3, N_COLUMNS, device=z.device) * deviations[dimension]
        z[:, dimension] = shown.latent_mean[dimension] + offsets
        rows.append(shown.decode(z).cpu())
    return contact_sheet(torch.cat(rows), N_COLUMNS)


def contact_sheet(images: Tensor, n_columns: int) -> Image.Image:
    """Images (B, C, H, W) in [-1, 1] in rows, from the top left; the last may end in black."""
    return to_pil(make_grid(images, n_columns, padding=0, pad_value=-1.0)[None])[0]


def _padded(images: Tensor) -> Tensor:
    """Fill a row with black."""
    missing = N_COLUMNS - len(images)
    return torch.cat([images, images.new_full((missing, *images.shape[1:]), -1.0)])
