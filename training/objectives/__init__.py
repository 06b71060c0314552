"""What a VAE or an autoencoder minimises: one file each, one line each in OBJECTIVES."""

from training.objectives.autoencoder import AutoencoderObjective
from training.objectives.beta_tcvae import (
    ESTIMATORS,
    BetaTCVAEObjective,
    KLTerms,
    PenalisedTCObjective,
    beta_tcvae,
    decompose_kl,
    importance_weights,
    pairwise_log_density,
)
from training.objectives.beta_vae import BetaVAEObjective, beta_vae
from training.objectives.capacity_vae import CapacityVAEObjective, capacity_at, capacity_vae
from training.objectives.elbo import (
    calibrated_reconstruction,
    gaussian_reconstruction,
    kl_divergence,
    kl_per_dimension,
    pixel_mse,
    sample_posterior,
)
from training.objectives.factorvae import FactorVAEObjective
from training.objectives.lsavae import LSAVAEObjective
from training.objectives.objective import Batch, Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "beta-vae": BetaVAEObjective,
    "capacity-vae": CapacityVAEObjective,
    "beta-tcvae": BetaTCVAEObjective,
    "penalised-tc": PenalisedTCObjective,
    "factorvae": FactorVAEObjective,
    "autoencoder": AutoencoderObjective,
    "lsavae": LSAVAEObjective,
}

__all__ = [
    "ESTIMATORS",
    "OBJECTIVES",
    "AutoencoderObjective",
    "Batch",
    "FactorVAEObjective",
    "KLTerms",
    "LSAVAEObjective",
    "Objective",
    "beta_tcvae",
    "beta_vae",
    "calibrated_reconstruction",
    "capacity_at",
    "capacity_vae",
    "decompose_kl",
    "gaussian_reconstruction",
    "importance_weights",
    "kl_divergence",
    "kl_per_dimension",
    "pairwise_log_density",
    "pixel_mse",
    "sample_posterior",
]
