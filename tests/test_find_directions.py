"""The scripts from pictures to direction files, on faces whose attributes are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hublatent import AttributeClassifier, DirectionSet, edit, hub, load
from hublatent.cli import main
from hublatent.data import FaceDataset, load_dataset
from hublatent.direction import Origin
from hublatent.discovery import LabelledLatents
from hublatent.discovery.methods.stylespace import in_styles
from hublatent.errors import DataError, exit_on_user_error
from hublatent.inversion import latents_file as projected
from tests.tiny_models import tiny_eigenfaces, tiny_stylegan2
from tests.training_helpers import in_two_processes
from training import find_directions
from training.trainers import eigenfaces

SIZE = 16
N_KNOWN, N_TEST = 120, 24


def write_faces(folder: Path, test_seed: int = 0) -> Path:
    """Noise pictures; Bright ones are brighter, Green ones greener, five are Rare.

    Args:
        folder: where they go.
        test_seed: of the test partition's pictures and labels alone.
    """
    folder.mkdir()
    known, test = np.random.default_rng(0), np.random.default_rng(test_seed)
    rows = ["name,identity,partition,Bright,Green,Rare"]
    for i in range(N_KNOWN + N_TEST):
        rng = known if i < N_KNOWN else test
        bright, green = rng.random(2) < 0.5
        pixels = rng.normal(90, 10, (SIZE, SIZE, 3)) + 40 * bright
        pixels[..., 1] += 30 * green
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.png")
        partition = 2 if i >= N_KNOWN else int(i % 6 == 0)
        # Everybody is on two pictures of one partition.
        identity = i // 12 * 12 + (i % 6)
        rows.append(f"{i:03d}.png,{identity},{partition},{int(bright)},{int(green)},{int(i < 5)}")
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(faces: Path, cache: Path) -> FaceDataset:
    return load_dataset(faces, SIZE, cache=cache, progress=False)


def fit(faces: Path, cache: Path, out: Path, latent_dim: int = 6) -> Path:
    arguments = eigenfaces.Arguments(
        data=str(faces), out=out, latent_dim=latent_dim, image_size=SIZE, cache=cache
    )
    eigenfaces.run(arguments)
    return out / "model"


@pytest.fixture(scope="module")
def model_folder(faces: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(faces, cache, tmp_path_factory.mktemp("runs") / "eigenfaces")


def find(model: Path, faces: Path, cache: Path, **options) -> None:
    find_directions.run(
        find_directions.Arguments(model=str(model), data=str(faces), cache=cache, **options)
    )


def refusal(capsys: pytest.CaptureFixture[str], action) -> str:
    """The one sentence with which a script ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        exit_on_user_error(action)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    return next(line for line in lines if line.startswith("error: "))


def test_eigenfaces_are_the_principal_components(model_folder, dataset):
    """Against NumPy's singular value decomposition of the centred training pixels."""
    model = load(model_folder)
    pixels = dataset.batch(dataset.indices("train")).flatten(1).double().numpy()
    centred = pixels - pixels.mean(axis=0)
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    components = model.components.double().numpy()
    np.testing.assert_allclose(model.mean, pixels.mean(axis=0), atol=1e-6)
    # Noise components beyond the first two lie close together, so whole spaces are compared.
    np.testing.assert_allclose(np.abs((components[:2] * rows[:2]).sum(axis=1)), 1, atol=1e-5)
    np.testing.assert_allclose(components @ rows[:6].T @ rows[:6], components, atol=1e-3)
    np.testing.assert_allclose(components @ components.T, np.eye(6), atol=1e-5)
    assert (components.max(axis=1) == np.abs(components).max(axis=1)).all()


