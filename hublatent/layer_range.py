"""LayerRange: which layers of a latent (L, D) an edit moves, as a reader writes it ("3-5")."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from hublatent.direction import Direction
from hublatent.errors import DirectionError


@dataclass(frozen=True)
class LayerRange:
    """Layers first to last, both included, counted from 0, the coarsest."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> LayerRange:
        """Read "3-5" or "4".

        Raises:
            DirectionError: it is written another way.
        """
        match = re.fullmatch(r"\s*(\d{1,4})\s*(?:[-–]\s*(\d{1,4})\s*)?", text)
        first, last = match.groups() if match else (None, None)
        if first is None or int(last or first) < int(first):
            raise DirectionError(
                f"The layers are {text[:40]!r}; expected a range such as '0-2', or one number."
            )
        return cls(int(first), int(last or first))

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def of(self, direction: Direction) -> Direction:
        """A direction that moves these layers and no other.

        A direction that moves all its layers alike, as `discover` makes them, is put on these
        layers; of one whose layers differ, those outside the range are left out.

        Args:
            direction: one of a model whose latents have layers; another is returned as it is.

        Returns:
            A direction without what was measured on the old layers.

        Raises:
            DirectionError: the range is outside the latent, or nothing of the direction is in it.
        """
        if direction.layers is None or direction.layers == self._layers:
            return direction
        n_layers = len(direction.vector)
        if self.last >= n_layers:
            raise DirectionError(
                f"Layers {self} were asked for; this model's latents have layers 0 to "
                f"{n_layers - 1}."
            )
        rows = direction.vector[list(direction.layers)]  # (touched, D)
        alike = torch.allclose(rows, rows[:1].expand_as(rows))
        vector = torch.zeros_like(direction.vector)
        inside = slice(self.first, self.last + 1)
        vector[inside] = rows[0] if alike else direction.vector[inside]
        if not vector.any():
            raise DirectionError(
                f"{direction.name} moves the layers {', '.join(map(str, direction.layers))}, each "
                f"in its own way, and none of {self}."
            )
        return replace(direction, vector=vector, sigma=None, threshold=None, gain=None, scores={})

    @property
    def _layers(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.last + 1))


def offered_ranges(n_layers: int) -> tuple[str, ...]:
    """Ranges to choose from: each third of the layers, coarse to fine, and all of them."""
    if n_layers < 2:
        return ()
    cuts = sorted({0, *(round(n_layers * part / 3) for part in (1, 2)), n_layers})
    thirds = [LayerRange(a, b - 1) for a, b in pairwise(cuts)]
    return tuple(str(r) for r in (*thirds, LayerRange(0, n_layers - 1)))
