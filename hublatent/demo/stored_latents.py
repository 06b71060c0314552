"""Latents of an app's own sample faces, found beforehand, in a file beside a model's weights.

A model without an encoder would need many seconds to find them. Tensors are named by the face's
key, "<first digits of the fingerprint of the model that drew it>#<seed>"; latent_shape each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hublatent.storage import atomic_path

STORED_LATENTS_NAME = "sample_latents.safetensors"

logger = logging.getLogger("hublatent")


def read_stored_latents(
    folder: Path, fingerprint: str, latent_shape: tuple[int, ...]
) -> dict[str, Tensor]:
    """Read the latents that were stored for a model.

    Args:
        folder: the model's folder.
        fingerprint: of its weights; latents of other weights are left alone, with a warning.
        latent_shape: of its latents.

    Returns:
        Face key -> latent (*latent_shape); empty where none were stored.
    """
    path = folder / STORED_LATENTS_NAME
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            owner = (file.metadata() or {}).get("fingerprint")
            latents = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        logger.warning("%s cannot be read and is skipped: %s.", path, error)
        return {}
    fits = all(tuple(z.shape) == latent_shape for z in latents.values())
    if owner != fingerprint or not fits:
        logger.warning("%s belongs to other weights and is skipped.", path)
        return {}
    return latents


def write_stored_latents(folder: Path, fingerprint: str, latents: Mapping[str, Tensor]) -> Path:
    """Write a model's latents (face key -> latent) into its folder; returns the file."""
    path = folder / STORED_LATENTS_NAME
    tensors = {key: z.detach().cpu().contiguous() for key, z in latents.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"fingerprint": fingerprint})
    return path
