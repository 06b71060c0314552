"""audit(): one page on one direction: what it does, what it costs, how far it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hublatent.checkpoint import folder_name
from hublatent.data import DataSource
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery import FROM_LABELS, cross_validate
from hublatent.editing import edit
from hublatent.errors import DataError, DirectionError, HublatentError, find_name, unknown_name
from hublatent.evaluation.edits import STRENGTHS, Faces, drawn, edit_rows, faces_without, on_device
from hublatent.evaluation.figures import audit_plot
from hublatent.evaluation.judges import WHOLE_ABOVE, Judges
from hublatent.evaluation.outcomes import NULL_PERCENTILE, probability
from hublatent.evaluation.report import PAGE_NAME, number, page, share
from hublatent.evaluation.subjects import Subject
from hublatent.figures import png_uri
from hublatent.model import LatentModel
from hublatent.models import load
from hublatent.perception.faces import SAME_PERSON_DISTANCE
from hublatent.stats import Floats
from hublatent.storage import write_text

N_NULL, MAX_NULL_FACES = 20, 20
MAX_REFIT = 4000  # pictures that refits learn from: encoding all would take most of the time
HOLDS = 0.9  # share of faces that are whole within the safe range
READINGS = {"target": "P", "leakage": "leakage, P", "logit leakage": "leakage, logit",
            "identity": "same person", "coherence": "whole"}  # fmt: skip
COLUMNS = ("strength", "P", "null band", "leakage, P", "leakage, logit", "same person", "whole")


@dataclass(frozen=True, eq=False)
class Audit:
    """What was measured: a row of COLUMNS for each strength, and in a sentence how stable it is."""

    direction: Direction
    curve: pd.DataFrame
    stability: str

    @property
    def safe_up_to(self) -> float | None:
        """The largest strength up to which HOLDS of the faces are whole; None: not even at 0."""
        holds = np.cumprod(self.curve["whole"] >= HOLDS).astype(bool)
        return float(self.curve["strength"][holds].iloc[-1]) if holds.any() else None

    def answer(self) -> str:
        """What it comes to, in three sentences."""
        curve, safe = self.curve, self.safe_up_to
        first, last = curve.iloc[0], curve.iloc[-1]
        beyond = curve["strength"][(curve["P"] - first["P"]).abs() > curve["null band"]]
        effect = "no more than random ones"
        if len(beyond):
            effect = f"beyond random ones from {beyond.iloc[0]:g}σ"
        held = "at no strength, not even unedited" if safe is None else f"up to {safe:g}σ"
        return (
            f"{self.direction.name} takes P from {first['P']:.2f} to {last['P']:.2f} at "
            f"{last['strength']:g}σ, {effect}. Faces hold {held}. {self.stability}"
        )


def choose(given: str, model: LatentModel, attribute: str | None, method: str | None) -> Direction:
    """The direction meant, of a file, a folder or a Hub id; DirectionError if there are several."""
    found = DirectionSet.open(given, model)
    if attribute is None and len(found.attributes) != 1:
        names = ", ".join(found.attributes[:5])
        raise DirectionError(
            f"{given} holds {len(found.attributes)} attributes ({names}); name one, with "
            "--attribute."
        )
    name = attribute or found.attributes[0]
    return (found.default(name) if method is None else found[name, method]).with_sigma(model)


def measure(
    subject: Subject, judges: Judges, direction: Direction, n_faces: int = 60, seed: int = 0
) -> Audit:
    """Edit test faces along a direction and have them judged.

    Raises:
        HublatentError: the judge does not know the attribute, or too few faces lack it.
    """
    known = judges.classifier.attribute_names
    attribute = find_name(direction.attribute, known)
    if attribute is None:
        raise HublatentError(
            f"The judge {judges.name} cannot see what this direction does. "
            + unknown_name("attribute", direction.attribute, known)
        )
    without, having = faces_without(subject, judges, attribute, n_faces, seed)
    rows = edit_rows(subject, judges, attribute, [direction], without, having)
    curve = _curve(rows[rows["strength"].notna() & (rows["face"] != "")])
    curve["null band"] = _null_band(subject, judges, attribute, direction, without, seed)
    return Audit(direction, curve, stability(subject, direction, attribute, seed))


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    """(S, ...): the mean over faces of each of COLUMNS but the null band."""
    grid = rows.pivot_table("value", ["strength", "face"], "reading")
    grid["target"] = probability(grid["target"])
    looked = grid["identity"].notna()
    grid["identity"] = (grid["identity"] < SAME_PERSON_DISTANCE).where(looked)
    grid["coherence"] = (grid["coherence"] >= WHOLE_ABOVE).where(looked)
    means = grid.astype(float).groupby("strength").mean()
    return means.rename(columns=READINGS).rename_axis(columns=None).reset_index()


def _null_band(
    subject: Subject, judges: Judges, attribute: str, direction: Direction, faces: Faces, seed: int
) -> Floats:
    """(S,): the |change of P| that 95% of random directions of equal length stay below."""
    generator = torch.Generator().manual_seed(seed)
    column = judges.classifier.index(attribute)
    latents = on_device(subject.model, faces.latents[:MAX_NULL_FACES])

    def mean(moved: torch.Tensor) -> float:
        return float(judges.read(drawn(subject.model, moved)).probabilities[:, column].mean())

    start, changes = mean(latents), np.zeros((N_NULL, len(STRENGTHS)))
    touched = direction.vector.any(dim=-1, keepdim=True)
    for i in range(N_NULL):
        noise = torch.randn(direction.vector.shape, generator=generator) * touched
        random = replace(direction, vector=noise * direction.squared_norm**0.5 / noise.norm())
        for j, strength in enumerate(STRENGTHS[1:], start=1):
            changes[i, j] = abs(mean(edit(latents, random, strength)) - start)
    return np.percentile(changes, NULL_PERCENTILE, axis=0)


def stability(subject: Subject, direction: Direction, attribute: str, seed: int = 0) -> str:
    """How near refits without a fifth of the people are to the direction, in a sentence."""
    if direction.method not in FROM_LABELS or not subject.model.has_encoder:
        return f"Its stability is unknown: {direction.method} cannot be refitted here."
    indices = np.random.default_rng(seed).permutation(subject.learnt)[:MAX_REFIT]
    try:
        data = subject.labelled(np.sort(indices))
        fits = cross_validate(data, attribute, direction.method, model=subject.model, seed=seed)
    except DataError as error:
        return f"Its stability is unknown: {error}"
    rows = fits.rows.reshape(len(fits.rows), -1)
    vector = direction.vector.double().numpy()
    if fits.rows.ndim == 2 and vector.ndim == 2:  # fitted to latents averaged over layers
        vector = vector.sum(axis=0)
    cosines = rows @ (vector.ravel() / np.linalg.norm(vector))
    among = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    return (
        f"Refits on folds of {len(indices)} pictures have cosines of {cosines.min():.2f} to "
        f"{cosines.max():.2f} with it, {among.min():.2f} to {among.max():.2f} among themselves."
    )


def write_page(found: Audit, folder: Path, judge: str) -> Path:
    """Write the page; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = [
        (f"{row['strength']:g}σ", *(number(row[c]) for c in COLUMNS[1:-2]),
         share(row["same person"]), share(row["whole"]))
        for _, row in found.curve.iterrows()
    ]  # fmt: skip
    html = page(
        "audit.html.jinja", name=found.direction.name, answer=found.answer(),
        table=[COLUMNS, *cells], uri=png_uri(audit_plot(found.curve)), judge=judge,
        holds=share(HOLDS), n_null=N_NULL,
    )  # fmt: skip
    write_text(folder / PAGE_NAME, html)
    return folder / PAGE_NAME


def audit(
    given: str, model: str, data: DataSource, out: Path, *, judge: str,
    attribute: str | None = None, method: str | None = None, n_faces: int = 60, seed: int = 0,
) -> Audit:  # fmt: skip
    """Audit a direction and write the page; arguments as of `hublatent audit`."""
    loaded = load(model).eval()
    direction = choose(given, loaded, attribute, method)
    dataset = data.load(loaded.image_size)
    name = folder_name(Path(model))
    subject = Subject(name, name, loaded, dataset, Path(model))
    judges = Judges.load(judge, dataset)
    found = measure(subject, judges, direction, n_faces, seed)
    write_page(found, out, judges.name)
    return found
