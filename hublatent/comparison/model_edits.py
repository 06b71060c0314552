"""All that one model draws: edits, controls, ceilings, lines through its space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property

import numpy as np
import torch

from hublatent.comparison import controls, editability, outcomes, spaces
from hublatent.comparison import judge as judging
from hublatent.comparison.latents import Faces, Pool, Subject, face_kinds, sampled_faces, to_tensor
from hublatent.comparison.results import (
    SAMPLES,
    TEST,
    Boundary,
    Ceiling,
    Cosines,
    Edits,
    Holes,
    NullBand,
    Problem,
)
from hublatent.comparison.separability import PAPER_METHOD
from hublatent.comparison.setting import Setting
from hublatent.comparison.strips import (
    N_GRID_COLUMNS,
    OWN_SAMPLES,
    Picture,
    before_and_after,
    edit_strips,
)
from hublatent.comparison.subjects import Found, gather_directions
from hublatent.discovery.methods import PROJECTED_SUFFIX
from hublatent.errors import DataError

N_REFERENCE = 200  # wearers, and as many others, at most
MIN_REFERENCE = 20
COSINE_METHODS = (PAPER_METHOD, "joint")
PICTURED_METHODS = (PAPER_METHOD, "joint")  # grids are large: along the last one alone
N_STRIPS = 6
N_GRID = N_GRID_COLUMNS**2  # the paper's Figs. 4 and 5
SOURCES = {SAMPLES: OWN_SAMPLES, TEST: "real test faces"}

FoundDirections = Mapping[tuple[str, str], Found]
Reference = tuple[judging.Support, float]


class ModelEdits:
    """Measures one model.

    Args:
        setting: what is measured.
        subject: the model.

    Attributes:
        face_names: attribute -> file names of the edited test faces.
        edits, null_bands, boundary, ceilings, cosines, holes, problems: filled by `measure`.
    """

    def __init__(self, setting: Setting, subject: Subject) -> None:
        self._setting = setting
        self._subject = subject
        self._references: dict[str, Reference | None] = {}
        self._found: FoundDirections = {}
        self.face_names: dict[str, tuple[str, ...]] = {}
        self.edits: list[Edits] = []
        self.null_bands: list[NullBand] = []
        self.boundary: list[Boundary] = []
        self.ceilings: list[Ceiling] = []
        self.cosines: list[Cosines] = []
        self.holes: Holes | None = None
        self.problems: list[Problem] = []

    def measure(self) -> None:
        """Measure, or read what was measured before."""
        setting, subject = self._setting, self._subject
        found, self.problems = gather_directions(
            subject, setting.attributes, setting.methods, setting.seed
        )
        self._found = found
        directions = {key: f.direction for key, f in found.items()}
        self.cosines = spaces.cosines(directions, subject.name, COSINE_METHODS)
        for attribute in setting.attributes:
            self._find_ceiling(attribute)
            for kind in face_kinds(subject, setting.samples_too):
                self._edit_all(attribute, kind, found)
        self.holes = setting.parts.get(
            f"holes-{subject.name}",
            setting.key(subject),
            Holes | None,
            lambda: spaces.holes(
                subject.model, setting.judge, self._pool, name=subject.name, seed=setting.seed
            ),
            setting.holes_cost(),
        )

    def pictures(self, kind: str) -> Iterator[Picture]:
        """Strips and grids of edited faces of one kind, after `measure`.

        Args:
            kind: SAMPLES, which may be published, or TEST, which may not.
        """
        subject = self._subject
        if kind == TEST and not subject.has_latents:
            return
        name, source = subject.name, SOURCES[kind]
        for attribute in self._setting.attributes:
            faces = self._faces(attribute, kind)
            known = [m for m in PICTURED_METHODS if (attribute, m) in self._found]
            if not known or not len(faces):
                continue
            latents = to_tensor(faces.latents)
            directions = [self._found[attribute, method].direction for method in known]
            for each in directions:
                yield edit_strips(subject.model, each, latents[:N_STRIPS], name=name, source=source)
            yield before_and_after(
                subject.model, directions[-1], latents[:N_GRID], name=name, source=source
            )

    def strip(self, attribute: str, method: str, kind: str, face: int) -> Picture:
        """The strip that an outcome was found on, to be labelled by eye."""
        subject, direction = self._subject, self._found[attribute, method].direction
        latents = to_tensor(self._faces(attribute, kind)[face : face + 1].latents)
        strengths = [s for s in editability.STRENGTHS if s >= 0]
        return edit_strips(
            subject.model, direction, latents, strengths=strengths, source=SOURCES[kind]
        )

    @property
    def name(self) -> str:
        """Of the model."""
        return self._subject.name

    @cached_property
    def _pool(self) -> Pool:
        """The model's own samples."""
        setting = self._setting
        return self._subject.pool(setting.judge, setting.judge_id, setting.n_samples, setting.seed)

    def _faces(self, attribute: str, kind: str) -> Faces:
        """The faces without the attribute that are edited."""
        setting, subject = self._setting, self._subject
        if kind == SAMPLES:
            column = setting.judge.index(attribute)
            return sampled_faces(self._pool, column, setting.n_faces)
        label = subject.dataset.label(attribute)
        return subject.faces(subject.choose(label, "test", setting.n_faces, setting.seed))

    def _edit_all(self, attribute: str, kind: str, found: FoundDirections) -> None:
        """Edit one kind of faces along the direction of every method."""
        setting, subject = self._setting, self._subject
        wanted = {method: f for (target, method), f in found.items() if target == attribute}
        if not wanted:
            return
        faces = self._faces(attribute, kind)
        if len(faces) < 2:
            text = f"Edits: {len(faces)} faces ({kind}) lack it; at least 2 are needed."
            self.problems.append(Problem(subject.name, attribute, text))
            return
        if kind == TEST and subject.projected is None:
            self.face_names[attribute] = faces.names
        key = {**setting.key(subject), "attribute": attribute, "kind": kind}
        band = setting.parts.get(
            f"null-{subject.name}-{attribute}-{kind}",
            key,
            NullBand,
            lambda: self._measure_null_band(attribute, kind, faces),
            setting.null_cost(),
        )
        self.null_bands.append(band)
        svm = found.get((attribute, PAPER_METHOD)) or found.get(
            (attribute, PAPER_METHOD + PROJECTED_SUFFIX)
        )
        for method, direction in wanted.items():
            self._edit(key, direction, svm, faces, kind, method, band)

    def _edit(
        self,
        key: Mapping[str, object],
        found: Found,
        svm: Found | None,
        faces: Faces,
        kind: str,
        method: str,
        band: NullBand,
    ) -> None:
        setting, name = self._setting, self._subject.name
        attribute = found.direction.attribute
        row, boundary = setting.parts.get(
            f"edits-{name}-{attribute}-{kind}-{method}",
            {
                **key,
                "direction": found.digest,
                "found": found.source,
                "note": found.note,
                "boundary": svm.digest if svm else "",
            },
            tuple[Edits, Boundary | None],
            lambda: self._measure_edits(found, svm, faces, kind, band),
            setting.edit_cost(),
        )
        self.edits.append(row)
        if boundary is not None:
            self.boundary.append(boundary)

    def _measure_edits(
        self, found: Found, svm: Found | None, faces: Faces, kind: str, band: NullBand
    ) -> list[object]:
        setting, subject, direction = self._setting, self._subject, found.direction
        column = setting.judge.index(direction.attribute)
        reference = self._reference(direction.attribute)
        support, threshold = reference or (None, None)
        strips = editability.measure(
            subject.model, setting.judge, faces, direction, column, support
        )
        row = editability.summarise(
            strips, faces, setting.judge, band, threshold, direction,
            kind=kind, model=subject.name, found=found.source, seed=setting.seed,
            note=_note(found, len(faces), setting.n_faces, reference is None),
        )  # fmt: skip
        boundary = spaces.boundary(
            strips, faces, svm.direction if svm else None, column,
            model=subject.name, method=direction.method, kind=kind, seed=setting.seed,
        )  # fmt: skip
        return [row, boundary]

    def _measure_null_band(self, attribute: str, kind: str, faces: Faces) -> NullBand:
        setting, subject = self._setting, self._subject
        directions = controls.random_directions(subject.model, attribute, setting.seed)
        if subject.known is not None:
            # Too few labelled examples: the row tells that no shuffled labels are among them.
            with suppress(DataError):
                directions += controls.shuffled_directions(
                    subject.known, subject.model, attribute, setting.seed
                )
        return controls.null_band(
            subject.model, setting.judge, faces, directions, name=subject.name, kind=kind
        )

    def _reference(self, attribute: str) -> Reference | None:
        """Support of the realism score, and the realism below which a picture is decohered."""
        if attribute not in self._references:
            self._references[attribute] = self._measure_reference(attribute)
        return self._references[attribute]

    @torch.inference_mode()
    def _measure_reference(self, attribute: str) -> Reference | None:
        draw = self._reconstructed if self._subject.model.has_encoder else self._sampled
        reference = self._balanced_features(*(draw(attribute, "train", p) for p in (True, False)))
        held_out = self._balanced_features(
            *(draw(attribute, "validation", p) for p in (True, False))
        )
        if reference is None or held_out is None:
            return None
        support = judging.Support.of(reference)
        return support, outcomes.realism_threshold(support.realism(held_out).numpy())

    def _balanced_features(self, wearers: Faces, others: Faces) -> torch.Tensor | None:
        """Features of as many wearers as others, unedited; None where there are too few."""
        n = min(len(wearers), len(others))
        if n < MIN_REFERENCE:
            return None
        features = [self._read(faces.latents[:n])[1] for faces in (wearers, others)]
        return torch.from_numpy(np.concatenate(features))

    def _reconstructed(self, attribute: str, partition: str, present: bool) -> Faces:
        """Faces of a partition with or without an attribute."""
        subject = self._subject
        label = subject.dataset.label(attribute)
        return subject.faces(
            subject.choose(label, partition, N_REFERENCE, self._setting.seed, present)
        )

    def _sampled(self, attribute: str, partition: str, present: bool) -> Faces:
        """Own samples instead, which no edit starts from; the second half is for validation."""
        column, n = self._setting.judge.index(attribute), self._setting.n_faces
        faces = sampled_faces(self._pool, column, len(self._pool.latents), present)
        kept = faces if present else faces[n:]
        half = len(kept) // 2
        return (kept[:half] if partition == "train" else kept[half:])[:N_REFERENCE]

    def _read(self, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The judge's probabilities and features of unedited latents."""
        batches = to_tensor(latents).split(judging.BATCH)
        return judging.read_in_batches(
            self._setting.judge, (self._subject.model.decode(z) for z in batches)
        )

    def _find_ceiling(self, attribute: str) -> None:
        """What the judge sees on unedited reconstructions of test faces."""
        setting, subject = self._setting, self._subject
        if not subject.has_latents:
            return
        row = setting.parts.get(
            f"ceiling-{subject.name}-{attribute}",
            {**setting.key(subject), "attribute": attribute},
            Ceiling | None,
            lambda: self._measure_ceiling(attribute),
            setting.ceiling_cost(),
        )
        if row is not None:
            self.ceilings.append(row)

    @torch.inference_mode()
    def _measure_ceiling(self, attribute: str) -> Ceiling | None:
        setting, subject = self._setting, self._subject
        label, column = subject.dataset.label(attribute), setting.judge.index(attribute)
        scores, sizes = [], []
        for present in (True, False):
            chosen = subject.choose(label, "test", setting.n_faces, setting.seed, present)
            if not len(chosen):
                return None
            faces = subject.faces(chosen)
            resamples = editability.Resamples(faces.identities, setting.seed)
            scores.append(resamples.score(self._read(faces.latents)[0][:, column]))
            sizes.append(len(faces))
        return Ceiling(
            model=subject.name,
            attribute=attribute,
            faces=TEST,
            n_wearers=sizes[0],
            n_others=sizes[1],
            wearers=scores[0],
            others=scores[1],
        )


def _note(found: Found, n: int, wanted: int, without_reference: bool) -> str:
    parts = [found.note] if found.note else []
    if n < wanted:
        parts.append(f"{n} faces; {wanted} were asked for.")
    if without_reference:
        parts.append("Too few reference pictures for realism and outcomes.")
    return " ".join(parts)
