"""Faces in models without an encoder: projected once, stored beforehand; and ranges of layers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hublatent.demo.faces import (
    drawn_face,
    latents_of,
    project_missing,
    store_sample_latents,
)
from hublatent.demo.session import Edit, EditRequest, Refusal, compare_edits, first_request
from hublatent.demo.shelf import ModelShelf, find_models, offered_layers
from hublatent.demo.webpage import html, results_html
from hublatent.direction import Direction, LayerRange, offered_ranges
from hublatent.errors import DirectionError, HublatentError
from hublatent.inversion import projection
from tests.test_app import edits_of, png_bytes, uploaded_face
from tests.tiny_models import build_model_folders

GAN = "stylegan2-tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_model_folders(tmp_path)
    return tmp_path


@pytest.fixture
def shelf(folder: Path) -> ModelShelf:
    return ModelShelf(find_models(folder), device="cpu")


@pytest.fixture
def projected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A projection that answers at once; returns what it was called with."""
    calls: list[int] = []

    def project(model, images, *, progress, watch, n_steps=300):  # type: ignore[no-untyped-def]
        calls.append(n_steps)
        if progress is not None:
            progress(3, 10)
        return SimpleNamespace(latents=model.sample_latents(1))

    monkeypatch.setattr(projection, "project", project)
    return calls


def ask(**changes: object) -> EditRequest:
    return EditRequest(**{"models": ("vae-tiny", GAN), **changes})  # type: ignore[arg-type]


# Projection


def test_an_upload_waits_is_projected_once_and_shows_its_error(
    shelf: ModelShelf, projected: list[int]
) -> None:
    face, steps = uploaded_face(png_bytes()), []
    rows = compare_edits(shelf, face, ask())
    assert [row.pending for row in rows] == [False, True]
    assert GAN in html("edit.waiting", rows, face.key) and not projected
    for _ in range(2):
        project_missing(shelf, face, ask().models, lambda done, total: steps.append((done, total)))
    assert projected == [300] and steps == [(3, 10)]
    (row,) = compare_edits(shelf, uploaded_face(png_bytes()), ask(models=(GAN,)))
    assert isinstance(row, Edit) and row.still.error is not None and row.still.projected
    assert "Projection: mean squared error" in results_html([row], "Smiling")
    assert html("edit.waiting", [row], face.key) == ""


def test_an_encoders_estimate_shows_at_once_and_is_refined(
    shelf: ModelShelf, projected: list[int]
) -> None:
    model, face = shelf.open(GAN).model, uploaded_face(png_bytes())
    model.add_encoder(4, model.fingerprint())
    rows = compare_edits(shelf, face, ask())
    assert all(isinstance(row, Edit) for row in rows) and not projected
    assert [row.pending for row in rows] == [False, True]
    assert GAN in html("edit.waiting", rows, face.key)
    project_missing(shelf, face, ask().models)
    project_missing(shelf, face, ask().models)
    assert projected == [60]
    estimate, refined = rows[1], compare_edits(shelf, face, ask())[1]
    assert isinstance(estimate, Edit) and isinstance(refined, Edit)
    assert not refined.pending and refined.key != estimate.key
    assert not estimate.still.projected and refined.still.projected
    assert not torch.equal(refined.latents, estimate.latents)
    alike = latents_of(shelf.open(GAN), face, refined=False)
    assert torch.equal(alike, estimate.latents)
    own = drawn_face(shelf.open(GAN), 0)
    assert not compare_edits(shelf, own, ask(models=(GAN,)))[0].pending


