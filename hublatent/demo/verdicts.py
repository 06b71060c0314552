"""What an edit did to a face, in words: read by networks that never saw the generators.

Judges   the networks: which attributes, is it a face, is it the same person; each may be missing
Sweep    one face along one direction: what the judges read at each strength, and how far is safe
Verdict  one edit in a sentence, and whether that is good
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.special import expit
from torch import Tensor

from hublatent.demo.names import human_name
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.perception.faces import SAME_PERSON_DISTANCE, FaceDetector, FaceIdentity
from hublatent.stats import Floats

MAX_STRENGTH = 6.0
SWEEP = np.arange(-MAX_STRENGTH, MAX_STRENGTH + 1)  # (S,), in standard deviations
UNEDITED, FRAMES = len(SWEEP) // 2, slice(0, None, 2)  # the frames are what is shown of it
# Share of a model's own samples that the detector is less sure of than of a realistic face.
LOWEST_SHARE = 0.05
N_OWN_SAMPLES = 40
# Mean change of the other attributes' probabilities up to which little, and some, else changed.
LITTLE, SOME = 0.05, 0.10
N_LISTED = 3
SAME_PERSON = "same person"
MAX_MEASURED = 300  # further strengths that a sweep remembers


@dataclass(frozen=True)
class Judges:
    """Networks that read pictures (B, C, H, H) of faces; one that is not here is None."""

    classifier: AttributeClassifier | None = None
    detector: FaceDetector | None = None
    identity: FaceIdentity | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that the classifier reads, in the order of its logits."""
        return () if self.classifier is None else tuple(self.classifier.attribute_names)

    def index(self, attribute: str) -> int | None:
        """Which of the classifier's logits is an attribute's; None where it does not know it."""
        return self.names.index(attribute) if attribute in self.names else None

    @torch.inference_mode()
    def attributes(self, images: Tensor) -> Floats | None:
        """Logits (B, K)."""
        return None if self.classifier is None else _array(self.classifier(_rgb(images)))

    @torch.inference_mode()
    def confidences(self, images: Tensor) -> Floats | None:
        """Logits (B,) that images are faces."""
        return None if self.detector is None else _array(self.detector.confidence(_rgb(images)))

    @torch.inference_mode()
    def distances(self, images: Tensor, reference: Tensor) -> Floats | None:
        """How far (B,) the persons of images are from that of a reference (1, C, H, H)."""
        if self.identity is None:
            return None
        embedded = self.identity.embed(_rgb(torch.cat([reference, images])))
        return _array((embedded[1:] - embedded[:1]).norm(dim=1))

    def person(self, unedited: Tensor, edited: Tensor) -> str:
        """Whether two pictures (1, C, H, H) show the same person; "" where nobody can tell."""
        distances = self.distances(edited, unedited)
        return "" if distances is None else _person(float(distances[0]))

    def lowest_confidence(self, model: LatentModel) -> float:
        """Below this the detector doubts that a model's picture is a face; 0 without a detector."""
        if self.detector is None:
            return 0.0
        own = self.detector.confidence(_rgb(model.sample(N_OWN_SAMPLES)))
        return float(np.quantile(_array(own), LOWEST_SHARE))

    def read_sweep(self, drawn: Tensor, attribute: str, lowest: float) -> Sweep:
        """Read the pictures (S, C, H, W) of SWEEP; a face has the `lowest_confidence` at least."""
        logits, index, confidences = (
            self.attributes(drawn), self.index(attribute), self.confidences(drawn)
        )  # fmt: skip
        margins = distances = None
        if confidences is not None and confidences[UNEDITED] >= lowest:
            margins = confidences - lowest  # whose face it is can be said of faces only
            shown = self.distances(drawn[FRAMES], drawn[UNEDITED : UNEDITED + 1])
            distances = None if shown is None else np.interp(SWEEP, SWEEP[FRAMES], shown)
        target = None if logits is None or index is None else logits[:, index]
        return Sweep(target, None if logits is None else logits[UNEDITED], distances, margins)


