"""compare(): measure what is not measured yet, part by part, then write the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from hublatent.data import DataSource
from hublatent.direction import ORIGIN_KINDS
from hublatent.discovery import METHODS as DISCOVERED
from hublatent.errors import DataError, HublatentError, unknown_name
from hublatent.evaluation import table
from hublatent.evaluation.claims import BEST_METHOD, PAPER_METHOD, Evidence
from hublatent.evaluation.edits import (
    NULL_STRENGTHS,
    STRENGTHS,
    edit_rows,
    faces_without,
    null_rows,
    null_sizes,
)
from hublatent.evaluation.holes import hole_rows
from hublatent.evaluation.judges import Judges
from hublatent.evaluation.readings import read_attributes, readable
from hublatent.evaluation.report import Summary, write_report
from hublatent.evaluation.subjects import Subject, gather, measured_facts, untrained
from hublatent.model import weights_digest
from hublatent.perception.classifier import AttributeClassifier
from hublatent.storage import only_writer, portable, write_text

EDITED = ("Eyeglasses", "Smiling", "Male")
METHODS = (PAPER_METHOD, BEST_METHOD)
TEACHER = "attributes-celeba"  # beside the judge: whose logits the method "assessor" raises
PARTS_FOLDER, MODELS_NAME = "parts", "models.csv"
VERSION = 2  # raised when a part would hold other rows
READING_COST = 150  # of an attribute, in pictures: what the bar counts


@dataclass(frozen=True, eq=False)
class Wishes:
    """What is measured on every model.

    Attributes:
        read, edited: attributes.
        methods: along which edits go; models with layers also go along class means, as the paper.
        n_faces: that lack the attribute, in each edit.
        seed: of every draw.
    """

    read: tuple[str, ...]
    edited: tuple[str, ...]
    methods: tuple[str, ...]
    n_faces: int
    seed: int

    def methods_of(self, subject: Subject) -> tuple[str, ...]:
        """The methods of a model."""
        if subject.is_layered and subject.model.has_encoder:
            return tuple(dict.fromkeys((*self.methods, "mean-difference")))
        return self.methods

    def in_w(self, subject: Subject) -> Wishes | None:
        """What of it is measured once more with one code for all of a model's layers."""
        if subject.is_layered and subject.model.has_encoder and BEST_METHOD in self.methods:
            return replace(self, methods=(BEST_METHOD,))
        return None

    def cost(self, subject: Subject) -> int:
        """About how many pictures a model's parts take."""
        reading = len(self.read) * READING_COST
        if subject.baseline:
            return reading
        n_directions = len(self.methods_of(subject)) + (self.in_w(subject) is not None)
        edits = len(self.edited) * n_directions * self.n_faces * (len(STRENGTHS) + 1)
        n_null, n_some = null_sizes(self.n_faces)
        return reading + edits + 2 * n_null * len(NULL_STRENGTHS) * n_some + 4 * self.n_faces


@dataclass(frozen=True, eq=False)
class Measuring:
    """Measures models part by part; a part that was finished before is read from its file.

    Attributes:
        judges: judge.
        wishes: what to measure.
        folder: of the finished parts.
        judge_id: fingerprint of the judge.
    """

    judges: Judges
    wishes: Wishes
    folder: Path
    judge_id: str

    def measure(self, subjects: Sequence[Subject]) -> pd.DataFrame:
        """The long table of some models."""
        self.folder.mkdir(parents=True, exist_ok=True)
        total = sum(map(self.wishes.cost, subjects))
        found: list[pd.DataFrame] = []
        with tqdm(total=total, unit="picture", smoothing=0.05) as bar:
            for subject in subjects:
                before = bar.n
                found += self._parts(subject, bar)
                bar.update(before + self.wishes.cost(subject) - bar.n)
                for latents in ("known", "styles"):
                    subject.__dict__.pop(latents, None)  # needed no longer
        return table.join(found)

    def _parts(self, subject: Subject, bar: tqdm) -> list[pd.DataFrame]:
        wishes, judges = self.wishes, self.judges
        how: Any = {"n": wishes.n_faces, "seed": wishes.seed, "progress": bar.update}

        def reading() -> pd.DataFrame:
            return read_attributes(
                subject.known, wishes.read, subject.names(subject.learnt), seed=wishes.seed,
                done=lambda _: bar.update(READING_COST),
            )  # fmt: skip

        def controls() -> pd.DataFrame:
            null = null_rows(subject, judges, wishes.edited, **how)
            return pd.concat([null, hole_rows(subject, judges, **how)])

        if subject.baseline:
            return [self._part(subject, bar, "reading", wishes.read, reading)]
        facts = partial(measured_facts, subject)
        found = [
            self._part(subject, bar, "rate and distortion", (), lambda: table.rows(facts())),
            self._part(subject, bar, "controls", wishes.edited, controls),
        ]
        if subject.model.has_encoder:
            found.append(self._part(subject, bar, "reading", wishes.read, reading))
        found += self._edits(subject, bar)
        in_w = wishes.in_w(subject)
        return found + (replace(self, wishes=in_w)._edits(subject.in_w(), bar) if in_w else [])

    def _edits(self, subject: Subject, bar: tqdm) -> list[pd.DataFrame]:
        wishes, judges, found = self.wishes, self.judges, []
        methods = wishes.methods_of(subject)

        def edits(attribute: str) -> pd.DataFrame:
            faces = faces_without(subject, judges, attribute, wishes.n_faces, wishes.seed)
            directions = subject.directions(attribute, methods, wishes.seed, bar.write)
            return edit_rows(subject, judges, attribute, directions, *faces, progress=bar.update)

        for attribute in wishes.edited:
            what, more = f"editing {attribute}", [attribute, *methods]
            try:
                found.append(self._part(subject, bar, what, more, partial(edits, attribute)))
            except DataError as error:
                bar.write(f"{subject.training}, {attribute}: {error}")
        return found

    def _part(
        self, subject: Subject, bar: tqdm, what: str, more: Sequence[Any],
        compute: Callable[[], pd.DataFrame],
    ) -> pd.DataFrame:  # fmt: skip
        key = [VERSION, *subject.key, self.judge_id, self.wishes.n_faces, self.wishes.seed]
        digest = hashlib.sha256(json.dumps([*key, what, more]).encode()).hexdigest()[:16]
        path = self.folder / f"{subject.training}-{digest}.csv.gz"
        columns = {"model": subject.name, "training": subject.training}
        if not path.is_file():
            bar.set_description(f"{subject.training}: {what}")
            table.save(compute().assign(**columns)[list(table.COLUMNS)], path)
        return table.load(path).assign(**columns)  # whose trainings may have got another name


