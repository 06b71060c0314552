"""hublatent find-unlabelled: directions without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from hublatent.cli.options import DEFAULT_CLASSIFIER, Classifier, Model
from hublatent.errors import HublatentError


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
    if out is None and not Path(model).is_dir():
        raise HublatentError(f"{model} is not a folder here; say with --out where they go.")
    import hublatent
    from hublatent.discovery import discover_unlabelled
    from hublatent.hub import DIRECTIONS_NAME

    path = out or Path(model) / DIRECTIONS_NAME
    loaded = hublatent.load(model)
    names = hublatent.AttributeClassifier.from_pretrained(classifier)
    found = discover_unlabelled(loaded, method, names, n_directions=n, n_samples=samples, seed=seed)
    earlier = hublatent.DirectionSet.load(path, loaded) if path.is_file() else ()
    kept = [d for d in earlier if not d.method.startswith(f"{method}-")]
    hublatent.DirectionSet.of(loaded, [*kept, *found]).save(path)
    print(f"effect, in deviations of the logit per sigma; seed {seed}")
    for direction in found:
        effect, band = direction.scores["effect"], direction.scores["null band"]
        interval = f"[{effect.low:.3f}, {effect.high:.3f}]"
        print(f"{direction.name:36} {effect.value:.3f} {interval}, null band {band.value:.3f}")
    print(f"{path}: {len(found)} directions beside {len(kept)}")
