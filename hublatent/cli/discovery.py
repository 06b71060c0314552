"""hublatent find-unlabelled, find-measured and join-styles: directions without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

import hublatent
from hublatent.cli.options import DEFAULT_CLASSIFIER, Classifier, Data, FileOption, Model, Text
from hublatent.errors import HublatentError

if TYPE_CHECKING:
    from hublatent.direction import Direction
    from hublatent.model import LatentModel


def find_unlabelled(
    model: Model,
    method: Literal["components", "factorisation"] = "components",
    n: int = 20,
    samples: int = 64,
    classifier: Classifier = DEFAULT_CLASSIFIER,
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
    seed: int = 0,
) -> None:
    """Find directions without labels, named by what a classifier sees change most.

    Args:
        model: folder or Hub id of the model.
        method: principal components of the latents (GANSpace) or factors of the first weights
            (SeFa).
        n: number of directions.
        samples: number of the model's samples that are edited to see what changes.
        classifier: folder or Hub id of the classifier that names them; not the judge.
        out: the direction file, whose other directions are kept; by default
            directions.safetensors in the model's folder.
        seed: of the samples and of the random directions.
    """
    if n < 1 or samples < 2:
        raise HublatentError("--n is at least 1, and --samples at least 2.")
    path = _path(model, out)
    from hublatent.discovery import discover_unlabelled

    loaded = hublatent.load(model)
    names = hublatent.AttributeClassifier.from_pretrained(classifier)
    found = discover_unlabelled(loaded, method, names, n_directions=n, n_samples=samples, seed=seed)
    n_kept = _add(loaded, found, path, lambda d: d.method.startswith(f"{method}-"))
    print(f"effect, in deviations of the logit per sigma; seed {seed}")
    for direction in found:
        effect, band = direction.scores["effect"], direction.scores["null band"]
        interval = f"[{effect.low:.3f}, {effect.high:.3f}]"
        print(f"{direction.name:36} {effect.value:.3f} {interval}, null band {band.value:.3f}")
    print(f"{path}: {len(found)} directions beside {n_kept}")


def find_measured(
    model: Model,
    source: Data,
    quantities: tuple[str, ...] = ("Brightness", "Yaw", "Face_Length", "Mouth_Width"),
    detector: Annotated[str, arg(metavar="MODEL")] = "model_cards/face-detector",
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
    seed: int = 0,
) -> None:
    """Find directions of what is measured on faces, and how exactly requested changes come out.

    Args:
        model: folder or Hub id of a model with an encoder.
        source: aligned faces; their labels are not read.
        quantities: brightness; pose (yaw), the mouth's distance below the eyes and its width, both
            in distances between the eyes, by the face detector's five points.
        detector: folder or Hub id of the face detector.
        out: the direction file, whose other directions are kept; by default
            directions.safetensors in the model's folder, whose card then tells the scores.
        seed: of the folds and of the faces that are edited.
    """
    path = _path(model, out)
    from hublatent.discovery.quantities import find_measured as find
    from hublatent.hub import CARD_NAME, DIRECTIONS_NAME
    from hublatent.publish.card_tables import with_measured
    from hublatent.storage import write_text

    loaded = hublatent.load(model)
    faces = source.load(loaded.image_size)
    seen = hublatent.FaceDetector.from_pretrained(detector)
    found = list(find(loaded, faces, seen, quantities, seed=seed, progress=True))
    names = {d.name for d in found}
    n_kept = _add(loaded, found, path, lambda d: d.name in names)
    card = path.with_name(CARD_NAME)
    if path.name == DIRECTIONS_NAME and card.is_file():
        text = card.read_text(encoding="utf-8")
        write_text(card, with_measured(text, hublatent.DirectionSet.load(path, loaded)))
    print(f"effect, in deviations of the quantity per sigma; seed {seed}")
    for d in found:
        effect, r2 = (d.scores[name] for name in ("effect", "R2 of changes"))
        print(f"{d.name:28} effect {effect.value:.3f} [{effect.low:.3f}, {effect.high:.3f}], "
              f"R2 of changes {r2.value:.3f} [{r2.low:.3f}, {r2.high:.3f}]")  # fmt: skip
    print(f"{path}: {len(found)} directions beside {n_kept}")


def join_styles(
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...")],
    model: Annotated[str, arg(name="for", metavar="MODEL")],
    out: FileOption,
    attribute: Text = None,
) -> None:
    """Join the directions of an attribute's styles, such as kinds of glasses, into one with styles.

    Args:
        files: direction files of one model, with a direction for each style.
        model: the model they are for, a folder or a Hub id.
        out: the direction file to write; `edit --style` and the app draw styles from it.
        attribute: what they change; by default what the first one is called.
    """
    from hublatent.discovery import with_styles

    loaded = hublatent.load(model)
    kinds = [kind for file in files for kind in hublatent.DirectionSet.load(file, loaded)]
    joined = with_styles(loaded, kinds)
    joined = replace(joined, attribute=attribute or joined.attribute)
    hublatent.DirectionSet.of(loaded, [joined]).save(out)
    print(f"{out}: {joined.name} with {len(kinds)} styles")


def _path(model: str, out: Path | None) -> Path:
    """The direction file: as given, or the one in the model's folder."""
    if out is None and not Path(model).is_dir():
        raise HublatentError(f"{model} is not a folder here; say with --out where they go.")
    from hublatent.hub import DIRECTIONS_NAME

    return out or Path(model) / DIRECTIONS_NAME


def _add(
    model: LatentModel, found: Sequence[Direction], path: Path,
    replaced: Callable[[Direction], bool],
) -> int:  # fmt: skip
    """Write directions beside those of a file that they do not replace; returns how many."""
    if not path.is_file():
        hublatent.DirectionSet.of(model, found).save(path)
        return 0
    earlier = hublatent.DirectionSet.load(path, model)
    kept = [direction for direction in earlier if not replaced(direction)]
    together = earlier.with_directions((*kept, *found))
    together.check_fits(model)
    together.save(path)
    return len(kept)
