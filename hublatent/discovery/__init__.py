"""discover(): latents and labels in, a Direction out, with scores from held-out identities.

labelled.py          LabelledLatents; encode(), which makes them
cross_validation.py  balanced sets, folds of identities, readings of people never seen
readings.py          what they read, of one draw or several, and its scores
methods/             one file per family of methods
directions.py        discover(), discover_all()
unlabelled.py        discover_unlabelled(): directions that a classifier names afterwards
quantities.py        measured quantities in the place of labels
"""

from hublatent.discovery.cross_validation import (
    N_DRAWS,
    N_FOLDS,
    balanced_set,
    cross_validate,
    read_over_draws,
)
from hublatent.discovery.directions import DEFAULT_METHOD, discover, discover_all, touched_layers
from hublatent.discovery.labelled import LabelledLatents, encode
from hublatent.discovery.methods import FROM_LABELS, METHODS
from hublatent.discovery.quantities import with_quantities
from hublatent.discovery.readings import DrawnReadings, HeldOut
from hublatent.discovery.unlabelled import discover_unlabelled

__all__ = [
    "DEFAULT_METHOD",
    "FROM_LABELS",
    "METHODS",
    "N_DRAWS",
    "N_FOLDS",
    "DrawnReadings",
    "HeldOut",
    "LabelledLatents",
    "balanced_set",
    "cross_validate",
    "discover",
    "discover_all",
    "discover_unlabelled",
    "encode",
    "read_over_draws",
    "touched_layers",
    "with_quantities",
]
