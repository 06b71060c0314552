"""DCI: disentanglement, completeness, informativeness (Eastwood and Williams 2018, section 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hublatent.errors import HublatentError, unknown_name
from hublatent.evaluation.metrics.arrays import checked, halves
from hublatent.stats import Floats

EPSILON = 1e-11
ESTIMATORS = ("gradient-boosting", "random-forest", "logistic")


def dci(
    latents: ArrayLike,
    factors: ArrayLike,
    estimator: str = "gradient-boosting",
    seed: int = 0,
) -> dict[str, float]:
    """Does each dimension serve one factor, each factor one dimension, and are they predicted?

    The scores depend on the estimator, by 0.1 to 0.3: name it wherever they are printed.
    "gradient-boosting" is the literature's and takes minutes a factor.

    Returns:
        "disentanglement", "completeness" and "informativeness" (accuracy on the third of the rows
        not fitted on), from 0 to 1.

    Raises:
        HublatentError: there is no such estimator.
    """
    if estimator not in ESTIMATORS:
        raise HublatentError(unknown_name("estimator", estimator, ESTIMATORS))
    z, v = checked(latents, factors)
    train, test = halves(len(z), seed)
    importance = np.empty((z.shape[1], v.shape[1]))
    accuracy = np.empty(v.shape[1])
    for k, values in enumerate(v.T):
        fitted = _estimator(estimator, seed).fit(z[train], values[train])
        importance[:, k] = _importance(fitted)
        accuracy[k] = fitted.score(z[test], values[test])
    disentanglement, completeness = disentanglement_and_completeness(importance)
    return {
        "disentanglement": disentanglement,
        "completeness": completeness,
        "informativeness": float(accuracy.mean()),
    }


def disentanglement_and_completeness(importance: Floats) -> tuple[float, float]:
    """Both from how much each dimension counts for each factor, importance (D, K).

    D = sum over d of (1 - H_K(P_d)) rho_d, and C the same over factors, with H to base K and D
    """
    return _concentration(importance), _concentration(importance.T)


def _concentration(importance: Floats) -> float:
    """1 - entropy of each row, to the base of its length; rows weigh by their sums."""
    if importance.shape[1] == 1 or importance.sum() == 0:
        return 1.0 if importance.sum() else 0.0
    shares = (importance + EPSILON) / (importance + EPSILON).sum(axis=1, keepdims=True)
    entropy = -(shares * np.log(shares)).sum(axis=1) / np.log(importance.shape[1])
    return float(((1 - entropy) * importance.sum(axis=1)).sum() / importance.sum())


def _importance(fitted: Any) -> Floats:
    if hasattr(fitted, "feature_importances_"):
        return np.abs(fitted.feature_importances_)
    return np.abs(fitted[-1].coef_).mean(axis=0)


def _estimator(name: str, seed: int) -> Any:
    """One of ESTIMATORS, not fitted."""
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "gradient-boosting":
        return GradientBoostingClassifier(random_state=seed)
    if name == "random-forest":
        return RandomForestClassifier(max_features=None, random_state=seed)
    lasso = LogisticRegression(C=0.1, l1_ratio=1, solver="saga", tol=1e-2, random_state=seed)
    return make_pipeline(StandardScaler(), lasso)
