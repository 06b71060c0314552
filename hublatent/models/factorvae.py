"""FactorVAE: a VAE whose dimensions a discriminator holds independent of each other."""

from __future__ import annotations

from hublatent.models.vae import VAE


class FactorVAE(VAE):
    """FactorVAE (Kim & Mnih 2018, arXiv:1802.05983): the total correlation is weighted.

    Its discriminator belongs to training (training/objectives/factorvae.py), not to the model.
    """

    architecture = "factorvae"
