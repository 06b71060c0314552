"""The paper's claims, and what became of each here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from hublatent.comparison import claim_tests
from hublatent.comparison.claim_tests import Finding, Verdict
from hublatent.comparison.results import Comparison
from hublatent.stats import Estimate

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what became of it here.

    Attributes:
        key: such as "1a"; claims with one digit belong together.
        short: the claim in a few words, to go on after "that".
        statement: the claim.
        verdict: one of VERDICTS.
        sentence: the numbers that the verdict rests on, in plain words.
        numbers: what was compared -> difference with its interval.
    """

    key: str
    short: str
    statement: str
    verdict: Verdict
    sentence: str
    numbers: Mapping[str, Estimate] = field(default_factory=dict)


CLAIMS: dict[str, tuple[str, str, Callable[[Comparison], Finding]]] = {
    "1a": (
        "β-TCVAE's latents separate the attributes best",
        "β-TCVAE is the most interpretable: a linear SVM separates attributes best in its latents.",
        claim_tests.claim_reads_best,
    ),
    "1b": (
        "β-TCVAE edits best along SVM normals",
        "β-TCVAE is the most interpretable: along SVM normals it gives the clearest edits.",
        claim_tests.claim_edits_best_svm,
    ),
    "1c": (
        "β-TCVAE edits best when every model has its best direction",
        "The same, with each model edited along the method that serves it best.",
        claim_tests.claim_edits_best,
    ),
    "2": (
        "the weight of the KL divergence matters",
        "The weight of the KL divergence decides how interpretable a latent space is.",
        claim_tests.claim_kl_weight,
    ),
    "3a": (
        "StyleGAN2's space has holes between its samples",
        "StyleGAN2's latent space is full of holes: between samples it draws less real faces than "
        "VAEs do.",
        claim_tests.claim_holes_between,
    ),
    "3b": (
        "StyleGAN2's space has holes beyond its samples",
        "StyleGAN2's latent space is full of holes: farther out it decays more than VAEs do.",
        claim_tests.claim_holes_beyond,
    ),
    "3c": (
        "noise in W during training closes StyleGAN2's holes",
        "Noise in W during training smooths StyleGAN2's latent space.",
        claim_tests.claim_w_noise,
    ),
    "4": (
        "edits fail where the face lies far from the boundary",
        "Edits fail where the face lies far from the SVM's boundary.",
        claim_tests.claim_boundary,
    ),
    "5": (
        "class means do worse than the SVM in W+",
        "In W+ the difference of class means edits worse than the SVM's normal.",
        claim_tests.claim_class_means,
    ),
}


def examine_claims(results: Comparison) -> list[Claim]:
    """Test every claim of the paper.

    Args:
        results: what was measured.

    Returns:
        All claims in the paper's order, those that could not be measured included.
    """
    return [
        Claim(key, short, statement, *test(results))
        for key, (short, statement, test) in CLAIMS.items()
    ]
