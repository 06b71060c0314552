"""Find many images' latents: python training/project_images.py --model M --data DATA --out FOLDER

For models without an encoder. The same command resumes a run that was killed: each batch is a file
of its own. Several devices: accelerate launch. inversion/latents_file.py reads the folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import accelerate
import numpy as np
import torch
import tyro
from tqdm import tqdm

import hublatent
from hublatent.data import FaceDataset
from hublatent.errors import DataError, HublatentError, exit_on_user_error
from hublatent.inversion.latents_file import (
    PROJECTED,
    check_same_run,
    describe,
    read_projected,
    shard_path,
)
from hublatent.inversion.optimiser import DescentSettings
from hublatent.inversion.perceptual import DEFAULT_CLASSIFIER, Perceptual, load_classifier
from hublatent.inversion.projection import DivergedError, project
from hublatent.model import LatentModel, weights_digest
from hublatent.perception.classifier import AttributeClassifier
from hublatent.storage import only_writer
from training.trainers.commands import DataArguments
from training.trainers.loop import start_accelerator

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"


@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """Project images of a data set into a model.

    Attributes:
        model: folder or Hub id of the model.
        out: the folder of the shards.
        attribute: project as many images with it as without it; by default images of any kind.
        n: how many images in all; by default as many as there are.
        partition: train, validation, test, or several of them joined by +.
        perceptual: the perceptual loss, "image-features", which have seen no labels, "features" (of
            the classifier) or "lpips".
        classifier: folder or Hub id of the attribute classifier; not the one that judges.
        descent: how each image is projected; its seed also chooses the images.
        batch_size: images projected together, and per file.
    """

    model: str
    out: Path
    attribute: str | None = None
    n: int | None = None
    partition: str = "train+validation"
    perceptual: Perceptual = "image-features"
    classifier: str = DEFAULT_CLASSIFIER
    descent: tyro.conf.OmitArgPrefixes[DescentSettings] = field(default_factory=DescentSettings)
    batch_size: int = 32

    def check(self) -> None:
        """Refuse, before anything is loaded, what cannot be done."""
        if self.batch_size < 1:
            raise DataError(f"--batch-size {self.batch_size}; expected at least 1.")
        if self.n is not None and self.n < 1:
            raise DataError(f"--n {self.n}; expected at least 1.")
        if self.attribute is not None and self.n is not None and self.n % 2:
            raise DataError(
                f"--n {self.n}; half of them show {self.attribute}, so it must be even."
            )


def choose_images(dataset: FaceDataset, arguments: Arguments) -> np.ndarray:
    """The positions of the images to project: int64 (n,), ascending.

    Raises:
        DataError: there are fewer than asked for, or none.
    """
    known = dataset.indices(*arguments.partition.split("+"))
    groups, per_group, kinds = [known], arguments.n, ["images"]
    if arguments.attribute is not None:
        shown = dataset.label(arguments.attribute)[known]
        groups = [known[shown], known[~shown]]
        kinds = [f"images {word} {arguments.attribute}" for word in ("with", "without")]
        rarer = min(map(len, groups))
        per_group = rarer if arguments.n is None else arguments.n // 2
    rng = np.random.default_rng(arguments.descent.seed)
    chosen = []
    for group, kind in zip(groups, kinds, strict=True):
        wanted = len(group) if per_group is None else per_group
        if len(group) < max(wanted, 1):
            raise DataError(
                f"{arguments.data} has {len(group)} {kind} in {arguments.partition}; "
                f"{max(wanted, 1)} are needed."
            )
        chosen.append(rng.choice(group, wanted, replace=False))
    return np.sort(np.concatenate(chosen))


class ShardWriter:
    """Projects one process's share of the images, a file per batch.

    Batch k of the chosen images is file k, so the folder alone tells what is missing.
    """

    def __init__(
        self,
        arguments: Arguments,
        model: LatentModel,
        classifier: AttributeClassifier | None,
        dataset: FaceDataset,
    ) -> None:
        self.arguments = arguments
        self.model = model
        self.classifier = classifier
        self.dataset = dataset
        chosen = choose_images(dataset, arguments)
        size = arguments.batch_size
        self.batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        settings = {
            "attribute": arguments.attribute,
            "n": arguments.n,
            "partition": arguments.partition,
            "perceptual": arguments.perceptual,
            "classifier": None if classifier is None else weights_digest(classifier),
            "batch_size": size,
            **asdict(arguments.descent),
        }
        self.document = describe(
            model,
            dataset=dataset.digest,
            preprocessing=dataset.preprocessing,
            n_images=len(chosen),
            settings=settings,
        )

    def prepare(self) -> None:
        """Refuse a folder of another run."""
        check_same_run(self.arguments.out, self.document)

    def missing(self) -> list[int]:
        """The numbers of the files that are not there yet."""
        numbers = range(len(self.batches))
        return [k for k in numbers if not shard_path(self.arguments.out, k).is_file()]

    def run(self, numbers: Sequence[int], show_progress: bool = True) -> None:
        """Make files.

        Args:
            numbers: of the files.
            show_progress: whether to show a progress bar.
        """
        n_images = sum(len(self.batches[k]) for k in numbers)
        with tqdm(
            desc="project", unit="image", total=n_images, disable=not show_progress, bar_format=BAR
        ) as bar:
            for number in numbers:
                self.make(number, bar)

    def make(self, number: int, bar: tqdm) -> None:
        """Project one batch and write its file."""
        indices = self.batches[number]
        before = bar.n

        def show(done: int, total: int) -> None:
            bar.update(before + len(indices) * done / total - bar.n)

        try:
            found = project(
                self.model,
                self.dataset.batch(indices),
                classifier=self.classifier,
                perceptual=self.arguments.perceptual,
                batch_size=len(indices),
                progress=show,
                **asdict(self.arguments.descent),
            )
        except DivergedError as error:
            raise HublatentError(f"{self._names(indices[list(error.indices)])}: {error}") from error
        tensors = {
            "latents": found.latents,
            "errors": found.errors,
            "indices": torch.from_numpy(indices),
        }
        path = shard_path(self.arguments.out, number)
        PROJECTED.write(path, tensors, {**self.document, "shard": number})

    def _names(self, indices: Sequence[int] | np.ndarray) -> str:
        return ", ".join(self.dataset.names[i] for i in indices)


def run(arguments: Arguments) -> None:
    """Project what is still missing; the last line tells how good all of it is."""
    arguments.check()
    accelerator = start_accelerator()
    device = str(accelerator.device)
    model = hublatent.load(arguments.model, device=device)
    classifier = load_classifier(arguments.perceptual, arguments.classifier, device)
    with accelerator.main_process_first():
        dataset = arguments.load(model.image_size, accelerator.is_main_process)
        writer = ShardWriter(arguments, model, classifier, dataset)
    with only_writer(arguments.out) if accelerator.is_main_process else nullcontext():
        _write_shards(writer, accelerator)
    # Not waiting for the others, who may need longer than a process group's patience.
    if not writer.missing():
        errors = read_projected(arguments.out, model).errors
        print(f"{arguments.out}: {len(errors):,} images, mean squared error {errors.mean():.5f}")


def _write_shards(writer: ShardWriter, accelerator: accelerate.Accelerator) -> None:
    if accelerator.is_main_process:
        writer.prepare()
    missing = writer.missing()
    # Nobody writes before everybody has looked, or two processes would share the work differently.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        n_images, n_files = writer.document["n_images"], len(writer.batches)
        print(
            f"{n_images:,} images in {n_files} files, {n_files - len(missing)} of them there; "
            f"seed {writer.arguments.descent.seed}",
            flush=True,
        )
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    writer.run(mine, show_progress=accelerator.is_main_process)


def main() -> None:
    """Project what the command line asks for."""
    run(tyro.cli(Arguments))


if __name__ == "__main__":
    exit_on_user_error(main)
