"""What published files may be used for: the data they were made from decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """The terms of weights or directions."""

    name: str  # the Hub's id of the licence or, where the Hub has none, a name of its own
    link: str  # where its text stands; "" where nowhere
    sentence: str  # what it says, in a card's words
    hub_id: str = "other"  # where the name is its own; "unknown" where nobody has said
    faces: str = ""  # how the data set of faces is written whose terms these are


CELEBA = Licence(
    "celeba-non-commercial-research",
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    "These files come from CelebA, whose authors make it available for non-commercial research "
    "purposes only; use them for nothing else.",
    faces="CelebA",
)
CELEBA_HQ = Licence(
    "celebamask-hq-non-commercial-research",
    "https://github.com/switchablenorms/CelebAMask-HQ",
    "These files come from CelebAMask-HQ, whose authors make it available for non-commercial "
    "research and education only; use them for nothing else.",
    faces="CelebAMask-HQ",
)
FFHQ = Licence(
    "cc-by-nc-sa-4.0",
    "https://github.com/NVlabs/ffhq-dataset",
    "These files come from FFHQ, which is under CC BY-NC-SA 4.0: not for commercial purposes, "
    "and what is made from it is shared under the same terms.",
    "cc-by-nc-sa-4.0",
    "FFHQ",
)
UNSTATED = Licence(
    "",
    "",
    "Nobody has stated terms for these files; ask whoever made them before using them for more "
    "than a look.",
    "unknown",
)
# By the last part of the data set's name; samples are labelled by a classifier of such data.
FACE_LICENCES = {
    **dict.fromkeys(("celeba", "attributes-celeba", "judge-celeba"), CELEBA),
    **dict.fromkeys(("celeba-hq", "celebamask-hq"), CELEBA_HQ),
    "ffhq": FFHQ,
}


def face_licence(dataset: str) -> Licence | None:
    """The terms of a known data set of faces, such as "celeba" or "user/celeba"."""
    return FACE_LICENCES.get(dataset.rpartition("/")[2].lower())


def licence_of(datasets: Iterable[str], stated: str | None = None) -> Licence:
    """The terms of what was made from some data sets; names every one whose terms hold.

    `stated` is what the author of the files says of their terms.
    """
    found = {name: face_licence(name) for name in datasets}
    known = list(dict.fromkeys(licence for licence in found.values() if licence is not None))
    sentences = [licence.sentence for licence in known]
    if stated is not None:
        terms = " ".join([f"As their author states: {stated}", *sentences])
        return Licence("stated-in-the-card", "", terms)
    if not known:
        return UNSTATED
    if others := ", ".join(name for name, licence in found.items() if licence is None):
        sentences.append(f"The terms of {others}, which are not known here, hold too.")
    return Licence(known[0].name, known[0].link, " ".join(sentences), known[0].hub_id)