def wishes_for(
    subjects: Sequence[Subject], judges: Judges, attributes: Sequence[str], methods: Sequence[str],
    n_faces: int, seed: int,
) -> Wishes:  # fmt: skip
    """What is to be measured; without attributes, all that enough pictures show.

    Raises:
        HublatentError: an attribute is unknown to the data or the judge.
    """
    dataset = subjects[0].dataset
    for name in attributes:
        for known in (dataset.attributes, judges.classifier.attribute_names):
            if name not in known:
                raise HublatentError(unknown_name("attribute", name, known))
    for method in methods:  # such as "joint-projected" where directions are stored
        plain, _, kind = method.rpartition("-")
        if (plain if kind in ORIGIN_KINDS else method) not in DISCOVERED:
            raise HublatentError(unknown_name("method", method, DISCOVERED))
    if n_faces < 2:
        raise HublatentError(f"{n_faces} faces were asked for; edits are compared on at least 2.")
    if attributes:
        return Wishes(tuple(attributes), tuple(attributes), tuple(methods), n_faces, seed)
    learnt = dataset.indices("train", "validation")
    read = readable(dataset.labels[learnt], dataset.attributes)
    judged = judges.classifier.attribute_names
    edited = tuple(name for name in EDITED if name in dataset.attributes and name in judged)
    if not read or not edited:
        raise DataError("Of these data nothing is compared by default; name --attributes.")
    return Wishes(tuple(read), edited, tuple(methods), n_faces, seed)


def compare(
    folders: Sequence[Path],
    data: DataSource,
    out: Path,
    *,
    judge: str,
    attributes: Sequence[str] = (),
    methods: Sequence[str] = METHODS,
    n_faces: int = 100,
    seed: int = 0,
    device: str = "cpu",
) -> Summary:
    """Compare models: measure, write the long table and the report; goes on where it stopped.

    Args:
        folders: of models; checkpoints whose recipes differ in the seed alone are trainings of one.
        data: labelled faces.
        out: folder of the report, the long table and the finished parts.
        judge: folder or Hub id of the classifier that judges; the other judges lie beside it.
        attributes: what is read and edited; by default all that enough pictures show are read, and
            three edited.
        methods: how directions are found; one that a model lacks is left out of it.
        n_faces: that lack the attribute, in each edit.
        seed: of every draw.
        device: where models and judges work.

    Raises:
        HublatentError: there is nothing to compare, or a judge is missing.
    """
    subjects = gather(folders, data, device)
    subjects += untrained(subjects, seed)
    judges = Judges.load(judge, subjects[0].dataset, device)
    wishes = wishes_for(subjects, judges, attributes, methods, n_faces, seed)
    if "assessor" in methods:
        teacher = AttributeClassifier.from_pretrained((Path(judge).parent / TEACHER).as_posix())
        teacher.to(device).eval()
        subjects = [replace(subject, classifier=teacher) for subject in subjects]
    with only_writer(out):
        judge_id = weights_digest(judges.classifier)
        found = Measuring(judges, wishes, out / PARTS_FOLDER, judge_id).measure(subjects)
        table.save(found, out / table.TABLE_NAME)
        models = pd.DataFrame([subject.about() for subject in subjects])
        write_text(out / MODELS_NAME, models.to_csv(index=False))
        names = " ".join(portable(folder) for folder in folders)
        command = f"python -m hublatent compare {names} {data.words()}"
        command += f" --out {portable(out)} --faces {n_faces}"
        command += f" --attributes {' '.join(attributes)}" if attributes else ""
        command += f" --methods {' '.join(methods)}" if tuple(methods) != METHODS else ""
        return write_report(Evidence(found, models, seed), out, command, judges.name)
