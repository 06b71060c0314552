"""Find, share, apply and honestly compare semantic directions in latent spaces."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"


if TYPE_CHECKING:
    from hublatent.direction import Direction
    from hublatent.direction_set import DirectionSet
    from hublatent.discovery import discover
    from hublatent.editing import edit, traverse
    from hublatent.inversion.projection import project
    from hublatent.mapping import LatentMap
    from hublatent.models import (
        LSAVAE,
        VAE,
        Autoencoder,
        BetaTCVAE,
        BetaVAE,
        Eigenfaces,
        FactorVAE,
        ProGAN,
        StyleGAN,
        StyleGAN2,
        StyleGAN3,
        load,
        register,
    )
    from hublatent.models.wrapped import wrap
    from hublatent.perception.classifier import AttributeClassifier
    from hublatent.perception.faces import FaceDetector, FaceIdentity
    from hublatent.perception.features import ImageFeatures

# Where each public name lives; its module, and with it torch, is imported at the first use.
_HOMES = {
    "VAE": "models",
    "AttributeClassifier": "perception.classifier",
    "Autoencoder": "models",
    "BetaTCVAE": "models",
    "BetaVAE": "models",
    "Direction": "direction",
    "DirectionSet": "direction_set",
    "Eigenfaces": "models",
    "FaceDetector": "perception.faces",
    "FaceIdentity": "perception.faces",
    "FactorVAE": "models",
    "ImageFeatures": "perception.features",
    "LSAVAE": "models",
    "LatentMap": "mapping",
    "ProGAN": "models",
    "StyleGAN": "models",
    "StyleGAN2": "models",
    "StyleGAN3": "models",
    "discover": "discovery",
    "edit": "editing",
    "load": "models",
    "project": "inversion.projection",
    "register": "models",
    "traverse": "editing",
    "wrap": "models.wrapped",
}

__all__ = [
    "LSAVAE",
    "VAE",
    "AttributeClassifier",
    "Autoencoder",
    "BetaTCVAE",
    "BetaVAE",
    "Direction",
    "DirectionSet",
    "Eigenfaces",
    "FaceDetector",
    "FaceIdentity",
    "FactorVAE",
    "ImageFeatures",
    "LatentMap",
    "ProGAN",
    "StyleGAN",
    "StyleGAN2",
    "StyleGAN3",
    "__version__",
    "discover",
    "edit",
    "load",
    "project",
    "register",
    "traverse",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *globals()]
