"""How well the chosen models are read and edited: what the tab "Scores" shows.

Reading comes from the direction file of any model, editing from a comparison that was made before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hublatent.comparison.conclusion import answer_paragraphs
from hublatent.comparison.results import RESULTS_NAME, Comparison
from hublatent.comparison.tables import NONE, scores_table
from hublatent.comparison.words import interval
from hublatent.demo.shelf import OpenModel
from hublatent.stats import Estimate

READING_COLUMNS = ("model", "direction", "accuracy", "AUROC", "examples")
EDITING_COLUMNS = ("model", "best direction", "strength", "leakage", "strong edits")
# Files of a comparison's folder, and what they show.
_FIGURES = (
    ("effect-leakage", "Effect and its price"),
    ("effect", "Effect"),
    ("outcomes", "Outcomes"),
)
COMMAND = "python -m hublatent compare MODEL... --data DATA --out model_cards/comparison"


def find_comparison(folder: Path) -> Comparison | None:
    """The comparison that a folder holds; None where none was made.

    Raises:
        DataError: it is damaged, or of another version.
    """
    return Comparison.load(folder) if (folder / RESULTS_NAME).is_file() else None


def reading_rows(opened: Sequence[OpenModel], attribute: str) -> list[list[str]]:
    """How well each direction of an attribute tells it on people it was not fitted on.

    Args:
        opened: the models.
        attribute: of the directions.

    Returns:
        Rows of READING_COLUMNS, with 95% intervals; those of an unknown attribute are missing.
    """
    return [
        [
            model.name,
            model.directions.method_of(direction),
            _cell(direction.scores.get("accuracy")),
            _cell(direction.scores.get("auroc")),
            NONE if direction.n_positive is None else f"{direction.n_positive:,}",
        ]
        for model in opened
        if model.directions is not None
        for direction in model.directions
        if direction.attribute == attribute
    ]


def editing_rows(comparison: Comparison | None, attribute: str) -> list[list[str]]:
    """Rows of EDITING_COLUMNS, of models that were edited; none of an attribute not compared."""
    if comparison is None or attribute not in comparison.attributes:
        return []
    table = scores_table(comparison, attribute)
    kept = [table.columns.index(name) for name in EDITING_COLUMNS]
    rows = [[row[i] for i in kept] for row in table.plain()]
    return [row for row in rows if row[1] != NONE]


def figures(folder: Path | None, attribute: str) -> list[tuple[str, bytes]]:
    """The figures (title, PNG) that the comparison drew of an attribute, as it wrote them."""
    if folder is None or Path(attribute).name != attribute:
        return []
    titles = {
        f"{title} of {attribute}": folder / f"{kind}-{attribute}.png" for kind, title in _FIGURES
    }
    return [(title, path.read_bytes()) for title, path in titles.items() if path.is_file()]


def note(comparison: Comparison | None, attribute: str) -> str:
    """What a reader of the tables has to know, as Markdown."""
    if comparison is None:
        return f"No comparison of edits is here. It is made by `{COMMAND}`."
    if attribute not in comparison.attributes:
        compared = ", ".join(comparison.attributes)
        return f"Edits of {attribute} were not compared; of {compared} they were."
    verdict = "\n\n".join(answer_paragraphs(comparison)[1:3])
    return (
        f"{verdict}\n\n"
        f"Edits were judged by {comparison.judge.name}, which does nothing else. Strength (σ) and "
        f"leakage where {comparison.thresholds['equal effect']:.0%} of the faces show the "
        "attribute. Models that are not listed were not compared."
    )


def _cell(score: Estimate | None) -> str:
    return NONE if score is None else interval(score)
