"""What the encoder of a StyleGAN2 is worth: its speed, its error, what it reads, and the head start
that it gives to projection, against one image at a time from 256 candidates over 1,000 steps."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch
from torch import Tensor

import hublatent
from hublatent.data import load_dataset
from hublatent.discovery import cross_validate, encode

Result = TypeVar("Result")
BATCH = 64


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def mean_error(images: Tensor, drawn: Tensor) -> float:
    """Mean squared error, pixels in [0, 1]."""
    return float(((images - drawn) / 2).square().mean())


def steps_to(losses: Tensor, goal: Tensor) -> int:
    """The first step at which the mean of losses (T, B), carried on where one stopped, is down."""
    lowest = losses.nan_to_num(float("inf")).cummin(dim=0).values.mean(dim=1)
    reached = (lowest <= goal.mean()).nonzero()
    return int(reached[0]) + 1 if len(reached) else len(losses)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="model_cards/stylegan2-celeba")
    parser.add_argument("--data", required=True)
    parser.add_argument("--faces", type=int, default=64, help="test faces that are refined")
    parser.add_argument("--steps", type=int, default=60, help="of refining")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="of refining")
    parser.add_argument("--slow", type=int, default=2, help="faces projected one at a time")
    parser.add_argument("--slow-steps", type=int, default=1000)
    parser.add_argument("--read", action="store_true", help="read Eyeglasses too; encodes all")
    given = parser.parse_args()
    model = hublatent.load(given.model)
    dataset = load_dataset(given.data, model.image_size)
    test = dataset.indices("test")
    faces = dataset.batch(test)

    def encoded() -> Tensor:
        with torch.inference_mode():
            return torch.cat([model.encode(part) for part in faces.split(BATCH)])

    encoded()
    seconds, latents = timed(encoded)
    with torch.inference_mode():
        drawn = torch.cat([model.decode(part) for part in latents.split(BATCH)])
    print(f"encode: {len(faces) / seconds:.0f} faces/s on {torch.get_num_threads()} threads")
    print(f"mean squared error of {len(faces)} test faces, encoder alone: "
          f"{mean_error(faces, drawn):.4f}")  # fmt: skip
    if given.read:
        score = cross_validate(encode(model, dataset, mirror=False), "Eyeglasses").scores()
        print(f"Eyeglasses read from encoded latents: {score['accuracy']}")

    some = faces[: given.faces]
    descent = {"n_steps": given.steps, "precision": given.precision}
    seconds, refined = timed(lambda: hublatent.project(model, some, **descent))
    print(f"after {given.steps} steps, {len(some)} faces: {float(refined.errors.mean()):.4f}, "
          f"{seconds / len(some):.2f} s a face")  # fmt: skip

    if not given.slow:
        return
    without = hublatent.load(given.model)
    without.encoder = None
    slow = [
        timed(lambda i=i: hublatent.project(without, faces[i : i + 1], n_steps=given.slow_steps))
        for i in range(given.slow)
    ]
    slow_seconds = np.mean([seconds for seconds, _ in slow])
    goal = torch.stack([found.losses[~found.losses.isnan()].min() for _, found in slow])
    error = np.mean([float(found.errors) for _, found in slow])
    print(f"one at a time, {given.slow_steps} steps from candidates: {slow_seconds:.1f} s a face, "
          f"distance {float(goal.mean()):.3f}, error {error:.4f}")  # fmt: skip
    mine = refined.losses[:, : given.slow]
    n = steps_to(mine, goal)
    if float(mine.nan_to_num(float("inf")).cummin(dim=0).values[-1].mean()) > float(goal.mean()):
        print(f"{given.steps} steps from the encoder do not come to that distance; take more")
    share = seconds / len(some) * n / given.steps
    print(f"from the encoder in batches: {n} steps, {share:.2f} s a face, "
          f"{slow_seconds / share:.1f} times as fast")  # fmt: skip


if __name__ == "__main__":
    main()
