"""Normal of a linear support vector machine: the paper's direction."""

from __future__ import annotations

from hublatent.discovery.methods.linear import fit_linear, squared_hinge
from hublatent.discovery.methods.problem import Fits, Problem

SVM_C = 0.01


def svm(problem: Problem) -> Fits:
    """Normal of the linear SVM (the paper, section 5; Cortes & Vapnik 1995)."""
    return fit_linear(problem, squared_hinge, SVM_C)
