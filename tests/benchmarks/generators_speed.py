"""How much faster StyleGAN, StyleGAN3 and ProGAN draw here than in their usual formulation.

Both draw the same pictures with the same weights; they take turns, so that other load on the
machine meets both alike, and the fastest pass of each counts.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import torch
from torch import Tensor

from hublatent.model import LatentModel
from hublatent.models import ProGAN, StyleGAN, StyleGAN3
from tests import generators_reference as reference

SIZE = 256
Usual = Callable[[LatentModel, Tensor], Tensor]
GENERATORS: dict[str, tuple[Callable[[], LatentModel], Usual]] = {
    "progan": (lambda: ProGAN(SIZE), reference.progan),
    "stylegan": (lambda: StyleGAN(SIZE), reference.stylegan),
    "stylegan3-t": (lambda: StyleGAN3(SIZE), reference.stylegan3),
    "stylegan3-r": (
        lambda: StyleGAN3(
            SIZE, channel_base=65536, channel_max=1024, kernel_size=1, radial_filters=True
        ),
        reference.stylegan3,
    ),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(GENERATORS), default=list(GENERATORS))
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 4))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {SIZE} pixels; images/s")
    print(f"{'generator':<12} {'batch':>6} {'usual':>8} {'ours':>8} {'ratio':>6}")
    for name in arguments.only:
        build, usual = GENERATORS[name]
        torch.manual_seed(0)
        model = build().eval()
        for weight, parameter in model.named_parameters():
            if weight.endswith(("const", "noise_strength")):  # else rounding alone is normalised
                torch.nn.init.normal_(parameter)
        for batch in arguments.batches:
            measure(name, model, usual, batch, arguments.repeats)


@torch.inference_mode()
def measure(name: str, model: LatentModel, usual: Usual, batch: int, repeats: int) -> None:
    """Print one line for one generator and batch size."""
    latents = model.sample_latents(batch, generator=torch.Generator().manual_seed(1))
    passes = {"usual": lambda: usual(model, latents), "ours": lambda: model.synthesize(latents)}
    difference = (passes["usual"]() - passes["ours"]()).abs().max().item()
    best = dict.fromkeys(passes, float("inf"))
    for key in [*passes] * (1 + repeats):  # the first round warms up as well
        start = time.perf_counter()
        passes[key]()
        best[key] = min(best[key], time.perf_counter() - start)
    rate = {key: batch / seconds for key, seconds in best.items()}
    print(
        f"{name:<12} {batch:>6} {rate['usual']:>8.2f} {rate['ours']:>8.2f} "
        f"{rate['ours'] / rate['usual']:>6.2f}   largest difference {difference:.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
