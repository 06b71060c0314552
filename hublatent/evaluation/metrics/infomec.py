"""InfoMEC: modularity, explicitness, compactness (Hsu et al. 2023, arXiv:2305.18378, section 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hublatent.errors import DataError
from hublatent.evaluation.metrics.arrays import checked
from hublatent.evaluation.metrics.mig import entropies
from hublatent.stats import Floats, Ints

N_NEIGHBOURS = 10
ACTIVE_SHARE = 1 / 20


def infomec(
    latents: ArrayLike, factors: ArrayLike, balanced: bool = True, seed: int = 0
) -> dict[str, float]:
    """Does a dimension tell of one factor, a factor lie in one dimension, and is it linear?

    Dimensions of less than a twentieth of the widest one's range are left out. `balanced`: values
    weigh alike in the classifiers behind explicitness, as in the paper; where some are rare, as
    among attributes, that makes it negative.

    Returns:
        "modularity", "explicitness" and "compactness", at most 1; modularity is NaN for a single
        factor, compactness for a single active dimension.

    Raises:
        DataError: no dimension varies.
    """
    z, v = checked(latents, factors)
    ranges = np.ptp(z, axis=0)
    if ranges.max() == 0:
        raise DataError("No dimension of the latents varies.")
    z = z[:, ranges > ranges.max() * ACTIVE_SHARE]
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    share = _information_shares(z, v, seed)  # (K, D)
    return {
        "modularity": _ratio(share),
        "explicitness": _explicitness(z, v, balanced),
        "compactness": _ratio(share.T),
    }


def _information_shares(latents: Floats, factors: Ints, seed: int) -> Floats:
    """I(z_d; s_k) / H(s_k): (K, D), by nearest neighbours (Kraskov et al. 2004)."""
    from sklearn.feature_selection import mutual_info_classif

    information = [
        mutual_info_classif(latents, column, n_neighbors=N_NEIGHBOURS, random_state=seed)
        for column in factors.T
    ]
    return np.stack(information) / entropies(factors)[:, None]


def _ratio(share: Floats) -> float:
    """(mean over columns of max / sum, less 1 / rows) / (1 - 1 / rows)."""
    rows = len(share)
    total = share.sum(axis=0)
    if rows == 1 or not total.any():
        return float("nan")
    largest = share.max(axis=0)[total > 0] / total[total > 0]
    return float((largest.mean() - 1 / rows) / (1 - 1 / rows))


def _explicitness(latents: Floats, factors: Ints, balanced: bool) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    weight = "balanced" if balanced else None
    found = []
    for column in factors.T:
        losses = []
        for inputs in (latents, np.zeros((len(latents), 1))):
            fit = LogisticRegression(C=np.inf, class_weight=weight, max_iter=1000)
            losses.append(log_loss(column, fit.fit(inputs, column).predict_proba(inputs)))
        conditional, marginal = losses
        found.append((marginal - conditional) / marginal)
    return float(np.mean(found))
