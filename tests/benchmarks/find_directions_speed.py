"""How much faster directions are found than with scikit-learn's classifier in a loop.

    python tests/benchmarks/find_directions_speed.py

Ours: every attribute, by three methods, with scores. Theirs: LinearSVC on everybody and without
each fold, and a bootstrap of the scores in Python, timed on one attribute and multiplied by the
ratio of the balanced sets. Also how well the normals agree, and the memory beyond the latents.
"""

from __future__ import annotations

import resource
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from sklearn.svm import LinearSVC

from hublatent import VAE
from hublatent.discovery import LabelledLatents, discover_all
from hublatent.discovery.cross_validation import pose
from hublatent.discovery.methods import Problem
from hublatent.discovery.methods.linear import SVM_C
from hublatent.stats import Bools, Floats, Ints

METHODS = ("svm", "pattern", "joint")
TARGET_RATIO, TARGET_COSINE = 10.0, 0.9999
PHOTOGRAPHS = 20  # of each person, as in CelebA
N_RESAMPLES = 1000


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=202_599)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--attributes", type=int, default=40)
    parser.add_argument("--resamples", type=int, default=20, help="timed, then multiplied")
    arguments = parser.parse_args()
    data = simulated(arguments.images, arguments.width, arguments.attributes)
    model = VAE(16, latent_dim=arguments.width, width=4, max_width=4, n_stages=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    start = time.perf_counter()
    found = list(discover_all(data, data.attributes, METHODS, model=model))
    ours = time.perf_counter() - start
    beyond = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    n_mb = 2 * data.latents.nbytes / 2**20
    print(f"ours: {len(found)} directions in {ours:.0f} s, {beyond:.0f} MB beyond {n_mb:.0f} MB")

    middle = data.attributes[len(data.attributes) // 2]
    (problem,) = pose(data, [middle])
    normal, alone = scikit_learn(problem, arguments.resamples)
    svms = {d.attribute: d for d in found if d.method == "svm"}
    n_chosen = sum(int(d.n_positive or 0) + int(d.n_negative or 0) for d in svms.values())
    theirs = alone * n_chosen / len(problem.chosen)
    cosine = float(normal @ svms[middle].vector.numpy()) / np.linalg.norm(normal)
    print(
        f"scikit-learn: one svm with scores {alone:.0f} s, those of all attributes {theirs:.0f} s"
    )
    print(f"ratio {theirs / ours:.1f} (target {TARGET_RATIO}), three methods against one")
    print(f"cosine {cosine:.7f} (target {TARGET_COSINE})")


def simulated(n: int, width: int, n_attributes: int) -> LabelledLatents:
    """Latents that are correlated and move with their attributes, and their mirror images'."""
    rng = np.random.default_rng(0)
    shares = np.linspace(0.5, 0.05, n_attributes)
    labels = rng.random((n, n_attributes)) < shares
    effects = rng.normal(size=(n_attributes, width)).astype(np.float32) / np.sqrt(width)
    mixing = rng.normal(size=(width, width)).astype(np.float32) / np.sqrt(width)
    latents, mirrored = np.empty((2, n, width), np.float32)
    for start in range(0, n, 10_000):
        part = slice(start, start + 10_000)
        shape = labels[part].shape[0], width
        latents[part] = rng.standard_normal(shape, np.float32) @ mixing
        latents[part] += rng.standard_normal(shape, np.float32)
        latents[part] += 3 * labels[part].astype(np.float32) @ effects
        mirrored[part] = latents[part] + 0.3 * rng.standard_normal(shape, np.float32)
    names = tuple(f"attribute {k}" for k in range(n_attributes))
    people = rng.integers(0, n // PHOTOGRAPHS, size=n)
    return LabelledLatents(latents, labels, names, people, mirrored=mirrored)


def scikit_learn(problem: Problem, n_timed: int) -> tuple[Floats, float]:
    """The svm normal of everybody, and the seconds that it and its scores take."""
    start = time.perf_counter()
    data, chosen = problem.data, problem.chosen
    assert data.mirrored is not None, "as simulated"
    folds, label = problem.folds[chosen], problem.label[chosen]
    latents = data.latents[chosen].astype(np.float64)
    both = np.concatenate([latents, data.mirrored[chosen]])
    decision = np.empty(len(chosen))
    for fold in range(problem.n_folds + 1):
        kept = np.tile(folds != fold, 2)
        mean, spread = both[kept].mean(axis=0), np.sqrt(both[kept].var(axis=0).mean())
        classifier = LinearSVC(C=SVM_C, dual=False, max_iter=10_000)
        classifier.fit((both[kept] - mean) / spread, np.tile(label, 2)[kept])
        out = (latents[folds == fold] - mean) / spread
        decision[folds == fold] = out @ classifier.coef_[0] + classifier.intercept_[0]
    fitted = time.perf_counter()
    bootstrap(label, decision, data.identities[chosen], n_timed)
    resampled = (time.perf_counter() - fitted) * N_RESAMPLES / n_timed
    return np.asarray(classifier.coef_[0]), fitted - start + resampled


def bootstrap(label: Bools, decision: Floats, identities: Ints, n_resamples: int) -> None:
    """Score resampled people, in Python."""
    people, index = np.unique(identities, return_inverse=True)
    images = np.split(np.argsort(index), np.cumsum(np.bincount(index))[:-1])
    rng = np.random.default_rng(0)
    for _ in range(n_resamples):
        drawn = np.concatenate([images[i] for i in rng.integers(len(people), size=len(people))])
        truth, predicted = label[drawn], decision[drawn] > 0
        for score in (precision_score, recall_score, f1_score):
            score(truth, predicted)
        roc_auc_score(truth, decision[drawn])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
