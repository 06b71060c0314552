"""Adaptive discriminator augmentation (ADA; Karras et al. 2020b, arXiv:2006.06676)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

UPDATE_EVERY = 4  # steps whose signs are averaged before the probability moves


@dataclass
class AdaptiveProbability:
    """The augmentation probability p, steered so that r_t stays at its target (section 3)."""

    target: float  # wanted r_t, the mean sign of the discriminator's logits on real images
    ramp_images: int  # images over which p can move from 0 to 1
    p: float = 0.0
    sign_sum: float = 0.0
    n_images: int = 0
    n_updates: int = 0

    def update(self, mean_sign: float, n_images: int) -> None:
        """Take in one step's mean sign of D(real) over n_images; every few steps p moves."""
        self.sign_sum += mean_sign * n_images
        self.n_images += n_images
        self.n_updates += 1
        if self.n_updates < UPDATE_EVERY:
            return
        r_t = self.sign_sum / self.n_images
        direction = math.copysign(1.0, r_t - self.target)
        self.p = min(max(self.p + direction * self.n_images / self.ramp_images, 0.0), 1.0)
        self.sign_sum, self.n_images, self.n_updates = 0.0, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state; target and pace stay the recipe's."""
        vars(self).update({**state, "target": self.target, "ramp_images": self.ramp_images})


def augment(images: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Apply each geometric and colour transformation with probability p (appendix B, "bgc").

    Real and generated images (B, C, H, W) pass through the same distribution of transformations,
    which is invertible for p < 1: what the discriminator learns does not leak into the generator.
    The result is differentiable once with respect to the input.
    """
    if p <= 0:
        return images
    matrices = random_geometry(len(images), p, images.shape[-1], generator)  # (B, 3, 3)
    images = warp(images, matrices)
    if images.shape[1] == 3:
        colours = random_colours(len(images), p, generator).to(images)
        pixels = torch.baddbmm(colours[:, :3, 3:], colours[:, :3, :3], images.flatten(2))
        images = pixels.reshape(images.shape)
    return images


class _Draws:
    """What each of n images draws by itself."""

    def __init__(self, n: int, p: float, generator: torch.Generator) -> None:
        self.n, self.p, self.generator = n, p, generator

    def uniform(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self.n, generator=self.generator)

    def normal(self) -> Tensor:
        return torch.randn(self.n, generator=self.generator)

    def chosen(self, values: Tensor, neutral: float, p: float | None = None) -> Tensor:
        """The values with probability p, or another; else the one that changes nothing."""
        applies = torch.rand(self.n, generator=self.generator) < (p or self.p)
        return torch.where(applies, values, torch.tensor(neutral))


def random_geometry(n: int, p: float, size: int, generator: torch.Generator) -> Tensor:
    """Draw n maps from output to input positions, products of transformations of probability p.

    Returns:
        (n, 3, 3), in coordinates that run from -1 to 1; `size`, in pixels, is for whole shifts.
    """
    draws = _Draws(n, p, generator)
    chosen, uniform, normal = draws.chosen, draws.uniform, draws.normal

    def whole_pixels() -> Tensor:  # the image spans 2 units
        return chosen((uniform(-0.125, 0.125) * size).round() * (2 / size), 0.0)

    flip = chosen(torch.floor(uniform(0, 2)) * -2 + 1, 1.0)
    quarter = chosen(torch.floor(uniform(0, 4)) * (math.pi / 2), 0.0)
    shift_x, shift_y = whole_pixels(), whole_pixels()
    scale = chosen(torch.exp2(-0.2 * normal()), 1.0)
    # Two rotations enclose the anisotropic scaling; together they occur with probability p.
    p_rotate = 1 - math.sqrt(1 - p)
    before = chosen(uniform(-math.pi, math.pi), 0.0, p_rotate)
    stretch = chosen(torch.exp2(-0.2 * normal()), 1.0)
    after = chosen(uniform(-math.pi, math.pi), 0.0, p_rotate)
    slide_x, slide_y = chosen(0.25 * normal(), 0.0), chosen(0.25 * normal(), 0.0)
    matrix = _scaling(flip, torch.ones(n)) @ _rotation(quarter) @ _translation(shift_x, shift_y)
    matrix = matrix @ _scaling(scale, scale) @ _rotation(before) @ _scaling(stretch, 1 / stretch)
    return matrix @ _rotation(after) @ _translation(slide_x, slide_y)


def random_colours(n: int, p: float, generator: torch.Generator) -> Tensor:
    """Draw n affine maps (n, 4, 4) of RGB in [-1, 1], of transformations with probability p."""
    draws = _Draws(n, p, generator)
    chosen, normal = draws.chosen, draws.normal
    identity = torch.eye(4).repeat(n, 1, 1)
    brightness = identity.clone()
    brightness[:, :3, 3] = chosen(0.2 * normal(), 0.0)[:, None]
    contrast = identity.clone()
    contrast[:, range(3), range(3)] = chosen(torch.exp2(0.5 * normal()), 1.0)[:, None]
    luma = torch.tensor([1.0, 1, 1, 0]) / math.sqrt(3)
    grey = torch.outer(luma, luma)  # projects a colour onto the grey axis
    inverted = chosen(torch.floor(draws.uniform(0, 2)), 0.0)
    luma_flip = identity - 2 * grey * inverted[:, None, None]
    hue = _rotation_about(luma[:3], chosen(draws.uniform(-1, 1) * math.pi, 0.0))
    strength = chosen(torch.exp2(normal()), 1.0)
    saturation = grey + (identity - grey) * strength[:, None, None]
    saturation[:, 3, 3] = 1
    return saturation @ hue @ luma_flip @ contrast @ brightness


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample the images (B, C, H, W) whose matrix (B, 3, 3), from output to input positions in
    coordinates from -1 to 1, is not the identity; mirrored at the border.
    """
    moved = (matrices - torch.eye(3)).abs().amax(dim=(1, 2)) > 0
    where = moved.nonzero().flatten().to(images.device)
    if len(where) == 0:
        return images
    theta = matrices[moved, :2].to(images)
    shape = [len(where), *images.shape[1:]]
    grid = F.affine_grid(theta, shape, align_corners=False)  # (M, H, W, 2)
    warped = F.grid_sample(images[where], grid, padding_mode="reflection", align_corners=False)
    return images.index_copy(0, where, warped)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=1))


def _translation(x: Tensor, y: Tensor) -> Tensor:
    matrix = torch.eye(3).repeat(len(x), 1, 1)
    matrix[:, :2, 2] = torch.stack([x, y], dim=1)
    return matrix


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.eye(3).repeat(len(angle), 1, 1)
    matrix[:, :2, :2] = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
    return matrix


def _rotation_about(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations (n, 4, 4) of space about a unit axis (Rodrigues' formula)."""
    x, y, z = axis.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = angle[:, None, None]
    rotation = torch.eye(4).repeat(len(angle), 1, 1)
    rotation[:, :3, :3] += turn.sin() * cross + (1 - turn.cos()) * (cross @ cross)
    return rotation
