"""Write the README's picture, its table of models and its comparison.

python training/cards/update_readme.py

The picture shows one face that a model drew, edited in every model of model_cards/; the numbers are
those of their cards and of the comparison beside them. They stand between markers in the README,
and are replaced there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pandas as pd
import torch
from huggingface_hub import ModelCard
from markupsafe import Markup
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import hublatent
from hublatent.direction_set import DirectionSet
from hublatent.editing import edit
from hublatent.errors import DataError
from hublatent.evaluation.report import PAGE_NAME, interval, read_summary
from hublatent.evaluation.subjects import UNTRAINED
from hublatent.figures import fit, grid
from hublatent.hub import CARD_NAME, DIRECTIONS_NAME
from hublatent.images import open_image, save_png, to_pil, to_tensor
from hublatent.model import LatentModel
from hublatent.models import why_no_latent_model
from hublatent.publish import cells
from hublatent.publish.card import fill
from hublatent.stats import welch_difference
from hublatent.storage import write_text
from training.trainers.commands import run_script

TEMPLATES = Path(__file__).parent.parent / "templates"
MODELS, COMPARISON = "models", "comparison"  # the blocks between markers
SIDE = 112
ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
PICTURE_NAME = "edits.png"
DRAWN_TITLE = (
    "Disentanglement where the factors are known, on drawn sprites: means over trainings, "
    "and differences with Welch's t interval between trainings:"
)
SPRITES_NAME = "sprites.csv"  # what `metrics --data sprites` writes, beside the comparison
DISENTANGLEMENT = {
    "kl": "KL, nats",
    "total_correlation": "TC, nats",
    "mse": "MSE",
    "mig": "MIG",
    "dci-disentanglement (random-forest)": "DCI disentanglement",
    "factorvae-score": "FactorVAE score",
    "infomec-modularity": "modularity",
}
COMPARED_SCORES = ("mig", "factorvae-score")


@dataclass(frozen=True)
class Arguments:
    """Write the README's picture and its table of models."""

    cards: Path = Path("model_cards")  # folder of the models' folders
    readme: Path = Path("README.md")  # the file with the markers
    attribute: str = "Eyeglasses"  # what the picture changes
    method: str = "joint"  # along which direction
    # in standard deviations
    strengths: tuple[float, ...] = (-3.0, 0.0, 2.0, 3.0, 4.0, 5.0)
    # the picture that is edited; drawn by a model, so that it shows nobody
    face: Path = Path("model_cards/example.png")


def model_folders(cards: Path) -> list[Path]:
    """The folders that hold a latent model with directions and a card, by name."""
    folders = [
        folder
        for folder in sorted(cards.iterdir() if cards.is_dir() else ())
        if not why_no_latent_model(folder)
        and all((folder / name).is_file() for name in (DIRECTIONS_NAME, CARD_NAME))
    ]
    if not folders:
        raise DataError(f"{cards} holds no model with directions and a card.")
    return folders


def draw_picture(models: Mapping[str, LatentModel], arguments: Arguments) -> Image.Image:
    """One face per row, a model each, edited further from column to column."""
    face = open_image(arguments.face)
    rows = []
    for name, model in tqdm(models.items(), desc="picture", unit="model"):
        image = to_tensor([face], model.image_size, model.channels)
        with torch.inference_mode():
            encoded = model.encode(image) if model.has_encoder else None
        latents = hublatent.project(model, image).latents if encoded is None else encoded
        rows.append(_strip(model, arguments.cards / name, latents, arguments))
    columns = ["unedited" if not s else f"{s:+g}" for s in arguments.strengths]
    title = f"{arguments.attribute}, in standard deviations"
    return grid(rows, list(models), columns, title)


@torch.inference_mode()
def _strip(
    model: LatentModel, folder: Path, latents: Tensor, arguments: Arguments
) -> list[Image.Image]:
    directions = DirectionSet.from_pretrained(folder, model)
    direction = directions[arguments.attribute, arguments.method]
    steps = torch.cat([edit(latents, direction, s) for s in arguments.strengths])
    return [fit(picture.convert("RGB"), SIDE, SIDE) for picture in to_pil(model.decode(steps))]


