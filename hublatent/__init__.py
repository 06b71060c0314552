"""Find, share, apply and honestly compare semantic directions in latent spaces."""

from hublatent.models import VAE, BetaTCVAE, BetaVAE, Eigenfaces, load
from hublatent.version import __version__

__all__ = ["VAE", "BetaTCVAE", "BetaVAE", "Eigenfaces", "__version__", "load"]