def test_eigenfaces_know_their_latents_and_their_error(model_folder, dataset):
    model = load(model_folder)
    latents = model.encode(dataset.batch(dataset.indices("train", "validation")))
    torch.testing.assert_close(model.latent_mean, latents.mean(dim=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.latent_covariance, torch.cov(latents.T), atol=1e-4, rtol=1e-4)
    images = dataset.batch(dataset.indices("test"))
    difference = (model.decode(model.encode(images)) - images) / 2
    results = json.loads((model_folder.parent / "results.json").read_text())
    assert results["test"]["mse"] == pytest.approx(float(difference.square().mean()), rel=1e-5)
    assert results["test"]["n_images"] == N_TEST
    assert results["fingerprint"] == model.fingerprint()
    assert results["data"] == dataset.digest


def test_eigenfaces_are_the_same_each_time(model_folder, faces, cache, tmp_path):
    again = load(fit(faces, cache, tmp_path / "again"))
    assert again.fingerprint() == load(model_folder).fingerprint()


def test_more_components_than_pictures_are_refused(faces, cache, tmp_path, capsys):
    message = refusal(capsys, lambda: fit(faces, cache, tmp_path / "out", latent_dim=100))
    assert "100 components need more images" in message
    assert not (tmp_path / "out").exists()


def test_directions_point_to_what_is_labelled(model_folder, faces, cache, dataset, capsys):
    find(model_folder, faces, cache)
    printed = capsys.readouterr().out
    model = load(model_folder)
    found = DirectionSet.from_pretrained(model_folder, model)
    assert found.attributes == ("Bright", "Green")
    assert found.methods == ("svm", "pattern", "joint")
    assert "left out: Rare: 5 examples have the attribute" in printed
    assert "Bright.joint" in printed
    for direction in found:
        # Patterns need not read well: brightness moves what greenness moves.
        assert direction.method != "svm" or direction.scores["accuracy"].value > 0.9
        assert direction.origin == Origin("encoded", "faces", dataset.digest, N_KNOWN)
    # Joint: what brightness adds to the pixels, and greenness, whatever the other does.
    bright, green = (
        (found[name, "joint"].vector @ model.components).unflatten(0, (3, -1)).mean(dim=1)
        for name in ("Bright", "Green")
    )
    torch.testing.assert_close(bright / bright.mean(), torch.ones(3), atol=0.1, rtol=0)
    assert green[1] > 8 * green[[0, 2]].abs().max()


def test_scores_stand_beside_the_file_too(model_folder, faces, cache, dataset):
    find(model_folder, faces, cache)
    summary = json.loads((model_folder / "directions.json").read_text())
    found = DirectionSet.from_pretrained(model_folder)
    assert set(summary["directions"]) == {d.name for d in found}
    for direction in found:
        written = summary["directions"][direction.name]["scores"]["auroc"]
        assert written["value"] == direction.scores["auroc"].value
    assert list(summary["left_out"]) == ["Rare"]
    assert summary["n_images"] == N_KNOWN
    shares = dataset.labels[dataset.indices("train")].mean(axis=0)
    assert list(summary["training_shares"].values()) == pytest.approx(shares.tolist())


def test_the_test_partition_stays_unseen(model_folder, faces, cache, tmp_path):
    other = write_faces(tmp_path / "others", test_seed=9)
    find(model_folder, faces, cache, out=tmp_path / "a.safetensors")
    find(model_folder, other, cache, out=tmp_path / "b.safetensors")
    first, second = (DirectionSet.load(tmp_path / f"{x}.safetensors") for x in "ab")
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.vector, b.vector)
        assert (a.scores, a.threshold, a.gain) == (b.scores, b.threshold, b.gain)
        assert a.origin != b.origin


def test_what_is_asked_for_is_found(model_folder, faces, cache, tmp_path):
    out = tmp_path / "some.safetensors"
    find(model_folder, faces, cache, out=out, attributes=("Green",), methods=("logistic",))
    assert [direction.name for direction in DirectionSet.load(out)] == ["Green.logistic"]


class Brightness(torch.nn.Module):
    """Stands for a trained classifier; its one attribute can be computed."""

    attributes = "Bright"

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        return (images.mean(dim=(1, 2, 3)) > 0).float()[:, None]


