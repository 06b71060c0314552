"""Direction: a vector in one model's latent space that stands for an attribute; its layers."""

from __future__ import annotations

import html
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch import Tensor

from hublatent.errors import DirectionError, unknown_name
from hublatent.stats import Estimate
from hublatent.storage import Count, Text

if TYPE_CHECKING:
    from hublatent.model import LatentModel

# Below this share of its norm, what is left of a direction is mostly rounding and noise.
MIN_SURVIVING_NORM = 0.1
# Beyond this condition number two held directions are the same one for every practical purpose.
MAX_CONDITION = 1e4
# Outside these, squares no longer fit into float32.
NORM_RANGE = (1e-15, 1e15)

OriginKind = Literal["encoded", "projected", "sampled"]
# Whose directions are meant where nobody says: those of images, else those of samples.
ORIGIN_KINDS: tuple[OriginKind, ...] = ("encoded", "sampled", "projected")


@dataclass(frozen=True)
class Origin:
    """Where the latents come from that a direction was found in."""

    kind: OriginKind  # images encoded or projected, or samples that a classifier labelled
    dataset: Text  # the data set's name; the classifier's where the latents were sampled
    digest: Text | None = None  # sha256 of the data, or of the classifier's weights, or its start
    n: Count | None = None  # how many latents

    def __post_init__(self) -> None:
        if self.kind not in ORIGIN_KINDS:
            raise DirectionError(unknown_name("origin", str(self.kind), ORIGIN_KINDS))

    def __str__(self) -> str:
        """Such as "1,000 projected images of celeba (346e3eb94922)"."""
        what = {
            "encoded": "images of",
            "projected": "projected images of",
            "sampled": "samples of the model, labelled by",
        }[self.kind]
        number = "" if self.n is None else f"{self.n:,} "
        digest = "" if self.digest is None else f" ({self.digest[:12]})"
        return f"{number}{what} {self.dataset}{digest}"


