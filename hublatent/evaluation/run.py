"""compare(): measure what is not measured yet, part by part, then write the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from hublatent.evaluation.controls import NULL_STRENGTHS, hole_rows, null_rows, null_sizes
from hublatent.evaluation.edits import STRENGTHS, edit_rows, faces_without
from hublatent.evaluation.judges import Judges
from hublatent.evaluation.readings import read_attributes, readable
from hublatent.evaluation.report import Summary, write_report
from hublatent.evaluation.subjects import Subject, gather, untrained
from hublatent.model import weights_digest
from hublatent.perception.classifier import AttributeClassifier
from hublatent.storage import only_writer, portable, write_text

EDITED = ("Eyeglasses", "Smiling", "Male")
METHODS = (PAPER_METHOD, BEST_METHOD)
TEACHER = "attributes-celeba"  # beside the judge: whose logits the method "assessor" raises
PARTS_FOLDER, MODELS_NAME = "parts", "models.csv"
VERSION = 2  # raised when a part would hold other rows
READING_COST = 150  # of an attribute, in images: what the bar counts


@dataclass(frozen=True, eq=False)
class Measuring:
    """What is measured on every model, part by part; finished parts are read from their files."""

    judges: Judges
    read: tuple[str, ...]  # attributes
    edited: tuple[str, ...]
    methods: tuple[str, ...]  # models with layers also go along class means, as the paper
    n_faces: int  # that lack the attribute, in each edit
    seed: int
    folder: Path  # of the finished parts
    bar: tqdm  # counts images

    @cached_property
    def _judge_id(self) -> str:
        return weights_digest(self.judges.classifier)

    def measure(self, subjects: Sequence[Subject]) -> pd.DataFrame:
        """The long table of some models."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.bar.unit = "image"
        self.bar.reset(total=sum(map(self._cost, subjects)))
        found: list[pd.DataFrame] = []
        for subject in subjects:
            before = self.bar.n
            self.bar.set_description(subject.training)
            found += self._parts(subject)
            self.bar.update(before + self._cost(subject) - self.bar.n)
            for latents in ("known", "styles"):
                subject.__dict__.pop(latents, None)  # needed no longer
        return table.join(found)

    def _methods_of(self, subject: Subject) -> tuple[str, ...]:
        also = ("mean-difference",) if subject.has_w else ()
        return tuple(dict.fromkeys((*self.methods, *also)))

    def _cost(self, subject: Subject) -> int:
        """About how many images a model's parts take."""
        reading = len(self.read) * READING_COST
        if subject.baseline:
            return reading
        in_w = subject.has_w and BEST_METHOD in self.methods
        n_directions = len(self._methods_of(subject)) + in_w
        edits = len(self.edited) * n_directions * self.n_faces * (len(STRENGTHS) + 1)
        n_null, n_some = null_sizes(self.n_faces)
        return reading + edits + 2 * n_null * len(NULL_STRENGTHS) * n_some + 4 * self.n_faces

    def _parts(self, subject: Subject) -> list[pd.DataFrame]:
        judges, seed, update = self.judges, self.seed, self.bar.update

        def reading() -> pd.DataFrame:
            names = subject.names(subject.learnt)
            done = lambda _: update(READING_COST)  # noqa: E731
            return read_attributes(subject.known, self.read, names, seed=seed, done=done)

        def controls() -> pd.DataFrame:
            null = null_rows(subject, judges, self.edited, self.n_faces, seed, update)
            return pd.concat([null, hole_rows(subject, judges, self.n_faces, seed, update)])

        def facts() -> pd.DataFrame:
            return table.rows(subject.measured_facts())

        found = []
        if not subject.baseline:
            found.append(self._part(subject, "rate and distortion", (), facts))
            found.append(self._part(subject, "controls", self.edited, controls))
        if subject.model.has_encoder:
            found.append(self._part(subject, "reading", self.read, reading))
        if subject.baseline:
            return found
        found += self._edits(subject, self._methods_of(subject))
        if subject.has_w and BEST_METHOD in self.methods:
            found += self._edits(subject.in_w(), (BEST_METHOD,))
        return found

    def _edits(self, subject: Subject, methods: Sequence[str]) -> list[pd.DataFrame]:
        judges, found = self.judges, []

        def edits(attribute: str) -> pd.DataFrame:
            faces = faces_without(subject, judges, attribute, self.n_faces, self.seed)
            directions = subject.directions(attribute, methods, self.seed, self.bar.write)
            update = self.bar.update
            return edit_rows(subject, judges, attribute, directions, *faces, progress=update)

        for attribute in self.edited:
            what, more = f"editing {attribute}", [attribute, *methods]
            try:
                found.append(self._part(subject, what, more, partial(edits, attribute)))
            except DataError as error:
                self.bar.write(str(error))
        return found

    def _part(
        self, subject: Subject, what: str, more: Sequence[Any], compute: Callable[[], pd.DataFrame]
    ) -> pd.DataFrame:
        key = [VERSION, *subject.key, self._judge_id, self.n_faces, self.seed, what, more]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        path = self.folder / f"{subject.training}-{digest}.csv.gz"
        columns = {"model": subject.name, "training": subject.training}
        if not path.is_file():
            self.bar.set_description(f"{subject.training}: {what}")
            table.save(compute().assign(**columns)[list(table.COLUMNS)], path)
        return table.load(path).assign(**columns)  # whose trainings may have got another name


