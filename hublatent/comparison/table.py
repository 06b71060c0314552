"""The rows of Table 1 for all models on each set of pictures, and their paired differences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hublatent.comparison import separability as separation
from hublatent.comparison.latents import Subject
from hublatent.comparison.results import PROJECTED, TRAINING, Pair, Problem, Separability
from hublatent.comparison.setting import Setting
from hublatent.comparison.subjects import subject_key
from hublatent.discovery import LabelledLatents, balanced_set
from hublatent.errors import DataError
from hublatent.stats import Bools, Ints

ImageSets = Mapping[str, Mapping[Subject, LabelledLatents]]


class Table:
    """Table 1.

    Args:
        setting: what is measured.
        subjects: the models, with the random encoder as the last.

    Attributes:
        rows, pairs, problems: filled by `measure`.
    """

    def __init__(self, setting: Setting, subjects: Sequence[Subject]) -> None:
        self._setting = setting
        self._subjects = subjects
        self.rows: list[Separability] = []
        self.pairs: list[Pair] = []
        self.problems: list[Problem] = []

    def measure(self) -> None:
        """All training and validation pictures first, then those that were projected."""
        for image_set, members in self._image_sets().items():
            for attribute in self._setting.attributes:
                self._measure(image_set, attribute, members)

    def _image_sets(self) -> ImageSets:
        known = {s: s.known for s in self._subjects if s.model.has_encoder}
        sets = {TRAINING: {s: data for s, data in known.items() if data is not None}}
        given = next((s for s in self._subjects if s.projected is not None), None)
        if given is not None:
            indices = given.available("train", "validation")
            able = [s for s in self._subjects if s.has_latents]
            # Without mirror images for all, since nobody projects those.
            sets[PROJECTED] = {s: s.labelled(indices, mirror=False) for s in able}
        return sets

    def _measure(
        self, image_set: str, attribute: str, members: Mapping[Subject, LabelledLatents]
    ) -> None:
        seed = self._setting.seed
        correct: dict[str, Bools] = {}
        identities: Ints | None = None
        for subject, data in members.items():
            try:
                chosen = balanced_set(data, attribute, seed)
            except DataError as error:
                text = f"Separability, {image_set}: {error}"
                self.problems.append(Problem(subject.name, attribute, text))
                continue
            if identities is None:
                self.rows.append(separation.majority(data, attribute, image_set, seed))
                identities = data.identities[chosen]
            for method in separation.SEPARABILITY_METHODS:
                row, right = self._row(subject, data, attribute, image_set, method)
                self.rows.append(row)
                if method == separation.PAPER_METHOD:
                    correct[subject.name] = right
        if identities is not None:
            self.pairs.extend(separation.pairs(correct, identities, attribute, image_set, seed))

    def _row(
        self, subject: Subject, data: LabelledLatents, attribute: str, image_set: str, method: str
    ) -> tuple[Separability, Bools]:
        seed = self._setting.seed
        labelled = hashlib.sha256(data.identities.tobytes() + data.labels.tobytes())
        key = {
            **subject_key(subject),
            "labelled": labelled.hexdigest(),
            "attribute": attribute,
            "method": method,
            "seed": seed,
        }

        def measure() -> Iterator[object]:
            row, held_out = separation.separability(
                data, subject.name, attribute, image_set, method, seed
            )
            yield row
            # One digit per picture is all that paired differences need.
            yield "".join("01"[int(right)] for right in held_out.correct)

        row, right = self._setting.parts.get(
            f"separability-{subject.name}-{attribute}-{_file_part(image_set)}-{method}",
            key,
            tuple[Separability, str],
            lambda: list(measure()),
        )
        return row, np.array([digit == "1" for digit in right])


def _file_part(image_set: str) -> str:
    return image_set.replace("+", "-")
