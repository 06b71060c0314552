"""Directions that a visitor makes, in several models at once: of two heaps of faces, or of parts.

Made             one model's direction, and what came of it
make_directions  of faces sorted into two heaps
name_part        of a model's own components, which need no faces
open_directions  of a file or a repository
audit_page       what `hublatent audit` says of one, measured on the model's own faces
"""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hublatent.data import FaceDataset
from hublatent.demo import faces
from hublatent.demo.faces import Face, latents_of
from hublatent.demo.session import Refusal, draw, each_model
from hublatent.demo.shelf import JUDGE, Limits, ModelShelf, OpenModel
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery.few_images import at_chance, discover_from_few
from hublatent.discovery.unlabelled import UNLABELLED, unlabelled_direction
from hublatent.editing import edit, traverse
from hublatent.errors import DirectionError, HublatentError
from hublatent.figures import fit
from hublatent.images import to_pil
from hublatent.mapping import carry_to
from hublatent.stats import Estimate

MIN_FACES, MAX_FACES = 5, 50  # of a heap
PREVIEW_STRENGTH, PREVIEW_SIDE = 3.0, 96
ZIP_SHARE = 4  # a zip file may hold so many times as much as one picture may
N_PARTS, PART_STRENGTHS = 10, (-4.0, -2.0, 0.0, 2.0, 4.0)
N_AUDITED, N_OWN = 20, 400  # faces that are edited; samples that stand in for a data set


@dataclass(frozen=True, eq=False)
class Made:
    """What one model has of a direction."""

    model: str
    direction: Direction
    carried_from: str  # the model that it was carried across from; "" where it was found here
    before: tuple[Image.Image, ...]  # a few faces that the model draws
    after: tuple[Image.Image, ...]  # the same, moved by PREVIEW_STRENGTH

    @property
    def accuracy(self) -> Estimate | None:
        """How well it tells two heaps apart, where it was found from some here."""
        return self.direction.scores.get("accuracy")

    @property
    def level(self) -> str:
        """How good that is, as a Verdict has it."""
        return "none" if self.accuracy is None else "bad" if at_chance(self.accuracy) else "good"

    @property
    def told(self) -> str:
        """Where it comes from, and how good it is, in words."""
        if self.carried_from:
            return f"Carried across from {self.carried_from}."
        if self.accuracy is None:
            return "Of the model's own parts; no label says what it does."
        text = (
            f"{self.accuracy.value:.0%} of the faces are told apart, each read without itself "
            f"({self.accuracy.low:.0%} to {self.accuracy.high:.0%})."
        )
        if at_chance(self.accuracy):
            text += " That is no better than guessing: bring more faces, or a clearer difference."
        return text


def gather(
    shelf: ModelShelf, source: str, seeds: Sequence[Any], pictures: Sequence[str | bytes]
) -> list[Face]:
    """Faces that a model draws from seeds, and those of picture files or their bytes, each once."""
    limits, detector = shelf.limits, shelf.judges.detector
    check = faces.time_limit(limits.request_seconds)
    found = [face for seed in seeds if (face := draw(shelf, source, seed)) is not None]
    for i, picture in enumerate(pictures[: MAX_FACES + 1]):
        check(i, MAX_FACES)
        found.append(faces.Photo.open(picture, limits, detector).face(limits))
    return list({face.key: face for face in found}.values())


def make_directions(
    shelf: ModelShelf, name: str, with_it: Sequence[Face], without_it: Sequence[Face],
    models: Sequence[str],
) -> list[Made | Refusal]:  # fmt: skip
    """Find the direction between two heaps of faces, in each of several models.

    A model that does not know the faces takes another's direction, where a map leads to it; one
    that cannot answer says why.

    Raises:
        HublatentError: there is no name, or too few or many faces.
    """
    name = _checked(name)
    for heap, word in ((with_it, "with"), (without_it, "without")):
        if not MIN_FACES <= len(heap) <= MAX_FACES:
            raise HublatentError(
                f"{len(heap)} faces {word} it; {MIN_FACES} to {MAX_FACES} are needed."
            )

    def find(opened: OpenModel) -> Direction:
        with_latents, without_latents = (
            torch.cat([latents_of(opened, face, refined=False) for face in heap])
            for heap in (with_it, without_it)
        )
        return discover_from_few(name, with_latents, without_latents, model=opened.model)

    return _in_every_model(shelf, models, find)


