"""discover(): latents and labels in, a Direction out, with scores from held-out identities."""

from hublatent.discovery.labelled import (
    DEFAULT_METHOD,
    METHODS,
    N_FOLDS,
    LabelledLatents,
    check_attribute,
    discover,
    discover_all,
    touched_layers,
)

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "N_FOLDS",
    "LabelledLatents",
    "check_attribute",
    "discover",
    "discover_all",
    "touched_layers",
]
