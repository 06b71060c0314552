"""edit() and traverse(): moving latents along a direction, in three interconvertible units.

"sigma"        strength s adds s * sigma * v: s standard deviations of the coordinate
"raw"          strength a adds a * v: the paper's alpha
"probability"  strength p moves each latent to where P(attribute) = p; depends on the latent
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from hublatent.direction import Direction
from hublatent.errors import DirectionError, unknown_name

Unit = Literal["sigma", "raw", "probability"]


def edit(
    latents: Tensor, direction: Direction, strength: float | Tensor, unit: Unit = "sigma"
) -> Tensor:
    """Move latents (B, *latent_shape) along a direction; on their device and in their dtype.

    Args:
        strength: how far, a number or one per latent (B,).
        unit: of the strength.

    Raises:
        DirectionError: shapes differ, or the direction lacks what the unit needs.
    """
    direction.check_shape(latents)
    # In half precision a long vector, or a coordinate on the way, would overflow.
    exact = latents.to(torch.promote_types(latents.dtype, torch.float32))
    shift = to_raw(exact, direction, strength, unit)  # (B,)
    vector = direction.vector.to(exact)
    return (exact + shift.reshape(-1, *[1] * vector.ndim) * vector).to(latents.dtype)


def traverse(
    latents: Tensor, direction: Direction, strengths: Tensor, unit: Unit = "sigma"
) -> Tensor:
    """Move latents (B, *latent_shape) by each of the strengths (S,): (B, S, *latent_shape)."""
    return torch.stack([edit(latents, direction, float(s), unit) for s in strengths], dim=1)


def to_raw(
    latents: Tensor, direction: Direction, strength: float | Tensor, unit: Unit = "sigma"
) -> Tensor:
    """What a strength, a number or (B,), multiplies the vector by: the paper's alpha (B,).

    Raises:
        DirectionError: the direction lacks sigma, threshold or gain, or p is not inside (0, 1).
    """
    strengths = torch.as_tensor(strength, dtype=latents.dtype, device=latents.device)
    if strengths.ndim > 1 or (strengths.ndim == 1 and len(strengths) != len(latents)):
        raise DirectionError(
            f"A strength is a number or one per latent ({len(latents)},); "
            f"given: shape {tuple(strengths.shape)}."
        )
    strengths = strengths.expand(len(latents))
    if unit == "raw":
        return strengths
    if unit == "sigma":
        return strengths * _known(direction, "sigma")
    if unit == "probability":
        if bool(((strengths <= 0) | (strengths >= 1)).any()):
            raise DirectionError("A target probability lies between 0 and 1, without the ends.")
        threshold, gain = _known(direction, "threshold"), _known(direction, "gain")
        return threshold + torch.logit(strengths) / gain - direction.coordinate(latents)
    raise DirectionError(unknown_name("unit", unit, get_args(Unit)))


def to_sigma(
    latents: Tensor, direction: Direction, strength: float | Tensor, unit: Unit = "raw"
) -> Tensor:
    """A strength in standard deviations (B,): the raw coefficient over sigma; see `to_raw`."""
    return to_raw(latents, direction, strength, unit) / _known(direction, "sigma")


def probability(latents: Tensor, direction: Direction) -> Tensor:
    """P(attribute | z) = sigmoid(gain * (c(z) - threshold)), at equal priors: (B,), in [0, 1]."""
    threshold, gain = _known(direction, "threshold"), _known(direction, "gain")
    return torch.sigmoid(gain * (direction.coordinate(latents) - threshold))


def _known(direction: Direction, what: Literal["sigma", "threshold", "gain"]) -> float:
    value: float | None = getattr(direction, what)
    if value is None:
        remedy = (
            "direction.with_sigma(model) gives it"
            if what == "sigma"
            else "only relative edits, in 'sigma' or 'raw', can be made"
        )
        raise DirectionError(f"{direction.name} has no {what}; {remedy}.")
    return value
