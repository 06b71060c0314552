"""LatentMap: a linear map between the latents of two models, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from hublatent.data import FaceDataset
from hublatent.direction import Direction, Origin
from hublatent.direction_set import DirectionSet
from hublatent.discovery.methods import FILTERS, METHODS
from hublatent.errors import DataError, DirectionError, shorten
from hublatent.hub import MAP_NAME, snapshot
from hublatent.hub.publisher import publisher
from hublatent.mapping.fitting import Fit, SharedImages, fit_way, on_layers
from hublatent.stats import Estimate, Ints
from hublatent.storage import TensorFormat

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


@dataclass(frozen=True)
class LatentSpace:
    """The latent space of a model, as a map names it."""

    architecture: str
    space: str
    fingerprint: str
    latent_shape: tuple[int, ...]
    layers: tuple[int, ...] = ()  # those that a direction moves; () for latents without layers

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
        cls,
        source: LatentModel,
        target: LatentModel,
        images: Tensor | FaceDataset | int | SharedImages = N_SAMPLES,
        *,
        identities: Ints | None = None,
        seed: int = 0,
    ) -> LatentMap:
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
        return cls(
            LatentSpace.of(source),
            LatentSpace.of(target),
            source_mean,
            target_mean,
            fit_way(source, target, x, y, shown, seed),
            fit_way(target, source, y, x, shown, seed),
            shown.origin,
        )

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
        return Direction(
            direction.attribute,
            direction.method.removesuffix(CARRIED) + CARRIED,
            vector,
            n_positive=direction.n_positive,
            n_negative=direction.n_negative,
            origin=direction.origin,
            preprocessing=direction.preprocessing,
            conditioned_on=direction.conditioned_on,
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
            source, target = (_space(document[key]) for key in ("source", "target"))
            n_source, n_target = source.latent_shape[-1], target.latent_shape[-1]
            for name, shape in {
                "forward": (n_source, n_target), "backward": (n_target, n_source),
                "source_mean": (n_source,), "target_mean": (n_target,),
            }.items():  # fmt: skip
                tensor = tensors[name]
                if tuple(tensor.shape) != shape or not bool(tensor.isfinite().all()):
                    raise DataError(
                        f"{path}: {name} has the shape {tuple(tensor.shape)}; expected {shape}, "
                        "all finite."
                    )
            forward, backward = (_way(document[k], tensors[k]) for k in ("forward", "backward"))
            means = (tensors["source_mean"], tensors["target_mean"])
            return cls(source, target, *means, forward, backward, Origin(**document["origin"]))
        except DataError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: its description is damaged: {shorten(error)}.") from error

    @classmethod
    def from_pretrained(
        cls, repo: str | Path, revision: str | None = None, **hub_options: Any
    ) -> LatentMap:
        """Read a map from its file, from a folder that holds latent_map.safetensors, or the Hub.

        Args:
            repo: a file, a folder or a Hub id.
            revision: branch, tag or commit on the Hub.
            hub_options: token, cache_dir, local_files_only.
        """
        if Path(repo).is_file():
            return cls.load(repo)
        limited = {"max_bytes": MAX_DOWNLOAD_BYTES, **hub_options}
        where = snapshot(repo, revision=revision, files=(MAP_NAME,), **limited)
        return cls.load(where.folder / MAP_NAME)

    def push_to_hub(self, repo: str, **options: Any) -> str:
        """Publish the map under a card that is made for it.

        Args:
            repo: the Hub id; made where it does not exist.
            options: private, revision, create_pr, token, message of `hublatent.publish.publish`.

        Returns:
            The commit's URL.
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


def _to_json(fit: Fit) -> dict[str, Any]:
    scores = {name: [s.value, s.low, s.high] for name, s in fit.scores.items()}
    return {"penalty": fit.penalty, "scores": scores, "curve": list(fit.curve.items())}


def _way(document: Mapping[str, Any], matrix: Tensor) -> Fit:
    scores = {str(n): Estimate(*map(float, triple)) for n, triple in document["scores"].items()}
    curve = {int(n): float(r2) for n, r2 in document["curve"]}
    return Fit(matrix, float(document["penalty"]), scores, curve)


def _space(document: Mapping[str, Any]) -> LatentSpace:
    shape, layers = (tuple(map(int, document[key])) for key in ("latent_shape", "layers"))
    if not 1 <= len(shape) <= 2 or not all(0 <= layer < shape[0] for layer in layers):
        raise ValueError(f"latents of shape {shape} with the layers {layers}")
    architecture, space, fingerprint = (
        document[key] for key in ("architecture", "space", "fingerprint")
    )
    for name in (architecture, space, fingerprint):
        if not isinstance(name, str) or len(name) > 100 or not name.isprintable():
            raise ValueError(f"{shorten(name)} is no name")
    return LatentSpace(architecture, space, fingerprint, shape, layers)
