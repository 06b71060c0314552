"""What published files may be used for: the data they were made from decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """The terms of weights or directions.

    Attributes:
        name: the Hub's id of the licence or, where the Hub has none, a name of its own.
        link: where its text stands; "" where nowhere.
        sentence: what it says, in a card's words.
        hub_id: the Hub's id; "other" where the name is its own, "unknown" where nobody has said.
    """

    name: str
    link: str
    sentence: str
    hub_id: str = "other"


@dataclass(frozen=True)
class FaceData:
    """A data set of faces that is known here: how it is written, and its terms."""

    name: str
    title: str
    licence: Licence


CELEBA = FaceData(
    "celeba",
    "CelebA",
    Licence(
        "celeba-non-commercial-research",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        "These files come from CelebA, whose authors make it available for non-commercial research "
        "purposes only; use them for nothing else.",
    ),
)
CELEBA_HQ = FaceData(
    "celebamask-hq",
    "CelebAMask-HQ",
    Licence(
        "celebamask-hq-non-commercial-research",
        "https://github.com/switchablenorms/CelebAMask-HQ",
        "These files come from CelebAMask-HQ, whose authors make it available for non-commercial "
        "research and education only; use them for nothing else.",
    ),
)
FFHQ = FaceData(
    "ffhq",
    "FFHQ",
    Licence(
        "cc-by-nc-sa-4.0",
        "https://github.com/NVlabs/ffhq-dataset",
        "These files come from FFHQ, which is under CC BY-NC-SA 4.0: not for commercial purposes, "
        "and what is made from it is shared under the same terms.",
        "cc-by-nc-sa-4.0",
    ),
)
# By the last part of the data set's name; samples are labelled by a classifier of such data.
FACE_DATA = {
    "celeba": CELEBA,
    "attributes-celeba": CELEBA,
    "judge-celeba": CELEBA,
    "celeba-hq": CELEBA_HQ,
    "celebamask-hq": CELEBA_HQ,
    "ffhq": FFHQ,
}
UNSTATED = Licence(
    "",
    "",
    "Nobody has stated terms for these files; ask whoever made them before using them for more "
    "than a look.",
    "unknown",
)


def face_data(dataset: str) -> FaceData | None:
    """The known data set of faces that has a name, such as "celeba" or "user/celeba"."""
    return FACE_DATA.get(dataset.rpartition("/")[2].lower())


def licence_of(datasets: Iterable[str], stated: str | None = None) -> Licence:
    """The terms of what was made from some data sets.

    Args:
        datasets: their names.
        stated: what the author of the files says of their terms.

    Returns:
        The licence; its sentences name every data set whose terms hold.
    """
    names = list(dict.fromkeys(datasets))
    known = dict.fromkeys(data.licence for name in names if (data := face_data(name)))
    sentences = [licence.sentence for licence in known]
    if stated is not None:
        text = " ".join([f"As their author states: {stated}", *sentences])
        return Licence("stated-in-the-card", "", text)
    others = [name for name in names if face_data(name) is None]
    if not known:
        return UNSTATED
    if others:
        sentences.append(f"The terms of {', '.join(others)}, which are not known here, hold too.")
    first = next(iter(known))
    return Licence(first.name, first.link, " ".join(sentences), first.hub_id)
