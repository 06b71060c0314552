"""Those who judge pictures, and do nothing else: no training, encoder or projection has used them.

What attributes it shows says a classifier that serves nowhere else; whether it is a face and whose
say networks that others trained, which have learnt no attribute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.errors import DataError
from hublatent.evaluation.coherence import MIN_FACES, Condition, ConditionJudge
from hublatent.perception.classifier import AttributeClassifier
from hublatent.perception.faces import FaceIdentity
from hublatent.stats import Floats

BATCH = 64


@dataclass(frozen=True, eq=False)
class Reading:
    """What is seen on n pictures.

    Attributes:
        logits: (n, K), of the attributes.
        condition: (m,) each, how the first m look as faces.
        embedding: (m, 128), whose faces these are.
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
    """The judges, on one device.

    Attributes:
        classifier: says which attributes a picture shows.
        condition: says whether it is a face.
        identity: says whose.
        name: of the classifier.
        spread: (K,), standard deviation of its logits over real pictures.
    """

    classifier: AttributeClassifier
    condition: ConditionJudge
    identity: FaceIdentity
    name: str
    spread: Floats

    @classmethod
    def load(cls, judge: str, dataset: FaceDataset, device: str = "cpu") -> Judges:
        """Load the classifier, and the judges that lie beside it.

        Args:
            judge: folder or Hub id of the classifier.
            dataset: with at least 200 real training faces, which show what whole faces look like.
            device: where all of them work.

        Raises:
            HublatentError: a judge is missing, or there are too few faces.
        """
        indices = dataset.indices("train")[:MIN_FACES]
        if len(indices) < MIN_FACES:
            raise DataError(
                f"The data have {len(indices)} training pictures; judging whether an edited face "
                f"is still one takes {MIN_FACES} at least."
            )
        return cls.of_faces(judge, Path(judge).parent, dataset.batch(indices).to(device))

    @classmethod
    def of_faces(cls, judge: str, home: Path, faces: Tensor) -> Judges:
        """Load the classifier, and the other judges from a folder.

        Args:
            judge: folder or Hub id of the classifier.
            home: holds face-identity and what says whether an image is a face.
            faces: (n, 3, H, H), whole ones, on the device where all of them work.

        Raises:
            HublatentError: a judge is missing.
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
        """Look at images (B, 3, H, H) in [-1, 1].

        Args:
            batches: of n images; drawn one after another.
            n_closely: of so many of the first images also the condition and whose faces they are,
                which takes longest.
        """
        logits, conditions, embeddings, seen = [], [], [], 0
        for images in batches:
            logits.append(self.classifier(images).float().cpu())
            some = images[: max(0, n_closely - seen)]
            seen += len(images)
            if len(some):
                conditions.append([part.cpu() for part in self.condition.read(some)])
                embeddings.append(self.identity.embed(some).cpu())
        joined = torch.cat(logits).numpy()
        if not conditions:
            nothing = torch.zeros(0)
            return Reading(joined, Condition(nothing, nothing), nothing[:, None])
        condition = Condition(*map(torch.cat, zip(*conditions, strict=True)))
        return Reading(joined, condition, torch.cat(embeddings))
