"""Those who judge images, and do nothing else: no training, encoder or projection has used them.

What attributes an image shows says a classifier that serves nowhere else; whether it is a face and
whose say networks that others trained, which have learnt no attribute.

Coherence, how much of a face an edit has left, comes from two of them: the detector sees what is no
face, but little of mere damage; PaDiM (Defard et al. 2020, arXiv:2011.08785, section 3), a Gaussian
of features at each position, sees damage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.perception.classifier import AttributeClassifier
from hublatent.perception.faces import EMBEDDING_WIDTH, FaceDetector, FaceIdentity
from hublatent.perception.features import ImageFeatures, enlarged
from hublatent.stats import Floats

# In units of the detector's logit: a logistic regression on 20 strips of StyleGAN2's faces that
# three readers had labelled by eye, rounded. Nobody would call a face above it broken.
WHOLE_ABOVE = 1.5
# Blurry models' faces survive more: below this two readers of 200 strips of all models called a
# face broken. model_cards/comparison/by_eye.md has 166 other strips, which had no part in that.
BROKEN_BELOW = -11.5
LOSS_WEIGHT, DAMAGE_WEIGHT = 0.4, 4.0
# Of face-identity; 99% of strangers are nearer to each other.
MAX_IDENTITY_DISTANCE = 1.0

MIN_FACES, MAX_FACES = 200, 500
STAGE = 2  # of the features: stride 16, and so 8 x 8 positions
FEATURES_SIZE = 128
SHRINKAGE = 0.1
BATCH = 64


class Condition(NamedTuple):
    """How B images look as faces; both (B,)."""

    confidence: Tensor  # the detector's logit that it is a face
    damage: Tensor  # mean Mahalanobis distance of the features from whole faces'


def coherence(edited: Condition, unedited: Condition, distance: Tensor | None = None) -> Tensor:
    """How much of a face an edit has left: whole above WHOLE_ABOVE, broken below BROKEN_BELOW.

    confidence - 0.4 * (confidence lost) - 4 * (damage gained)

    Shapes broadcast. Beyond a `distance` (B,) of face-identity of MAX_IDENTITY_DISTANCE a face is
    not whole whatever the others say.
    """
    lost = unedited.confidence - edited.confidence
    gained = edited.damage - unedited.damage
    score = edited.confidence - LOSS_WEIGHT * lost - DAMAGE_WEIGHT * gained
    if distance is None:
        return score
    return torch.where(distance > MAX_IDENTITY_DISTANCE, score.clamp(max=WHOLE_ABOVE - 1), score)


class ConditionJudge:
    """Reads the condition of aligned faces, by MTCNN and the third stage of the features.

    Args:
        faces: (N, 3, H, H) real, whole faces in [-1, 1], CelebA's crop; 200 at least, of which
            500 are used.

    Raises:
        DataError: too few faces.
    """

    def __init__(self, detector: FaceDetector, features: ImageFeatures, faces: Tensor) -> None:
        if len(faces) < MIN_FACES:
            raise DataError(
                f"{len(faces)} faces; at least {MIN_FACES} real ones are needed to know how whole "
                "faces look."
            )
        self.detector, self.features = detector, features
        known = self._maps(faces[:MAX_FACES])
        self.mean = known.mean(dim=1, keepdim=True)  # (P, 1, C)
        centred = (known - self.mean).double()
        covariance = centred.mT @ centred / centred.shape[1]  # (P, C, C)
        variance = covariance.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
        identity = torch.eye(covariance.shape[-1]).to(covariance)
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * variance * identity
        factor = torch.linalg.cholesky(shrunk)
        self.whiten = torch.linalg.solve_triangular(factor, identity, upper=False).mT.float()

    @classmethod
    def from_pretrained(cls, models: str | Path, faces: Tensor) -> ConditionJudge:
        """With face-detector and image-features from a folder of models."""
        detector = FaceDetector.from_pretrained(Path(models) / "face-detector")
        features = ImageFeatures.from_pretrained(Path(models) / "image-features")
        return cls(detector.to(faces.device), features.to(faces.device), faces)

    @torch.inference_mode()
    def read(self, images: Tensor) -> Condition:
        """The condition of images (B, 3, H, H) in [-1, 1], CelebA's crop."""
        confidence = [self.detector.confidence(part) for part in images.split(BATCH)]
        whitened = (self._maps(images) - self.mean) @ self.whiten  # (P, B, C)
        return Condition(torch.cat(confidence), whitened.norm(dim=2).mean(dim=0))

    @torch.inference_mode()
    def _maps(self, images: Tensor) -> Tensor:
        """The features (P, B, C) at each of P positions."""
        batches = (enlarged(part, FEATURES_SIZE) for part in images.split(BATCH))
        parts = [self.features(batch, STAGE + 1)[STAGE] for batch in batches]
        return torch.cat(parts).flatten(2).permute(2, 0, 1).float()


