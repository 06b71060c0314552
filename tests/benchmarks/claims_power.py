"""How often the claims name a difference that is not there, and one that is twice the margin."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from hublatent.evaluation.claims import CONTRADICTED, SUPPORTED, Evidence, examine_claim
from tests.made_up_evidence import simulate

PAIR = {"btcvae": {}, "vae": {}}
SAMPLED = {"vae": {}, "stylegan2": {}}
LOW, HIGH = {"kl": 10.0, "accuracy": 0.75}, {"kl": 1000.0, "accuracy": 0.85}
# Claim -> simulated models between which there is nothing, and what then changes one of them by
# twice the margin.
CASES: dict[str, tuple[dict[str, dict], str, dict]] = {
    "1a": (PAIR, "vae", {"accuracy": 0.76}),
    "1b": (PAIR, "vae", {"leak": 0.03}),
    "1c": (PAIR, "vae", {"leak": 0.03}),
    "2": ({"vae-1": {"beta": 1.0}, "vae-8": {"beta": 8.0}}, "vae-1", {"accuracy": 0.76}),
    "2b": (
        {"vae-1": LOW, "vae-8": HIGH, "btcvae": {"kl": 100.0, "objective": "beta-tcvae"}},
        "btcvae", {"accuracy": 0.84},
    ),
    "3a": (SAMPLED, "stylegan2", {"hole": 0.2}),
    "3b": (SAMPLED, "stylegan2", {"beyond": 0.2}),
    "3c": (
        {"stylegan2": {"w_noise": 1.0}, "stylegan2-plain": {"w_noise": 0.0}},
        "stylegan2-plain", {"hole": 0.2},
    ),
    "4": ({"stylegan2": {}}, "stylegan2", {"way": -0.2}),
    # P half-way along class means is sigmoid(1.35) = 0.79 where it is 0.99 along the SVM's normal.
    "5": ({"stylegan2": {"means": 1.5}}, "stylegan2", {"means": 0.87}),
    "6": ({"stylegan2": {}, "stylegan2 in W": {}}, "stylegan2 in W", {"leak": 0.03}),
}  # fmt: skip


def names_one(key: str, evidence: Evidence) -> bool:
    found = examine_claim(evidence, key).verdict
    return found.partition(",")[0] in (SUPPORTED, CONTRADICTED)


def truth_of(key: str, changed: bool) -> dict[str, dict]:
    """The models that a claim is tried on."""
    models, which, change = CASES[key]
    return {m: {**t, **(change if changed and m == which else {})} for m, t in models.items()}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--claims", nargs="+", default=CASES)
    parser.add_argument("--trainings", type=int, nargs="+", default=(1, 3))
    parser.add_argument("--spread", type=float, default=0.005, help="between trainings")
    arguments = parser.parse_args()
    for n_trainings in arguments.trainings:
        # What is said of one training is said of this checkpoint: its luck is no error.
        spread = arguments.spread if n_trainings > 1 else 0.0
        for key in arguments.claims:
            shares = []
            for changed in (False, True):
                models = {m: {"spread": spread, **t} for m, t in truth_of(key, changed).items()}
                runs = range(arguments.n)
                named = [names_one(key, simulate(models, n_trainings, seed)) for seed in runs]
                shares.append(sum(named) / arguments.n)
            found = f"false {shares[0]:.3f}, power {shares[1]:.3f}"
            print(f"{n_trainings} trainings, {key}: {found}", flush=True)


if __name__ == "__main__":
    main()
