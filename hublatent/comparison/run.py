"""compare(): models, attributes and methods in, one value and its files out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hublatent.checkpoint import folder_name
from hublatent.comparison import controls, editability, outcomes, spaces
from hublatent.comparison import judge as judging
from hublatent.comparison import separability as separation
from hublatent.comparison.card_figures import update_cards
from hublatent.comparison.latents import Subject
from hublatent.comparison.model_edits import ModelEdits
from hublatent.comparison.parts import Parts
from hublatent.comparison.results import SAMPLES, TEST, Comparison, Data, Judge, Model, Problem
from hublatent.comparison.setting import Setting
from hublatent.comparison.storage import csv_text
from hublatent.comparison.strips import Picture
from hublatent.comparison.subjects import FOUND_HERE, Datasets, find_subjects
from hublatent.comparison.table import Table
from hublatent.data import FaceDataset
from hublatent.discovery.methods import FROM_LABELS, PROJECTED_SUFFIX
from hublatent.errors import DataError, unknown_name
from hublatent.model import weights_digest
from hublatent.perception.classifier import AttributeClassifier
from hublatent.storage import atomic_path, portable, write_text

DEFAULT_ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
DEFAULT_JUDGE = "model_cards/judge-celeba"
N_FACES = 200
PARTS_FOLDER = ".parts"
REAL_FACES_FOLDER = "real-faces"
SHEET_FOLDER, SHEET_NAME = "strips-to-label", "strips-to-label.csv"


def compare(
    folders: Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    attributes: Sequence[str] = DEFAULT_ATTRIBUTES,
    judge: str | Path = DEFAULT_JUDGE,
    methods: Sequence[str] = FROM_LABELS,
    n_faces: int = N_FACES,
    projected: Sequence[str | Path] = (),
    seed: int = 0,
    cache: str | Path | None = None,
    hand_labels: str | Path | None = None,
    report: bool = False,
    progress: bool = True,
) -> Comparison:
    """Measure how well attributes are read and edited in the latent spaces of models.

    What is finished is kept in out/.parts, so a run that was stopped goes on.

    Args:
        folders: of models; others are passed over.
        data: labelled pictures, as for `load_dataset`.
        out: where results.json and the tables are written.
        attributes: what to compare.
        judge: folder or Hub id of the classifier that judges, and does nothing else.
        methods: how directions are found; "svm" is the paper's. What is found in projected
            pictures, or stands so in a direction file, is called "svm-projected".
        n_faces: how many faces are edited.
        projected: folders of projected pictures, for models without an encoder.
        seed: of every draw.
        cache: folder of the decoded pictures.
        hand_labels: a sheet of strips that was labelled by eye, to compare the outcomes with.
        report: write report.md, index.html and figures too, and each model's figures into its
            card; edits of real people go to out/real-faces, which Git ignores, and with them a
            sheet of strips to be labelled.
        progress: whether to show progress bars.

    Returns:
        The results.

    Raises:
        DataError: an attribute is unknown, or no folder holds a latent model.
        HublatentError: a method is unknown, or the judge cannot be loaded.
    """
    if n_faces < 1 or not attributes or not methods:
        raise DataError("At least one face, one attribute and one method are needed.")
    attributes, methods = tuple(dict.fromkeys(attributes)), tuple(dict.fromkeys(methods))
    loaded = AttributeClassifier.from_pretrained(judge)
    datasets = Datasets(data, cache, progress)
    pictures = datasets.of_size(loaded.image_size)
    for attribute in attributes:
        pictures.label(attribute)  # an unknown name is refused before anything is measured
        loaded.index(attribute)
    parts_folder = Path(out) / PARTS_FOLDER
    _keep_out_of_git(parts_folder)
    subjects = find_subjects(
        [Path(f) for f in folders], [Path(p) for p in projected], datasets, parts_folder
    )
    _check_methods(methods, subjects)
    with Parts(parts_folder, progress) as parts:
        setting = Setting(
            judge=loaded,
            judge_name=folder_name(Path(judge)),
            judge_id=weights_digest(loaded),
            attributes=attributes,
            methods=methods,
            n_faces=n_faces,
            seed=seed,
            samples_too=any(_edits_samples_only(s) for s in subjects),
            parts=parts,
        )
        taken = {subject.name for subject in subjects}
        models = [folder for folder in folders if folder_name(Path(folder)) in taken]
        command = _command(models, out, judge, projected, hand_labels, setting)
        drawn = [ModelEdits(setting, subject) for subject in subjects]
        comparison = _measure(setting, subjects, drawn, pictures, command)
    if hand_labels is not None:
        agreement = outcomes.compare_with_hand_labels(Path(hand_labels), comparison, seed)
        comparison = replace(comparison, hand_labels=agreement)
    comparison.save(out)
    if report:
        _report(comparison, drawn, Path(out))
        update_cards(comparison, [Path(folder) for folder in folders])
    return comparison


def _report(comparison: Comparison, drawn: Sequence[ModelEdits], out: Path) -> None:
    """The report with edited samples, and beside it pictures that only its reader may see."""
    from hublatent.comparison.report import write_report

    write_report(comparison, out, [p for each in drawn for p in each.pictures(SAMPLES)])
    private = out / REAL_FACES_FOLDER
    _keep_out_of_git(private)
    for each in drawn:
        for picture in each.pictures(TEST):
            _save_picture(picture, private / f"{picture.name}.png")
    _write_sheet(comparison, drawn, private)


def _write_sheet(comparison: Comparison, drawn: Sequence[ModelEdits], folder: Path) -> None:
    """Strips without their outcomes, one picture per row of the sheet, to be labelled by eye."""
    sheet = outcomes.draw_sheet(comparison, seed=comparison.seed)
    models = {each.name: each for each in drawn}
    for number, row in enumerate(sheet):
        model, face = models[row["model"]], int(row["face"])
        strip = model.strip(row["attribute"], row["method"], row["faces"], face)
        _save_picture(strip, folder / SHEET_FOLDER / f"{number:02d}.png")
    write_text(folder / SHEET_NAME, csv_text(iter(sheet)))


def _save_picture(picture: Picture, path: Path) -> None:
    with atomic_path(path) as temporary:
        picture.image.save(temporary, format="PNG")


def _keep_out_of_git(folder: Path) -> None:
    write_text(folder / ".gitignore", "*\n")


def _measure(
    setting: Setting,
    subjects: Sequence[Subject],
    drawn: Sequence[ModelEdits],
    pictures: FaceDataset,
    command: str,
) -> Comparison:
    setting.parts.expect(sum(setting.cost(subject) for subject in subjects))
    judge = _judge(setting, pictures)
    fresh = _random_encoder(subjects, setting.seed)
    table = Table(setting, subjects if fresh is None else [*subjects, fresh])
    table.measure()
    for each in drawn:
        each.measure()
    problems = [*table.problems, *(x for each in drawn for x in each.problems)]
    edits = tuple(row for each in drawn for row in each.edits)
    here = {row.model for row in edits if row.found == FOUND_HERE}
    names = {a: n for each in reversed(drawn) for a, n in each.face_names.items()}
    return Comparison(
        seed=setting.seed,
        command=command,
        data=Data(
            pictures.digest, *(len(pictures.indices(p)) for p in ("train", "validation", "test"))
        ),
        judge=judge,
        attributes=setting.attributes,
        methods=tuple(dict.fromkeys((*setting.methods, *(row.method for row in edits)))),
        strengths=editability.STRENGTHS,
        thresholds={**outcomes.THRESHOLDS, "equal effect": editability.EQUAL_EFFECT},
        thresholds_text=outcomes.THRESHOLDS_TEXT,
        definitions=_definitions(setting.judge_name),
        faces={attribute: names.get(attribute, ()) for attribute in setting.attributes},
        models=(
            *(_describe(s, setting.judge.image_size, problems, s.name in here) for s in subjects),
            *_baselines(fresh, setting),
        ),
        separability=tuple(table.rows),
        paper_table=separation.PAPER_TABLE,
        pairs=tuple(table.pairs),
        ceilings=tuple(x for each in drawn for x in each.ceilings),
        edits=edits,
        null_bands=tuple(x for each in drawn for x in each.null_bands),
        holes=tuple(each.holes for each in drawn if each.holes is not None),
        boundary=tuple(x for each in drawn for x in each.boundary),
        cosines=tuple(x for each in drawn for x in each.cosines),
        problems=tuple(problems),
    )


def _judge(setting: Setting, pictures: FaceDataset) -> Judge:
    return setting.parts.get(
        f"judge-{setting.judge_name}",
        {"judge": setting.judge_id, "pictures": pictures.digest, "seed": setting.seed},
        Judge,
        lambda: judging.judge_quality(
            setting.judge, setting.judge_name, setting.judge_id, pictures, setting.seed
        ),
    )


def _edits_samples_only(subject: Subject) -> bool:
    """Whether a model has or will have directions, but no latents of test faces."""
    return not subject.has_test_faces and (
        subject.directions is not None or subject.known is not None
    )


def _check_methods(methods: Sequence[str], subjects: Sequence[Subject]) -> None:
    """A method is known, or at least one direction file has it."""
    known = {*FROM_LABELS, *(m for s in subjects if s.directions for m in s.directions.methods)}
    if any(s.projected is not None for s in subjects):
        known |= {method + PROJECTED_SUFFIX for method in FROM_LABELS}
    for method in methods:
        if method not in known:
            text = unknown_name("method", method, known)
            raise DataError(
                f"{text} Names that end in {PROJECTED_SUFFIX} need --projected, or a direction "
                "file that holds them."
            )


def _random_encoder(subjects: Sequence[Subject], seed: int) -> Subject | None:
    """The first network with an encoder and with trained parameters, its weights drawn anew."""
    for subject in subjects:
        if subject.model.has_encoder and not _is_untrained(subject):
            model = separation.random_encoder(subject.model, seed)
            return Subject(
                name=separation.RANDOM_ENCODER,
                model=model,
                fingerprint=model.fingerprint(),
                dataset=subject.dataset,
                cache=subject.cache,
            )
    return None


def _is_untrained(subject: Subject) -> bool:
    """Whether a model has no parameters that gradients train, as a linear baseline has none."""
    return not any(True for _ in subject.model.parameters())


def _describe(
    subject: Subject, judge_size: int, problems: Iterable[Problem], found_here: bool
) -> Model:
    model = subject.model
    statistics = ("latent_mean", "latent_covariance")
    weights = (
        {k: v for k, v in model.state_dict().items() if k not in statistics}
        if _is_untrained(subject)
        else dict(model.named_parameters())
    )
    notes = []
    if found_here:
        notes.append(f"{subject.problem} Missing directions were found here.".strip())
    if model.image_size != judge_size:
        notes.append(
            f"It draws {model.image_size} pixels; the judge sees them resized to {judge_size}."
        )
    return Model(
        name=subject.name,
        architecture=model.architecture,
        space=model.space,
        fingerprint=subject.fingerprint,
        image_size=model.image_size,
        latent_shape=tuple(model.latent_shape),
        n_parameters=sum(tensor.numel() for tensor in weights.values()),
        has_encoder=model.has_encoder,
        baseline=_is_untrained(subject),
        problem=" ".join(f"{p.attribute}: {p.text}" for p in problems if p.model == subject.name),
        note=" ".join(notes),
        beta=subject.recipe.get("beta"),
        w_noise=subject.recipe.get("w_noise"),
    )


def _baselines(fresh: Subject | None, setting: Setting) -> list[Model]:
    """The rows of Table 1 that no folder stands for."""
    majority = Model(
        name=separation.MAJORITY,
        architecture="",
        space="",
        fingerprint="",
        image_size=0,
        latent_shape=(),
        n_parameters=0,
        has_encoder=False,
        baseline=True,
        note="Always yes.",
    )
    if fresh is None:
        return [majority]
    plain = vars(_describe(fresh, setting.judge.image_size, (), False))
    note = f"Weights as drawn with seed {setting.seed}, never trained."
    return [majority, Model(**{**plain, "baseline": True, "note": note})]


def _definitions(judge_name: str) -> dict[str, str]:
    texts = {
        **judging.DEFINITIONS,
        **editability.DEFINITIONS,
        **spaces.DEFINITIONS,
        "null band": controls.DEFINITION,
    }
    return {name: text.replace("{judge}", judge_name) for name, text in texts.items()}


def _command(
    folders: Sequence[str | Path],
    out: str | Path,
    judge: str | Path,
    projected: Sequence[str | Path],
    hand_labels: str | Path | None,
    setting: Setting,
) -> str:
    """What to type to measure again; absolute paths lose their folders, which are a machine's."""
    words = ["python -m hublatent compare", *map(portable, folders), "--data", "DATA"]
    words += ["--attributes", *setting.attributes]
    words += ["--out", portable(out), "--judge", portable(judge)]
    words += ["--methods", *setting.methods, "--faces", str(setting.n_faces)]
    if projected:
        words += ["--projected", *map(portable, projected)]
    if hand_labels is not None:
        words += ["--hand-labels", portable(hand_labels)]
    return " ".join([*words, "--seed", str(setting.seed)])
