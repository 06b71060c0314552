"""The app without a browser: sessions, links, rows, and the endpoint that scripts call."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hublatent.demo.composing import Composed, Composition, animate, compose, share_picture
from hublatent.demo.edit_tab import Editor
from hublatent.demo.faces import Face, Photo, drawn_face
from hublatent.demo.map_tab import draw_atlas
from hublatent.demo.session import Edit, EditRequest, Refusal, Row, compare_edits
from hublatent.demo.shelf import (
    BEST_METHOD,
    ModelShelf,
    collect_models,
    find_models,
    offered_attributes,
    offered_methods,
)
from hublatent.demo.verdicts import FRAMES, SWEEP, Sweep
from hublatent.demo.webpage import download_of, moves_of, results_html
from hublatent.direction import LayerRange
from hublatent.editing import edit, probability
from hublatent.errors import DirectionError, HublatentError, ImageError
from hublatent.figures import data_uri, fit, grid, strip
from hublatent.images import to_pil, to_tensor
from hublatent.models.vae import VAE
from hublatent.perception.faces import SAME_PERSON_DISTANCE
from tests.conftest import PROJECT
from tests.tiny_models import random_directions, save_model, tiny_eigenfaces, tiny_vae


@pytest.fixture
def shelf(model_cards: Path) -> ModelShelf:
    return ModelShelf(find_models(model_cards), device="cpu")


def png_bytes(size: tuple[int, int] = (40, 50), mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format="PNG")
    return buffer.getvalue()


def uploaded_face(content: bytes) -> Face:
    return Photo.open(content).face()


def request_for(shelf: ModelShelf, **changes: object) -> EditRequest:
    given = {"models": shelf.names, "attribute": "Eyeglasses", "strength": 2.0, **changes}
    return EditRequest(**given)  # type: ignore[arg-type]


def edits_of(rows: list[Row]) -> list[Edit]:
    """All rows, none of which is a refusal."""
    edits = [row for row in rows if isinstance(row, Edit)]
    assert len(edits) == len(rows), [row for row in rows if isinstance(row, Refusal)]
    return edits


# Faces


def test_a_seed_draws_the_same_face_and_another_seed_another(shelf: ModelShelf) -> None:
    opened = shelf.open("vae-tiny")
    first, again, other = drawn_face(opened, 3), drawn_face(opened, 3), drawn_face(opened, 4)
    assert first.picture.tobytes() == again.picture.tobytes()
    assert first.picture.tobytes() != other.picture.tobytes()
    for seed in (-1, 2**31):
        with pytest.raises(HublatentError, match="Seed"):
            drawn_face(opened, seed)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
def test_uploads_of_any_mode_become_square_rgb(mode: str) -> None:
    face = uploaded_face(png_bytes((60, 40), mode))
    assert face.picture.mode == "RGB"
    assert face.picture.size == (40, 40)


@pytest.mark.parametrize("content", [b"", b"hello", png_bytes()[:60]])
def test_a_broken_upload_is_one_sentence_without_a_path(content: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        uploaded_face(content)
    assert str(caught.value).startswith("the given picture")


# Rows


def test_rows_agree_with_the_models_own_arithmetic(shelf: ModelShelf) -> None:
    face = uploaded_face(png_bytes((32, 32)))
    (row,) = edits_of(compare_edits(shelf, face, request_for(shelf, models=("vae-tiny",))))
    opened = shelf.open("vae-tiny")
    assert opened.directions is not None
    direction = opened.directions["Eyeglasses", "joint"]
    with torch.inference_mode():
        images = to_tensor([face.picture], 32)
        latents = opened.model.encode(images)
        moved = latents + 2.0 * direction.sigma * direction.vector
        pixels = (images + 1) / 2 - (opened.model.decode(latents) + 1) / 2
        expected = to_pil(opened.model.decode(moved))[0]
    assert row.picture.tobytes() == expected.tobytes()
    assert row.strength == 2.0
    assert row.still.error == pytest.approx(float((pixels**2).mean()), rel=1e-5)
    assert row.raw == pytest.approx(2.0 * direction.sigma)
    assert row.reading is not None
    assert row.reading[1] == pytest.approx(float(probability(moved, direction)), abs=1e-6)
    # An edit that aims at the printed probability arrives at the printed strength.
    aimed = edit(latents, direction, row.reading[1], unit="probability")
    assert torch.allclose(aimed, moved, atol=1e-4)


def test_the_strip_runs_through_the_unedited_picture(shelf: ModelShelf) -> None:
    face = drawn_face(shelf.open("vae-tiny"), 0)
    request = request_for(shelf, models=("vae-tiny", "betavae-tiny"))
    for row in edits_of(compare_edits(shelf, face, request)):
        assert len(row.still.frames) == len(SWEEP[FRAMES])
        middle = np.asarray(row.still.frames[3], dtype=int)
        assert np.abs(middle - np.asarray(row.still.reconstruction, dtype=int)).max() <= 1


def test_a_model_without_encoder_edits_its_own_faces_only(shelf: ModelShelf) -> None:
    own = drawn_face(shelf.open("stylegan2-tiny"), 1)
    edits = edits_of(compare_edits(shelf, own, request_for(shelf)))
    still = next(row.still for row in edits if row.model == "stylegan2-tiny")
    assert still.error is None
    assert still.reconstruction.tobytes() == own.picture.tobytes()
    other = drawn_face(shelf.open("vae-tiny"), 1)
    rows = {row.model: row for row in compare_edits(shelf, other, request_for(shelf))}
    assert rows["stylegan2-tiny"].pending
    assert isinstance(rows["betavae-tiny"], Edit)


def test_held_attributes_keep_their_reading(shelf: ModelShelf) -> None:
    opened = shelf.open("vae-tiny")
    assert opened.directions is not None
    direction = opened.find("Eyeglasses", "joint", ("Male", "Smiling"))
    latents = opened.model.sample_latents(5, generator=torch.Generator().manual_seed(0))
    moved = edit(latents, direction, 4.0)
    for held in ("Male", "Smiling"):
        reading = opened.directions[held, "svm"]
        assert torch.allclose(reading.coordinate(moved), reading.coordinate(latents), atol=1e-4)
    with pytest.raises(DirectionError, match="cannot be held"):
        opened.find("Male", "joint", ("Male",))


def test_one_models_problem_does_not_stop_the_others(shelf: ModelShelf, tmp_path: Path) -> None:
    shelf.catalogue["bare"] = str(save_model(tiny_eigenfaces(), tmp_path / "bare"))
    foreign = save_model(tiny_vae(), tmp_path / "foreign")
    source = Path(shelf.catalogue["vae-tiny"]) / "directions.safetensors"
    (foreign / source.name).write_bytes(source.read_bytes())
    shelf.catalogue["foreign"] = str(foreign)
    face = drawn_face(shelf.open("vae-tiny"), 0)
    names = ("bare", "foreign", "no-such/model/here", "eigenfaces-tiny")
    *refused, edited = compare_edits(shelf, face, request_for(shelf, models=names))
    words = ("find_directions", "fingerprint", "no Hub id")
    for row, word in zip(refused, words, strict=True):
        assert isinstance(row, Refusal) and word in row.problem
    assert isinstance(edited, Edit)


def test_an_unknown_attribute_offers_the_nearest_name(shelf: ModelShelf) -> None:
    face = drawn_face(shelf.open("vae-tiny"), 0)
    rows = compare_edits(shelf, face, request_for(shelf, attribute="Eyeglases"))
    problems = [row.problem for row in rows if isinstance(row, Refusal)]
    assert all("Did you mean Eyeglasses?" in p for p in problems if "no encoder" not in p)
    assert len(problems) == len(shelf.names)


def test_what_is_offered_is_the_union(shelf: ModelShelf) -> None:
    opened = [shelf.open(name) for name in shelf.names]
    assert offered_attributes(opened) == ("Eyeglasses", "Smiling", "Male")
    assert offered_methods(opened) == (BEST_METHOD, "joint", "svm")


def test_a_slider_move_encodes_nothing_again(
    shelf: ModelShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = uploaded_face(png_bytes())
    compare_edits(shelf, face, request_for(shelf))
    model = shelf.open("vae-tiny").model
    monkeypatch.setattr(model, "encode", lambda *_: pytest.fail("encoded again"))
    edits_of(compare_edits(shelf, face, request_for(shelf, models=("vae-tiny",), strength=-1.0)))


def test_a_slider_move_sends_what_it_changes_and_nothing_else(shelf: ModelShelf) -> None:
    face = drawn_face(shelf.open("vae-tiny"), 0)
    first, second = (
        compare_edits(shelf, face, request_for(shelf, models=("vae-tiny",), strength=strength))
        for strength in (2.0, -4.0)
    )
    page = results_html(first, "Eyeglasses")
    (before,), (after,) = moves_of(first), moves_of(second)
    assert f'data-key="{after["key"]}"' in page and before["key"] == after["key"]
    assert before["edited"]["src"] in page and before["edited"]["src"] != after["edited"]["src"]
    assert len(json.dumps(after)) < len(page) / 5
    others = request_for(shelf, models=("vae-tiny",), attribute="Male")
    (other,) = moves_of(compare_edits(shelf, face, others))
    assert other["key"] != after["key"], "an answer that comes too late finds no row"


# Links


def test_a_link_restores_the_request() -> None:
    from urllib.parse import parse_qsl

    request = EditRequest(
        ("vae-tiny", "user/repo"), "No_Beard", "svm", ("Male", "Young"), "alpha", -2.5,
        "vae-tiny", 17, LayerRange(3, 5),
    )  # fmt: skip
    query = dict(parse_qsl(request.to_query().lstrip("?")))
    assert EditRequest.from_query(query, EditRequest()) == request
    assert EditRequest.from_query({}, request) == request


def test_an_upload_is_not_part_of_a_link() -> None:
    query = EditRequest(("vae-tiny",), source="", seed=5).to_query()
    assert "seed" not in query and "face" not in query


@pytest.mark.parametrize(
    "query", [{"strength": "7"}, {"strength": "nan"}, {"strength": "x"}, {"seed": "inf"},
              {"models": "a,b,c,d,e,f,g,h,i"}, {"layers": "5-3"}, {"layers": "x"}, {"mode": "x"},
              {"hold": "a,b,c,d,e,f,g,h,i"}, {"mode": "effect", "strength": "0"}],
)  # fmt: skip
def test_a_bad_link_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(HublatentError):
        EditRequest.from_query(query, EditRequest())


# Pictures and HTML


def test_strip_and_grid_place_every_picture() -> None:
    colours = ["#ff0000", "#00ff00", "#0000ff"]
    pictures = [Image.new("RGB", (10, 8), colour) for colour in colours]
    joined = strip(pictures, gap=2)
    assert joined.size == (34, 8)
    assert [joined.getpixel((12 * i, 4)) for i in range(3)] == [
        p.getpixel((0, 0)) for p in pictures
    ]
    assert joined.getpixel((10, 0)) == (255, 255, 255)
    sheet = grid([pictures, pictures], ["a", "b"], ["1", "2", "3"], "title")
    counts = {colour: n for n, colour in sheet.getcolors(1 << 16)}
    assert all(counts[p.getpixel((0, 0))] == 2 * 80 for p in pictures)
    with pytest.raises(HublatentError, match="one size"):
        strip([pictures[0], Image.new("RGB", (9, 8))])
    with pytest.raises(HublatentError, match="row labels"):
        grid([pictures], ["a", "b"], ["1", "2", "3"])
    assert fit(pictures[0], 25, 50).size == (25, 20)
    assert fit(pictures[0], 2, 5).size == (5, 4)
    assert fit(pictures[0], 5, 20) is pictures[0]
    assert data_uri(pictures[0]).startswith("data:image/png;base64,")


class Attributes(HTMLParser):
    """Collects tags, and refuses a script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "b")
        if tag == "img":
            self.images.append(dict(attrs))


