"""hublatent compare: how well attributes are read and edited, in several models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from hublatent.cli.options import FolderOption


def replicate(
    runs: Annotated[Positional[Path], arg(metavar="RUNS")],
    data: str,
    out: FolderOption,
    seed: int = 0,
    cache: Path | None = None,
) -> None:
    """Walk from the scores of the paper's Table 1 to honest ones; writes report.md.

    Args:
        runs: a folder of trainings of the recipes paper-*, each in RECIPE-SEED.
        data: folder or Hub dataset of labelled faces.
        out: the folder to write to.
        seed: of every draw.
        cache: folder of the decoded pictures; by default ~/.cache/hublatent/datasets.
    """
    from hublatent.evaluation.replication import REPORT_NAME, replicate

    print(f"seed {seed}")
    replicate(runs, data, out, cache=cache, seed=seed)
    print(out / REPORT_NAME)


def compare(
    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER...")],
    data: str,
    out: FolderOption,
    attributes: tuple[str, ...] = ("Eyeglasses", "Smiling", "Male"),
    judge: str = "model_cards/judge-celeba",
    methods: tuple[str, ...] | None = None,
    faces: int = 200,
    projected: tuple[Path, ...] = (),
    hand_labels: Path | None = None,
    seed: int = 0,
    cache: Path | None = None,
) -> None:
    """Measure how well attributes are read and edited in models' latents; goes on where it stopped.

    Args:
        folders: of models; others are passed over.
        data: folder or Hub dataset of labelled faces.
        out: the folder to write the report, results.json and the tables to.
        attributes: what to compare.
        judge: folder or Hub id of the classifier that judges edits, and does nothing else.
        methods: how directions are found; by default every way that needs labels
            alone. In projected pictures "svm" is called "svm-projected"; name both to compare
            both.
        faces: how many faces without the attribute are edited.
        projected: folders that training/project_images.py wrote, for models without an encoder.
        hand_labels: the sheet out/real-faces/strips-to-label.csv, filled in by eye with strong, no
            effect or decohered.
        seed: of every draw.
        cache: folder of the decoded pictures; by default ~/.cache/hublatent/datasets.
    """
    from hublatent import comparison
    from hublatent.discovery.methods import FROM_LABELS

    print(f"seed {seed}")
    found = comparison.compare(
        folders, data, out, attributes=attributes, judge=judge,
        methods=FROM_LABELS if methods is None else methods, n_faces=faces,
        projected=projected, seed=seed, cache=cache, hand_labels=hand_labels,
        report=True,
    )  # fmt: skip
    for problem in found.problems:
        print(f"{problem.model}, {problem.attribute}: {problem.text}")
    print(f"{out}: {len(found.separability)} rows of scores, {len(found.edits)} of edits")
