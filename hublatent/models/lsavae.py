"""LSA-VAE: a VAE whose latent has one dimension per attribute beside a style part."""

from __future__ import annotations

from hublatent.checkpoint import check_number
from hublatent.models.vae import VAE
from hublatent.perception.classifier import CELEBA_ATTRIBUTES, split_names


class LSAVAE(VAE):
    """VAE with a latent of style and attributes (Li et al. 2018, ICPR), read from its abstract.

    The first style_dim dimensions are style; attribute k has dimension style_dim + k to itself,
    with the prior N(1, 1) where it is present and N(-1, 1) where it is absent. The losses are a
    reading of the paper's abstract (training/objectives/lsavae.py).

    Args:
        style_dim: width of the style part.
        attributes: the K attributes' names, separated by commas; D = style_dim + K.
        image_size, channels, width, max_width, n_stages: as in ConvolutionalModel.
    """

    architecture = "lsavae"
    standard_prior = False

    def __init__(
        self, image_size: int = 64, channels: int = 3, style_dim: int = 88,
        attributes: str = CELEBA_ATTRIBUTES, width: int = 32, max_width: int = 128,
        n_stages: int = 4,
    ) -> None:  # fmt: skip
        check_number("style_dim", style_dim, 1, 4000)
        names = split_names(attributes)
        super().__init__(image_size, channels, style_dim + len(names), width, max_width, n_stages)
        self.style_dim = style_dim
        self.attributes = attributes
        self.attribute_axes = {name: style_dim + k for k, name in enumerate(names)}
