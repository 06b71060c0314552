"""Linear classifiers, svm and logistic, and the pattern that belongs to the svm filter.

Newton's method fits one without each fold and one to all examples. Latents are centred, and the
intercept is not penalised, so that the normal does not depend on where the latents lie. One pass
over the latents gives every fold's gradient; the folds start from the classifier of all examples
and share its curvature, which is again a sum over folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hublatent.discovery.methods.means import moments
from hublatent.discovery.methods.problem import Fits, Problem, once, without_each
from hublatent.errors import DataError
from hublatent.stats import Floats, Ints

# Margins y (<w, z> + b) -> the loss, its slope and its curvature, elementwise.
Loss = Callable[[Floats], tuple[Floats, Floats, Floats]]

SVM_C = 0.01
# The logistic loss bends an eighth as much as the squared hinge, so C is about eight times larger.
LOGISTIC_C = 0.1
MAX_STEPS = 50
TOLERANCE = 1e-4  # the last step, relative to the weights
SLOW = 0.3  # a step that leaves more of the gradient than this has outdated curvature
INTERCEPT_PENALTY = 1e-6  # only so that the curvature stays invertible where nothing is misread


@once
def svm(problem: Problem) -> Fits:
    """Normal of the linear SVM (the paper, section 5; Cortes & Vapnik 1995)."""
    return fit_linear(problem, squared_hinge, SVM_C)


def logistic(problem: Problem) -> Fits:
    """Normal of a logistic regression."""
    return fit_linear(problem, log_loss, LOGISTIC_C)


def pattern(problem: Problem) -> Fits:
    """How the latent moves when the attribute changes (Haufe et al. 2014, eq. 6).

    The covariance of the balanced set times the svm filter.
    """
    filters = svm(problem).rows  # (F + 1, D)
    products = problem.sums(problem.chosen, lambda i, z: (z @ filters.T, z))
    own = np.einsum("ffd->fd", products)  # without each fold, the sum of z <z, filter>
    counts, sums = (total.sum(axis=1) for total in moments(problem)[:2])
    mean = sums / counts
    centred = own - counts * mean * (mean * filters).sum(axis=1, keepdims=True)
    return Fits(centred / (counts - 1))


def squared_hinge(margins: Floats) -> tuple[Floats, Floats, Floats]:
    """max(0, 1 - m)^2."""
    gap = np.maximum(1 - margins, 0)
    return gap * gap, -2 * gap, 2.0 * (gap > 0)


def log_loss(margins: Floats) -> tuple[Floats, Floats, Floats]:
    """log(1 + exp(-m))."""
    wrong = 0.5 - 0.5 * np.tanh(margins / 2)  # sigmoid(-m), without overflow
    return np.logaddexp(0, -margins), -wrong, wrong * (1 - wrong)


def fit_linear(problem: Problem, loss: Loss, c: float) -> Fits:
    """Minimise |w|^2 / 2 + c sum loss(y (<w, z> + b)) for centred latents at unit spread.

    One number scales all dimensions, so that c means the same in every model; standardising each
    would lift the noise of unused ones to the size of the rest.
    """
    objective = _Objective(problem, loss, c)
    n_folds = problem.n_folds
    everything = _minimise(objective, np.zeros((1, objective.width + 1)), np.array([n_folds]))
    start = np.repeat(everything, n_folds, axis=0)
    of_folds = _minimise(objective, start, np.arange(n_folds), objective.curvature(everything[0]))
    theta = np.concatenate([of_folds, everything])
    rows = theta[:, :-1] / objective.scale
    return Fits(rows, theta[:, -1] - rows @ (problem.data.centre + objective.mean))


class _Objective:
    """The regularised loss of balanced examples without some fold; theta is (w, b)."""

    def __init__(self, problem: Problem, loss: Loss, c: float) -> None:
        self.problem, self.loss, self.c = problem, loss, c
        counts, sums, squares = (total[-1].sum(axis=0) for total in moments(problem))
        self.mean = sums / counts  # (D,), of latents less their centre
        self.width = len(self.mean)
        self.scale = float(np.sqrt((squares / counts - self.mean**2).mean().clip(0)))
        if not self.scale > 1e-6 * float(np.abs(problem.data.centre).max()):
            raise DataError(f"{problem.attribute}: all latents are the same; nothing to learn.")
        self.penalty = np.append(np.ones(self.width), INTERCEPT_PENALTY)

    def blocks(self) -> Iterator[tuple[Floats, Floats, Ints]]:
        """Standardised latents (b, D), signs of the labels (b,) and folds (b,)."""
        signs = np.where(self.problem.label, 1, -1).astype(np.float32)
        mean, scale = self.mean.astype(np.float32), np.float32(self.scale)
        for seen, latents in self.problem.data.blocks(self.problem.chosen):
            latents -= mean
            latents /= scale
            yield latents, signs[seen], self.problem.folds[seen]

    def evaluate(self, theta: Floats, left_out: Ints) -> tuple[Floats, Floats]:
        """Values (P,) and gradients (P, D + 1) of P problems, each without a fold."""
        value = 0.5 * (self.penalty * theta**2).sum(axis=1)
        gradient = self.penalty * theta
        weights = theta.astype(np.float32)
        for latents, signs, folds in self.blocks():
            margins = signs[:, None] * (latents @ weights[:, :-1].T + weights[:, -1])  # (b, P)
            losses, slopes, _ = self.loss(margins)
            kept = folds[:, None] != left_out
            slopes = slopes * kept * signs[:, None]
            value += self.c * (losses * kept).sum(axis=0, dtype=np.float64)
            gradient[:, :-1] += self.c * (slopes.T @ latents)
            gradient[:, -1] += self.c * slopes.sum(axis=0, dtype=np.float64)
        return value, gradient

    def curvature(self, theta: Floats) -> Floats:
        """(F + 1, D + 1, D + 1): the Hessians at one theta without each fold, then of all."""
        parts = np.zeros((self.problem.n_folds, self.width + 1, self.width + 1))
        weights = theta.astype(np.float32)
        for latents, signs, folds in self.blocks():
            _, _, bend = self.loss(signs * (latents @ weights[:-1] + weights[-1]))
            for fold in range(self.problem.n_folds):
                rows = np.flatnonzero((folds == fold) & (bend > 0))
                design = np.column_stack([latents[rows], np.ones(len(rows), np.float32)])
                design *= np.sqrt(self.c * bend[rows])[:, None].astype(np.float32)
                parts[fold] += design.T @ design
        return without_each(parts) + np.diag(self.penalty)


def _minimise(
    objective: _Objective, theta: Floats, omitted: Ints, known: Floats | None = None
) -> Floats:
    """Newton's method for P problems at once, from theta (P, D + 1), each without a fold.

    Their curvature is renewed where it has become too old; `known` is that at the first theta.
    """
    theta = theta.copy()
    curvature = (objective.curvature(theta[0]) if known is None else known)[omitted]
    value, gradient = objective.evaluate(theta, omitted)
    active = np.arange(len(theta))
    for _ in range(MAX_STEPS):
        step = np.linalg.solve(curvature[active], gradient[active, :, None])[..., 0]
        last = np.linalg.norm(step, axis=1) <= TOLERANCE * np.linalg.norm(theta[active], axis=1)
        active, step = active[~last], step[~last]
        if not len(active):
            break
        before = np.linalg.norm(gradient[active], axis=1)
        for length in 0.5 ** np.arange(12):
            moved, slopes = objective.evaluate(theta[active] - length * step, omitted[active])
            # Halving all together keeps the pass shared; rounding alone is no reason to.
            if (moved <= value[active] * (1 + 1e-6)).all():
                break
        theta[active] -= length * step
        value[active], gradient[active] = moved, slopes
        for k in active[np.linalg.norm(slopes, axis=1) > SLOW * before]:
            curvature[k] = objective.curvature(theta[k])[omitted[k]]
    return theta
