"""Normal of a linear support vector machine: the paper's direction."""

from __future__ import annotations

import numpy as np

from hublatent.discovery.methods.problem import Fits, Problem

SVM_C = 0.01


def svm(problem: Problem) -> Fits:
    """Normal of the linear SVM (the paper, section 5; Cortes & Vapnik 1995)."""
    from sklearn.svm import LinearSVC

    return linear(problem, LinearSVC(C=SVM_C, dual=False, max_iter=10_000))


def linear(problem: Problem, classifier: object) -> Fits:
    rows, intercepts = [], []
    parts = [*problem.blocks()]
    latents = np.concatenate([p[0] for p in parts]).astype(np.float64)
    labels = np.concatenate([p[1] for p in parts])
    folds = np.concatenate([p[2] for p in parts])
    for fold in range(problem.n_folds + 1):
        x, y = latents[folds != fold], labels[folds != fold]
        mean, scale = x.mean(axis=0), np.sqrt(x.var(axis=0).mean())
        classifier.fit((x - mean) / scale, y)  # type: ignore[attr-defined]
        rows.append(classifier.coef_[0] / scale)  # type: ignore[attr-defined]
        intercepts.append(classifier.intercept_[0] - rows[-1] @ mean)  # type: ignore[attr-defined]
    return Fits(np.stack(rows), np.array(intercepts))