@dataclass(frozen=True, eq=False, repr=False)
class Direction:
    """A semantic direction in the latent space of one model.

    Attributes:
        attribute: what it changes, such as "Eyeglasses".
        method: how it was found, such as "svm".
        vector: (*latent_shape), float32, pointing to presence; rows it does not touch are zero.
        sigma: standard deviation of the coordinate over real latents; None where unknown.
        threshold: the coordinate at which P(attribute) = 1/2 at equal priors; None where unknown.
        gain: slope of the logistic curve, per unit of the coordinate; None where unknown.
        layers: the layers it touches; None for a latent without layers.
        n_positive: how many examples with the attribute it was found from.
        n_negative: how many without.
        origin: the latents that it was found in; None where unknown.
        preprocessing: how images were cropped and resized.
        scores: name -> Estimate, from held-out identities, of latents averaged over all layers.
        conditioned_on: names of the directions that were held while this one was formed.
        surviving_norm: the share of the norm that conditioning left; 1 without conditioning.
        styles: (M, *latent_shape), variations of the attribute, such as kinds of glasses, in units
            of the vector's norm; None where none are known. See `varied`.
    """

    attribute: str
    method: str
    vector: Tensor
    sigma: float | None = None
    threshold: float | None = None
    gain: float | None = None
    layers: tuple[int, ...] | None = None
    n_positive: int | None = None
    n_negative: int | None = None
    origin: Origin | None = None
    preprocessing: str | None = None
    scores: Mapping[str, Estimate] = field(default_factory=dict)
    conditioned_on: tuple[str, ...] = ()
    surviving_norm: float = 1.0
    styles: Tensor | None = None

    def __post_init__(self) -> None:
        check_name(self.attribute)
        check_name(self.method)
        vector = self._own_copy("vector")
        norm = float(vector.double().norm())
        if vector.ndim not in (1, 2) or not vector.numel():
            self._refuse(f"a vector has shape (D,) or (L, D), not {tuple(vector.shape)}.")
        if not math.isfinite(norm):
            self._refuse("the vector holds NaN or infinite values.")
        if not norm:
            self._refuse("the vector is zero, so it points nowhere.")
        if not NORM_RANGE[0] <= norm <= NORM_RANGE[1]:
            expected = "{:g} to {:g}".format(*NORM_RANGE)
            self._refuse(f"the vector's norm is {norm:.3g}; expected {expected}. Scale it.")
        touched = tuple(torch.atleast_2d(vector).any(dim=1).nonzero().flatten().tolist())
        object.__setattr__(self, "layers", touched if vector.ndim == 2 else None)
        if self.styles is None:
            return
        styles = self._own_copy("styles")
        if not styles.numel() or styles.shape[1:] != vector.shape:
            expected = f"(M, {_shape(vector)}), M at least 1"
            self._refuse(f"its styles have the shape ({_shape(styles)}); expected {expected}.")
        if not bool(torch.isfinite(styles).all()):
            self._refuse("its styles hold NaN or infinite values.")

    def _own_copy(self, name: str) -> Tensor:
        value: Tensor = getattr(self, name)
        value = value.detach().to(device="cpu", dtype=torch.float32, copy=True)
        object.__setattr__(self, name, value)
        return value

    def _refuse(self, reason: str) -> NoReturn:
        raise DirectionError(f"{self.name}: {reason}")

    @property
    def name(self) -> str:
        """Attribute and method, such as "Eyeglasses.svm"."""
        return f"{self.attribute}.{self.method}"

    @property
    def squared_norm(self) -> float:
        """<v, v>."""
        return float(self.vector.double().square().sum())

    def coordinate(self, latents: Tensor) -> Tensor:
        """c(z) = <z, v> / <v, v> of latents (B, *latent_shape): (B,), on their device."""
        self.check_shape(latents)
        vector = self.vector.to(latents)
        return (latents * vector).flatten(1).sum(1) / vector.square().sum()  # (B,)

    def check_shape(self, latents: Tensor) -> None:
        """Refuse latents that are not (B, *shape of the vector)."""
        if latents.shape[1:] != self.vector.shape or latents.ndim != self.vector.ndim + 1:
            raise DirectionError(
                f"{self.name} is for latents of shape (B, {_shape(self.vector)}); "
                f"given: {tuple(latents.shape)}."
            )

    def check_fits(self, model: LatentModel) -> None:
        """Refuse a model whose latents have another shape."""
        if tuple(self.vector.shape) != model.latent_shape:
            theirs = ", ".join(map(str, model.latent_shape))
            raise DirectionError(
                f"{self.name} has shape ({_shape(self.vector)}); the model's latents have "
                f"({theirs})."
            )

    def with_sigma(self, model: LatentModel) -> Direction:
        """The same direction with its sigma for a model, from the covariance of real latents.

        With u the sum of v's rows (the layers of real latents are alike),
        sigma = sqrt(u' Cov u) / <v, v>.
        """
        self.check_fits(model)
        covariance = model.latent_covariance.double().cpu()
        row = torch.atleast_2d(self.vector.double()).sum(dim=0)
        sigma = math.sqrt(max(float(row @ covariance @ row), 0.0)) / self.squared_norm
        return replace(self, sigma=sigma)

    def measured_on(self, model: LatentModel) -> Direction:
        """The former name of `with_sigma`."""
        warnings.warn("measured_on is now called with_sigma", DeprecationWarning, stacklevel=2)
        return self.with_sigma(model)

    def unit(self) -> Direction:
        """The direction scaled to norm 1; it points the same way, and has no sigma of its own."""
        return self * (1 / math.sqrt(self.squared_norm))

    def orthogonal_to(self, *held: Direction) -> Direction:
        """Take out what moves other attributes' readings (Shen et al. 2020, arXiv:1907.10786).

        Editing along v moves the coordinate along a filter b by <v, b> / <b, b>. Taking out v's
        component in the span of the held filters, on the layers that v touches, makes it zero.
        An attribute's `svm` direction is its filter.

        Raises:
            DirectionError: shapes differ, the held filters are nearly dependent, or almost nothing
                of the direction would be left.
        """
        if not held:
            return self
        touched = self.vector.any(dim=1, keepdim=True) if self.layers else torch.tensor(1)  # (L, 1)
        filters = []
        for other in held:
            if other.vector.shape != self.vector.shape:
                raise DirectionError(
                    f"{self.name} has shape ({_shape(self.vector)}), "
                    f"{other.name} has ({_shape(other.vector)}); hold directions of one model."
                )
            own = (other.vector.double() * touched).flatten()
            if not own.any():
                raise DirectionError(f"{self.name} shares no layer with {other.name}.")
            filters.append(own / own.norm())
        basis = torch.stack(filters, dim=1)  # (L * D, number held)
        names = ", ".join(other.name for other in held)
        condition = float(torch.linalg.cond(basis.T @ basis))
        if not condition < MAX_CONDITION:
            raise DirectionError(
                f"The directions to hold are nearly the same one ({names}: condition number "
                f"{condition:.0f}); hold fewer of them."
            )
        vector = self.vector.double().flatten()
        rest = vector - basis @ torch.linalg.solve(basis.T @ basis, basis.T @ vector)
        surviving = float(rest.norm() / vector.norm())
        if surviving < MIN_SURVIVING_NORM:
            raise DirectionError(
                f"Only {surviving:.1%} of {self.name} would be left after holding {names}; "
                "they are nearly the same direction. Hold fewer of them."
            )
        return self.derived(
            rest.reshape(self.vector.shape),
            conditioned_on=(*self.conditioned_on, *(other.name for other in held)),
            surviving_norm=self.surviving_norm * surviving,
        )

    def varied(self, coefficients: Sequence[float] | Tensor) -> Direction:
        """Another style of the attribute (FLAME, Parihar et al. 2022).

        v / |v| + sum of c_k styles[k], at v's norm; c (M,), one coefficient for each style.
        """
        weights = torch.as_tensor(coefficients, dtype=torch.float64)
        n_styles = 0 if self.styles is None else len(self.styles)
        if self.styles is None or weights.shape != (n_styles,):
            raise DirectionError(
                f"{self.name} has {n_styles} styles; given: coefficients of shape "
                f"{tuple(weights.shape)}."
            )
        norm = math.sqrt(self.squared_norm)
        moved = self.vector.double() / norm + torch.tensordot(weights, self.styles.double(), 1)
        return self.derived(moved * (norm / moved.norm()))

    def sampled_style(self, seed: int) -> Direction:
        """A style drawn at random, its coefficients from -0.35 to 0.35 as FLAME draws them."""
        if self.styles is None:
            raise DirectionError(f"{self.name} has no styles to draw from.")
        generator = torch.Generator().manual_seed(seed)
        return self.varied((torch.rand(len(self.styles), generator=generator) * 2 - 1) * 0.35)

    def __add__(self, other: Direction) -> Direction:
        if other.vector.shape != self.vector.shape:
            raise DirectionError(
                f"{self.name} ({_shape(self.vector)}) and {other.name} ({_shape(other.vector)}) "
                "have different shapes and cannot be added."
            )
        attribute = "+".join(dict.fromkeys((self.attribute, other.attribute)))
        return self.derived(self.vector + other.vector, attribute=attribute)

    def __neg__(self) -> Direction:
        return self * -1.0

    def __sub__(self, other: Direction) -> Direction:
        return self + -other

    def __mul__(self, factor: float) -> Direction:
        return self.derived(self.vector * factor)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        facts = (f"{key} {value}" for key, value in self._facts())
        return f"Direction {self.name}: {', '.join(facts)}"

    def _repr_html_(self) -> str:
        return html_table((self.name, ""), self._facts())

    def _facts(self) -> Iterable[tuple[str, str]]:
        """What a reader wants to know first, in words."""
        yield "shape", f"({_shape(self.vector)})"
        for name in ("sigma", "threshold", "gain"):
            if getattr(self, name) is not None:
                yield name, f"{getattr(self, name):.4g}"
        if self.layers is not None:
            yield "layers", " ".join(map(str, self.layers))
        if "accuracy" in self.scores:
            yield "accuracy", f"{self.scores['accuracy'].value:.3f}"
        if self.origin is not None:
            yield "found in", str(self.origin)
        if self.conditioned_on:
            yield "holding", " ".join(self.conditioned_on)

    def derived(self, vector: Tensor, **changes: Any) -> Direction:
        """A new direction from this one; what was measured on the old vector is absent."""
        return replace(
            self, vector=vector, sigma=None, threshold=None, gain=None, scores={}, styles=None,
            **changes,
        )  # fmt: skip


