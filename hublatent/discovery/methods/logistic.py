"""Normal of a logistic regression."""

from __future__ import annotations

from hublatent.discovery.methods.linear import fit_linear, log_loss
from hublatent.discovery.methods.problem import Fits, Problem

# The logistic loss bends an eighth as much as the squared hinge, so C is about eight times larger.
LOGISTIC_C = 0.1


def logistic(problem: Problem) -> Fits:
    """Normal of a logistic regression."""
    return fit_linear(problem, log_loss, LOGISTIC_C)