def name_part(
    shelf: ModelShelf, name: str, method: str, part: int, source: str, models: Sequence[str]
) -> list[Made | Refusal]:
    """Name a part of the model `source`, and carry it to the others where a map leads there."""
    name = _checked(name)

    def find(opened: OpenModel) -> Direction:
        if opened.name != source:
            raise HublatentError(f"It is a part of {source}, and no map leads from there.")
        row = UNLABELLED[method](opened.model)[part]
        found = unlabelled_direction(opened.model, row, f"{method}-{part:02d}")
        return replace(found, attribute=name)

    return _in_every_model(shelf, list(dict.fromkeys([source, *models])), find)


@torch.inference_mode()
def part_strips(opened: OpenModel, method: str) -> list[list[Image.Image]]:
    """A model's own face, moved along each of its first parts by PART_STRENGTHS."""
    latents, strips = latents_of(opened, faces.drawn_face(opened, 0)), []
    for row in UNLABELLED[method](opened.model)[:N_PARTS]:
        direction = unlabelled_direction(opened.model, row, method)
        steps = traverse(latents, direction, torch.tensor(PART_STRENGTHS))[0]
        pictures = to_pil(opened.model.decode(steps))
        strips.append([fit(p.convert("RGB"), PREVIEW_SIDE, PREVIEW_SIDE) for p in pictures])
    return strips


def _in_every_model(
    shelf: ModelShelf, models: Sequence[str], find: Callable[[OpenModel], Direction]
) -> list[Made | Refusal]:
    """Find a direction in each model, or carry it there."""
    answers = each_model(shelf, models, lambda opened: _previewed(opened, find(opened)))
    found = [answer for answer in answers if isinstance(answer, Made)]
    for i, refusal in enumerate(answers):
        for made in found if isinstance(refusal, Refusal) else ():
            with suppress(HublatentError):  # no map leads there, or the model cannot be opened
                opened, source = shelf.open(refusal.model), shelf.open(made.model).model
                carried = carry_to(made.direction, source, opened.model, shelf.maps, "pattern")
                answers[i] = _previewed(opened, carried, made.model)
                break
    return answers


@torch.inference_mode()
def _previewed(opened: OpenModel, direction: Direction, carried_from: str = "") -> Made:
    own = faces.sample_faces(opened)
    latents = torch.cat([latents_of(opened, face) for face in own])
    moved = opened.model.decode(edit(latents, direction, PREVIEW_STRENGTH))
    before, after = (
        tuple(fit(picture.convert("RGB"), PREVIEW_SIDE, PREVIEW_SIDE) for picture in pictures)
        for pictures in ([face.picture for face in own], to_pil(moved))
    )
    return Made(opened.name, direction, carried_from, before, after)


def use_directions(
    shelf: ModelShelf, found: Sequence[tuple[str, Direction]], style: int | None = None
) -> str:
    """Let directions join those that the models are edited along; returns the attribute.

    With a `style`, a seed, another style of it joins instead, such as another kind of glasses.

    Raises:
        HublatentError: it has no styles.
    """
    for name, direction in found:
        if style is not None:
            direction = direction.sampled_style(style).with_sigma(shelf.open(name).model)
        shelf.add(name, direction)
    return found[0][1].attribute


def save_directions(
    shelf: ModelShelf, found: Sequence[tuple[str, Direction]], folder: Path
) -> list[Path]:
    """Write each model's direction into a file of its own; returns the files."""
    files = []
    for name, direction in found:
        plain = re.sub(r"[^\w.-]", "_", f"{direction.attribute}-{name}.safetensors")
        path = folder / plain
        DirectionSet.of(shelf.open(name).model, [direction]).save(path)
        files.append(path)
    return files


