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

# The public names by module, which is imported, and with it torch, at a name's first use.
_MODULES = {
    "direction": ["Direction"],
    "direction_set": ["DirectionSet"],
    "discovery": ["discover"],
    "editing": ["edit", "traverse"],
    "inversion.projection": ["project"],
    "mapping": ["LatentMap"],
    "models": [
        "LSAVAE", "VAE", "Autoencoder", "BetaTCVAE", "BetaVAE", "Eigenfaces", "FactorVAE", "ProGAN",
        "StyleGAN", "StyleGAN2", "StyleGAN3", "load", "register",
    ],
    "models.wrapped": ["wrap"],
    "perception.classifier": ["AttributeClassifier"],
    "perception.faces": ["FaceDetector", "FaceIdentity"],
    "perception.features": ["ImageFeatures"],
}  # fmt: skip
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "LSAVAE", "VAE", "AttributeClassifier", "Autoencoder", "BetaTCVAE", "BetaVAE", "Direction",
    "DirectionSet", "Eigenfaces", "FaceDetector", "FaceIdentity", "FactorVAE", "ImageFeatures",
    "LatentMap", "ProGAN", "StyleGAN", "StyleGAN2", "StyleGAN3", "__version__", "discover", "edit",
    "load", "project", "register", "traverse", "wrap",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *globals()]
