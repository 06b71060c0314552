"""Linear maps between the latent spaces of two models, and directions carried across them.

Asperti & Tonelli 2023, "Comparing the latent space of generative models" (arXiv:2207.06812).

fitting.py     what several models read from the same images; the ridge, and what it is worth
latent_map.py  LatentMap and its file; the maps of a folder; carry_to()
"""

from hublatent.mapping.fitting import SCORES, SharedImages
from hublatent.mapping.latent_map import LatentMap, carry_to, fit_maps, load_maps

__all__ = ["SCORES", "LatentMap", "SharedImages", "carry_to", "fit_maps", "load_maps"]