def check_name(part: str) -> None:
    """Refuse what cannot be the name of an attribute or a method."""
    # Names become tensor names and file names: no path, no control character, no second dot.
    if not part or len(part) > 200 or not part.isprintable() or set(part) & set("./\\"):
        raise DirectionError(
            f"{part!r} is no attribute or method name; expected 1 to 200 printable characters "
            "without dots and slashes."
        )


def _shape(vector: Tensor) -> str:
    return ", ".join(map(str, vector.shape))


@dataclass(frozen=True)
class LayerRange:
    """Layers first to last, both included, counted from 0, the coarsest."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> LayerRange:
        """Read "3-5" or "4"; a DirectionError says that it is written another way."""
        match = re.fullmatch(r"\s*(\d{1,4})\s*(?:[-–]\s*(\d{1,4})\s*)?", text)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise DirectionError(
                f"The layers are {text[:40]!r}; expected a range such as '0-2', or one number."
            )
        return cls(first, last)

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def of(self, direction: Direction) -> Direction:
        """A direction that moves these layers and no other.

        One that moves all its layers alike, as `discover` makes them, is put on these layers; of
        one whose layers differ, those outside the range are left out. What was measured on the
        old layers is absent. A direction of a model without layers is returned as it is.
        """
        if direction.layers in (None, tuple(range(self.first, self.last + 1))):
            return direction
        inside = self.rows(len(direction.vector))
        rows = direction.vector[list(direction.layers)]  # (touched, D)
        vector = torch.zeros_like(direction.vector)
        alike = torch.allclose(rows, rows[:1].expand_as(rows))
        vector[inside] = rows[0] if alike else direction.vector[inside]
        if not vector.any():
            raise DirectionError(
                f"{direction.name} moves the layers {', '.join(map(str, direction.layers))}, each "
                f"in its own way, and none of {self}."
            )
        return direction.derived(vector)

    def rows(self, n_layers: int) -> slice:
        """These layers among so many; a DirectionError says that there are fewer."""
        if self.last >= n_layers:
            raise DirectionError(
                f"Layers {self} were asked for; this model's latents have layers 0 to "
                f"{n_layers - 1}."
            )
        return slice(self.first, self.last + 1)


def offered_ranges(n_layers: int) -> tuple[str, ...]:
    """Ranges to choose from: each third of the layers, coarse to fine, and all of them."""
    if n_layers < 2:
        return ()
    cuts = sorted({round(n_layers * part / 3) for part in range(4)})
    thirds = [LayerRange(a, b - 1) for a, b in pairwise(cuts)]
    return tuple(str(r) for r in (*thirds, LayerRange(0, n_layers - 1)))


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for notebooks; names in it may come from strangers' files."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"
