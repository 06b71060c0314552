"""The paper's experiment on tiny generators, and the whole chain from NVIDIA's file to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import hublatent
from hublatent import AttributeClassifier
from hublatent.cli import main as hublatent_command
from hublatent.direction_set import DirectionSet
from hublatent.errors import DataError
from hublatent.inversion.latents_file import read_projected
from hublatent.inversion.optimiser import DescentSettings
from tests.conftest import PROJECT
from tests.foreign_writers import nvidia_generator, nvidia_weights, write_nvidia
from tests.tiny_models import divided_judge, random_directions, save_model, tiny_stylegan2, tiny_vae
from tests.training_helpers import write_faces
from training import find_directions, paper_experiment, project_images

JUDGES = PROJECT / "model_cards"


def test_ranges_leave_no_layer_out() -> None:
    ranges = [str(r) for r in paper_experiment.layer_ranges(10, 3)]
    assert ranges == ["0-2", "3-5", "6-8", "9", "0-9"]


def test_strips_are_drawn_counted_and_tabled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = tiny_stylegan2()
    model.measure_latents(300)
    directions = random_directions(model)
    folder = save_model(model, tmp_path / "gan", directions)
    divided_judge(model, "Eyeglasses,Smiling").save_pretrained(tmp_path / "judge")
    out = tmp_path / "out"
    arguments = paper_experiment.Arguments(
        str(folder), out, n_faces=2, n_judged=4, judge=str(tmp_path / "judge"), judges=JUDGES
    )
    paper_experiment.run(arguments)
    written = json.loads((out / "results.json").read_text())
    vector = directions["Eyeglasses", "svm"].vector.double()
    row = vector.sum(dim=0)
    spread = (row @ model.latent_covariance.double() @ row).sqrt()  # of <w, vector> over W
    expected = float(vector.norm() / spread)  # <vector / |vector|, vector> is |vector|
    assert written["sigmas_of_alpha_1"] == pytest.approx(expected, rel=1e-4)
    assert list(written["layer_ranges"])[-1] == f"0-{model.latent_shape[0] - 1}"
    for counted in (*written["strips"].values(), *written["layer_ranges"].values()):
        shares = [counted[name] for name in ("strong", "decohered", "no effect")]
        assert sum(shares) == pytest.approx(1)
    assert "standard deviations" in capsys.readouterr().out
    for kind in ("alpha", "sigma"):
        strips = sorted((out / kind).iterdir())
        assert [s.name for s in strips] == ["face-00.png", "face-01.png"]
        with Image.open(strips[0]) as strip:
            assert strip.width >= 7 * paper_experiment.SIDE
    text = (out / "layers.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 2 + 2 + len(written["layer_ranges"])
    assert "in gan\n" in text and str(tmp_path) not in text


def test_a_judge_that_sees_the_attribute_everywhere(tmp_path: Path) -> None:
    model = tiny_stylegan2()
    folder = save_model(model, tmp_path / "gan", random_directions(model))
    judge = AttributeClassifier(32, width=4, attributes="Eyeglasses").eval()
    torch.nn.init.constant_(judge.head.bias, 50.0)
    judge.save_pretrained(tmp_path / "judge")
    arguments = paper_experiment.Arguments(
        str(folder), tmp_path, n_faces=2, n_judged=4, judge=str(tmp_path / "judge"), judges=JUDGES
    )
    with pytest.raises(DataError, match="0 of 24 samples lack Eyeglasses and 24 show it"):
        paper_experiment.run(arguments)


def test_latents_without_layers_are_refused(tmp_path: Path) -> None:
    model = tiny_vae()
    folder = save_model(model, tmp_path / "vae", random_directions(model))
    with pytest.raises(DataError, match="without layers"):
        paper_experiment.run(paper_experiment.Arguments(str(folder), tmp_path / "out"))


def test_from_nvidias_checkpoint_of_14_layers_to_the_papers_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """convert, project_images in W, find_directions, paper_experiment, as README has them."""
    weights = nvidia_weights(256, channel_base=512, channel_max=4)
    file = write_nvidia(tmp_path / "network.pkl", nvidia_generator(weights))
    folder = tmp_path / "celebahq"
    monkeypatch.setattr("sys.argv", ["hublatent", "convert", str(file), str(folder)])
    hublatent_command()
    model = hublatent.load(folder)
    assert model.latent_shape == (14, 8) and model.image_size == 256
    (tmp_path / "faces").mkdir()
    write_faces(tmp_path / "faces", 44, 4, size=64)
    data = {"data": str(tmp_path / "faces"), "cache": tmp_path / "cache", "model": str(folder)}
    in_w = DescentSettings(n_steps=2, n_candidates=4, tied_layers=1.0)
    projected = tmp_path / "projected"
    divided_judge(model, "Smiling,Male").save_pretrained(tmp_path / "judge")
    project_images.run(
        project_images.Arguments(
            **data, out=projected, attribute="Smiling", n=44, descent=in_w, perceptual="features",
            classifier=str(tmp_path / "judge"),
        )
    )  # fmt: skip
    latents = read_projected(projected, model).latents
    assert latents.shape == (44, 14, 8)
    assert torch.equal(latents, latents[:, :1].expand_as(latents))  # in W: every layer the same
    find_directions.run(find_directions.Arguments(**data, projected=projected, methods=("svm",)))
    direction = DirectionSet.from_pretrained(folder, model)["Smiling", "svm"]
    assert set(direction.vector.norm(dim=1).round(decimals=4).tolist()) == {0.0, 1.0}
    paper_experiment.run(
        paper_experiment.Arguments(
            str(folder), tmp_path / "figure", attribute="Smiling", n_faces=1, n_judged=2, width=7,
            judge=str(tmp_path / "judge"), judges=JUDGES,
        )
    )  # fmt: skip
    assert (tmp_path / "figure" / "alpha" / "face-00.png").is_file()
    written = json.loads((tmp_path / "figure" / "results.json").read_text())
    assert list(written["layer_ranges"]) == ["0-6", "7-13", "0-13"]
