"""The paper's experiment on a tiny generator whose judge can be computed."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from hublatent import AttributeClassifier
from hublatent.errors import DataError
from tests.tiny_models import random_directions, save_model, tiny_stylegan2, tiny_vae
from training import paper_experiment


def test_ranges_leave_no_layer_out() -> None:
    ranges = [str(r) for r in paper_experiment.layer_ranges(10, 3)]
    assert ranges == ["0-2", "3-5", "6-8", "9", "0-9"]


def test_strips_and_table(tmp_path, capsys) -> None:
    torch.manual_seed(0)
    model = tiny_stylegan2()
    model.measure_latents(300)
    directions = random_directions(model)
    folder = save_model(model, tmp_path / "gan", directions)
    judge = AttributeClassifier(32, width=4, attributes="Eyeglasses,Smiling").eval()
    torch.nn.init.constant_(judge.head.bias, -1.0)  # sees glasses on hardly any sample
    judge.save_pretrained(tmp_path / "judge")
    arguments = paper_experiment.Arguments(
        str(folder), tmp_path / "out", n_faces=2, n_judged=8, judge=str(tmp_path / "judge")
    )
    paper_experiment.run(arguments)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    sigma = directions["Eyeglasses", "svm"].sigma
    assert written["sigmas_of_alpha_1"] == pytest.approx(1 / sigma)
    assert list(written["layer_ranges"])[-1] == f"0-{model.latent_shape[0] - 1}"
    assert "standard deviations" in capsys.readouterr().out
    for kind in ("alpha", "sigma"):
        strips = sorted((tmp_path / "out" / kind).iterdir())
        assert [s.name for s in strips] == ["face-00.png", "face-01.png"]
        with Image.open(strips[0]) as strip:
            assert strip.width >= 7 * paper_experiment.SIDE
    text = (tmp_path / "out" / "layers.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(written["layer_ranges"])
    assert "in gan\n" in text and str(tmp_path) not in text


def test_a_judge_that_sees_the_attribute_everywhere(tmp_path) -> None:
    judge = AttributeClassifier(32, width=4, attributes="Eyeglasses").eval()
    torch.nn.init.constant_(judge.head.bias, 50.0)
    model = tiny_stylegan2()
    direction = random_directions(model)["Eyeglasses", "svm"]
    with pytest.raises(DataError, match="0 of 16 samples lack Eyeglasses"):
        paper_experiment.judged_ranges(model, direction, judge, width=3, n_faces=4, seed=0)


def test_latents_without_layers_are_refused(tmp_path) -> None:
    model = tiny_vae()
    folder = save_model(model, tmp_path / "vae", random_directions(model))
    with pytest.raises(DataError, match="without layers"):
        paper_experiment.run(paper_experiment.Arguments(str(folder), tmp_path / "out"))
