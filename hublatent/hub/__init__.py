"""The Hugging Face Hub: pinned snapshots in, and what every published model shares."""

from hublatent.hub.download import (
    CARD_NAME,
    DIRECTIONS_NAME,
    DISCRIMINATOR_NAME,
    MAP_NAME,
    MODEL_FILES,
    PUBLISHED_FILES,
    SAMPLES_NAME,
    HubOptions,
    Snapshot,
    snapshot,
)  # fmt: skip
from hublatent.hub.mixin import HubModel

__all__ = [
    "CARD_NAME", "DIRECTIONS_NAME", "DISCRIMINATOR_NAME", "MAP_NAME", "MODEL_FILES",
    "PUBLISHED_FILES", "SAMPLES_NAME", "HubModel", "HubOptions", "Snapshot", "snapshot",
]  # fmt: skip
