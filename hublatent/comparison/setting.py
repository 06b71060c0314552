"""What one comparison has in common for all models: the judge, the wishes, the finished parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hublatent.comparison import controls, editability, spaces
from hublatent.comparison.latents import Subject, face_kinds
from hublatent.comparison.parts import Parts
from hublatent.comparison.subjects import subject_key
from hublatent.perception.classifier import AttributeClassifier

SAMPLES_PER_FACE = 10  # samples drawn per face wanted: rare attributes are found among them


@dataclass(frozen=True, eq=False)
class Setting:
    """What is measured, by whom, and where finished parts are.

    Attributes:
        judge: the judge.
        judge_name: its folder's name.
        judge_id: fingerprint of its weights.
        attributes, methods: what is compared.
        n_faces: how many faces are edited.
        seed: of every draw.
        samples_too: whether models with an encoder edit their own samples too, because another
            model has directions and can edit nothing else.
        parts: what is finished.
    """

    judge: AttributeClassifier
    judge_name: str
    judge_id: str
    attributes: tuple[str, ...]
    methods: tuple[str, ...]
    n_faces: int
    seed: int
    samples_too: bool
    parts: Parts

    @property
    def n_samples(self) -> int:
        """How many samples each model draws."""
        return SAMPLES_PER_FACE * self.n_faces

    def key(self, subject: Subject) -> Mapping[str, object]:
        """What every part that a model draws depends on."""
        return {
            **subject_key(subject),
            "judge": self.judge_id,
            "faces": self.n_faces,
            "seed": self.seed,
        }

    def edit_cost(self) -> int:
        """Pictures of one row of edits."""
        return self.n_faces * len(editability.STRENGTHS)

    def null_cost(self) -> int:
        """Pictures of one null band."""
        n = controls.N_RANDOM + controls.N_SHUFFLED
        return n * min(self.n_faces, controls.N_FACES) * (len(controls.STRENGTHS) - 1)

    def ceiling_cost(self) -> int:
        """Pictures of one ceiling."""
        return 2 * self.n_faces

    def holes_cost(self) -> int:
        """Pictures of one model's lines."""
        return spaces.N_LINES * (len(spaces.BETWEEN) + len(spaces.BEYOND))

    def cost(self, subject: Subject) -> int:
        """All pictures that a model has to draw, at most."""
        n_kinds = len(face_kinds(subject, self.samples_too))
        per_kind = len(self.methods) * self.edit_cost() + self.null_cost()
        ceiling = self.ceiling_cost() if subject.has_latents else 0
        return len(self.attributes) * (n_kinds * per_kind + ceiling) + self.holes_cost()
