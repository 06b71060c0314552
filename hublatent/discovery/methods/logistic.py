"""Normal of a logistic regression."""

from __future__ import annotations

from hublatent.discovery.methods.problem import Fits, Problem
from hublatent.discovery.methods.svm import linear

# The logistic loss bends an eighth as much as the squared hinge, so C is about eight times larger.
LOGISTIC_C = 0.1


def logistic(problem: Problem) -> Fits:
    """Normal of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    return linear(problem, LogisticRegression(C=LOGISTIC_C, max_iter=1000))
