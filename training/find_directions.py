"""Find a model's directions: python training/find_directions.py --model FOLDER --data DATA

Uses training and validation images only; the test partition stays unseen. A model without an
encoder takes images that training/project_images.py projected (--projected FOLDER), or its own
samples, labelled by a classifier (--samples 10000). Several devices encode: accelerate launch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

import hublatent
from hublatent.data import FaceDataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery import METHODS, LabelledLatents, balanced_set, discover_all, encode
from hublatent.discovery.methods.stylespace import in_styles
from hublatent.discovery.quantities import read_quantities, with_quantities
from hublatent.errors import DataError, unknown_name
from hublatent.hub import DIRECTIONS_NAME
from hublatent.inversion.latents_file import projected, sampled
from hublatent.model import LatentModel
from hublatent.perception.classifier import AttributeClassifier
from hublatent.storage import only_writer, write_text
from training.trainers.commands import DataArguments, command_of, run_script
from training.trainers.loop import start_accelerator

if TYPE_CHECKING:
    from accelerate import Accelerator

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """Find the directions of a model.

    Attributes:
        data: folder or Hub dataset of labelled faces; samples do not need it.
    """

    model: str  # folder or Hub id of the model
    data: str = ""
    projected: Path | None = None  # folder of the images' latents, for a model without an encoder
    samples: int = 0  # how many samples to draw and label, instead of reading images
    # folder or Hub id of the classifier that labels samples, and whose logits the method "assessor"
    # raises; not the judge
    classifier: str = "model_cards/attributes-celeba"
    # a table of numbers beside the pictures' file names, such as CelebA's landmarks, or a .csv; its
    # columns are what to find, in the place of the labels. For supervised-pca.
    quantities: Path | None = None
    styles: bool = False  # take the channels of a StyleGAN2's styles for its latents (StyleSpace)
    add: bool = False  # keep what the direction file holds already, apart from what is found anew
    # the direction file; by default directions.safetensors in the model's folder. The scores stand
    # in the file, and readable beside it, in a .json of the same name.
    out: Path | None = None
    attributes: tuple[str, ...] = (ALL,)  # what to find; "all" is every attribute of the data
    methods: tuple[str, ...] = ("svm", "pattern", "joint")  # how to find it
    seed: int = 0  # of the balanced sets, the folds and the bootstraps

    def check(self) -> None:
        """Refuse, with a DataError and before anything is loaded, what cannot be done."""
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


def run(arguments: Arguments) -> None:
    """Find, print and save."""
    arguments.check()
    accelerator = start_accelerator()
    with only_writer(arguments.path.parent) if accelerator.is_main_process else nullcontext():
        model, dataset = hublatent.load(arguments.model), None
        if arguments.data:
            with accelerator.main_process_first():
                dataset = arguments.load(model.image_size)
        data = _gather(model, dataset, arguments, accelerator)
        accelerator.wait_for_everyone()
        accelerator.end_training()  # a process that ends with its group alive may abort
        if accelerator.is_main_process:  # the others have encoded their share
            _find(model, data, dataset, arguments)


def _gather(
    model: LatentModel, dataset: FaceDataset | None, arguments: Arguments, accelerator: Accelerator
) -> LabelledLatents:
    """What the directions are found in."""
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
    data = encode(model.to(accelerator.device), dataset, progress=True)
    model.cpu()
    if arguments.quantities is None:
        return data
    names = [dataset.names[i] for i in dataset.indices("train", "validation")]
    return with_quantities(data, read_quantities(arguments.quantities, names))


def _find(
    model: LatentModel, data: LabelledLatents, dataset: FaceDataset | None, arguments: Arguments
) -> None:
    path, seed, methods = arguments.path, arguments.seed, arguments.methods
    if arguments.styles:
        model, data = in_styles(model, data)
    earlier = DirectionSet.of(model, ())
    if arguments.add and path.is_file():
        earlier = DirectionSet.load(path, model)
    chosen, left_out = _choose(data, arguments.attributes, seed)
    for reason in left_out.values():
        print(f"left out: {reason}")
    print(f"{len(data.latents):,} images; seed {seed}")
    classifier = None
    if "assessor" in methods:
        classifier = AttributeClassifier.from_pretrained(arguments.classifier)
    found = discover_all(data, chosen, methods, model=model, classifier=classifier, seed=seed)
    n = len(chosen) * len(methods)
    directions = list(tqdm(found, desc="discover", unit="direction", total=n))
    anew = {(d.name, d.origin and d.origin.kind) for d in directions}
    kept = [d for d in earlier if (d.name, d.origin and d.origin.kind) not in anew]
    together = earlier.with_directions((*kept, *directions))
    together.save(path)
    training = data.labels
    if dataset is not None and arguments.quantities is None:
        training = dataset.labels[dataset.indices("train")]
    shares = training.mean(axis=0).tolist() if len(training) else []
    scores = {
        "fingerprint": model.fingerprint(),
        "data": str(data.origin) if dataset is None else dataset.digest,
        "preprocessing": data.preprocessing,
        "n_images": len(data.latents),
        "seed": seed,
        "attributes": list(arguments.attributes),
        "methods": list(methods),
        "left_out": left_out,
        "training_shares": dict(zip(data.attributes, shares, strict=False)),
        "directions": {f"{d.attribute}.{together.method_of(d)}": _facts(d) for d in together},
        "commands": _commands(arguments, adds=bool(kept)),
    }
    write_text(path.with_suffix(".json"), json.dumps(scores, indent=2) + "\n")
    print(_table(directions))
    print(f"{path}: {n} directions" + (f" beside {len(kept)}" if kept else ""))


def _choose(
    data: LabelledLatents, wanted: Iterable[str], seed: int
) -> tuple[list[str], dict[str, str]]:
    """The wanted attributes that have enough examples, and why the others are left out."""
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


def _facts(direction: Direction) -> dict[str, Any]:
    """What other programs read of a direction without opening its file."""
    return {
        "origin": direction.origin and asdict(direction.origin),
        "sigma": direction.sigma,
        "n_positive": direction.n_positive,
        "n_negative": direction.n_negative,
        "scores": {name: asdict(score) for name, score in direction.scores.items()},
    }


def _commands(arguments: Arguments, adds: bool) -> list[str]:
    """This command, after those that found the directions which are kept."""
    path, before = arguments.path.with_suffix(".json"), []
    if adds and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8")).get("commands", [])
    named = {name: getattr(arguments, name) for name in ("model", "attributes", "methods", "seed")}
    command = command_of("training/find_directions.py", arguments, **named)
    return list(dict.fromkeys([*before, command]))


def _table(directions: Iterable[Direction]) -> str:
    """One line per direction: sigma, and the scores on held-out identities."""
    lines = [f"{'direction':32} {'sigma':>9}  {'accuracy':20}  {'AUROC':20}"]
    for d in directions:
        accuracy, auroc = (
            f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
            for score in (d.scores["accuracy"], d.scores["auroc"])
        )
        lines.append(f"{d.name:32} {d.sigma:9.3g}  {accuracy:20}  {auroc:20}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(Arguments, run)
