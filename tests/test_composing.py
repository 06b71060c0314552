"""Several edits at once are the sum of their parts, and a mix lies between two faces."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

import pytest
import torch

from hublatent.demo.composing import (
    FFMPEG,
    WAY,
    Composed,
    Composition,
    animate,
    changes_from,
    compose,
    share_picture,
)
from hublatent.demo.faces import drawn_face, latents_of
from hublatent.demo.session import Refusal
from hublatent.demo.shelf import ModelShelf, find_models
from hublatent.direction import LayerRange
from hublatent.editing import edit
from hublatent.errors import HublatentError
from hublatent.images import to_pil


@pytest.fixture
def shelf(model_cards: Path) -> ModelShelf:
    return ModelShelf(find_models(model_cards), device="cpu")


def test_changes_add_up_and_one_models_problem_stops_no_other(shelf: ModelShelf) -> None:
    opened = shelf.open("vae-tiny")
    face, other = drawn_face(opened, 0), drawn_face(opened, 1)
    what = Composition((("Smiling", 2.0), ("Male", -1.0)), "svm", 0.25)
    names = ("vae-tiny", "no/such-model-here/x", "stylegan2-tiny")
    answer, unknown, waiting = compose(shelf, face, other, names, what)
    assert isinstance(unknown, Refusal) and isinstance(waiting, Refusal)
    assert "no Hub id" in unknown.problem and "has yet to find" in waiting.problem
    with torch.inference_mode():
        latents = 0.75 * latents_of(opened, face) + 0.25 * latents_of(opened, other)
        for name, strength in what.changes:
            latents = edit(latents, opened.find(name, "svm"), strength)
        (expected,) = to_pil(opened.model.decode(latents))
    assert isinstance(answer, Composed) and answer.edited.tobytes() == expected.tobytes()
    assert answer.unedited.tobytes() == face.picture.tobytes()


def test_an_animation_goes_there_and_back(shelf: ModelShelf) -> None:
    face = drawn_face(shelf.open("vae-tiny"), 0)
    what = Composition((("Smiling", 3.0),), "joint")
    assert animate(shelf, face, None, ("vae-tiny", "betavae-tiny"), what)[:6] == b"GIF89a"
    assert WAY[0] == 0 and max(WAY) == 1 and WAY[1] == WAY[-1]
    with pytest.raises(HublatentError, match="has yet to find"):
        animate(shelf, face, None, ("stylegan2-tiny",), what)


def test_a_style_is_mixed_into_some_layers_only(shelf: ModelShelf) -> None:
    opened = shelf.open("stylegan2-tiny")
    face, other = drawn_face(opened, 0), drawn_face(opened, 1)
    what = Composition((), "joint", 1.0, LayerRange(4, 7))
    (answer,) = compose(shelf, face, other, ("stylegan2-tiny",), what)
    with torch.inference_mode():
        latents = latents_of(opened, face).clone()
        latents[:, 4:8] = latents_of(opened, other)[:, 4:8]
        (expected,) = to_pil(opened.model.decode(latents))
    assert isinstance(answer, Composed) and answer.edited.tobytes() == expected.tobytes()
    (refused,) = compose(
        shelf, face, other, ("stylegan2-tiny",), Composition((), "joint", 0.5, LayerRange(4, 99))
    )
    assert isinstance(refused, Refusal) and "layers 0 to" in refused.problem


def test_a_link_names_the_changes() -> None:
    what = Composition((("Smiling", 2.0), ("Wearing_Hat", -1.5)))
    assert changes_from(dict(parse_qsl(what.to_query()))) == what.changes
    assert what.words() == "Smile +2σ, Hat -1.5σ"
    assert changes_from({}) == ()
    for given in ("Smiling:99", "Smiling", "Smiling:nan"):
        with pytest.raises(HublatentError):
            changes_from({"changes": given})


def test_the_share_picture_has_a_caption_under_the_pictures(shelf: ModelShelf) -> None:
    face = drawn_face(shelf.open("vae-tiny"), 0)
    what = Composition((("Smiling", 3.0),), "joint")
    answers = compose(shelf, face, None, ("vae-tiny", "eigenfaces-tiny"), what)
    without, with_text = (share_picture(answers, lines) for lines in ([], ["word " * 200]))
    assert with_text.width == without.width and with_text.height > without.height + 50
    with pytest.raises(HublatentError, match="No model"):
        share_picture([], [])


@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
def test_an_mp4_is_made_where_ffmpeg_is(shelf: ModelShelf) -> None:
    face = drawn_face(shelf.open("vae-tiny"), 0)
    what = Composition((("Smiling", 3.0),), "joint")
    assert animate(shelf, face, None, ("vae-tiny",), what, "mp4")[4:8] == b"ftyp"
