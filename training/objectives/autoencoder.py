"""The plain autoencoder's objective: the reconstruction and nothing else."""

from __future__ import annotations

from hublatent.models.vae import Autoencoder
from training.objectives.objective import Batch, Objective, Terms, pixel_mse


class AutoencoderObjective(Objective):
    """-log p(x|z) of the one latent that the encoder gives."""

    def terms(self, model: Autoencoder, batch: Batch) -> Terms:
        decoded = model.decode_unclamped(model.encode(batch.images))  # (B, C, H, W)
        loss = self.reconstruction(decoded, batch.images)
        mse = pixel_mse(decoded, batch.images).detach()
        return {"loss": loss, "reconstruction": loss, "mse": mse}