def open_directions(
    shelf: ModelShelf, where: str | Path, models: Sequence[str], others: Sequence[str] = ()
) -> list[tuple[str, Direction]]:
    """Add directions to the model that they belong to, for this run of the app.

    Where a map leads to another of the models on show, they join that one too, carried across;
    `others` are further models that they may belong to.

    Raises:
        HublatentError: they are damaged, cannot be had, or belong to none of the models.
    """
    error = HublatentError("No model is open that directions could belong to.")
    for name in dict.fromkeys([*models, *others]):
        try:
            opened = shelf.open(name)
            found = DirectionSet.open(where, opened.model)
        except DirectionError as caught:
            error = caught
            continue
        for direction in found:
            shelf.add(opened.name, direction)
            for other in shelf.open_all([other for other in models if other != name]):
                with suppress(DirectionError):  # no map leads there: its row says what it lacks
                    ends = opened.model, other.model
                    shelf.add(other.name, carry_to(direction, *ends, shelf.maps))
        return [(opened.name, direction) for direction in found]
    raise error


def unzip_heaps(content: bytes, limits: Limits) -> tuple[list[bytes], list[bytes]]:
    """The pictures of the two folders of a zip file, those with it first.

    The second folder is the one called "without" or "before"; else they come by name.

    Raises:
        HublatentError: it is no zip file, has not two folders, or is too large.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        names = [n for n in archive.namelist() if not n.endswith("/") and "__MACOSX" not in n]
        names = [name for name in names if not Path(name).name.startswith(".")]
        folders = sorted(
            {Path(name).parent for name in names},
            key=lambda f: (f.name.lower() in ("without", "before"), f.as_posix()),
        )
        if len(folders) != 2 or len(names) > 2 * MAX_FACES:
            raise HublatentError(
                f"The zip file has {len(folders)} folders and {len(names)} files; expected two "
                f"folders, such as with/ and without/, of at most {MAX_FACES} pictures each."
            )
        heaps: tuple[list[bytes], list[bytes]] = ([], [])
        left = limits.upload_bytes * ZIP_SHARE
        for name in names:
            with archive.open(name) as file:  # what it says of its size may be wrong
                picture = file.read(left + 1)
            left -= len(picture)
            if left < 0:
                raise HublatentError("The zip file holds too much: send smaller pictures.")
            heaps[folders.index(Path(name).parent)].append(picture)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise HublatentError(f"This is no zip file that can be read: {error}.") from error
    return heaps


def audit_page(shelf: ModelShelf, name: str, direction: Direction) -> str:
    """The page of `hublatent audit`, measured on faces that the model draws itself.

    Raises:
        HublatentError: the judge does not know what the direction is called.
    """
    from hublatent.evaluation.audit import measure, write_page
    from hublatent.evaluation.judges import Judges
    from hublatent.evaluation.subjects import Subject

    opened = shelf.open(name)
    assert shelf.cards is not None
    dataset = _own_faces(shelf, opened, direction.attribute)
    judges = Judges.load(str(shelf.cards / JUDGE), dataset, shelf.device)
    subject = Subject(name, name, opened.model, dataset, shelf.cards)
    found = measure(subject, judges, direction, N_AUDITED)
    with tempfile.TemporaryDirectory() as folder:
        return write_page(found, Path(folder), judges.name).read_text(encoding="utf-8")


@torch.inference_mode()
def _own_faces(shelf: ModelShelf, opened: OpenModel, attribute: str) -> FaceDataset:
    """A model's own samples, labelled by the app's classifier, as a data set."""
    generator = torch.Generator().manual_seed(0)
    latents = opened.model.sample_latents(N_OWN, generator=generator)
    drawn = list(faces.decode_in_parts(opened.model, latents))
    classifier = shelf.judges.classifier
    assert classifier is not None, "only what it reads is audited"
    labels = np.concatenate([(classifier(images) > 0).cpu().numpy() for images in drawn])
    pixels = np.stack([np.asarray(p.convert("RGB")) for part in drawn for p in to_pil(part)])
    everyone = np.arange(N_OWN)
    names = tuple(map(str, everyone))
    partition = np.where(everyone < N_OWN // 2, 0, 2).astype(np.uint8)
    return FaceDataset(
        pixels, labels, classifier.attribute_names, everyone, partition, names, (),
        opened.fingerprint, "drawn", f"samples of {opened.name}",
    )  # fmt: skip


def _checked(name: str) -> str:
    if not name.strip():
        raise HublatentError("Give it a name first.")
    return name.strip()