def wishes(
    subject: Subject, judges: Judges, attributes: Sequence[str], methods: Sequence[str],
    n_faces: int,
) -> tuple[tuple[str, ...], tuple[str, ...]]:  # fmt: skip
    """The attributes to be read and edited; unless some are named, all that enough images show.

    Raises:
        HublatentError: an attribute is unknown to the data or the judge, or a method to anyone.
    """
    data, judge = subject.dataset.attributes, judges.classifier.attribute_names
    for name in attributes:
        for known in (data, judge):
            if name not in known:
                raise HublatentError(unknown_name("attribute", name, known))
    for method in methods:  # such as "joint-projected" where directions are stored
        plain, _, kind = method.rpartition("-")
        if (plain if kind in ORIGIN_KINDS else method) not in DISCOVERED:
            raise HublatentError(unknown_name("method", method, DISCOVERED))
    if n_faces < 2:
        raise HublatentError(f"{n_faces} faces were asked for; edits are compared on at least 2.")
    if attributes:
        return tuple(attributes), tuple(attributes)
    read = readable(subject.dataset.labels[subject.learnt], data)
    edited = tuple(name for name in EDITED if name in data and name in judge)
    if not read or not edited:
        raise DataError("Of these data nothing is compared by default; name --attributes.")
    return tuple(read), edited


def compare(
    folders: Sequence[Path], data: DataSource, out: Path, *, judge: str,
    attributes: Sequence[str] = (), methods: Sequence[str] = METHODS, n_faces: int = 100,
    seed: int = 0, device: str = "cpu",
) -> Summary:  # fmt: skip
    """Compare models: measure, write the long table and the report; goes on where it stopped.

    Arguments as of `hublatent compare`; each of METHODS that a model lacks is left out of it.

    Raises:
        HublatentError: there is nothing to compare, or a judge is missing.
    """
    with tqdm(total=len(folders), desc="load models", unit="model", smoothing=0.05) as bar:
        subjects = gather(folders, data, device, done=bar.update)
        subjects += untrained(subjects, seed)
        bar.set_description("load judges")
        judges = Judges.load(judge, subjects[0].dataset, device)
        wanted = wishes(subjects[0], judges, attributes, methods, n_faces)
        if "assessor" in methods:
            teacher = AttributeClassifier.from_pretrained((Path(judge).parent / TEACHER).as_posix())
            teacher.to(device).eval()
            subjects = [replace(subject, classifier=teacher) for subject in subjects]
        with only_writer(out):
            parts = out / PARTS_FOLDER
            measuring = Measuring(judges, *wanted, tuple(methods), n_faces, seed, parts, bar)
            found = measuring.measure(subjects)
            bar.set_description("write the report")
            table.save(found, out / table.TABLE_NAME)
            models = pd.DataFrame([subject.about() for subject in subjects])
            write_text(out / MODELS_NAME, models.to_csv(index=False))
            names = " ".join(portable(folder) for folder in folders)
            command = f"python -m hublatent compare {names} {data.words()}"
            command += f" --out {portable(out)} --faces {n_faces}"
            command += f" --attributes {' '.join(attributes)}" if attributes else ""
            command += f" --methods {' '.join(methods)}" if tuple(methods) != METHODS else ""
            return write_report(Evidence(found, models, seed), out, command, judges.name)
