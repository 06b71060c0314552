"""discover(): latents and labels in, a Direction out, with scores from held-out identities.

labelled.py          LabelledLatents; encode(), which makes them
cross_validation.py  balanced sets, folds of identities, readings of people never seen
methods/             one file per family of methods
directions.py        discover(), discover_all()
"""

from hublatent.discovery.cross_validation import N_FOLDS, HeldOut, balanced_set, cross_validate
from hublatent.discovery.directions import DEFAULT_METHOD, discover, discover_all, touched_layers
from hublatent.discovery.labelled import LabelledLatents, encode
from hublatent.discovery.methods import FROM_LABELS, METHODS

__all__ = [
    "DEFAULT_METHOD",
    "FROM_LABELS",
    "METHODS",
    "N_FOLDS",
    "HeldOut",
    "LabelledLatents",
    "balanced_set",
    "cross_validate",
    "discover",
    "discover_all",
    "encode",
    "touched_layers",
]
