"""Find a model's directions: python training/find_directions.py --model FOLDER --data DATA

Uses training and validation images only; the test partition stays unseen. A model without an
encoder takes images that training/project_images.py projected (--projected FOLDER), or its own
samples, labelled by a classifier (--samples 10000). Several devices encode: accelerate launch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import tyro
from accelerate import Accelerator
from tqdm import tqdm

import hublatent
from hublatent.data import FaceDataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery import METHODS, LabelledLatents, balanced_set, discover_all, encode
from hublatent.discovery.methods.stylespace import in_styles
from hublatent.discovery.quantities import read_quantities, with_quantities
from hublatent.errors import DataError, exit_on_user_error, unknown_name
from hublatent.hub import DIRECTIONS_NAME
from hublatent.inversion.labelled_latents import projected, sampled
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.storage import only_writer, write_text
from training.trainers.commands import DataArguments, command_of
from training.trainers.loop import start_accelerator

ALL = "all"
DEFAULT_METHODS = ("svm", "pattern", "joint")


@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """Find the directions of a model.

    Attributes:
        model: folder or Hub id of the model.
        data: folder or Hub dataset of labelled faces; samples do not need it.
        projected: folder of the images' latents, for a model without an encoder.
        samples: how many samples to draw and label, instead of reading images.
        classifier: folder or Hub id of the classifier that labels samples, and whose logits the
            method "assessor" raises; not the judge.
        quantities: a table of numbers beside the pictures' file names, such as CelebA's landmarks,
            or a .csv; its columns are what to find, in the place of the labels. For supervised-pca.
        styles: take the channels of a StyleGAN2's styles for its latents (StyleSpace).
        add: keep what the direction file holds already, apart from what is found anew.
        out: the direction file; by default directions.safetensors in the model's folder. The
            scores stand in the file, and readable beside it, in a .json of the same name.
        attributes: what to find; "all" is every attribute of the data.
        methods: how to find it.
        seed: of the balanced sets, the folds and the bootstraps.
    """

    model: str
    data: str = ""
    projected: Path | None = None
    samples: int = 0
    classifier: str = "model_cards/attributes-celeba"
    quantities: Path | None = None
    styles: bool = False
    add: bool = False
    out: Path | None = None
    attributes: tuple[str, ...] = (ALL,)
    methods: tuple[str, ...] = DEFAULT_METHODS
    seed: int = 0

    def check(self) -> None:
        """Refuse, before anything is loaded, what cannot be done.

        Raises:
            DataError: nothing is asked for, a method is unknown, or there is no folder to write to.
        """
        if not self.attributes or not self.methods:
            raise DataError("--attributes and --methods need at least one name each.")
        for method in self.methods:
            if method not in METHODS:
                raise DataError(unknown_name("method", method, METHODS))
        if not self.samples and not self.data:
            raise DataError("Give labelled images (--data), or a number of samples (--samples).")
        if self.samples < 0 or (self.samples and self.projected):
            raise DataError("--samples is a number of samples, and does not go with --projected.")
        if self.quantities and (self.samples or self.projected):
            raise DataError("--quantities are of encoded pictures: give --data alone.")
        if self.styles and self.out is None:
            raise DataError(
                "Directions of styles go into a file of their own; say with --out which."
            )
        if self.out is None and not Path(self.model).is_dir():
            raise DataError(
                f"{self.model} is not a folder here; if it is on the Hub, say with --out where "
                "the directions go."
            )

    @property
    def path(self) -> Path:
        """Where the directions go."""
        return self.out or Path(self.model) / DIRECTIONS_NAME


def choose_attributes(
    data: LabelledLatents, wanted: Iterable[str], seed: int
) -> tuple[list[str], dict[str, str]]:
    """The wanted attributes that have enough examples, and why the others are left out.

    Raises:
        DataError: one is unknown, or none has enough examples.
    """
    names = list(dict.fromkeys(wanted))
    if ALL in names:
        names = list(data.attributes)
    left_out = {}
    for name in names:
        data.label(name)  # an unknown name is a mistake, a rare attribute is not
        try:
            balanced_set(data, name, seed)
        except DataError as error:
            left_out[name] = str(error)
    kept = [name for name in names if name not in left_out]
    if not kept:
        why = " ".join(left_out.values()) or "The data set has no labels."
        raise DataError(f"No direction can be found. {why}")
    return kept, left_out


def run(arguments: Arguments) -> None:
    """Find, print and save."""
    arguments.check()
    accelerator = start_accelerator()
    with only_writer(arguments.path.parent) if accelerator.is_main_process else nullcontext():
        _find(arguments, accelerator)


def _find(arguments: Arguments, accelerator: Accelerator) -> None:
    model = hublatent.load(arguments.model)
    dataset = None
    if arguments.data:
        with accelerator.main_process_first():
            dataset = arguments.load(model.image_size)
    data = gather_latents(model, dataset, arguments, accelerator.device)
    accelerator.wait_for_everyone()
    accelerator.end_training()  # a process that ends with its group alive may abort
    if not accelerator.is_main_process:  # it has encoded its share
        return
    if arguments.styles:
        model, data = in_styles(model, data)
    earlier = DirectionSet.of(model, ())
    if arguments.add and arguments.path.is_file():
        earlier = DirectionSet.load(arguments.path, model)
    chosen, left_out = choose_attributes(data, arguments.attributes, arguments.seed)
    for reason in left_out.values():
        print(f"left out: {reason}")
    print(f"{len(data.latents):,} images; seed {arguments.seed}")
    classifier = None
    if "assessor" in arguments.methods:
        classifier = AttributeClassifier.from_pretrained(arguments.classifier)
    found = discover_all(
        data, chosen, arguments.methods, model=model, classifier=classifier, seed=arguments.seed
    )
    n = len(chosen) * len(arguments.methods)
    directions = list(tqdm(found, desc="discover", unit="direction", total=n))
    anew = {(d.name, d.origin and d.origin.kind) for d in directions}
    kept = [d for d in earlier if (d.name, d.origin and d.origin.kind) not in anew]
    together = replace(earlier, directions=(*kept, *directions))
    together.save(arguments.path)
    scores = summary(model, data, dataset, together, left_out, arguments)
    summary_path = arguments.path.with_suffix(".json")
    before = _earlier_commands(summary_path) if kept else []
    scores["commands"] = list(dict.fromkeys([*before, command(arguments)]))
    write_text(summary_path, json.dumps(scores, indent=2) + "\n")
    print(table(directions))
    print(f"{arguments.path}: {n} directions" + (f" beside {len(kept)}" if kept else ""))


def gather_latents(
    model: LatentModel,
    dataset: FaceDataset | None,
    arguments: Arguments,
    device: torch.device | str = "cpu",
) -> LabelledLatents:
    """What the directions are found in.

    Raises:
        DataError: the model has no encoder, and neither projected images nor samples were asked
            for; or what was asked for cannot be had.
    """
    if arguments.samples:
        classifier = AttributeClassifier.from_pretrained(arguments.classifier)
        name = Path(arguments.classifier).name
        return sampled(model, classifier, arguments.samples, name, arguments.seed)
    assert dataset is not None, "checked before"
    if arguments.projected:
        return projected(model, dataset, arguments.projected)
    if not model.has_encoder:
        raise DataError(
            f"{arguments.model} is a {model.architecture}, which has no encoder. Give images that "
            "training/project_images.py projected (--projected FOLDER), or let it draw its own "
            "(--samples 10000)."
        )
    data = encode(model.to(device), dataset, progress=True)
    model.cpu()
    if arguments.quantities is None:
        return data
    names = [dataset.names[i] for i in dataset.indices("train", "validation")]
    return with_quantities(data, read_quantities(arguments.quantities, names))


def summary(
    model: LatentModel,
    data: LabelledLatents,
    dataset: FaceDataset | None,
    directions: DirectionSet,
    left_out: Mapping[str, str],
    arguments: Arguments,
) -> dict[str, Any]:
    """What was found on which data, for the model's card and for other programs."""
    training = data.labels
    if dataset is not None and arguments.quantities is None:
        training = dataset.labels[dataset.indices("train")]
    shares = training.mean(axis=0) if len(training) else []
    return {
        "fingerprint": model.fingerprint(),
        "data": str(data.origin) if dataset is None else dataset.digest,
        "preprocessing": data.preprocessing,
        "n_images": len(data.latents),
        "seed": arguments.seed,
        "attributes": list(arguments.attributes),
        "methods": list(arguments.methods),
        "left_out": dict(left_out),
        "training_shares": dict(zip(data.attributes, map(float, shares), strict=False)),
        "directions": {
            f"{d.attribute}.{directions.method_of(d)}": {
                "origin": d.origin and asdict(d.origin),
                "sigma": d.sigma,
                "n_positive": d.n_positive,
                "n_negative": d.n_negative,
                "scores": {name: asdict(score) for name, score in d.scores.items()},
            }
            for d in directions
        },
    }


def command(arguments: Arguments) -> str:
    """The command that finds the same directions again, without this machine's paths."""
    named = {name: getattr(arguments, name) for name in ("model", "attributes", "methods", "seed")}
    return command_of("training/find_directions.py", arguments, **named)


def _earlier_commands(path: Path) -> list[str]:
    """The commands that found the directions which are kept."""
    if not path.is_file():
        return []
    return list(json.loads(path.read_text(encoding="utf-8")).get("commands", []))


def table(directions: Iterable[Direction]) -> str:
    """One line per direction: sigma, and the scores on held-out identities."""
    head = f"{'direction':32} {'sigma':>9}  {'accuracy':20}  {'AUROC':20}"
    lines = [
        f"{d.name:32} {d.sigma:9.3g}  {_cell(d, 'accuracy'):20}  {_cell(d, 'auroc'):20}".rstrip()
        for d in directions
    ]
    return "\n".join([head, *lines])


def _cell(direction: Direction, name: str) -> str:
    score = direction.scores[name]
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def main() -> None:
    """Find what the command line asks for."""
    run(tyro.cli(Arguments))


if __name__ == "__main__":
    exit_on_user_error(main)
