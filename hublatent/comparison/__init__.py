"""Compare models: how well an attribute is read in the latents, and how well it is edited there.

run.py           compare(): everything below, in order; resumes
results.py       what is found, as plain values; storage.py makes files of them
subjects.py      which folders hold models; their pictures and directions
latents.py       latents of image sets and of samples
separability.py  Table 1: reading an attribute; table.py measures it for all models
judge.py         what the judge says of a picture
editability.py   edits at every strength, compared at equal effect; model_edits.py orders them
controls.py      directions that mean nothing
outcomes.py      strong, no effect, decohered
spaces.py        holes, cosines, distance from the boundary
claims.py        the paper's claims, tested; conclusion.py says in words what the numbers support
report.py        report.md and a page that opens on its own; tables.py and plots.py fill it
card_figures.py  what of it stands in each model's card
"""

from __future__ import annotations

from hublatent.comparison.results import Comparison
from hublatent.comparison.run import compare

__all__ = ["Comparison", "compare"]
