"""project(): the latents of given images, for a model without an encoder."""

from hublatent.inversion.projection import DivergedError, Projection, project

__all__ = ["DivergedError", "Projection", "project"]
