"""Find, share, apply and honestly compare semantic directions in latent spaces."""

from hublatent.direction import Direction, DirectionSet
from hublatent.editing import edit, traverse
from hublatent.models import VAE, BetaTCVAE, BetaVAE, Eigenfaces, load
from hublatent.version import __version__

__all__ = [
    "VAE",
    "BetaTCVAE",
    "BetaVAE",
    "Direction",
    "DirectionSet",
    "Eigenfaces",
    "__version__",
    "edit",
    "load",
    "traverse",
]
