"""LatentMap: a linear map between the latents of two models, its file, and folders of such."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.direction import Direction, Origin
from hublatent.direction_set import DirectionSet
from hublatent.discovery.methods import FILTERS, METHODS
from hublatent.errors import DataError, DirectionError
from hublatent.hub import MAP_NAME, snapshot
from hublatent.hub.download import local_folder
from hublatent.hub.publisher import publisher
from hublatent.mapping.fitting import Fit, SharedImages, fit_way, is_sampled, on_layers
from hublatent.stats import Estimate, Ints
from hublatent.storage import Count, Number, Size, TensorFormat, Text, checked

if TYPE_CHECKING:
    from hublatent.model import LatentModel

Kind = Literal["pattern", "filter"]

MAPS = TensorFormat(
    "hublatent-map",
    version=1,
    noun="a map between latent spaces",
    hint="Make one with: python -m hublatent map SOURCE TARGET",
)
CARRIED = "-carried"  # ends the method of a direction that came across a map
N_SAMPLES = 4000
MAX_DOWNLOAD_BYTES = 64 << 20
MAX_LAYERS = 1024  # of a latent: a few numbers could claim without end
BUNDLED_FOLDER = "latent-maps"  # beside the models, in model_cards/


@dataclass(frozen=True)
class LatentSpace:
    """The latent space of a model, as a map names it."""

    architecture: Text
    space: Text
    fingerprint: Text
    latent_shape: tuple[Count, ...]
    layers: tuple[Count, ...] = ()  # those that a direction moves; () for latents without layers

    def __post_init__(self) -> None:
        shape = self.latent_shape
        n_layers = shape[0] if len(shape) == 2 else 0
        if (
            not 1 <= len(shape) <= 2
            or n_layers > MAX_LAYERS
            or any(layer >= n_layers for layer in self.layers)
        ):
            raise ValueError(f"latents of shape {shape} with the layers {self.layers}")

    @classmethod
    def of(cls, model: LatentModel) -> LatentSpace:
        """The latent space of a model."""
        facts = (model.architecture, model.space, model.fingerprint(), model.latent_shape)
        return cls(*facts, model.default_layers if len(model.latent_shape) == 2 else ())

    def __str__(self) -> str:
        return f"{self.architecture} {self.fingerprint[:12]}"


@dataclass(frozen=True, eq=False, repr=False)
class LatentMap:
    """A linear map between the latents of two models, fitted both ways.

        z_target = target_mean + (z_source - source_mean) A

    Latents with layers (L, D) are read as the mean of their layers, as `discover` reads them, and
    written on all layers.
    """

    source: LatentSpace
    target: LatentSpace
    source_mean: Tensor  # (D_s,)
    target_mean: Tensor  # (D_t,)
    forward: Fit  # A (D_s, D_t), and what it is worth
    backward: Fit  # B (D_t, D_s), of the way back
    origin: Origin  # the images that both models read

    @classmethod
    def fit(
        cls, source: LatentModel, target: LatentModel,
        images: Tensor | FaceDataset | int | SharedImages = N_SAMPLES, *,
        identities: Ints | None = None, seed: int = 0,
    ) -> LatentMap:  # fmt: skip
        """Fit a map by ridge regression; held-out people choose the penalty, others the scores.

        Args:
            source, target: two models. One without an encoder is mapped by samples of its own.
            images: (N, C, H, W) in [-1, 1]; a data set, whose test partition gives scores alone;
                how many samples to draw from a model, so that nobody needs data; or images that
                other maps share.
            identities: (N,), who is on each image; by default somebody else on each.
            seed: of the samples, the folds and the bootstrap.

        Raises:
            DataError: there are fewer than 50 images.
            HublatentError: a model has no encoder, and the images are not its own samples.
        """
        shown = images
        if not isinstance(shown, SharedImages):
            shown = SharedImages.of(shown, (source, target), identities, seed)
        x, y = shown.read(source), shown.read(target)
        source_mean, target_mean = (
            torch.from_numpy(z[~shown.held_out].mean(axis=0)).float() for z in (x, y)
        )
        forward = fit_way(source, target, x, y, shown, seed)
        backward = fit_way(target, source, y, x, shown, seed)
        spaces = LatentSpace.of(source), LatentSpace.of(target)
        return cls(*spaces, source_mean, target_mean, forward, backward, shown.origin)

    def reversed(self) -> LatentMap:
        """The map from the target's latents to the source's."""
        return LatentMap(
            self.target, self.source, self.target_mean, self.source_mean, self.backward,
            self.forward, self.origin,
        )  # fmt: skip

    def apply(self, latents: Tensor) -> Tensor:
        """Map latents (B, *source's shape) to (B, *target's shape)."""
        if tuple(latents.shape[1:]) != self.source.latent_shape:
            raise DataError(
                f"Latents of shape {tuple(latents.shape)} were given; this map is from "
                f"{self.source}, whose latents have {self.source.latent_shape}."
            )
        pooled = latents if latents.ndim == 2 else latents.mean(dim=1)  # (B, D_s)
        moved = (pooled - self.source_mean.to(latents)) @ self.forward.matrix.to(latents)
        return on_layers(moved + self.target_mean.to(latents), self.target.latent_shape)

    def carry(self, direction: Direction, kind: Kind | None = None) -> Direction:
        """Carry a direction of the source's latents to the target's.

        A pattern v says how latents move, and goes forward: v A. A filter u reads latents by
        <z, u>, and is pulled back: B u, B the map from the target's latents to the source's, is
        the linear reading of the target's latents that comes closest to it. The wrong way, v A of
        a filter, would move what is easily read and not what the attribute changes.

        Args:
            direction: of the source model.
            kind: "filter" (svm, logistic) or "pattern" (every other method of `discover`), by
                default as the direction's method says; others' directions need it.

        Returns:
            A direction of method "...-carried", norm 1 on each of the target's default layers. It
            has no threshold or scores, and no sigma before `with_sigma(model)`.

        Raises:
            DirectionError: it is of another shape, of an unknown kind, or nothing of it arrives.
        """
        if tuple(direction.vector.shape) != self.source.latent_shape:
            raise DirectionError(
                f"{direction.name} has the shape {tuple(direction.vector.shape)}; this map is from "
                f"{self.source}, whose latents have {self.source.latent_shape}."
            )
        wide = torch.atleast_2d(direction.vector.double()).sum(dim=0)  # (D_s,)
        if (kind or kind_of(direction)) == "filter":
            row = self.backward.matrix.double() @ wide  # (D_t,)
        else:
            row = wide @ self.forward.matrix.double()  # (D_t,)
        norm = float(row.norm())
        if not norm > 1e-9 * float(direction.vector.norm()):
            raise DirectionError(
                f"{direction.name} has no counterpart in {self.target}: the map leaves nothing."
            )
        vector = torch.zeros(self.target.latent_shape)
        vector[list(self.target.layers) if self.target.layers else ...] = (row / norm).float()
        return replace(
            direction.derived(vector),
            method=direction.method.removesuffix(CARRIED) + CARRIED,
            surviving_norm=1.0,
        )

    def carry_all(self, directions: DirectionSet, kind: Kind | None = None) -> DirectionSet:
        """Carry all directions of one of the two models to the other; see `carry`.

        Raises:
            DirectionError: they are of a third model, or one cannot be carried.
        """
        if directions.fingerprint == self.target.fingerprint != self.source.fingerprint:
            return self.reversed().carry_all(directions, kind)
        if directions.fingerprint != self.source.fingerprint:
            raise DirectionError(
                f"These directions are of {directions.architecture} {directions.fingerprint[:12]}; "
                f"this map is from {self.source} to {self.target}."
            )
        carried = tuple(self.carry(direction, kind) for direction in directions)
        target = (self.target.architecture, self.target.space, self.target.fingerprint)
        return DirectionSet(carried, *target, licence=directions.licence)

    def save(self, path: str | Path) -> None:
        """Write the map as one safetensors file, atomically."""
        tensors = {
            "forward": self.forward.matrix, "backward": self.backward.matrix,
            "source_mean": self.source_mean, "target_mean": self.target_mean,
        }  # fmt: skip
        document = {
            "source": asdict(self.source), "target": asdict(self.target),
            "forward": _to_json(self.forward), "backward": _to_json(self.backward),
            "origin": asdict(self.origin),
        }  # fmt: skip
        MAPS.write(path, tensors, document)

    @classmethod
    def load(cls, path: str | Path) -> LatentMap:
        """Read a map from its file.

        Raises:
            DataError: the file is missing, damaged, or contradicts itself.
        """
        document, tensors = MAPS.read(path)
        try:
            told = checked(_Document, document)
        except ValueError as error:
            raise DataError(f"{path}: its description is damaged: {error}") from error
        n_source, n_target = told.source.latent_shape[-1], told.target.latent_shape[-1]
        shapes = {
            "source_mean": (n_source,), "target_mean": (n_target,),
            "forward": (n_source, n_target), "backward": (n_target, n_source),
        }  # fmt: skip
        for name, shape in shapes.items():
            tensor = tensors.get(name, torch.empty(0))
            is_float = tensor.dtype == torch.float32
            if not is_float or tuple(tensor.shape) != shape or not bool(tensor.isfinite().all()):
                raise DataError(
                    f"{path}: {name} has the shape {tuple(tensor.shape)} and the type "
                    f"{tensor.dtype}; expected {shape} and float32, all finite."
                )
        source_mean, target_mean, forward, backward = (tensors[name] for name in shapes)
        return cls(
            told.source, told.target, source_mean, target_mean, told.forward.fit(forward),
            told.backward.fit(backward), told.origin,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls, repo: str | Path, revision: str | None = None, **hub_options: Any
    ) -> LatentMap:
        """Read a map from its file, from a folder that holds latent_map.safetensors, or the Hub.

        `revision` is a branch, tag or commit; hub_options are token, cache_dir, local_files_only.
        """
        if Path(repo).is_file():
            return cls.load(repo)
        folder = local_folder(repo)
        if folder is not None and not (folder / MAP_NAME).is_file():
            maps = sorted(path.name for path in folder.glob("*--*.safetensors"))
            raise DataError(
                f"{folder} holds no {MAP_NAME}; name a map's file. Those in it: "
                f"{', '.join(maps) or 'none'}."
            )
        limited = {"max_bytes": MAX_DOWNLOAD_BYTES, **hub_options}
        where = snapshot(repo, revision=revision, files=(MAP_NAME,), **limited)
        return cls.load(where.folder / MAP_NAME)

    def push_to_hub(self, repo: str, **options: Any) -> str:
        """Publish the map under a card that is made for it; returns the commit's URL.

        Options are private, revision, create_pr, token, message of `hublatent.publish.publish`.
        """
        return publisher().push_map(self, repo, **options)

    @property
    def images(self) -> str:
        """What both models read, such as "4,000 samples of stylegan2 (57307d909241)"."""
        return str(self.origin).replace("samples of the model, labelled by", "samples of")

    def __repr__(self) -> str:
        r2 = self.forward.scores.get("r2")
        share = "" if r2 is None else f", R2 {r2.value:.3f}"
        return f"LatentMap from {self.source} to {self.target}, of {self.images}{share}"


def kind_of(direction: Direction) -> Kind:
    """Whether a direction reads the attribute or says how latents move, by its method.

    Raises:
        DirectionError: the method is unknown.
    """
    method = direction.method.removesuffix(CARRIED)
    if method not in METHODS:
        raise DirectionError(
            f"{direction.name} was found by {method!r}, so that nobody knows how to carry it; say "
            'kind="filter" for the normal of a classifier, else kind="pattern".'
        )
    return "filter" if method in FILTERS else "pattern"


class _Way(BaseModel):
    """What a file says of a map one way."""

    penalty: Size
    scores: dict[Text, tuple[Number, Number, Number]]
    curve: list[tuple[Count, Number]]

    def fit(self, matrix: Tensor) -> Fit:
        scores = {name: Estimate(*triple) for name, triple in self.scores.items()}
        return Fit(matrix, self.penalty, scores, dict(self.curve))


class _Document(BaseModel):
    """What a file says; `format` and `version` beside."""

    source: LatentSpace
    target: LatentSpace
    forward: _Way
    backward: _Way
    origin: Origin


def _to_json(fit: Fit) -> dict[str, Any]:
    scores = {name: astuple(score) for name, score in fit.scores.items()}
    return {"penalty": fit.penalty, "scores": scores, "curve": list(fit.curve.items())}


def load_maps(folder: str | Path) -> tuple[LatentMap, ...]:
    """The maps that lie in a folder, such as model_cards/latent-maps; none where it is missing."""
    return tuple(LatentMap.load(path) for path in sorted(Path(folder).glob("*.safetensors")))


def fit_maps(
    models: Mapping[str, LatentModel], images: FaceDataset | int, folder: str | Path, seed: int = 0
) -> Iterator[tuple[tuple[str, str], LatentMap]]:
    """Fit a map between every two of several models; one in the folder that fits them is kept.

    Args:
        models: name -> model.
        images: a data set, which each model reads once, or how many samples of one of each two.
            Generators are mapped by samples of their own in any case; see `is_sampled`.
        folder: for SOURCE--TARGET.safetensors.

    Yields:
        The two names, and their map.
    """

    @cache
    def shared(sampler: str | None) -> SharedImages:
        if sampler is None:
            return SharedImages.of(images, (), seed=seed)
        n = images if isinstance(images, int) else N_SAMPLES
        return SharedImages.of(n, (models[sampler],), seed=seed)

    for names in combinations(models, 2):
        source, target = (models[name] for name in names)
        path = Path(folder) / f"{names[0]}--{names[1]}.safetensors"
        known = LatentMap.load(path) if path.is_file() else None
        spaces = (LatentSpace.of(source), LatentSpace.of(target))
        if known is None or (known.source, known.target) != spaces:
            sampler = next((name for name in names if is_sampled(models[name])), None)
            if sampler is None and isinstance(images, int):
                sampler = names[0]
            known = LatentMap.fit(source, target, shared(sampler), seed=seed)
            known.save(path)
        yield names, known


def carry_to(
    direction: Direction, source: LatentModel, target: LatentModel, maps: Iterable[LatentMap],
    kind: Kind | None = None,
) -> Direction:  # fmt: skip
    """A direction of one model as one of another, with its sigma there; see `LatentMap.carry`.

    A map between the two, either way, is looked for among those given, such as
    `load_maps("model_cards/latent-maps")`; for the same model the direction is returned as it is.

    Raises:
        DirectionError: no map joins the two models, or the direction cannot be carried.
    """
    if source.fingerprint() == target.fingerprint():
        return direction
    known = list(maps)
    for found in (*known, *(m.reversed() for m in known)):
        if source.matches(found.source.fingerprint) and target.matches(found.target.fingerprint):
            return found.carry(direction, kind).with_sigma(target)
    raise DirectionError(
        f"There is no map from {LatentSpace.of(source)} to {LatentSpace.of(target)} among the "
        f"{len(known)} given; fit one with: python -m hublatent map SOURCE TARGET --out FOLDER"
    )