def test_samples_that_a_classifier_labels(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = tiny_stylegan2(SIZE)
    model.measure_latents(500)
    model.save_pretrained(tmp_path / "gan")
    monkeypatch.setattr(AttributeClassifier, "from_pretrained", lambda _: Brightness())
    arguments = find_directions.Arguments(
        model=str(tmp_path / "gan"), samples=400, classifier="some/one"
    )
    find_directions.run(arguments)
    found = DirectionSet.from_pretrained(tmp_path / "gan", model)
    assert found.methods == ("svm", "pattern", "joint")
    latents = model.sample_latents(100, generator=torch.Generator().manual_seed(9))
    for direction in found:
        assert direction.layers == model.default_layers
        assert direction.origin is not None
        assert (direction.origin.kind, direction.origin.n) == ("sampled", 400)
        assert direction.origin.dataset == "one"
        darker, brighter = (model.decode(edit(latents, direction, s)).mean() for s in (-2, 2))
        assert brighter > darker + 0.01


def write_projected_faces(folder: Path, model_folder: Path, dataset: FaceDataset) -> None:
    """Shards as project_images.py writes them; what is said of test images is nonsense."""
    model = load(model_folder)
    indices = torch.arange(len(dataset))
    latents = model.encode(dataset.batch(indices.numpy()))
    latents[dataset.indices("test")] = 1e6
    facts = {"dataset": dataset.digest, "n_images": len(indices), "settings": {}}
    for number, part in enumerate(indices.split(50)):
        tensors = {"latents": latents[part], "errors": torch.zeros(len(part)), "indices": part}
        document = {**projected.describe(model, **facts), "shard": number}
        projected.PROJECTED.write(projected.shard_path(folder, number), tensors, document)


def test_projected_images_are_named_as_such(model_folder, faces, cache, dataset, tmp_path):
    write_projected_faces(tmp_path, model_folder, dataset)
    out = tmp_path / "out.safetensors"
    find(model_folder, faces, cache, out=out, methods=("mean-difference",))
    find(model_folder, faces, cache, out=out, methods=("joint",), projected=tmp_path, add=True)
    found = DirectionSet.load(out)
    assert found.methods == ("mean-difference", "joint-projected")
    known = dataset.indices("train", "validation")
    origin = found["Bright", "joint-projected"].origin
    assert origin == Origin("projected", faces.name, dataset.digest, len(known))
    codes = load(model_folder).encode(dataset.batch(known)).double().numpy()
    design = np.column_stack([np.ones(len(known)), dataset.labels[known]])
    truth = np.linalg.lstsq(design, codes, rcond=None)[0][1]
    vector = found["Bright", "joint-projected"].vector.numpy()
    np.testing.assert_allclose(vector, truth / np.linalg.norm(truth), atol=1e-4)
    written = json.loads(out.with_suffix(".json").read_text())
    names = {f"{d.attribute}.{found.method_of(d)}" for d in found}
    assert set(written["directions"]) == names
    first, second = written["commands"]  # what both kinds were found by
    assert "--methods mean-difference" in first and "--methods joint" in second
    assert "--add" in second and str(tmp_path.parent) not in first + second


def test_projected_images_of_other_data_are_refused(model_folder, cache, dataset, tmp_path, capsys):
    write_projected_faces(tmp_path, model_folder, dataset)
    other = write_faces(tmp_path / "others", test_seed=9)
    options = {"out": tmp_path / "out.safetensors", "projected": tmp_path}
    assert "that were projected" in refusal(
        capsys, lambda: find(model_folder, other, cache, **options)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": -1}, "--samples is a number of samples"),
        ({"samples": 9, "projected": Path("some")}, "does not go with --projected"),
        ({"attributes": ("bright",)}, "Did you mean Bright?"),
        ({"attributes": ("Rare",)}, "No direction can be found. Rare: 5 examples"),
        ({"methods": ("svn",)}, "Did you mean svm?"),
        ({"methods": ()}, "at least one name"),
    ],
)
def test_mistakes_end_with_one_sentence(
    model_folder, faces, cache, tmp_path, capsys, options, message
):
    out = tmp_path / "out.safetensors"
    assert message in refusal(capsys, lambda: find(model_folder, faces, cache, out=out, **options))
    assert list(tmp_path.iterdir()) == []


