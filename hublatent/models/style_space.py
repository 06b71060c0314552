"""StyleSpace: a StyleGAN2 whose latents are its styles (Wu et al. 2021, arXiv:2011.12799)."""

from __future__ import annotations

import torch
from torch import Tensor

from hublatent.model import LatentModel
from hublatent.models.stylegan2 import StyleGAN2


class StyleSpace(LatentModel):
    """A view of a StyleGAN2: the same pictures, edited per channel of a style.

        space = StyleSpace(model)
        styles = space.to_styles(hublatent.project(model, images).latents)
        space.decode(hublatent.edit(styles, direction, 3))

    Its directions are vectors (S,) over all channels; their fingerprint is the model's.
    """

    space = "s"
    has_encoder = False

    def __init__(self, model: StyleGAN2) -> None:
        affines = [affine for affine, _ in model.style_layers()]
        super().__init__(model.image_size, model.channels, (sum(len(a.bias) for a in affines),))
        self.architecture = model.architecture  # type: ignore[misc]
        self.model = model
        with torch.no_grad():
            # Styles are affine in W, so their statistics follow from W's.
            one = model.latent_mean.expand(1, *model.latent_shape)
            self.latent_mean.copy_(model.to_styles(one)[0])
            matrix = torch.cat([affine.matrix() for affine in affines]).double()  # (S, D)
            self.latent_covariance.copy_(matrix @ model.latent_covariance.double() @ matrix.T)

    def to_styles(self, latents: Tensor) -> Tensor:
        """The styles (B, S) of the model's W+ latents (B, L, D)."""
        return self.model.to_styles(latents)

    def sample_latents(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """The styles (n, S) of samples of W."""
        with torch.no_grad():
            return self.to_styles(self.model.sample_latents(n, generator=generator))

    def decode(self, latents: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of styles (B, S)."""
        self.check_latents(latents)
        return self.model.decode_styles(latents)

    def fingerprint(self) -> str:
        """The model's."""
        return self.model.fingerprint()

    def matches(self, fingerprint: str) -> bool:
        """Whether a fingerprint is the model's."""
        return self.model.matches(fingerprint)
