"""Scores of disentanglement: latents (N, D) and factors (N, K) of integers -> named numbers.

They are defined for generative factors that vary independently. Attributes of photographs do not:
scores on them are to be called "attribute-mig" and so on, beside `label_correlations`.
"""

from __future__ import annotations

from collections.abc import Callable

from hublatent.evaluation.metrics.arrays import label_correlations
from hublatent.evaluation.metrics.betavae_score import betavae_score
from hublatent.evaluation.metrics.dci import dci
from hublatent.evaluation.metrics.factorvae_score import factorvae_score
from hublatent.evaluation.metrics.infomec import infomec
from hublatent.evaluation.metrics.linear_separability import linear_separability
from hublatent.evaluation.metrics.mig import mig
from hublatent.evaluation.metrics.path_length import path_length
from hublatent.evaluation.metrics.sap import sap

# What measures latents against factors alone; a new metric is its file and a line here.
METRICS: dict[str, Callable[..., dict[str, float]]] = {
    "mig": mig,
    "sap": sap,
    "dci": dci,
    "factorvae-score": factorvae_score,
    "betavae-score": betavae_score,
    "infomec": infomec,
}

__all__ = [
    "METRICS",
    "betavae_score",
    "dci",
    "factorvae_score",
    "infomec",
    "label_correlations",
    "linear_separability",
    "mig",
    "path_length",
    "sap",
]
