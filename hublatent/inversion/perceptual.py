"""How different two images look: images -> vectors whose squared distance is the difference.

image-features  the feature maps of ImageFeatures, which have seen no label of a face
features        those of an AttributeClassifier (Johnson et al. 2016, arXiv:1603.08155)
lpips           the learned metric of Zhang et al. 2018 (arXiv:1801.03924), with its VGG backbone
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from hublatent.errors import HublatentError, unknown_name
from hublatent.images import as_rgb

if TYPE_CHECKING:
    from hublatent.perception.classifier import AttributeClassifier
    from hublatent.perception.features import ImageFeatures

Perceptual = Literal["image-features", "features", "lpips"]
Embedding = Callable[[Tensor], Tensor]
DEFAULT_CLASSIFIER = "model_cards/attributes-celeba"
IMAGE_FEATURES = "model_cards/image-features"
CHECKOUT = Path(__file__).resolve().parents[2]
# ImageFeatures takes multiples of 32 pixels: below 64 its last map would be a single position.
# VGG's pooling needs 16; above 256 only the memory grows (Karras et al. 2020, appendix D).
FEATURE_SIZES = range(64, 257, 32)
LPIPS_SIZES = range(16, 257)
LPIPS_EPSILON = 1e-10  # the lpips package's own


def perceptual_embedding(
    kind: Perceptual, classifier: AttributeClassifier | None = None, device: Any = "cpu"
) -> Embedding:
    """Images (B, C, H, W) in [-1, 1] -> float32 (B, F), differentiable.

    Squared Euclidean distances between rows are perceptual distances.

    Args:
        kind: "image-features", "features" or "lpips".
        classifier: whose feature maps "features" compares; never the one that judges.
        device: where the images are.

    Raises:
        HublatentError: the kind is unknown, its network is missing, or the weights of the lpips
            backbone cannot be downloaded.
    """
    if kind not in get_args(Perceptual):
        raise HublatentError(unknown_name("perceptual loss", kind, get_args(Perceptual)))
    if kind == "lpips":
        return lpips_embedding(load_lpips(device))
    if kind == "image-features":
        maps = partial(load_image_features(str(device)).feature_maps, size=FEATURE_SIZES[0])
        return lambda images: _flattened(maps(_resized(images, FEATURE_SIZES)))
    if classifier is None:
        raise HublatentError(
            'perceptual="features" compares the feature maps of a classifier: give '
            "classifier=AttributeClassifier.from_pretrained(...), or choose "
            'perceptual="image-features".'
        )
    seen = as_rgb if classifier.channels == 3 else lambda images: images
    return lambda images: _flattened(classifier.feature_maps(seen(images)))


def with_pixels(embed: Embedding, weight: float) -> Embedding:
    """The embedding of another's distance + weight * mean squared error, pixels in [-1, 1]."""
    root = torch.tensor(weight).sqrt().item()

    def joined(images: Tensor) -> Tensor:
        rows = images.flatten(1)
        return torch.cat([embed(images), rows * rows.shape[1] ** -0.5 * root], dim=1)

    return joined


def load_classifier(
    kind: Perceptual, source: str = DEFAULT_CLASSIFIER, device: str | None = None
) -> AttributeClassifier | None:
    """Load the classifier that a perceptual loss needs: for "features" one, for the others none.

    The default one is found in the current folder or the checkout that hublatent runs from.

    Raises:
        HublatentError: it is not there, or cannot be had.
    """
    from hublatent.perception.classifier import AttributeClassifier

    if kind != "features":
        return None
    if source == DEFAULT_CLASSIFIER:
        source = _bundled(source, "Name an attribute classifier's folder or Hub id (--classifier)")
    return AttributeClassifier.from_pretrained(source, device=device)


@lru_cache(maxsize=2)
def load_image_features(device: str) -> ImageFeatures:
    """ImageFeatures from the current folder or the checkout that hublatent runs from."""
    from hublatent.perception.features import ImageFeatures

    source = _bundled(IMAGE_FEATURES, 'Copy it there, or choose perceptual="features" or "lpips"')
    with torch.inference_mode(False):  # gradients will flow through it
        return ImageFeatures.from_pretrained(source, device=device)


def _bundled(folder: str, otherwise: str) -> str:
    for path in (Path(folder), CHECKOUT / folder):
        if path.is_dir():
            return str(path)
    raise HublatentError(
        f"To project pictures their features are compared, and {folder} is not here. {otherwise}."
    )


def load_lpips(device: Any = "cpu") -> Any:
    """The lpips package's network; its backbone's weights come through torchvision.

    Raises:
        HublatentError: they cannot be downloaded.
    """
    import lpips

    try:
        with warnings.catch_warnings():  # lpips calls torchvision by an older name
            warnings.filterwarnings(
                "ignore", message="The parameter 'pretrained'|Arguments other than"
            )
            return lpips.LPIPS(net="vgg", verbose=False).requires_grad_(False).to(device)
    except (OSError, RuntimeError) as error:  # no way there, or what arrived has another hash
        raise HublatentError(
            "The VGG weights that LPIPS needs are not in torch's cache and cannot be downloaded "
            f'({error}). Go online once, or choose perceptual="features".'
        ) from error


def lpips_embedding(network: Any) -> Embedding:
    """The embedding whose squared distance is that of an lpips.LPIPS (Zhang et al. 2018, eq. 1)."""
    # Its weights of the squared differences are not negative, so their roots can scale the maps.
    weights = [layer.model[-1].weight.clamp(min=0).sqrt() for layer in network.lins]  # (1, C, 1, 1)

    def embed(images: Tensor) -> Tensor:
        maps = network.net(network.scaling_layer(_resized(images, LPIPS_SIZES)))
        return _flattened(_unit_vectors(m) * w for m, w in zip(maps, weights, strict=True))

    return embed


def _resized(images: Tensor, sizes: range) -> Tensor:
    """Images (B, C, H, H) in colour, of the next larger of some sizes; of the largest at most."""
    height = images.shape[-1]
    size = next((size for size in sizes if size >= height), sizes[-1])
    if size != height:
        mode = "area" if size < height else "bilinear"
        images = functional.interpolate(images, (size, size), mode=mode)
    return as_rgb(images)


def _unit_vectors(maps: Tensor) -> Tensor:
    # Unlike sqrt, vector_norm has a finite gradient where all channels are 0.
    return maps / (torch.linalg.vector_norm(maps, dim=1, keepdim=True) + LPIPS_EPSILON)


def _flattened(maps: Iterable[Tensor]) -> Tensor:
    """Maps (B, C, H, W) as one row (B, F); a squared distance sums C and averages H and W."""
    rows = [m.flatten(1) * (m.shape[-1] * m.shape[-2]) ** -0.5 for m in maps]
    return torch.cat(rows, dim=1)
