"""What a judge sees change when faces are edited: the effect, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from hublatent.editing import edit
from hublatent.mapping import LatentMap, carry_to
from hublatent.mapping.fitting import as_images_of

if TYPE_CHECKING:
    from hublatent.data import FaceDataset
    from hublatent.direction import Direction
    from hublatent.direction_set import DirectionSet
    from hublatent.model import LatentModel
    from hublatent.perception.classifier import AttributeClassifier

ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
BATCH = 64
STRENGTH = 3.0
CANDIDATES = 4  # samples drawn for each face that lacks the attribute


class JudgedEdits:
    """Faces that lack an attribute, and what a judge reads on them.

    Args:
        model: draws them.
        judge: reads them; nothing was fitted to please it.
        latents: (n, *latent_shape), of the faces.
        attribute: which is to appear.
    """

    def __init__(
        self, model: LatentModel, judge: AttributeClassifier, latents: Tensor, attribute: str
    ) -> None:
        self.model, self.judge, self.latents = model, judge, latents
        self.target = judge.index(attribute)
        self.unedited = self._logits(latents)

    @classmethod
    @torch.inference_mode()
    def of_test_faces(
        cls, model: LatentModel, judge: AttributeClassifier, dataset: FaceDataset, attribute: str,
        n_faces: int,
    ) -> JudgedEdits:  # fmt: skip
        """Test faces without the attribute; samples in which the judge sees none, if need be."""
        if model.has_encoder:
            indices = dataset.indices("test")
            chosen = indices[~dataset.label(attribute)[indices]][:n_faces]
            images = as_images_of(model, dataset.batch(chosen))
            return cls(model, judge, model.encode(images), attribute)
        generator = torch.Generator().manual_seed(0)
        samples = model.sample_latents(CANDIDATES * n_faces, generator=generator)
        drawn = cls(model, judge, samples, attribute)
        lacking = (drawn.unedited[:, drawn.target] < 0).nonzero().flatten()[:n_faces]
        return cls(model, judge, samples[lacking], attribute)

    @torch.inference_mode()
    def along(self, direction: Direction, strengths: Sequence[float]) -> NDArray[np.float64]:
        """Effect and cost of edits along a direction of the model, by strengths in sigma.

        Returns:
            (S, 2): the mean change of the attribute's logit; the mean |change| of the others'
            logits, in their deviations over the unedited faces.
        """
        found = []
        for strength in strengths:
            moved = self._logits(edit(self.latents, direction, strength)) - self.unedited  # (n, K)
            costs = (moved.abs() / self.unedited.std(dim=0)).mean(dim=0)  # (K,)
            others = (costs.sum() - costs[self.target]) / (len(costs) - 1)
            found.append((float(moved[:, self.target].mean()), float(others)))
        return np.array(found)

    @torch.inference_mode()
    def _logits(self, latents: Tensor) -> Tensor:
        """(n, K)."""
        parts = latents.split(BATCH)
        return torch.cat([self.judge(self.model.decode(part)) for part in parts])


def carried_effects(
    models: Mapping[str, tuple[LatentModel, DirectionSet]], maps: Sequence[LatentMap],
    dataset: FaceDataset, judge: AttributeClassifier, *, method: str = "joint", n_faces: int = 100,
) -> pd.DataFrame:  # fmt: skip
    """Edit test faces of each model by its own directions and by those that maps carry to it.

    Returns:
        One row for each attribute, target and source (the target itself for the native direction):
        attribute, target, source, cosine with the native direction, effect and leakage at +3 sigma
        (see `JudgedEdits.along`), share of the native direction's effect.
    """
    rows = []
    for attribute, target in product(ATTRIBUTES, models):
        model, own = models[target]
        edits = JudgedEdits.of_test_faces(model, judge, dataset, attribute, n_faces)
        native = own[attribute, method]
        ((native_effect, _),) = edits.along(native, [STRENGTH])
        for source, (other, theirs) in models.items():
            carried = carry_to(theirs[attribute, method], other, model, maps)
            cosine = torch.cosine_similarity(carried.vector.ravel(), native.vector.ravel(), dim=0)
            ((effect, leakage),) = edits.along(carried, [STRENGTH])
            numbers = float(cosine), effect, leakage, effect / native_effect
            rows.append((attribute, target, source, *numbers))
    columns = ["attribute", "target", "source", "cosine", "effect", "leakage", "share"]
    return pd.DataFrame(rows, columns=columns)