def test_models_without_encoder_or_place_are_refused(faces, cache, tmp_path, capsys):
    tiny_stylegan2(SIZE).save_pretrained(tmp_path / "gan")
    assert "no encoder" in refusal(capsys, lambda: find(tmp_path / "gan", faces, cache))
    nothing = find_directions.Arguments(model=str(tmp_path / "gan"))
    assert "--samples" in refusal(capsys, lambda: find_directions.run(nothing))
    missing = refusal(capsys, lambda: find(Path("user/model"), faces, cache))
    assert "--out" in missing
    assert not (tmp_path / "gan" / hub.DIRECTIONS_NAME).exists()


def test_a_column_of_numbers_is_found_and_followed(
    model_folder: Path, faces: Path, cache: Path, dataset: FaceDataset, tmp_path: Path
) -> None:
    brightness = dataset.images.mean(axis=(1, 2, 3))
    table = tmp_path / "table.csv"
    rows = [f"{n},{b:.3f}" for n, b in zip(dataset.names, brightness, strict=True)]
    table.write_text("\n".join(["name,Brightness", *rows]))
    out = tmp_path / "directions.safetensors"
    find(model_folder, faces, cache, out=out, quantities=table, attributes=("all",),
         methods=("supervised-pca",))  # fmt: skip
    model = load(model_folder)
    direction = DirectionSet.load(out, model)["Brightness", "supervised-pca"]
    latents = model.encode(dataset.batch(dataset.indices("test")))
    brighter = model.decode(edit(latents, direction, 1.0)) - model.decode(latents)
    assert brighter.mean() > 0.05
    with pytest.raises(DataError, match="give --data alone"):
        find(model_folder, faces, cache, out=out, quantities=table, samples=10)


def test_directions_of_styles_have_a_file_of_their_own() -> None:
    model = tiny_stylegan2()
    latents = model.sample_latents(20)
    data = LabelledLatents(latents.numpy(), np.ones((20, 1), bool), ("Bright",), np.arange(20))
    space, moved = in_styles(model, data)
    assert moved.latents.shape == (20, *space.latent_shape)
    torch.testing.assert_close(space.decode(torch.from_numpy(moved.latents)), model.decode(latents))
    with pytest.raises(DataError, match="those of a StyleGAN2"):
        in_styles(tiny_eigenfaces(), data)
    with pytest.raises(DataError, match="a file of their own"):
        find_directions.run(find_directions.Arguments(model="model", samples=10, styles=True))


def test_components_are_added_to_the_file(model_folder: Path, tmp_path: Path) -> None:
    classifier = AttributeClassifier(16, width=8, attributes="Bright,Green").eval()
    classifier.save_pretrained(tmp_path / "classifier")
    for method in ("components", "factorisation", "components"):
        main(
            ["find-unlabelled", str(model_folder), "--method", method, "--n", "3", "--samples", "8",
             "--classifier", str(tmp_path / "classifier"),
             "--out", str(tmp_path / "directions.safetensors")]
        )  # fmt: skip
    found = DirectionSet.load(tmp_path / "directions.safetensors", load(model_folder))
    assert sorted(d.method for d in found) == [
        *(f"components-{i:02d}" for i in range(3)),
        *(f"factorisation-{i:02d}" for i in range(3)),
    ]


def test_two_processes_find_what_one_does(model_folder, faces, cache, tmp_path):
    find(model_folder, faces, cache, out=tmp_path / "one" / "directions.safetensors")
    two = tmp_path / "two" / "directions.safetensors"
    in_two_processes(lambda: find(model_folder, faces, cache, out=two))
    for name in ("directions.safetensors", "directions.json"):
        assert (two.parent / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
