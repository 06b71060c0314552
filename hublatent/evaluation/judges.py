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

from hublatent.classifier import AttributeClassifier
from hublatent.data import FaceDataset
from hublatent.faces import FaceDetector, FaceIdentity
from hublatent.hub import HubModel
from hublatent.stats import Floats

BATCH = 128
MAX_REAL = 300  # real pictures that the spread of the logits is taken over


@dataclass(frozen=True, eq=False)
class Reading:
    """What is seen on n pictures.

    Attributes:
        logits: (n, K), of the attributes.
        coherence: (n,), logit that it is a face.
        embedding: (n, 128), whose face; NaN where nobody asked.
    """

    logits: Floats
    coherence: Floats
    embedding: Floats

    def part(self, some: slice | Floats) -> Reading:
        """Those of some pictures."""
        return Reading(self.logits[some], self.coherence[some], self.embedding[some])


@dataclass(frozen=True, eq=False)
class Judges:
    """The three judges.

    Attributes:
        classifier, detector, identity: the networks, on one device.
        name: of the classifier.
        spread: (K,), standard deviation of its logits over real pictures.
    """

    classifier: AttributeClassifier
    detector: FaceDetector
    identity: FaceIdentity
    name: str
    spread: Floats

    @classmethod
    def load(cls, judge: str, dataset: FaceDataset, device: str = "cpu") -> Judges:
        """Load the classifier, and the judges that lie beside it.

        Args:
            judge: folder or Hub id of the classifier.
            dataset: real pictures.
            device: where all of them work.

        Raises:
            HublatentError: one is missing.
        """
        home = Path(judge).parent.as_posix()

        def opened(model: type[HubModel], name: str) -> HubModel:
            return model.from_pretrained(name).to(device).eval()  # type: ignore[attr-defined]

        classifier = opened(AttributeClassifier, judge)
        indices = dataset.indices("test")[:MAX_REAL]
        with torch.inference_mode():
            logits = [
                classifier(dataset.batch(part).to(device))  # type: ignore[operator]
                for part in np.array_split(indices, max(1, len(indices) // BATCH))
            ]
        return cls(
            classifier,  # type: ignore[arg-type]
            opened(FaceDetector, f"{home}/face-detector"),  # type: ignore[arg-type]
            opened(FaceIdentity, f"{home}/face-identity"),  # type: ignore[arg-type]
            Path(judge).name,
            torch.cat(logits).std(dim=0).clamp_min(1e-6).cpu().numpy(),
        )

    @torch.inference_mode()
    def read(self, batches: Iterable[Tensor], whose: bool = False) -> Reading:
        """Look at images (B, 3, H, H) in [-1, 1].

        Args:
            batches: of images; drawn one after another.
            whose: whether to look whose faces they are, which takes longest.
        """
        logits, coherence, embedding = [], [], []
        for images in batches:
            logits.append(self.classifier(images).cpu())
            coherence.append(self.detector.confidence(images).cpu())
            nobody = torch.full((len(images), 1), torch.nan)
            embedding.append(self.identity.embed(images).cpu() if whose else nobody)
        arrays = (torch.cat(parts).float().numpy() for parts in (logits, coherence, embedding))
        return Reading(*arrays)