def test_an_estimate_that_cannot_be_refined_stays(
    shelf: ModelShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def project(*_: object, **__: object) -> None:
        raise HublatentError("The projection diverged.")

    monkeypatch.setattr(projection, "project", project)
    model, face = shelf.open(GAN).model, uploaded_face(png_bytes())
    model.add_encoder(4, model.fingerprint())
    project_missing(shelf, face, (GAN,))
    (row,) = compare_edits(shelf, face, ask(models=(GAN,)))
    assert isinstance(row, Edit) and not row.pending and not row.still.projected


def test_a_failed_projection_is_told_and_not_tried_again(
    shelf: ModelShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def project(*_: object, **__: object) -> None:
        calls.append(1)
        raise HublatentError("The projection diverged.")

    monkeypatch.setattr(projection, "project", project)
    face = drawn_face(shelf.open("vae-tiny"), 0)
    for _ in range(2):
        project_missing(shelf, face, ask().models)
    row = compare_edits(shelf, face, ask())[1]
    assert row == Refusal(GAN, "The projection diverged.", pending=False)
    assert len(calls) == 1


def test_stored_latents_show_sample_faces_at_once(
    shelf: ModelShelf, folder: Path, projected: list[int]
) -> None:
    (written,) = store_sample_latents(shelf, shelf.names, lambda _: None)
    assert written.parent == folder / GAN and len(projected) == 3 * 8
    again = ModelShelf(find_models(folder), device="cpu")
    face = drawn_face(again.open("betavae-tiny"), 5)
    known = drawn_face(shelf.open("betavae-tiny"), 5)
    expected = latents_of(shelf.open(GAN), known)
    assert torch.equal(latents_of(again.open(GAN), face), expected)
    assert not any(row.pending for row in compare_edits(again, face, ask()))


@pytest.mark.parametrize("damage", ["garbage", "other weights"])
def test_stored_latents_that_do_not_fit_are_skipped(
    shelf: ModelShelf, folder: Path, projected: list[int], damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (written,) = store_sample_latents(shelf, (GAN, "vae-tiny"), lambda _: None)
    if damage == "garbage":
        written.write_bytes(b"garbage")
    else:
        torch.manual_seed(99)
        build_model_folders(folder / "other")
        opened = shelf.open(GAN)
        with torch.no_grad():
            opened.model.latent_mean.add_(1)
        opened.model.save_pretrained(folder / GAN)
        (folder / GAN / "directions.safetensors").unlink()
    again = ModelShelf({GAN: str(folder / GAN)}, device="cpu")
    assert again.open(GAN).stored_latents == {}
    assert "skipped" in caplog.text


def test_the_first_page_needs_no_projection(shelf: ModelShelf) -> None:
    request = first_request(shelf, 5)
    assert request.source == GAN and set(request.models) == set(shelf.names)
    face = drawn_face(shelf.open(request.source), request.seed)
    assert all(isinstance(row, Edit) for row in compare_edits(shelf, face, request))
    assert first_request(ModelShelf({}, device="cpu"), 5).models == ()


# Layers


def spread(row: list[float], layers: tuple[int, ...], n_layers: int = 6) -> Direction:
    vector = torch.zeros(n_layers, len(row))
    vector[list(layers)] = torch.tensor(row)
    return Direction("Smiling", "svm", vector, threshold=0.5, gain=2.0)


def test_a_direction_of_one_vector_is_put_on_other_layers() -> None:
    moved = LayerRange(2, 4).of(spread([3.0, 4.0], (0, 1, 2)))
    assert moved.layers == (2, 3, 4)
    assert torch.equal(moved.vector, spread([3.0, 4.0], (2, 3, 4)).vector)
    assert moved.threshold is None, "it was measured on other layers"
    own = spread([3.0, 4.0], (0, 1, 2))
    assert LayerRange(0, 2).of(own) is own
    flat = Direction("Smiling", "svm", torch.ones(4))
    assert LayerRange(0, 9).of(flat) is flat


def test_of_a_direction_with_a_vector_per_layer_the_range_is_cut_out() -> None:
    rows = torch.arange(1.0, 9).reshape(4, 2)
    moved = LayerRange(1, 2).of(Direction("Age", "svm", rows))
    assert torch.equal(moved.vector[1:3], rows[1:3])
    assert not moved.vector[[0, 3]].any()
    rows[3] = 0
    with pytest.raises(DirectionError, match="none of 3"):
        LayerRange(3, 3).of(Direction("Age", "svm", rows))


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1-", "1.5", "0-99999", "1,2"])
def test_a_malformed_range_is_refused(text: str) -> None:
    with pytest.raises(DirectionError, match="expected a range"):
        LayerRange.parse(text)


def test_ranges_are_read_written_and_offered() -> None:
    assert LayerRange.parse(" 3 - 5 ") == LayerRange(3, 5)
    assert str(LayerRange(3, 5)) == "3-5" and str(LayerRange.parse("4")) == "4"
    assert offered_ranges(18) == ("0-5", "6-11", "12-17", "0-17")
    assert offered_ranges(0) == ()


def test_the_app_moves_the_layers_asked_for(shelf: ModelShelf) -> None:
    assert offered_layers([shelf.open("vae-tiny")]) == ()
    opened = shelf.open(GAN)
    assert offered_layers([opened])[-1] == f"0-{opened.n_layers - 1}"
    face = drawn_face(opened, 0)
    found, fine = (
        edits_of(compare_edits(shelf, face, ask(layers=layers)))
        for layers in (None, LayerRange(5, 6))
    )
    assert found[0].picture.tobytes() == fine[0].picture.tobytes(), "a latent without layers"
    assert found[1].picture.tobytes() != fine[1].picture.tobytes()
    assert fine[1].reading is None, "the reading is of other layers"
    outside = compare_edits(shelf, face, ask(layers=LayerRange(0, 99)))
    assert isinstance(outside[1], Refusal)
    assert f"layers 0 to {opened.n_layers - 1}" in outside[1].problem
