"""The methods that fit a direction: labelled codes in, one vector of the latent space out.

Filters answer "how is the attribute read", patterns "how does the latent move" (Haufe et al. 2014,
doi:10.1016/j.neuroimage.2013.10.067). Which of them edits well is an empirical question:

    svm              normal of a linear support vector machine; the paper's direction
    logistic         normal of a logistic regression
    mean-difference  difference of the two class means
    pattern          covariance of the latents times the svm filter
    joint            coefficient of the attribute when latents are regressed on all attributes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hublatent.stats import Bools, Floats, Ints

# Ends a method's name where the codes were projected pictures, not samples or an encoder's.
PROJECTED_SUFFIX = "-projected"
SVM_C = 0.01
# The logistic loss bends an eighth as much as the squared hinge, so C is about eight times larger.
LOGISTIC_C = 0.1


@dataclass(frozen=True, eq=False)
class Population:
    """All examples that a fit may see, at their natural prevalence.

    Attributes:
        codes: (M, D), of every example; one or several rounds of the N images.
        labels: (N, K), presence of each attribute.
        rows: which rows of the codes.
    """

    codes: Floats
    labels: Bools
    rows: Ints

    @cached_property
    def coefficients(self) -> Floats:
        """(K, D): each attribute's coefficient when codes are regressed on all attributes."""
        labels = self.labels[self.rows % len(self.labels)]
        design = np.column_stack([np.ones(len(labels)), labels])
        solution, *_ = np.linalg.lstsq(design, self.codes[self.rows], rcond=None)
        return np.asarray(solution[1:])


@dataclass(frozen=True, eq=False)
class Examples:
    """What a method is fitted on: the balanced examples of an attribute, and all of them.

    Attributes:
        codes: (n, D), the balanced set.
        labels: (n,), the attribute on it.
        population: every example.
        column: the attribute's column of the population's labels.
    """

    codes: Floats
    labels: Bools
    population: Population
    column: int

    @cached_property
    def svm_normal(self) -> Floats:
        """(D,): normal of the linear SVM, which two methods need."""
        from sklearn.svm import LinearSVC

        fit = LinearSVC(C=SVM_C, dual=False, max_iter=10_000).fit(_scaled(self.codes), self.labels)
        return np.asarray(fit.coef_[0])


def svm(examples: Examples) -> Floats:
    """Normal of the linear SVM (the paper, section 5; Cortes & Vapnik 1995)."""
    return examples.svm_normal


def logistic(examples: Examples) -> Floats:
    """Normal of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=LOGISTIC_C, max_iter=1000).fit(
        _scaled(examples.codes), examples.labels
    )
    return np.asarray(fit.coef_[0])


def mean_difference(examples: Examples) -> Floats:
    """Mean of the positives minus mean of the negatives."""
    codes, labels = examples.codes, examples.labels
    return np.asarray(codes[labels].mean(axis=0) - codes[~labels].mean(axis=0))


def pattern(examples: Examples) -> Floats:
    """Covariance of the latents times the svm filter (Haufe et al. 2014, eq. 6)."""
    return np.asarray(np.cov(examples.codes.T) @ examples.svm_normal)


def joint(examples: Examples) -> Floats:
    """The attribute's coefficient in the least-squares regression of latents on all attributes."""
    return examples.population.coefficients[examples.column]


def _scaled(codes: Floats) -> Floats:
    """Divide by one number for all dimensions, so that C means the same in every model.

    Standardising each dimension would lift the noise of unused ones to the size of the rest.
    """
    return codes / np.sqrt(codes.var(axis=0).mean())


METHODS: dict[str, Callable[[Examples], Floats]] = {
    "svm": svm,
    "logistic": logistic,
    "mean-difference": mean_difference,
    "pattern": pattern,
    "joint": joint,
}