def test_every_picture_has_an_alternative_text_and_names_are_escaped(
    shelf: ModelShelf, model_cards: Path
) -> None:
    name = '<script>alert(1)</script>"x'
    shelf.catalogue[name] = str(model_cards / "vae-tiny")
    face = drawn_face(shelf.open("vae-tiny"), 0)
    request = request_for(shelf, models=("eigenfaces-tiny", name), method="joint")
    rows = compare_edits(shelf, face, request)
    images = Attributes(results_html(rows, "Eyeglasses")).images
    assert len(images) == 2 * 9, "unedited, edited and seven frames each"
    assert all(image["alt"] for image in images)
    file = download_of(rows, request)
    assert file is not None and file["name"] == "Eyeglasses-joint.png"
    refused = compare_edits(shelf, face, request_for(shelf, models=("<script>",)))
    Attributes(results_html(refused, "Eyeglasses"))


# The Gradio app itself


def test_without_models_the_page_says_what_to_do() -> None:
    shown = Editor(ModelShelf({}, device="cpu")).view(None, EditRequest())
    assert "model_cards/" in shown["results"] and "--models" in shown["results"]
    assert shown["waiting"] == ""
    assert download_of([], EditRequest()) is None


def test_models_named_at_launch_join_those_found(model_cards: Path, tmp_path: Path) -> None:
    twin = save_model(tiny_vae(), tmp_path / "vae-tiny")
    found = collect_models((str(twin), "user/repo"), model_cards)
    assert set(found) == {*find_models(model_cards), "vae-tiny (2)", "user/repo"}
    assert found["vae-tiny (2)"] == str(twin)


