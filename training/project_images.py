"""Find many images' latents: python training/project_images.py --model M --data DATA --out FOLDER

For models without an encoder. The same command resumes a run that was killed: each batch is a file
of its own. Several devices: accelerate launch. inversion/latents_file.py reads the folder.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import tyro
from tqdm import tqdm

import hublatent
from hublatent.data import FaceDataset
from hublatent.errors import DataError, HublatentError
from hublatent.inversion import latents_file
from hublatent.inversion.optimiser import DescentSettings
from hublatent.inversion.perceptual import DEFAULT_CLASSIFIER, Perceptual, load_classifier
from hublatent.inversion.projection import DivergedError, project
from hublatent.model import LatentModel, weights_digest
from hublatent.perception.classifier import AttributeClassifier
from hublatent.storage import only_writer
from training.trainers.commands import DataArguments, run_script
from training.trainers.loop import start_accelerator

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"


@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """Project images of a data set into a model."""

    model: str  # folder or Hub id of the model
    out: Path  # the folder of the shards
    # project as many images with it as without it; by default images of any kind
    attribute: str | None = None
    n: int | None = None  # how many images in all; by default as many as there are
    partition: str = "train+validation"  # train, validation, test, or several of them joined by +
    # the perceptual loss, "image-features", which have seen no labels, "features" (of the
    # classifier) or "lpips"
    perceptual: Perceptual = "image-features"
    # folder or Hub id of the attribute classifier; not the one that judges
    classifier: str = DEFAULT_CLASSIFIER
    # how each image is projected; its seed also chooses the images
    descent: tyro.conf.OmitArgPrefixes[DescentSettings] = field(default_factory=DescentSettings)
    batch_size: int = 32  # images projected together, and per file

    def check(self) -> None:
        """Refuse, with a DataError and before anything is loaded, what cannot be done."""
        if self.batch_size < 1:
            raise DataError(f"--batch-size {self.batch_size}; expected at least 1.")
        if self.n is not None and self.n < 1:
            raise DataError(f"--n {self.n}; expected at least 1.")
        if self.attribute is not None and self.n is not None and self.n % 2:
            raise DataError(
                f"--n {self.n}; half of them show {self.attribute}, so it must be even."
            )


def choose_images(dataset: FaceDataset, arguments: Arguments) -> np.ndarray:
    """The positions of the images to project: int64 (n,), ascending."""
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


def run(arguments: Arguments) -> None:
    """Project what is still missing; the last line tells how good all of it is.

    Batch k of the chosen images is file k, so the folder alone tells what is missing.
    """
    arguments.check()
    accelerator = start_accelerator()
    is_main, out = accelerator.is_main_process, arguments.out
    model = hublatent.load(arguments.model, device=str(accelerator.device))
    classifier = load_classifier(
        arguments.perceptual, arguments.classifier, str(accelerator.device)
    )
    with accelerator.main_process_first():
        dataset = arguments.load(model.image_size, is_main)
    chosen, size = choose_images(dataset, arguments), arguments.batch_size
    batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    given = ("attribute", "n", "partition", "perceptual", "batch_size")
    document = latents_file.describe(
        model,
        dataset=dataset.digest,
        preprocessing=dataset.preprocessing,
        n_images=len(chosen),
        settings={
            **{name: getattr(arguments, name) for name in given},
            "classifier": None if classifier is None else weights_digest(classifier),
            **asdict(arguments.descent),
        },
    )

    def missing() -> list[int]:
        return [k for k in range(len(batches)) if not latents_file.shard_path(out, k).is_file()]

    with only_writer(out) if is_main else nullcontext():
        if is_main:
            latents_file.check_same_run(out, document)
        todo = missing()
        # Nobody writes before everybody has looked, or two would share the work differently.
        accelerator.wait_for_everyone()
        accelerator.print(
            f"{len(chosen):,} images in {len(batches)} files, {len(batches) - len(todo)} of them "
            f"there; seed {arguments.descent.seed}",
            flush=True,
        )
        mine = todo[accelerator.process_index :: accelerator.num_processes]
        n = sum(len(batches[k]) for k in mine)
        with tqdm(
            desc="project", unit="image", total=n, disable=not is_main, bar_format=BAR
        ) as bar:
            for k in mine:
                tensors = _project(arguments, model, classifier, dataset, batches[k], bar)
                latents_file.PROJECTED.write(
                    latents_file.shard_path(out, k), tensors, {**document, "shard": k}
                )
    # Not waiting for the others, who may need longer than a process group's patience.
    if not missing():
        errors = latents_file.read_projected(out, model).errors
        print(f"{out}: {len(errors):,} images, mean squared error {errors.mean():.5f}")


def _project(
    arguments: Arguments,
    model: LatentModel,
    classifier: AttributeClassifier | None,
    dataset: FaceDataset,
    indices: np.ndarray,
    bar: tqdm,
) -> Mapping[str, torch.Tensor]:
    """Project one batch: the tensors of its file."""
    before = bar.n
    try:
        found = project(
            model,
            dataset.batch(indices),
            classifier=classifier,
            perceptual=arguments.perceptual,
            batch_size=len(indices),
            progress=lambda done, total: bar.update(before + len(indices) * done / total - bar.n),
            **asdict(arguments.descent),
        )
    except DivergedError as error:
        names = [dataset.names[indices[i]] for i in error.indices]
        raise HublatentError(f"{', '.join(names)}: {error}") from error
    positions = torch.from_numpy(indices)
    return {"latents": found.latents, "errors": found.errors, "indices": positions}


if __name__ == "__main__":
    run_script(Arguments, run)
