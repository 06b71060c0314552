"""Compare models: how well an attribute is read in the latents, and how well it is edited there."""

from __future__ import annotations

from hublatent.comparison.results import Comparison

__all__ = ["Comparison"]
