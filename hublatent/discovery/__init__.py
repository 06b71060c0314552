"""discover(): latents and labels in, a Direction out, with scores from held-out identities.

labelled.py          LabelledLatents; encode(), which makes them
methods/             one file per family of methods
cross_validation.py  balanced sets, folds of identities, readings of people never seen, scores
directions.py        discover(), discover_all()
unlabelled.py        discover_unlabelled(): directions that a classifier names afterwards
few_images.py        a direction between two heaps of a few images
quantities.py        measured quantities in the place of labels
"""

from hublatent.discovery.cross_validation import N_FOLDS, balanced_set, cross_validate
from hublatent.discovery.directions import DEFAULT_METHOD, discover, discover_all
from hublatent.discovery.labelled import LabelledLatents, encode
from hublatent.discovery.methods import FROM_LABELS, METHODS
from hublatent.discovery.methods.pairs import direction_of_pairs, with_styles
from hublatent.discovery.quantities import with_quantities
from hublatent.discovery.unlabelled import discover_unlabelled

__all__ = [
    "DEFAULT_METHOD", "FROM_LABELS", "METHODS", "N_FOLDS", "LabelledLatents", "balanced_set",
    "cross_validate", "direction_of_pairs", "discover", "discover_all", "discover_unlabelled",
    "encode", "with_quantities", "with_styles",
]  # fmt: skip
