"""What a VAE or an autoencoder minimises: one file each, one line each in OBJECTIVES."""

from training.objectives.autoencoder import AutoencoderObjective
from training.objectives.beta_tcvae import BetaTCVAEObjective, PenalisedTCObjective
from training.objectives.beta_vae import BetaVAEObjective
from training.objectives.capacity_vae import CapacityVAEObjective
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

__all__ = ["OBJECTIVES", "Batch", "Objective"]
