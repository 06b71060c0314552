"""Write what was measured later, such as a comparison's figures, into an existing card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]
from huggingface_hub import ModelCard

from hublatent.errors import HubError, HublatentError
from hublatent.hub.download import CARD_NAME
from hublatent.publish.card import eval_result
from hublatent.publish.cells import check_number, interval_cell, table
from hublatent.stats import Estimate
from hublatent.storage import write_text

BEGIN = "<!-- measured results: begin; written by hublatent, the next run replaces it -->"
END = "<!-- measured results: end -->"
# Marks the head's entries that come from here, so that the next run replaces them and no other.
WRITER = "hublatent-comparison"
BEFORE = "\n## Intended use and limits"


@dataclass(frozen=True)
class CardResult:
    """One measured figure.

    Attributes:
        task: what is measured, such as "Editing"; the table groups by it.
        attribute: of which attribute or direction, such as "Eyeglasses.joint"; "" for the model.
        metric: the measure's name, with its unit, such as "leakage, mean change of P".
        value: the figure.
        interval: its 95% interval (low, high); None where there is none.
    """

    task: str
    attribute: str
    metric: str
    value: float
    interval: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """Attribute and metric, such as "Eyeglasses.joint leakage"."""
        return f"{self.attribute} {self.metric}".strip()


def update_results(
    folder: str | Path,
    results: Iterable[CardResult],
    *,
    note: str = "",
    dataset: str = "celeba",
    split: str = "test",
) -> Path:
    """Write measured results into the card of a model's folder, replacing those of an earlier call.

    They go into the head's model-index, which the Hub reads, and into a table between two comments
    in the body. All else of the card stays.

    Args:
        folder: the model's folder; holds README.md.
        results: the figures; none takes away what an earlier call wrote.
        note: a sentence above the table: who judged, on which images.
        dataset: name of the data they were measured on.
        split: the part of the data.

    Returns:
        The card's path.

    Raises:
        HublatentError: there is no card, it does not parse, its comments are torn, or a figure is
            not finite. The card is then as it was.
    """
    path = Path(folder) / CARD_NAME
    figures = list(results)
    for figure in figures:
        bounds = figure.interval or ()
        for value in (figure.value, *bounds):
            check_number(f"{figure.task}: {figure.name}", value)
    card = read_card(path)
    data: Any = card.data
    kept = [r for r in data.eval_results or [] if r.metric_config != WRITER]
    added = [
        eval_result(f.task, dataset, split, f.metric, f.value, f.attribute, WRITER) for f in figures
    ]
    data.eval_results = kept + added or None
    data.model_name = data.model_name or path.resolve().parent.name
    body = _replace_section(card.text, _section(figures, note), path)
    text = f"---\n{data.to_yaml().strip()}\n---\n{body}"
    _check_again(text, kept + added, path)
    write_text(path, text)
    return path


def read_card(path: Path) -> ModelCard:
    """Read a card as the Hub does.

    Raises:
        HubError: there is none, or it does not parse.
    """
    if not path.is_file():
        raise HubError(f"{path.parent} holds no {path.name}; a published model needs a card.")
    try:
        return ModelCard(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        first_line = f"{error}".splitlines()[0]
        raise HubError(f"{path} does not parse as a model card: {first_line}.") from error


def _section(figures: Sequence[CardResult], note: str) -> str:
    """The table between its two comments; nothing where there are no figures."""
    if not figures:
        return ""
    rows = [(f.task, f.attribute or "the model", f.metric, _value(f)) for f in figures]
    measured = table(("what", "of", "measure", "value (95% interval)"), rows).rstrip()
    parts = [BEGIN, "## Compared", "", *[note, ""] * bool(note), measured, "", END]
    return "\n".join(parts)


def _value(figure: CardResult) -> str:
    if figure.interval is None:
        return f"{check_number(figure.name, figure.value):.4g}"
    return interval_cell(figure.name, Estimate(figure.value, *figure.interval))


def _replace_section(body: str, section: str, path: Path) -> str:
    """The body with the section in place of an earlier one, or before the card's last headings."""
    counts = (body.count(BEGIN), body.count(END))
    if counts == (0, 0):
        before, heading, after = body.partition(BEFORE)
        if not section:
            return body
        return f"{before.rstrip()}\n\n{section}\n{heading}{after}"
    start, end = body.find(BEGIN), body.find(END)
    if counts != (1, 1) or end < start:
        raise HublatentError(
            f"{path} holds the comment that begins the measured results {counts[0]} times and the "
            f"one that ends them {counts[1]} times; expected one pair. Take both out by hand."
        )
    before, after = body[:start].rstrip("\n"), body[end + len(END) :].lstrip("\n")
    return f"{before}\n\n{section}\n\n{after}" if section else f"{before}\n\n{after}"


def _check_again(text: str, expected: Sequence[Any], path: Path) -> None:
    """Parse what is about to be written, as the Hub will."""
    data: Any = ModelCard(text).data
    found = [(r.metric_name, r.metric_value) for r in data.eval_results or []]
    # The head groups figures by task and data, so their order may change.
    if sorted(map(str, found)) != sorted(str((r.metric_name, r.metric_value)) for r in expected):
        raise HublatentError(f"The head of {path} would not parse with these results.")
