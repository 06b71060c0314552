"""hublatent audit, choose-defaults, compare, replicate: how well attributes are read and edited."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from hublatent.cli.options import Data, FolderOption


def replicate(
    runs: Annotated[Positional[Path], arg(metavar="RUNS")],
    source: Data,
    out: FolderOption,
    seed: int = 0,
) -> None:
    """Walk from the scores of the paper's Table 1 to honest ones; writes report.md.

    Args:
        runs: a folder of trainings of the recipes paper-*, each in RECIPE-SEED.
        source: labelled faces.
        out: the folder to write to.
        seed: of every draw.
    """
    from hublatent.evaluation.replication import REPORT_NAME, replicate

    print(f"seed {seed}")
    replicate(runs, source, out, seed)
    print(out / REPORT_NAME)


def compare(
    models: Annotated[Positional[tuple[Path, ...]], arg(metavar="MODEL...")],
    source: Data,
    out: FolderOption,
    attributes: tuple[str, ...] = (),
    faces: int = 100,
    judge: str = "model_cards/judge-celeba",
    methods: tuple[str, ...] = ("svm", "joint"),
    device: str = "cpu",
    seed: int = 0,
) -> None:
    """Measure how well attributes are read and edited in models' latents; goes on where it stopped.

    Args:
        models: folders of models; others are passed over. Checkpoints whose recipes differ in the
            seed alone are trainings of one model.
        source: labelled faces.
        out: the folder to write the report, its summary and the long table to.
        attributes: what to read and edit; by default all that enough pictures show are read, and
            Eyeglasses, Smiling and Male edited.
        faces: how many faces without the attribute are edited.
        judge: folder or Hub id of the classifier that judges edits, and does nothing else;
            face-detector, face-identity and image-features lie beside it.
        methods: how directions are found; one that a model lacks is left out of it. "assessor"
            learns from attributes-celeba, beside the judge.
        device: where models and judges work, such as cuda.
        seed: of every draw.
    """
    from hublatent.evaluation.report import PAGE_NAME
    from hublatent.evaluation.run import compare as run

    found = run(
        models, source, out, judge=judge, attributes=attributes, methods=methods, n_faces=faces,
        seed=seed, device=device,
    )  # fmt: skip
    print(f"{' '.join(found.answer)} {out / PAGE_NAME}")


def audit(
    direction: Annotated[Positional[str], arg(metavar="DIRECTION")],
    model: Annotated[str, arg(metavar="MODEL")],
    source: Data,
    out: FolderOption,
    attribute: str | None = None,
    method: str | None = None,
    faces: int = 60,
    judge: str = "model_cards/judge-celeba",
    seed: int = 0,
) -> None:
    """Measure what one direction does to a model's faces, what it costs and how far it holds.

    Args:
        direction: a directions.safetensors, a folder or a Hub id.
        model: folder or Hub id of the model it belongs to.
        source: labelled faces.
        out: the folder to write the page to.
        attribute: which, where there are several.
        method: how it was found; by default joint, or the only one there is.
        faces: how many faces without the attribute are edited.
        judge: folder or Hub id of the classifier that judges, as for compare.
        seed: of every draw.
    """
    from hublatent.evaluation.audit import audit as run
    from hublatent.evaluation.report import PAGE_NAME

    found = run(
        direction, model, source, out, judge=judge, attribute=attribute, method=method,
        n_faces=faces, seed=seed,
    )  # fmt: skip
    print(f"{found.answer()} {out / PAGE_NAME}")


def choose_defaults(
    model: Annotated[Positional[Path], arg(metavar="MODEL")],
    source: Data,
    attributes: tuple[str, ...] = ("Eyeglasses", "Smiling", "Male"),
    methods: tuple[str, ...] = (),
    faces: int = 40,
    judge: str = "model_cards/judge-celeba",
    seed: int = 0,
) -> None:
    """Choose which method and layers edit each attribute by default, and store it in the file.

    Killed, the same command goes on after the attributes that are finished.

    Args:
        model: folder of a model with its directions.
        source: labelled faces; validation people choose, test people tell.
        attributes: of the directions.
        methods: which of those stored; by default all.
        faces: how many faces without the attribute are edited.
        judge: folder or Hub id of the classifier that judges, as for compare.
        seed: of every draw.
    """
    from hublatent.evaluation.defaults import choose_defaults as choose
    from hublatent.evaluation.judges import Judges
    from hublatent.evaluation.subjects import gather
    from hublatent.hub import DIRECTIONS_NAME

    (subject,) = gather([model], source)
    judges = Judges.load(judge, subject.dataset)
    finished = subject.folder / "choose-defaults.json"
    directions, table = choose(subject, judges, attributes, methods, faces, seed, finished)
    directions.save(subject.folder / DIRECTIONS_NAME)
    finished.unlink(missing_ok=True)
    print(f"seed {seed}, {faces} faces")
    print(table.to_string(index=False, float_format="%.3f", na_rep=""))
    for attribute in attributes:
        method, layers = directions.defaults[attribute]
        print(f"{attribute}: {method}{layers and f' on the layers {layers}'}")
