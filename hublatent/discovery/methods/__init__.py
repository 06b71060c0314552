"""The methods that find a direction: a Problem in, one vector for each fold held out.

Filters answer "how is the attribute read", patterns "how does the latent move" (Haufe et al. 2014,
doi:10.1016/j.neuroimage.2013.10.067). Which of them edits well is an empirical question:

    svm              normal of a linear support vector machine; the paper's direction
    logistic         normal of a logistic regression
    mean-difference  difference of the two class means
    pattern          covariance of the latents times the svm filter
    joint            coefficient of the attribute when latents are regressed on all attributes

Others need more than labels, or less:

    pairs            what a few pairs of images of one person, without and with it, share (FLAME)
    assessor         learned through the model against a classifier's logit (GANalyze)
    components       the nearest eigenvector of the model's latent covariance (GANSpace)
    factorisation    the nearest factor of the first weights (SeFa)
    axis             the dimension that a model reserves for the attribute (LSA-VAE)
    supervised-pca   covariance of the latents with a quantity
    stylespace       the most relevant style channels, of latents that are styles

A new method is a function, in the file of its family or one of its own, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable

from hublatent.discovery.methods.assessor import assessor
from hublatent.discovery.methods.components import axis, components, factorisation
from hublatent.discovery.methods.linear import logistic, pattern, svm
from hublatent.discovery.methods.means import joint, mean_difference, supervised_pca
from hublatent.discovery.methods.pairs import pairs
from hublatent.discovery.methods.problem import Fits, Problem
from hublatent.discovery.methods.stylespace import stylespace

__all__ = ["FILTERS", "FROM_LABELS", "METHODS", "Fits", "Problem"]

METHODS: dict[str, Callable[[Problem], Fits]] = {
    "svm": svm,
    "logistic": logistic,
    "mean-difference": mean_difference,
    "pattern": pattern,
    "joint": joint,
    "pairs": pairs,
    "assessor": assessor,
    "components": components,
    "factorisation": factorisation,
    "axis": axis,
    "supervised-pca": supervised_pca,
    "stylespace": stylespace,
}
# Those that say how the attribute is read; the others say how the latent moves.
FILTERS = ("svm", "logistic")
# Those that need labelled latents of any model, and nothing else.
FROM_LABELS = ("svm", "logistic", "mean-difference", "pattern", "joint")
