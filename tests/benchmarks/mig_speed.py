"""MIG of 10,000 latents of 10 dimensions and 5 factors, against a pair at a time.

python tests/benchmarks/mig_speed.py
"""

from __future__ import annotations

import sys
import timeit
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np

from hublatent.evaluation.metrics import mig
from tests.test_metrics import plain_mig


def main() -> None:
    """Print both times and their ratio."""
    rng = np.random.default_rng(0)
    factors = rng.integers(10, size=(10_000, 5))
    latents = rng.standard_normal((10_000, 10)) + np.repeat(factors, 2, axis=1)
    assert abs(mig(latents, factors)["mig"] - plain_mig(latents, factors)) < 1e-6
    fast = min(timeit.repeat(lambda: mig(latents, factors), number=1, repeat=5))
    plain = min(timeit.repeat(lambda: plain_mig(latents, factors), number=1, repeat=5))
    print(f"{fast * 1e3:.1f} ms against {plain * 1e3:.1f} ms: {plain / fast:.1f} times as fast")


if __name__ == "__main__":
    main()
