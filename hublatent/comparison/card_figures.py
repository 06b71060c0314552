"""What of a comparison stands in a model's own card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hublatent.checkpoint import folder_name
from hublatent.comparison.results import TEST, TRAINING, Comparison, Edits
from hublatent.comparison.separability import PAPER_METHOD
from hublatent.hub.download import CARD_NAME
from hublatent.publish.results import CardResult, update_results
from hublatent.stats import Estimate


def update_cards(comparison: Comparison, folders: Sequence[Path]) -> list[Path]:
    """Write each model's figures into the card of its folder; a folder without one is passed over.

    Args:
        comparison: the results.
        folders: of the models that were compared, and of others.

    Returns:
        The cards that were written.
    """
    compared = {model.name for model in comparison.models}
    written = []
    for folder in folders:
        if folder_name(folder) in compared and (folder / CARD_NAME).is_file():
            figures = list(figures_of(comparison, folder_name(folder)))
            written.append(update_results(folder, figures, note=_note(comparison)))
    return written


def figures_of(comparison: Comparison, model: str) -> Iterator[CardResult]:
    """How well a model's latents are read, and what its edits cost where they reach their aim.

    Args:
        comparison: the results.
        model: its name.

    Yields:
        Accuracy and AUROC of the paper's method; per direction the strength and the leakage at
        equal effect, or, where it is not reached, the largest share of faces that was.
    """
    for row in comparison.separability:
        if (row.model, row.method, row.image_set) == (model, PAPER_METHOD, TRAINING):
            for name, score in (("accuracy", row.accuracy), ("AUROC", row.auroc)):
                yield _figure("Reading", f"{row.attribute}.{row.method}", name, score)
    for edits in _shown(comparison, model):
        name = f"{edits.attribute}.{edits.method}"
        effect = edits.equal_effect
        if effect.strength is None or effect.leakage is None:
            share = max(edits.share)
            yield CardResult("Editing", name, "largest share of faces that show it", share)
            continue
        yield _figure("Editing", name, "strength at equal effect, σ", effect.strength)
        yield _figure("Editing", name, "leakage there, mean |change of P|", effect.leakage)


def _shown(comparison: Comparison, model: str) -> list[Edits]:
    """Edits of test faces; of a model that has none, of its own samples."""
    rows = [row for row in comparison.edits if row.model == model]
    return [row for row in rows if row.faces == TEST] or rows


def _figure(task: str, attribute: str, metric: str, score: Estimate) -> CardResult:
    return CardResult(task, attribute, metric, score.value, (score.low, score.high))


def _note(comparison: Comparison) -> str:
    share = comparison.thresholds["equal effect"]
    return (
        f"From a comparison of models, edits judged by {comparison.judge.name}; equal effect: "
        f"{share:.0%} of the faces show the attribute. Made by: {comparison.command}"
    )
