"""How the latents' mean changes with an attribute: mean-difference, joint and supervised-pca."""

from __future__ import annotations

import numpy as np

from hublatent.discovery.methods.problem import Fits, Problem, once
from hublatent.stats import Floats


@once
def moments(problem: Problem) -> tuple[Floats, Floats, Floats]:
    """`class_sums` of the latents, which several methods need."""
    return problem.class_sums()


def mean_difference(problem: Problem) -> Fits:
    """Mean of the positives minus mean of the negatives."""
    counts, sums, _ = moments(problem)
    means = sums / counts  # (F + 1, 2, D)
    return Fits(means[:, 1] - means[:, 0])


def joint(problem: Problem) -> Fits:
    """How the latent moves when the attribute changes and the others do not.

    Its coefficient in the least-squares regression of the latents on all attributes.
    """
    if "coefficients" not in problem.shared:
        problem.shared["coefficients"] = coefficients(problem)
    found: Floats = problem.shared["coefficients"]
    return Fits(found[:, problem.data.column(problem.attribute)])


def coefficients(problem: Problem) -> Floats:
    """(F + 1, K, D): solve min_B sum |z - (1, labels) B|^2 without each fold, then on everybody."""
    everyone = np.arange(len(problem.data.latents))
    labels = np.column_stack([np.ones(len(everyone)), problem.data.labels])  # (N, 1 + K)
    sums = problem.sums(everyone, lambda i, z: (labels[i], np.column_stack([labels[i], z])))
    gram, moved = np.split(sums, [labels.shape[1]], axis=2)
    # The pseudo-inverse gives attributes that nobody shows, or two that are one, a finite answer.
    return (np.linalg.pinv(gram, hermitian=True) @ moved)[:, 1:]


def supervised_pca(problem: Problem) -> Fits:
    """Covariance of the latents with the quantity behind the attribute, over all images.

    The one supervised principal component (Barshan et al. 2011) under a measured quantity, as Slot
    et al. 2021 edit faces; of a label, where no quantity is known, the difference of class means.
    """
    data = problem.data
    known = data.labels if data.targets is None else data.targets
    target = np.asarray(known[:, data.column(problem.attribute)], float)
    given = np.stack([np.ones(len(target)), target - target.mean()], axis=1)  # (N, 2)
    sums = problem.sums(
        np.arange(len(target)), lambda i, z: (given[i], np.column_stack([np.ones(len(z)), z]))
    )  # (F + 1, 2, 1 + D): n and the sum of z; the sums of y and of y z
    n, total = sums[:, :1, 0], sums[:, 1, :1]
    return Fits((sums[:, 1, 1:] - total / n * sums[:, 0, 1:]) / n)