@dataclass(frozen=True, eq=False)
class Sweep:
    """What is read of one face at each strength of SWEEP; what nothing reads is None."""

    target: Floats | None = None  # (S,), logit of the attribute that is changed
    unedited: Floats | None = None  # (K,), logits of all attributes without an edit
    distances: Floats | None = None  # (S,), how far the person is from the unedited one
    # (S,), the detector's confidence beyond what the model's own samples have at least; None also
    # where it doubts the unedited face.
    margins: Floats | None = None
    # Logits of the attribute at further strengths, which were read since.
    measured: dict[float, float] = field(default_factory=dict)

    @cached_property
    def safe(self) -> tuple[float, float]:
        """The strengths, downwards and upwards, up to which the face stays realistic."""
        if self.margins is None:
            return -MAX_STRENGTH, MAX_STRENGTH
        down, up = self.margins[UNEDITED::-1], self.margins[UNEDITED:]
        return -_first_crossing(down), _first_crossing(up)

    def learn(self, strength: float, logit: float) -> None:
        """Remember what was read, so that `strength_for` knows better the next time."""
        if len(self.measured) < MAX_MEASURED:
            self.measured[round(strength, 3)] = logit

    def strength_for(self, share: float) -> tuple[float, bool]:
        """Where the classifier sees the attribute with a probability, within the safe range.

        Returns the strength nearest to 0 that reaches the share, inside (0, 1), and True; or the
        one that gets nearest to it while the person stays the same, and False.
        """
        assert self.target is not None
        goal = float(np.log(share / (1 - share)))
        side = 1 if goal > self.target[UNEDITED] else -1
        end = self.safe[1] if side > 0 else -self.safe[0]
        way = side * np.linspace(0, end, 241)
        known = dict(zip(SWEEP.tolist(), self.target.tolist(), strict=True)) | self.measured
        at = sorted(known)
        missing = side * (goal - PchipInterpolator(at, [known[s] for s in at])(way))
        reached = np.flatnonzero(missing <= 0)
        if len(reached) and (i := int(reached[0])) > 0:
            share = missing[i - 1] / (missing[i - 1] - missing[i])
            return round(float(way[i - 1] + share * (way[i] - way[i - 1])), 3), True
        if len(reached):
            return 0.0, True
        if self.distances is not None:  # what falls short should at least not spoil the face
            another = np.interp(way, SWEEP, self.distances) > SAME_PERSON_DISTANCE
            missing = missing[: max(1, int(another.argmax()))] if another.any() else missing
        return float(way[int(missing.argmin())]), False


@dataclass(frozen=True)
class Verdict:
    """One edit, judged."""

    text: str  # such as "glasses 41 → 96%, same person, little else changed"
    level: str  # "good", "fair" or "bad"; "none" where nothing was changed or read
    moved: tuple[str, ...] = ()  # the others that moved most, such as "young 80 → 35%"


def judge(
    judges: Judges, attribute: str, strength: float, sweep: Sweep, logits: Floats | None
) -> Verdict | None:
    """Put an edit by `strength` standard deviations in words, from its logits (K,)."""
    parts: list[str] = []
    moved: tuple[str, ...] = ()
    level, leakage = "good", 0.0
    if logits is not None and sweep.unedited is not None:
        names, target = judges.names, judges.index(attribute)
        changes = expit(logits) - expit(sweep.unedited)
        if target is not None:
            parts.append(describe_change(attribute, sweep.unedited[target], logits[target]))
            level = "good" if changes[target] * np.sign(strength) > 0.2 else "none"
        others = [i for i in range(len(names)) if i != target]
        order = sorted(others, key=lambda i: -abs(changes[i]))[:N_LISTED]
        moved = tuple(describe_change(names[i], sweep.unedited[i], logits[i]) for i in order)
        leakage = float(np.abs(changes[others]).mean())
    if sweep.distances is not None:
        person = _person(float(np.interp(strength, SWEEP, sweep.distances)))
        parts.append(person)
        level = level if person == SAME_PERSON else "fair"
    if logits is not None:
        amount = "little" if leakage <= LITTLE else "something" if leakage <= SOME else "much"
        parts.append(f"{amount} else changed")
        level = "fair" if leakage > SOME else level
    low, high = sweep.safe
    if not low - 1e-6 <= strength <= high + 1e-6:
        parts.append("leaves the realistic range")
        level = "bad"
    return Verdict(", ".join(parts), level, moved) if parts else None


def describe_change(attribute: str, before: float, after: float) -> str:
    """What happened to an attribute, from its logits: "glasses 2 → 80%"."""
    first, second = expit(np.array([before, after])) * 100
    return f"{human_name(attribute).lower()} {first:.0f} → {second:.0f}%"


def _first_crossing(margins: Floats) -> float:
    """Where margins (n,), one per standard deviation from 0 on, first fall below 0."""
    below = np.flatnonzero(margins < 0)
    if not len(below):
        return float(len(margins) - 1)
    i = int(below[0])
    return float(i - 1 + margins[i - 1] / (margins[i - 1] - margins[i]))


def _person(distance: float) -> str:
    return SAME_PERSON if distance <= SAME_PERSON_DISTANCE else "another person"


def _rgb(images: Tensor) -> Tensor:
    """Grey images (B, 1, H, H) threefold, and those with more channels without the rest."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]


def _array(values: Tensor) -> Floats:
    return values.double().cpu().numpy()