class Reading(NamedTuple):
    """What is seen on n images: the attributes' logits (n, K); of the first m the condition, (m,)
    each, and whose faces these are, (m, 128).
    """

    logits: Floats
    condition: Condition
    embedding: Tensor

    @property
    def probabilities(self) -> Floats:
        """(n, K)."""
        return np.asarray(1 / (1 + np.exp(-self.logits)))


@dataclass(frozen=True, eq=False)
class Judges:
    """The judges, on one device."""

    classifier: AttributeClassifier  # says which attributes an image shows
    condition: ConditionJudge  # says whether it is a face
    identity: FaceIdentity  # says whose
    name: str  # of the classifier
    spread: Floats  # (K,), standard deviation of its logits over real images

    @classmethod
    def load(cls, judge: str, dataset: FaceDataset, device: str = "cpu") -> Judges:
        """Load the classifier, a folder or Hub id, and the judges that lie beside it.

        The data set shows what whole faces look like, with at least 200 real training faces.

        Raises:
            HublatentError: a judge is missing, or there are too few faces.
        """
        indices = dataset.indices("train")[:MIN_FACES]
        if len(indices) < MIN_FACES:
            raise DataError(
                f"The data have {len(indices)} training images; judging whether an edited face "
                f"is still one takes {MIN_FACES} at least."
            )
        return cls.of_faces(judge, Path(judge).parent, dataset.batch(indices).to(device))

    @classmethod
    def of_faces(cls, judge: str, home: Path, faces: Tensor) -> Judges:
        """The same with whole faces (n, 3, H, H) at hand, on the device where all judges work.

        `home` holds face-identity, face-detector and image-features.
        """
        classifier = AttributeClassifier.from_pretrained(judge).to(faces.device).eval()
        identity = FaceIdentity.from_pretrained((home / "face-identity").as_posix())
        condition = ConditionJudge.from_pretrained(home, faces)
        with torch.inference_mode():
            logits = torch.cat([classifier(part) for part in faces.split(BATCH)])
        spread = logits.std(dim=0).clamp_min(1e-6).cpu().numpy()
        identity = identity.to(faces.device).eval()
        return cls(classifier, condition, identity, Path(judge).name, spread)

    @torch.inference_mode()
    def read(self, batches: Iterable[Tensor], n_closely: int = 0) -> Reading:
        """Look at n images, given in batches (B, 3, H, H) in [-1, 1].

        Of the first n_closely also the condition and whose faces they are, which takes longest.
        """
        logits, left = [], n_closely
        conditions = [Condition(torch.zeros(0), torch.zeros(0))]
        embeddings = [torch.zeros(0, EMBEDDING_WIDTH)]
        for images in batches:
            logits.append(self.classifier(images).float().cpu())
            some, left = images[:left], max(0, left - len(images))
            if len(some):
                conditions.append(Condition(*(part.cpu() for part in self.condition.read(some))))
                embeddings.append(self.identity.embed(some).cpu())
        condition = Condition(*map(torch.cat, zip(*conditions, strict=True)))
        return Reading(torch.cat(logits).numpy(), condition, torch.cat(embeddings))
