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
from hublatent.evaluation.coherence import WHOLE_ABOVE
from hublatent.evaluation.edits import STRENGTHS, Faces, drawn, edit_rows, faces_without, on_device
from hublatent.evaluation.figures import audit_plot
from hublatent.evaluation.judges import Judges
from hublatent.evaluation.outcomes import NULL_PERCENTILE, SAME_PERSON, probability
from hublatent.evaluation.report import PAGE_NAME, number, page, share
from hublatent.evaluation.subjects import Subject
from hublatent.figures import png_uri
from hublatent.model import LatentModel
from hublatent.models import load
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
    """What was measured.

    Attributes:
        direction: the one audited.
        curve: a row for each strength, with COLUMNS.
        stability: of refits over folds, in a sentence.
    """

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
        last, rise = self.curve.iloc[-1], self.curve["P"] - self.curve["P"].iloc[0]
        beyond = rise.abs() > self.curve["null band"]
        effect = f"beyond random ones from {self.curve['strength'][beyond].iloc[0]:g}σ" \
            if beyond.any() else "no more than random ones"  # fmt: skip
        safe = self.safe_up_to
        held = f"up to {safe:g}σ" if safe is not None else "at no strength, not even unedited"
        return (
            f"{self.direction.name} takes P from {self.curve['P'].iloc[0]:.2f} to {last['P']:.2f} "
            f"at {last['strength']:g}σ, {effect}. Faces hold {held}. {self.stability}"
        )


def choose(given: str, model: LatentModel, attribute: str | None, method: str | None) -> Direction:
    """The direction meant, of a file, a folder or a Hub id.

    Raises:
        DirectionError: it is of another model, unknown, or one of several.
    """
    found = DirectionSet.open(given, model)
    if attribute is None:
        if len(found.attributes) != 1:
            names = ", ".join(found.attributes[:5])
            raise DirectionError(
                f"{given} holds {len(found.attributes)} attributes ({names}); name one, with "
                "--attribute."
            )
        attribute = found.attributes[0]
    chosen = found.default(attribute) if method is None else found[attribute, method]
    return chosen.with_sigma(model)


def measure(
    subject: Subject, judges: Judges, direction: Direction, n_faces: int = 60, seed: int = 0
) -> Audit:
    """Edit test faces along a direction and have them judged.

    Raises:
        HublatentError: the judge or the data do not know the attribute, or too few faces lack it.
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
    reading, value = rows["reading"], rows["value"]
    shown = {
        "target": probability(value), "identity": value < SAME_PERSON,
        "coherence": value >= WHOLE_ABOVE,
    }  # fmt: skip
    told = np.select([reading == name for name in shown], list(shown.values()), value)
    grid = rows.assign(value=told).pivot_table("value", "strength", "reading")
    return grid.rename(columns=READINGS).rename_axis(columns=None).reset_index()


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
