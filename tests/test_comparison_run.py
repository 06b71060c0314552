"""`hublatent compare`, from folders to files: what goes on, what is passed over, what resumes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from hublatent import cli
from hublatent.comparison import Comparison, compare, controls, run, spaces
from hublatent.comparison.results import PROJECTED, SAMPLES, TEST, TRAINING
from hublatent.data import load_dataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.errors import DataError
from hublatent.inversion.latents_file import describe, shard_path, write_projected
from hublatent.perception.classifier import AttributeClassifier
from tests.comparison_helpers import SIZE, known_judge, linear_model, write_known_faces
from tests.tiny_models import random_directions, save_model, tiny_stylegan2, tiny_vae

N_FACES = 6
METHODS = ("svm", "joint")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear model without directions, a VAE with foreign ones, a GAN, a judge."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_model(linear_model(), root / "linear")
    vae = tiny_vae()
    save_model(vae, root / "vae", random_directions(vae))
    save_model(tiny_stylegan2(SIZE), root / "gan")
    known_judge().save_pretrained(root / "judge")
    (root / "notes").mkdir()
    (root / "README.md").write_text("No folder at all.")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("data")
    return write_known_faces(root / "faces"), root / "cache"


@pytest.fixture(autouse=True, scope="module")
def few_pictures() -> Iterator[None]:
    """Fewer controls and lines, so that the tests are quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "N_RANDOM", 4)
        patch.setattr(controls, "N_SHUFFLED", 4)
        patch.setattr(spaces, "N_LINES", 8)
        yield


def measure(
    folders: Path, data: tuple[Path, Path], out: Path, *names: str, **options
) -> Comparison:
    faces, cache = data
    wishes = {
        "attributes": ("Bright",), "judge": folders / "judge", "methods": METHODS,
        "n_faces": N_FACES, "cache": cache, "progress": False, **options,
    }  # fmt: skip
    return compare([folders / name for name in names], faces, out, **wishes)


@pytest.fixture(scope="module")
def two(folders, data, tmp_path_factory) -> tuple[Comparison, Path]:
    """The linear model and the VAE, with everything else passed over."""
    out = tmp_path_factory.mktemp("out")
    names = ("linear", "judge", "notes", "README.md", "vae")
    return measure(folders, data, out, *names), out


def test_every_model_has_its_rows(two):
    comparison, _ = two
    table = [(r.model, r.method) for r in comparison.separability]
    assert table == [
        ("majority", "svm"), ("linear", "svm"), ("linear", "mean-difference"),
        ("vae", "svm"), ("vae", "mean-difference"),
        ("random-encoder", "svm"), ("random-encoder", "mean-difference"),
    ]  # fmt: skip
    assert {r.image_set for r in comparison.separability} == {TRAINING}
    assert len({r.n for r in comparison.separability}) == 1
    assert [(e.model, e.method, e.faces) for e in comparison.edits] == [
        (model, method, TEST) for model in ("linear", "vae") for method in METHODS
    ]
    assert [(p.first, p.second) for p in comparison.pairs] == [
        ("linear", "vae"), ("linear", "random-encoder"), ("vae", "random-encoder"),
    ]  # fmt: skip
    assert [m.name for m in comparison.models] == ["linear", "vae", "majority", "random-encoder"]
    assert [h.model for h in comparison.holes] == ["linear", "vae"]
    assert len(comparison.faces["Bright"]) == N_FACES


def test_the_linear_model_reads_and_edits_brightness(two):
    comparison, _ = two
    best = next(r for r in comparison.separability if (r.model, r.method) == ("linear", "svm"))
    assert best.accuracy.value > 0.9
    row = next(e for e in comparison.edits if (e.model, e.method) == ("linear", "svm"))
    assert row.share[-1] == 1 and row.share[0] == 0 and row.above_null
    assert row.equal_effect.strength is not None
    assert row.outcomes.strong + row.outcomes.decohered + row.outcomes.no_effect == row.n
    assert row.realism is not None


