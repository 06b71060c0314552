"""Files of projected latents: one for some pictures, or a folder of shards for a data set.

Tensors `latents` (n, *latent_shape) float32 and `errors` (n,) float32, in a shard also `indices`
(n,) int64, positions in the data set. The metadata hold one JSON document, which says of which
model and data they are and how they were found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hublatent.errors import DataError
from hublatent.storage import TensorFormat

if TYPE_CHECKING:
    from hublatent.model import LatentModel

PROJECTED = TensorFormat("hublatent-projected", version=1, noun="projected latents")
SHARD_PATTERN = "shard-*.safetensors"


@dataclass(frozen=True, eq=False)
class ProjectedImages:
    """What a model draws N images of a data set from.

    Attributes:
        latents: (N, *latent_shape), float32.
        errors: (N,), mean squared errors of the images drawn from them, for pixels in [0, 1].
        indices: (N,) int64, the images' positions in the data set, each once.
        dataset: the data set's digest.
        settings: how the images were chosen and projected.
    """

    latents: Tensor
    errors: Tensor
    indices: Tensor
    dataset: str
    settings: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.indices)


def describe(model: LatentModel, **facts: Any) -> dict[str, Any]:
    """The JSON document of a file: the model it belongs to, and further facts."""
    known = {
        "architecture": model.architecture,
        "space": model.space,
        "fingerprint": model.fingerprint(),
    }
    return {**known, **json.loads(json.dumps(facts))}


def write_projected(
    path: str | Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]
) -> None:
    """Write a file of projected latents, atomically.

    Args:
        path: the safetensors file.
        tensors: latents, errors and, in a shard, indices.
        document: from `describe`.
    """
    PROJECTED.write(path, tensors, document)


def read_latents(path: str | Path, model: LatentModel) -> tuple[list[str], Tensor]:
    """Read the latents of named pictures, as `python -m hublatent project` writes them.

    Args:
        path: the safetensors file.
        model: the model that the pictures were projected into.

    Returns:
        The pictures' names, and their latents (n, *latent_shape).

    Raises:
        DataError: there is none, it names no pictures, or it belongs to another model.
    """
    document, tensors = PROJECTED.read(path)
    _check_model(Path(path), document, model)
    (latents,) = _parts(Path(path), tensors, "latents")
    latents = latents.to(model.latent_mean)
    names = document.get("names") or []
    if len(names) != len(latents) or latents.shape[1:] != model.latent_shape:
        raise DataError(f"{path} does not hold one latent for each picture that it names.")
    return [Path(str(name)).name for name in names], latents


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{number:06d}.safetensors"


def check_same_run(folder: Path, document: Mapping[str, Any]) -> None:
    """Refuse a folder that holds shards of another model, other data or other settings.

    Args:
        folder: it may be missing.
        document: what its shards should say, apart from their number.

    Raises:
        DataError: says what differs.
    """
    for path in sorted(folder.glob(SHARD_PATTERN)):
        found = _run_of(path)
        if found != document:
            raise DataError(
                f"{path} is of another run ({_difference(found, document)}). Repeat that run's "
                "model, data and settings to go on with it, or choose another folder."
            )


def read_projected(folder: str | Path, model: LatentModel) -> ProjectedImages:
    """Read what training/project_images.py wrote.

    Args:
        folder: of the shards.
        model: the model that the images were projected into.

    Returns:
        The projected images, in the order of their positions in the data set.

    Raises:
        DataError: there is none, some are missing, or they belong to another model.
    """
    paths = sorted(Path(folder).glob(SHARD_PATTERN))
    if not paths:
        raise DataError(
            f"{folder} holds no projected images ({SHARD_PATTERN}); training/project_images.py "
            "makes them."
        )
    document = _run_of(paths[0])
    check_same_run(Path(folder), document)
    _check_model(paths[0], document, model)
    names = ("latents", "errors", "indices")
    shards = [_parts(path, PROJECTED.read(path)[1], *names) for path in paths]
    latents, errors, indices = (torch.cat(column) for column in zip(*shards, strict=True))
    if len(indices) != document["n_images"] or len(indices.unique()) != len(indices):
        raise DataError(
            f"{folder} holds {len(indices.unique())} of {document['n_images']} projected images; "
            "the command that began it also finishes it."
        )
    order = indices.argsort()
    return ProjectedImages(
        latents[order], errors[order], indices[order], document["dataset"], document["settings"]
    )


def _parts(path: Path, tensors: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    missing = [name for name in names if name not in tensors]
    if missing:
        raise DataError(f"{path} is incomplete: it lacks {', '.join(missing)}.")
    return [tensors[name] for name in names]


def _check_model(path: Path, document: Mapping[str, Any], model: LatentModel) -> None:
    for key, theirs in (
        ("architecture", model.architecture),
        ("space", model.space),
        ("fingerprint", model.fingerprint()),
    ):
        if document.get(key) != theirs:
            raise DataError(
                f"{path} holds latents of another model: its {key} is "
                f"{str(document.get(key))[:12]}, this model's is {theirs[:12]}."
            )


def _run_of(path: Path) -> dict[str, Any]:
    """What all shards of a run say, as `describe` gives it."""
    try:
        document = PROJECTED.read_document(path)
    except DataError as error:
        raise DataError(f"{error} Delete it, and the same command makes it again.") from error
    own = ("format", "version", "shard")
    return {key: value for key, value in document.items() if key not in own}


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Each key that differs, as "key found -> wanted"; settings are compared one by one."""
    flat = [{**d, **d.get("settings", {})} for d in (found, wanted)]
    changed = sorted(
        k for k in {*flat[0], *flat[1]} - {"settings"} if flat[0].get(k) != flat[1].get(k)
    )
    return ", ".join(f"{k} {_brief(flat[0].get(k))} -> {_brief(flat[1].get(k))}" for k in changed)


def _brief(value: Any) -> str:
    return str(value)[:12]