def test_an_effect_that_is_out_of_reach_stops_where_the_person_changes() -> None:
    distances = np.abs(np.linspace(-1, 1, len(SWEEP))) * 2 * SAME_PERSON_DISTANCE  # at 3σ
    sweep = Sweep(target=SWEEP * 0.5, distances=distances)
    strength, reached = sweep.strength_for(0.99)  # a logit of 4.6 would take 9.2σ
    assert not reached and strength == pytest.approx(3, abs=0.1)
    assert sweep.strength_for(0.9) == (pytest.approx(4.39, abs=0.06), True)
    assert Sweep(target=SWEEP * 0.5).strength_for(0.99) == (6.0, False)


@pytest.mark.parametrize("channels", [1, 4])
def test_models_of_other_channels_are_edited_composed_and_mapped(
    channels: int, tmp_path: Path
) -> None:
    model = VAE(64, latent_dim=8, width=8, max_width=8, n_stages=3, channels=channels).eval()
    name = f"{channels}-channels"
    folder = save_model(model, tmp_path / name, random_directions(model))
    shelf = ModelShelf({name: str(folder)}, device="cpu", cards=PROJECT / "model_cards")
    opened = shelf.open(name)
    for face in (drawn_face(opened, 0), uploaded_face(png_bytes((64, 64)))):
        request = request_for(shelf, models=(name,))
        (row,) = edits_of(compare_edits(shelf, face, request))
        assert row.verdict is not None
        assert "glasses" in results_html([row], "Eyeglasses").lower()
        assert download_of([row], request) is not None
        what = Composition((("Smiling", 2.0),), "joint")
        (composed,) = compose(shelf, face, None, (name,), what)
        assert isinstance(composed, Composed)
        assert share_picture([composed], ["caption"]).mode == "RGB"
        assert animate(shelf, face, None, (name,), what)[:3] == b"GIF"
    atlas = draw_atlas(opened, shelf.judges, 40)
    assert atlas.logits is not None and atlas.places("PCA").shape == (40, 2)
