"""Find, share, apply and honestly compare semantic directions in latent spaces."""

from hublatent.classifier import AttributeClassifier
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.editing import edit, traverse
from hublatent.inversion.projection import project
from hublatent.models import VAE, BetaTCVAE, BetaVAE, Eigenfaces, StyleGAN2, load
from hublatent.version import __version__

__all__ = [
    "VAE",
    "AttributeClassifier",
    "BetaTCVAE",
    "BetaVAE",
    "Direction",
    "DirectionSet",
    "Eigenfaces",
    "StyleGAN2",
    "__version__",
    "edit",
    "load",
    "project",
    "traverse",
]