def table(folders: Sequence[Path]) -> Markup:
    """A line per model: what its card has measured."""
    rows = []
    for folder in folders:
        results = ModelCard.load(folder / CARD_NAME).data.eval_results or ()
        measured = {
            "mse" if found.metric_type == "mse" else str(found.metric_name): found.metric_value
            for found in results
        }
        # Scores on a model's own samples would not compare with those on real faces.
        methods = {name.partition(".")[2].partition(" ")[0] for name in measured}
        encodes = "svm-sampled" in methods or "svm-projected" not in methods
        method = "svm" if encodes else "svm-projected"
        digits = {"mse": 4, **{f"{name}.{method} accuracy": 3 for name in ATTRIBUTES}}
        shown = ("–" if n not in measured else f"{measured[n]:.{d}f}" for n, d in digits.items())
        rows.append([Markup(f"[{folder.name}]({folder.as_posix()})"), *shown])
    return cells.table(["model", "test MSE", *ATTRIBUTES], rows)


def comparison_block(folder: Path, attribute: str) -> str:
    """What the comparison answers, and its tables; says so where there is none."""
    found, tables, others = read_summary(folder), {}, []
    if found is not None:
        bundled = {name for name in found.models if (folder.parent / name).is_dir()}
        others = [name for name in found.models if name not in bundled | {UNTRAINED}]
        claims = [("claim", "verdict"), *(claim[:2] for claim in found.claims)]
        reading = _of(bundled | {UNTRAINED}, found.reading)
        editing = _of(bundled, found.editing.get(attribute, ()))
        tables = {
            "Claims of the paper:": cells.table(claims[0], claims[1:]),
            "Reading, over people that the direction was not fitted on:": reading,
            f"{attribute}, edited on test faces:": editing,
        }
        if (drawn := folder / SPRITES_NAME).is_file():
            tables[DRAWN_TITLE] = disentanglement_block(pd.read_csv(drawn, index_col="model"))
    report = (folder / PAGE_NAME).as_posix()
    page = TEMPLATES / "comparison.md.jinja"
    return fill(page, found=found, report=report, tables=tables, others=others).strip()


def disentanglement_block(scores: pd.DataFrame) -> Markup:
    """What trainings on drawn factors score: of each recipe the mean, and less the first one's.

    Args:
        scores: a line per training, called RECIPE-SEED; columns as `metrics --out` writes them.
    """
    recipes = scores.groupby(scores.index.str.replace(r"-\d+$", "", regex=True), sort=False)
    columns = [column for column in DISENTANGLEMENT if column in scores]
    groups = {str(name): group[columns] for name, group in recipes}
    base, rows = next(iter(groups)), []
    for name, group in groups.items():
        means = [f"{group[column].mean():.3g}" for column in columns]
        differences = ["–"] * len(COMPARED_SCORES)
        if name != base and min(len(group), len(groups[base])) > 1:
            pairs = ((group[c].to_numpy(), groups[base][c].to_numpy()) for c in COMPARED_SCORES)
            differences = [interval(welch_difference(*p).estimate, signed=True) for p in pairs]
        rows.append([name, str(len(group)), *means, *differences])
    head = [DISENTANGLEMENT[column] for column in columns]
    less = [f"{DISENTANGLEMENT[column]}, less {base}" for column in COMPARED_SCORES]
    return cells.table(["recipe", "trainings", *head, *less], rows).strip()


def _of(models: Set[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A table, its head first, of some models' rows."""
    return cells.table(rows[0] if rows else (), (row for row in rows[1:] if row[0] in models))


def markers(name: str) -> tuple[str, str]:
    """The lines that a block of the README stands between."""
    return f"<!-- {name}: training/cards/update_readme.py -->", f"<!-- /{name} -->"


def insert(text: str, name: str, block: str, path: Path) -> str:
    """Replace what stands between a block's markers, each of which stands there once."""
    start, end = markers(name)
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise DataError(f"{path} needs the lines {start} and {end}, each once.")
    return pattern.sub(lambda _: f"{start}\n{block}\n{end}", text)


def run(arguments: Arguments) -> None:
    """Draw, read, and write both."""
    folders = model_folders(arguments.cards)
    text = arguments.readme.read_text(encoding="utf-8")
    for name in (MODELS, COMPARISON):  # refused before anything is drawn
        text = insert(text, name, "", arguments.readme)
    models = {folder.name: hublatent.load(folder) for folder in folders}
    picture = arguments.cards / PICTURE_NAME
    save_png(draw_picture(models, arguments), picture)
    block = fill(
        TEMPLATES / "models.md.jinja", arguments=arguments, picture=picture.as_posix(),
        table=table(folders), all_encode=all(model.has_encoder for model in models.values()),
    )  # fmt: skip
    text = insert(text, MODELS, block.strip(), arguments.readme)
    compared = comparison_block(arguments.cards / COMPARISON, arguments.attribute)
    write_text(arguments.readme, insert(text, COMPARISON, compared, arguments.readme))
    print(f"{arguments.readme}: {len(folders)} models; {picture}")


if __name__ == "__main__":
    run_script(Arguments, run)
