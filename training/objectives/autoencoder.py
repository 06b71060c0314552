"""The plain autoencoder's objective: the reconstruction and nothing else."""

from __future__ import annotations

from torch import Tensor

from hublatent.models.vae import Autoencoder
from training.objectives.elbo import pixel_mse
from training.objectives.objective import Batch, Objective


class AutoencoderObjective(Objective):
    """-log p(x|z) of the one latent that the encoder gives."""

    def terms(self, model: Autoencoder, batch: Batch) -> dict[str, Tensor]:
        decoded = model.decode_unclamped(model.encode(batch.images))  # (B, C, H, W)
        reconstruction = self.reconstruction(decoded, batch.images)
        return {
            "loss": reconstruction,
            "reconstruction": reconstruction,
            "mse": pixel_mse(decoded, batch.images).detach(),
        }
