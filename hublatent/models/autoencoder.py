"""A plain autoencoder, as Slot et al. edit faces with: no prior, no sampling."""

from __future__ import annotations

from hublatent.models.vae import ConvolutionalModel


class Autoencoder(ConvolutionalModel):
    """Convolutional autoencoder, as edited by Slot et al. 2021 (Neural Comput. & Appl. 33:1079).

    Nothing but the reconstruction shapes its latents, so samples come from the Gaussian of the
    latent statistics.
    """

    architecture = "autoencoder"
