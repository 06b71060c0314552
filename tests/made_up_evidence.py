"""Long tables of simulated models with a known answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hublatent.evaluation import table
from hublatent.evaluation.claims import Evidence
from hublatent.evaluation.edits import STRENGTHS
from hublatent.evaluation.judges import BROKEN_BELOW
from hublatent.evaluation.subjects import IN_W
from hublatent.evaluation.table import BETWEEN, BEYOND, CEILING, NULL, SAMPLES

ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
N_FACES = 60


def simulate(
    models: Mapping[str, Mapping[str, float]], n_trainings: int = 1, seed: int = 0
) -> Evidence:
    """Evidence of models, each with its truth.

    Args:
        models: "ARCHITECTURE[-NAME]" -> accuracy, leak (per standard deviation), breaks (where),
            effect, means (the effect along class means), hole and beyond (shares of midpoints and
            of far points that are no face), way (rank correlation with the end), spread (between
            trainings), beta, kl, objective, w_noise. "NAME in W" is edited beside NAME.
        n_trainings: of each model.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.1, (N_FACES, len(ATTRIBUTES)))  # faces are hard alike for all models
    starts = rng.normal(-3, 0.5, N_FACES)
    parts, about = [], []
    for name, truth in models.items():
        for i in range(n_trainings):
            training = f"{name}-{i}" if n_trainings > 1 else name
            shift = rng.normal(0, truth.get("spread", 0.0))
            for k, attribute in enumerate(ATTRIBUTES):
                rows = [
                    _reading(rng, attribute, truth.get("accuracy", 0.8) + shift, hard[:, k]),
                    *_edits(rng, attribute, truth, starts),
                ]
                parts += [r.assign(model=name, training=training) for r in rows]
            whole = [_holes(rng, truth), table.rows({"kl": truth.get("kl", 100.0), "mse": 0.01})]
            parts += [r.assign(model=name, training=training) for r in whole]
            if name.endswith(IN_W):
                continue
            architecture = name.partition("-")[0]
            layers = architecture == "stylegan2"
            about.append(
                {
                    "model": name, "training": training, "architecture": architecture,
                    "latent": "8", "layers": layers, "parameters": 10, "likelihood": "gaussian",
                    "objective": truth.get("objective", "beta-vae"),
                    "beta": truth.get("beta"), "w_noise": truth.get("w_noise"),
                    "baseline": False,
                }
            )  # fmt: skip
    return Evidence(table.join(parts), pd.DataFrame(about))


def _reading(
    rng: np.random.Generator, attribute: str, accuracy: float, hard: np.ndarray
) -> pd.DataFrame:
    right = np.clip(accuracy + hard + rng.normal(0, 0.03, N_FACES), 0, 1)
    half = N_FACES // 2
    names = [f"{i}/{i}.jpg" for i in range(N_FACES)]
    return pd.concat(
        [
            table.rows({"recall": right[:half]}, attribute=attribute, method="svm",
                       face=names[:half]),
            table.rows({"specificity": right[half:]}, attribute=attribute, method="svm",
                       face=names[half:]),
        ]
    )  # fmt: skip


def _edits(
    rng: np.random.Generator, attribute: str, truth: Mapping[str, float], starts: np.ndarray
) -> list[pd.DataFrame]:
    names = [f"{i}/t{i}.jpg" for i in range(N_FACES)]
    found = [
        table.rows({"target": rng.normal(3, 0.5, N_FACES)}, attribute=attribute, method=CEILING,
                   face=names)
    ]  # fmt: skip
    for method in ("svm", "joint", *(["mean-difference"] if "means" in truth else [])):
        effect = truth.get("effect", 1.5)
        if method == "mean-difference":
            effect = truth.get("means", effect)
        for s in STRENGTHS:
            leak = np.abs(truth.get("leak", 0.02) * s * rng.normal(1, 0.2, N_FACES))
            left = 4 * (truth.get("breaks", 8.0) - s) + BROKEN_BELOW + rng.normal(0, 0.5, N_FACES)
            values = {
                "target": starts + effect * s + rng.normal(0, 0.1, N_FACES) * (s > 0),
                "leakage": leak,
                "logit leakage": 3 * leak,
                "identity": 0.08 * s + 0 * leak,
                "coherence": left,
            }
            found.append(
                table.rows(values, attribute=attribute, method=method, face=names, strength=s)
            )
        found.append(table.rows({"step": 1.0}, attribute=attribute, method=method))
    way, noise = rng.standard_normal((2, N_FACES))
    tie = truth.get("way", 0.0)
    ends = {"way": way, "end target": tie * way + (1 - tie**2) ** 0.5 * noise}
    found.append(table.rows(ends, attribute=attribute, method="svm", face=names))
    null = rng.normal(0, 0.01, 20)
    faces = [f"random-{i}" for i in range(20)]
    found.append(
        table.rows({"change": null}, attribute=attribute, method=NULL, face=faces, strength=3.5)
    )
    return found


def _holes(rng: np.random.Generator, truth: Mapping[str, float], n: int = 100) -> pd.DataFrame:
    names = [f"pair-{i}/" for i in range(n)]
    parts = []
    broken = {SAMPLES: 0.0, BETWEEN: truth.get("hole", 0.0), BEYOND: truth.get("beyond", 0.0)}
    for method, share in broken.items():
        values = np.where(rng.random(n) < share, -3.0, 6.0)
        parts.append(table.rows({"coherence": values}, method=method, face=names))
    return pd.concat(parts)
