"""How often the claims name a difference that is not there, and one that is twice the margin."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from hublatent.evaluation.claims import CONTRADICTED, SUPPORTED, Evidence, examine_claim
from tests.made_up_evidence import simulate

# Claim -> what the second simulated model does worse, by twice the margin.
CASES = {
    "1a": ("btcvae", "vae", {"accuracy": 0.76}),
    "1b": ("btcvae", "vae", {"leak": 0.03}),
    "3a": ("vae", "stylegan2", {"hole": 0.2}),
}


def names_one(key: str, evidence: Evidence) -> bool:
    found = examine_claim(evidence, key).verdict
    return found.partition(",")[0] in (SUPPORTED, CONTRADICTED)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--trainings", type=int, nargs="+", default=(1, 3))
    parser.add_argument("--spread", type=float, default=0.005, help="between trainings")
    arguments = parser.parse_args()
    for n_trainings in arguments.trainings:
        # What is said of one training is said of this checkpoint: its luck is no error.
        spread = arguments.spread if n_trainings > 1 else 0.0
        for key, (first, second, change) in CASES.items():
            shares = []
            for worse in ({}, change):
                truth = {first: {}, second: worse}
                models = {m: {"spread": spread, **t} for m, t in truth.items()}
                runs = range(arguments.n)
                named = [names_one(key, simulate(models, n_trainings, seed)) for seed in runs]
                shares.append(sum(named) / arguments.n)
            found = f"false {shares[0]:.3f}, power {shares[1]:.3f}"
            print(f"{n_trainings} trainings, {key}: {found}", flush=True)


if __name__ == "__main__":
    main()
