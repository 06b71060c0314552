"""wrap(): any pair of functions that encode and decode images, behind the contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hublatent.errors import HublatentError
from hublatent.model import LatentModel, check_image_arguments

MAX_WIDTH = 4096  # of a latent; its covariance is a square matrix
BATCH = 32

Function = Callable[[Tensor], Tensor]


class WrappedModel(LatentModel):
    """Somebody else's autoencoder; its latents are flattened to (D,). Made by `wrap`."""

    architecture = "wrapped"

    def __init__(
        self, encode: Function, decode: Function, own_shape: tuple[int, ...], image_size: int,
        channels: int, module: nn.Module | None,
    ) -> None:  # fmt: skip
        super().__init__(image_size, channels, (math.prod(own_shape),))
        self.own_shape = own_shape
        self.module = module  # moves with the model, and is part of its fingerprint
        self._functions = encode, decode

    @property
    def config(self) -> dict[str, Any]:
        """What is known of the model; it cannot be built from it."""
        return {
            "architecture": self.architecture,
            "image_size": self.image_size,
            "channels": self.channels,
            "latent_shape": " x ".join(map(str, self.own_shape)),
        }

    def encode(self, images: Tensor) -> Tensor:
        """The latents (B, D) of images (B, C, H, W) in [-1, 1]."""
        self.check_images(images)
        latents = self._functions[0](images)
        if latents.shape != (len(images), *self.own_shape):
            raise HublatentError(
                f"encode gave latents of shape {tuple(latents.shape)} for {len(images)} images; "
                f"expected (B, {', '.join(map(str, self.own_shape))}), as latent_shape says."
            )
        return latents.flatten(1).float()  # (B, D)

    def decode(self, latents: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of latents (B, D)."""
        self.check_latents(latents)
        images = self._functions[1](latents.unflatten(1, self.own_shape))  # (B, C, H, W)
        self.check_images(images)
        return images.float().clamp(-1, 1)

    def save_pretrained(self, save_directory: str | Path) -> None:  # type: ignore[override]
        """Refused: functions have no config.json."""
        raise HublatentError(
            "A wrapped model's weights are its library's to save. Its directions can be saved and "
            "published; an architecture that is registered can be, too (hublatent.register)."
        )

    def _defining_config(self) -> dict[str, Any]:
        return self.config


@torch.no_grad()
def wrap(
    encode: Function, decode: Function, latent_shape: tuple[int, ...], images: Tensor, *,
    module: nn.Module | None = None,
) -> WrappedModel:  # fmt: skip
    """Make a LatentModel of any encode/decode pair, such as a VAE of diffusers.

        vae = AutoencoderKL.from_pretrained(...)
        model = hublatent.wrap(
            lambda images: vae.encode(images).latent_dist.mode(),
            lambda latents: vae.decode(latents).sample,
            (4, 8, 8), images, module=vae,
        )

    Args:
        encode: images (B, C, H, H) in [-1, 1] -> latents (B, *latent_shape); deterministic.
        decode: latents (B, *latent_shape) -> images (B, C, H, H).
        latent_shape: of one latent; at most 4096 numbers, which the model flattens to (D,).
        images: (N, C, H, H), in [-1, 1]: real ones at their natural prevalence, better several
            times as many as a latent has numbers. They are encoded once, for the statistics.
        module: whose weights the functions use; it moves with the model, and identifies it.
    """
    own_shape = tuple(latent_shape)
    if not own_shape or min(own_shape) < 1 or math.prod(own_shape) > MAX_WIDTH:
        raise HublatentError(f"latent_shape = {own_shape}; expected 1 to {MAX_WIDTH} numbers.")
    if images.ndim != 4 or len(images) < 2 or images.shape[2] != images.shape[3]:
        raise HublatentError(
            f"wrap got images of shape {tuple(images.shape)}; expected (N, C, H, H), N at least 2."
        )
    channels, image_size = images.shape[1], images.shape[2]
    check_image_arguments(image_size, channels)
    model = WrappedModel(encode, decode, own_shape, image_size, channels, module).eval()
    latents = torch.cat([model.encode(part) for part in images.split(BATCH)])
    model.decode(latents[:1])
    model.set_latent_statistics(latents)
    return model