def test_directions_for_other_attributes_are_no_obstacle(two):
    comparison, _ = two
    assert {e.found for e in comparison.edits} == {"here"}
    notes = {m.name: m.note for m in comparison.models}
    assert "no direction file" in notes["linear"]
    assert "draws 32 pixels" in notes["vae"]
    assert not comparison.problems


def test_the_command_names_no_place_of_this_machine(two, folders):
    comparison, out = two
    assert str(folders) not in (out / "results.json").read_text()
    assert "--attributes Bright" in comparison.command and "--seed 0" in comparison.command


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    two, folders, data, tmp_path, monkeypatch
):
    _, finished = two
    real, seen = run.ModelEdits.measure, []

    def stop(self) -> None:
        seen.append(self)
        if len(seen) == 2:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(run.ModelEdits, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        measure(folders, data, tmp_path, "linear", "judge", "notes", "README.md", "vae")
    before = {p.name for p in (tmp_path / ".parts").iterdir()}
    assert not (tmp_path / "results.json").exists()
    monkeypatch.setattr(run.ModelEdits, "measure", real)
    written = (tmp_path / ".parts" / next(n for n in before if n.startswith("edits"))).stat()
    measure(folders, data, tmp_path, "linear", "judge", "notes", "README.md", "vae")
    again = (tmp_path / ".parts" / next(n for n in before if n.startswith("edits"))).stat()
    assert written.st_mtime_ns == again.st_mtime_ns
    for name in ("separability.csv", "edits.csv"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    texts = [(p / "results.json").read_text().splitlines() for p in (tmp_path, finished)]
    different = [line for line, other in zip(*texts, strict=True) if line != other]
    assert all("command" in line for line in different)  # it names the output folder


def bright_gan(folder: Path, *methods: str) -> Path:
    """A generator whose file holds directions of one attribute."""
    model = tiny_stylegan2(SIZE)
    vector = torch.zeros(model.latent_shape)
    vector[..., 0] = 1
    found = [Direction("Bright", m, vector).with_sigma(model) for m in methods]
    save_model(model, folder, DirectionSet.of(model, found))
    return folder


def test_a_model_without_an_encoder_edits_its_samples(folders, data, tmp_path):
    gan = bright_gan(tmp_path / "known", "svm")
    comparison = measure(folders, data, tmp_path / "out", "linear", str(gan), methods=("svm",))
    assert {r.model for r in comparison.separability} == {"majority", "linear"}
    assert [(e.model, e.faces) for e in comparison.edits] == [
        ("linear", TEST), ("linear", SAMPLES), ("known", SAMPLES),
    ]  # fmt: skip


def test_a_method_that_one_file_alone_holds_is_compared_there(folders, data, tmp_path):
    gan = bright_gan(tmp_path / "known", "svm", "svm-projected")
    methods = ("svm", "svm-projected")
    comparison = measure(folders, data, tmp_path / "out", "linear", str(gan), methods=methods)
    assert {(e.model, e.method) for e in comparison.edits} == {
        ("linear", "svm"), ("known", "svm"), ("known", "svm-projected"),
    }  # fmt: skip
    assert not [p for p in comparison.problems if p.model == "linear"]
    with pytest.raises(DataError, match="svm-projected"):
        measure(folders, data, tmp_path / "other", "linear", methods=methods)


def test_without_directions_and_an_encoder_only_the_space_is_looked_at(folders, data, tmp_path):
    comparison = measure(folders, data, tmp_path, "linear", "gan", methods=("svm",))
    assert [(e.model, e.faces) for e in comparison.edits] == [("linear", TEST)]
    assert [h.model for h in comparison.holes] == ["linear", "gan"]
    (problem,) = comparison.problems
    assert problem.model == "gan" and "no direction file" in problem.text
    assert next(m for m in comparison.models if m.name == "gan").problem


def test_projected_pictures_give_every_model_a_row_on_exactly_those(folders, data, tmp_path):
    faces, cache = data
    dataset = load_dataset(faces, SIZE, cache=cache, progress=False)
    model = tiny_stylegan2(SIZE).from_pretrained(folders / "gan")
    indices = np.concatenate([dataset.indices("train")[:60], dataset.indices("test")[:20]])
    projected = project_brightness(tmp_path / "projected", model, dataset, indices)
    comparison = measure(
        folders, data, tmp_path / "out", "linear", "gan", methods=("svm",), projected=[projected]
    )
    rows = [r for r in comparison.separability if r.image_set == PROJECTED]
    assert {r.model for r in rows} == {"majority", "linear", "gan"}
    assert len({r.n for r in rows}) == 1 and rows[0].n < 60
    best = next(r for r in rows if (r.model, r.method) == ("gan", "svm"))
    assert best.accuracy.value > 0.9
    kinds = {(e.model, e.method, e.faces) for e in comparison.edits}
    assert kinds == {
        ("gan", "svm-projected", TEST), ("gan", "svm-projected", SAMPLES), ("linear", "svm", TEST),
    }  # fmt: skip
    assert comparison.methods == ("svm", "svm-projected")
    with pytest.raises(DataError, match="none of the compared models"):
        measure(folders, data, tmp_path / "out", "linear", projected=[projected])


def test_projected_pictures_may_lie_in_several_folders(folders, data, tmp_path):
    faces, cache = data
    dataset = load_dataset(faces, SIZE, cache=cache, progress=False)
    model = tiny_stylegan2(SIZE).from_pretrained(folders / "gan")
    parts = {
        partition: project_brightness(
            tmp_path / partition, model, dataset, dataset.indices(partition)[:60]
        )
        for partition in ("train", "test")
    }
    names, options = ("linear", "gan"), {"methods": ("svm",), "projected": [*parts.values()]}
    comparison = measure(folders, data, tmp_path / "out", *names, **options)
    kinds = {(e.model, e.faces) for e in comparison.edits}
    assert kinds == {("gan", TEST), ("gan", SAMPLES), ("linear", TEST)}
    assert all(str(part.name) in comparison.command for part in parts.values())
    trained_only = measure(
        folders, data, tmp_path / "one", *names, methods=("svm",), projected=[parts["train"]]
    )
    kinds = {(e.model, e.faces) for e in trained_only.edits}
    assert kinds == {("gan", SAMPLES), ("linear", TEST), ("linear", SAMPLES)}
    twice = project_brightness(tmp_path / "twice", model, dataset, dataset.indices("train")[:9])
    options["projected"].append(twice)
    with pytest.raises(DataError, match="hold some pictures twice"):
        measure(folders, data, tmp_path / "out", *names, **options)
    options["projected"][2] = project_brightness(
        tmp_path / "otherwise", model, dataset, dataset.indices("validation")[:9], n_steps=7
    )
    with pytest.raises(DataError, match=r"different settings \(n_steps\); project both alike"):
        measure(folders, data, tmp_path / "out", *names, **options)


def project_brightness(folder: Path, model, dataset, indices: np.ndarray, **settings) -> Path:
    """A stand-in for projection: latents that know the pictures' brightness."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(len(indices), *model.latent_shape, generator=generator)
    latents[..., 0] = 40 * dataset.batch(indices).mean(dim=(1, 2, 3))[:, None]
    document = describe(
        model, dataset=dataset.digest, n_images=len(indices), settings=settings, shard=0
    )
    tensors = {"latents": latents, "errors": torch.zeros(len(indices))}
    tensors["indices"] = torch.from_numpy(indices)
    folder.mkdir()
    write_projected(shard_path(folder, 0), tensors, document)
    return folder


def test_fewer_faces_than_asked_for_are_said_to_be_so(folders, data, tmp_path):
    comparison = measure(folders, data, tmp_path, "linear", methods=("svm",), n_faces=100)
    (row,) = comparison.edits
    assert row.n < 40 and f"{row.n} faces; 100 were asked for." in row.note


def test_mistakes_are_refused_before_anything_is_measured(folders, data, tmp_path):
    with pytest.raises(DataError, match=r"Did you mean Bright\?"):
        measure(folders, data, tmp_path, "linear", attributes=("Brigth",))
    with pytest.raises(DataError, match=r"Did you mean svm\?"):
        measure(folders, data, tmp_path, "linear", methods=("svn",))
    with pytest.raises(DataError, match="None of the folders"):
        measure(folders, data, tmp_path, "judge", "notes")
    with pytest.raises(DataError, match="does not exist"):
        measure(folders, data, tmp_path, "lost")
    with pytest.raises(DataError, match="Two models are called linear"):
        measure(folders, data, tmp_path, "linear", "linear")
    assert not (tmp_path / "results.json").exists()


def test_an_attribute_that_only_the_data_know_is_refused(folders, data, tmp_path):
    judge = AttributeClassifier(16, width=2, attributes="Green").eval()
    judge.save_pretrained(tmp_path / "judge")
    with pytest.raises(ValueError, match="Unknown attribute 'Bright'"):
        measure(folders, data, tmp_path / "out", "linear", judge=tmp_path / "judge")


def test_the_command_line_says_what_it_did(folders, data, tmp_path, capsys):
    faces, cache = data
    shutil.copytree(folders / "linear", tmp_path / "cards" / "linear")
    card = tmp_path / "cards" / "linear" / "README.md"
    card.write_text("---\nlicense: mit\n---\n# Linear\n")
    linear, tmp_path = tmp_path / "cards" / "linear", tmp_path / "out"
    words = ["compare", str(linear), str(folders / "notes"), "--data", str(faces)]
    words += ["--attributes", "Bright", "--out", str(tmp_path), "--judge", str(folders / "judge")]
    cli.main([*words, "--methods", "svm", "--faces", "4", "--cache", str(cache)])
    said = capsys.readouterr().out
    assert "passed over" in said and "notes: no model." in said
    assert f"{tmp_path}: 3 rows of scores, 1 of edits" in said  # with the majority's
    written = {path.name for path in tmp_path.iterdir()}
    assert {"report.md", "index.html", "strips-linear-Bright-svm.png"} <= written
    rows = Comparison.load(tmp_path).separability
    (row,) = (r for r in rows if (r.model, r.method) == ("linear", "svm"))
    results = {r.metric_name: r.metric_value for r in ModelCard.load(card).data.eval_results}
    assert results["Bright.svm accuracy"] == pytest.approx(row.accuracy.value)
    assert any(name.startswith("Bright.svm strength at equal effect") for name in results)
    # Edits of real people, and what is kept to go on, stay out of a repository.
    hidden = {path.name for path in (tmp_path / "real-faces").iterdir()}
    assert hidden == {
        ".gitignore", "strips-linear-Bright-svm.png", "grid-linear-Bright-svm.png",
        "strips-to-label", "strips-to-label.csv",
    }  # fmt: skip
    assert (tmp_path / "real-faces/.gitignore").read_text() == "*\n"
    assert (tmp_path / ".parts/.gitignore").read_text() == "*\n"
    sheet = (tmp_path / "real-faces/strips-to-label.csv").read_text()
    assert len(list((tmp_path / "real-faces/strips-to-label").iterdir())) == 4
    labelled = tmp_path / "labelled.csv"
    labelled.write_text(sheet.replace(",\n", ",strong\n"))
    wishes = ["--methods", "svm", "--faces", "4", "--cache", str(cache)]
    cli.main([*words, *wishes, "--hand-labels", str(labelled)])
    assert Comparison.load(tmp_path).hand_labels.n == 4
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--methods", "svn", "--cache", str(cache)])
    assert stop.value.code == 2
