"""How much faster StyleGAN2's synthesis is here than in its usual formulation.

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

from hublatent.models.stylegan2 import StyleGAN2
from tests import stylegan2_reference as reference

SIZES = {
    64: {"channel_base": 2048, "channel_max": 256, "channel_min": 48},
    256: {"channel_base": 8192, "channel_max": 256, "channel_min": 1},
}
# The usual formulation loses more the larger the batch, so one batch size would not be the truth.
BATCHES = {64: (4, 8, 32), 256: (1, 4, 8)}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads; images/s and ratio")
    columns = f"{'usual':>8} {'ours fp32':>10} {'ratio':>6} {'ours bf16':>10} {'ratio':>6}"
    print(f"{'size':>5} {'batch':>6} {columns}")
    for size, channels in SIZES.items():
        for batch in BATCHES[size]:
            measure(size, batch, channels, arguments.repeats)


@torch.inference_mode()
def measure(size: int, batch: int, channels: dict[str, int], repeats: int) -> None:
    """Print one line for one image size and batch size."""
    torch.manual_seed(0)
    model = StyleGAN2(size, **channels).eval()
    latents = model.sample_latents(batch, generator=torch.Generator().manual_seed(1))
    passes: dict[str, Callable[[], torch.Tensor]] = {
        "usual": lambda: reference.synthesize(model, latents),
        "fp32": lambda: model.synthesize(latents),
        "bf16": lambda: _in_bf16(model, latents),
    }
    difference = (passes["usual"]() - passes["fp32"]()).abs().max().item()
    best = dict.fromkeys(passes, float("inf"))
    for name in [*passes] + [*passes] * repeats:  # the first round warms up as well
        start = time.perf_counter()
        passes[name]()
        best[name] = min(best[name], time.perf_counter() - start)
    rate = {name: batch / seconds for name, seconds in best.items()}
    print(
        f"{size:>5} {batch:>6} {rate['usual']:>8.1f} {rate['fp32']:>10.1f} "
        f"{rate['fp32'] / rate['usual']:>6.2f} {rate['bf16']:>10.1f} "
        f"{rate['bf16'] / rate['usual']:>6.2f}   largest difference {difference:.1e}",
        flush=True,
    )


def _in_bf16(model: StyleGAN2, latents: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model.synthesize(latents)


if __name__ == "__main__":
    main()
