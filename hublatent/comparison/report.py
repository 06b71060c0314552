"""The report of a comparison: report.md, index.html that opens on its own, and their figures."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from hublatent import __version__
from hublatent.comparison.claims import examine_claims
from hublatent.comparison.conclusion import answer_paragraphs
from hublatent.comparison.plots import draw_plots
from hublatent.comparison.ranking import EQUAL_EFFECT_SHARE
from hublatent.comparison.results import PROJECTED, SAMPLES, TEST, TRAINING, Comparison
from hublatent.comparison.strips import Picture
from hublatent.comparison.tables import (
    Table,
    above_null,
    edit_details_tables,
    equal_effect_tables,
    judge_table,
    models_table,
    outcome_tables,
    pairs_table,
    separability_tables,
)
from hublatent.comparison.words import interval, percent, sigmas
from hublatent.figures import png_uri
from hublatent.storage import atomic_folder_update

TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN_NAME = "report.md"
HTML_NAME = "index.html"
FACES = ((TEST, "real test faces"), (SAMPLES, "faces that the models drew themselves"))


def write_report(
    results: Comparison, folder: str | Path, pictures: Sequence[Picture] = ()
) -> list[Path]:
    """Write report.md, index.html and one PNG per figure; all of them or none.

    Args:
        results: what was measured; parts may be missing, and the report says which.
        folder: where to; made if it is missing.
        pictures: strips and grids to show. Edits of real people do not belong into a folder that
            is published.

    Returns:
        The written files.
    """
    figures = _figures(results, pictures)
    context = _context(results, figures)
    files = {f"{figure['name']}.png": figure["png"] for figure in figures}
    files[MARKDOWN_NAME] = _markdown(context).encode()
    files[HTML_NAME] = _html(context).encode()
    with atomic_folder_update(folder, tuple(files)) as paths:
        for name, content in files.items():
            paths[name].write_bytes(content)
    return [Path(folder) / name for name in files]


def _figures(results: Comparison, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Plots and pictures alike: name, title, caption and the bytes of the PNG."""
    figures: list[dict[str, Any]] = [
        {"name": plot.name, "title": plot.title, "caption": plot.caption, "png": plot.png}
        for plot in draw_plots(results)
    ]
    for picture in pictures:
        buffer = io.BytesIO()
        _few_colours(picture.image).save(buffer, format="PNG", optimize=True)
        figures.append(
            {
                "name": picture.name,
                "title": picture.title,
                "caption": picture.caption,
                "png": buffer.getvalue(),
            }
        )
    return figures


def _few_colours(picture: Image.Image) -> Image.Image:
    """The same with a palette: a third of the bytes, which are there twice and go into Git."""
    return picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT)


def _context(results: Comparison, figures: list[dict[str, Any]]) -> dict[str, Any]:
    """The templates' variables: everything but the layout."""
    return {
        "answer": answer_paragraphs(results),
        "claims": examine_claims(results),
        "results": results,
        "separability": separability_tables(results, TRAINING),
        "projected": separability_tables(results, PROJECTED),
        "pairs": pairs_table(results),
        "equal_share": percent(EQUAL_EFFECT_SHARE),
        "largest": sigmas(max(results.strengths, default=0.0)),
        "editing": _by_faces(results, equal_effect_tables),
        "details": _by_faces(results, edit_details_tables),
        "above_null": above_null(results),
        "outcomes": _by_faces(results, outcome_tables),
        "figures": figures,
        "judge": judge_table(results),
        "models": models_table(results),
        "version": __version__,
    }


def _by_faces(results: Comparison, tables: Any) -> list[tuple[str, list[Table]]]:
    """The tables of real faces, then those of the models' own samples; where there are any."""
    found = [(label, tables(results, faces)) for faces, label in FACES]
    return [(label, rows) for label, rows in found if rows]


def _markdown(context: Mapping[str, Any]) -> str:
    environment = _environment(autoescape=False)
    environment.filters.update(table=markdown_table, interval=interval, cell=_markdown_cell)
    text = environment.get_template("comparison.md.jinja").render(context)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _html(context: Mapping[str, Any]) -> str:
    environment = _environment(autoescape=True)
    environment.filters.update(interval=interval, uri=png_uri)
    return str(environment.get_template("comparison.html.jinja").render(context))


def _environment(autoescape: bool) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=autoescape,
    )


def markdown_table(table: Table) -> str:
    """A table in GitHub's Markdown; the best of its kind in bold."""
    lines = [
        _markdown_line(table.columns),
        _markdown_line(["---"] * len(table.columns)),
        *(
            _markdown_line([f"**{cell}**" if cell.strong else str(cell) for cell in row])
            for row in table.rows
        ),
    ]
    return "\n".join(lines)


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown_cell, cells))} |"


def _markdown_cell(text: str) -> str:
    """Text that keeps within its cell, and is no markup."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")
