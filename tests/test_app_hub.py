"""Models of the Hub, found by the app, against the stand-in Hub."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from hublatent.demo.edit_tab import Editor
from hublatent.demo.hub_search import MAX_FOUND, search_hub
from hublatent.demo.make_tab import Maker
from hublatent.demo.shelf import LOCAL, PUBLIC, ModelShelf
from hublatent.demo.webpage import html
from hublatent.demo.wiring import ASKED
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.errors import HubError, HublatentError
from tests.hub_standin import ClientState, HubStandIn

CARD = "---\ntags:\n- hublatent\n- latent-directions\n---\n"


def test_models_are_found_shown_and_opened(
    hub: HubStandIn, client: ClientState, model_cards: Path
) -> None:
    files = {path.name: path.read_bytes() for path in (model_cards / "vae-tiny").iterdir()}
    picture = io.BytesIO()
    Image.new("RGB", (80, 40), "#305070").save(picture, "PNG")
    hub.create("ann/faces-vae", {**files, "README.md": CARD, "samples.png": picture.getvalue()})
    hub.create("bob/other-vae", {**files, "README.md": CARD})
    hub.create("eve/no-faces", {"README.md": "---\ntags:\n- gan\n---\n"})
    assert {found.repo for found in search_hub("")} == {"ann/faces-vae", "bob/other-vae"}
    (found,) = search_hub("faces")
    assert found.picture is not None and found.picture.size == (40, 40)
    shown = html("edit.found", [found])
    assert "with directions" in shown and "ann/faces-vae" in shown
    shelf = ModelShelf({}, device="cpu", limits=LOCAL)
    assert shelf.open("ann/faces-vae").directions is not None
    assert "Nothing" in html("edit.found", search_hub("<b>nothing"))


def test_few_are_shown_and_a_hub_that_is_away_is_one_sentence(
    hub: HubStandIn, client: ClientState
) -> None:
    for i in range(MAX_FOUND + 3):
        hub.create(f"ann/m{i}", {"README.md": CARD})
    assert len(search_hub("")) == MAX_FOUND
    hub.__exit__(None, None, None)
    with pytest.raises(HubError):
        search_hub("")


def page_says(**values: Any) -> Any:
    """What the page's controls say, before anything was chosen but what is given."""
    blank = {**dict.fromkeys(ASKED), "models": [], "hold": [], "strength": 3, "mode": "sigma"}
    return SimpleNamespace(
        **{**blank, "attribute": "", "method": "joint", "seed": 0, "said": {}, **values}
    )


def test_directions_alone_are_found_and_opened_for_their_model(
    hub: HubStandIn, client: ClientState, model_cards: Path
) -> None:
    files = {path.name: path.read_bytes() for path in (model_cards / "vae-tiny").iterdir()}
    del files["directions.safetensors"]
    hub.create("ann/faces-vae", {**files, "README.md": CARD})
    shelf = ModelShelf({}, device="cpu", limits=LOCAL)
    model = shelf.open("ann/faces-vae").model
    waves = Direction("Waves", "svm", model.sample_latents(1)[0]).with_sigma(model)
    one = DirectionSet.of(model, [waves])
    one.push_to_hub("user/waves", model=model, base_model="ann/faces-vae")
    (found,) = search_hub("waves")
    assert found.kind == "directions for ann/faces-vae" and found.picture is not None

    fresh = Editor(ModelShelf({}, device="cpu", limits=LOCAL))
    changes = fresh.search(page_says(words=" user/waves "))
    assert changes["models"]["value"] == ["ann/faces-vae"], "an id is opened at once"
    assert changes["attribute"]["value"] == "Waves" and "Waves" in changes["query"]
    assert changes["results"].count("hl-edited") == 1
    assert changes["use"]["visible"] and not changes["restyle"]["visible"], "it has no styles"
    joined = fresh.open_repo("ann/faces-vae", page_says())
    assert joined["models"]["value"] == ["ann/faces-vae"]
    stranger = Editor(ModelShelf({}, device="cpu", limits=PUBLIC))
    with pytest.raises(HublatentError, match="not in public"):
        stranger.open_repo("user/waves", page_says())


def test_a_direction_that_was_made_is_pushed(
    hub: HubStandIn, client: ClientState, model_cards: Path
) -> None:
    catalogue = {"vae-tiny": str(model_cards / "vae-tiny")}
    shelf = ModelShelf(catalogue, device="cpu", limits=LOCAL)
    model = shelf.open("vae-tiny").model
    made = [("vae-tiny", Direction("Waves", "svm", model.sample_latents(1)[0]).with_sigma(model))]
    asked = SimpleNamespace(opened=made, push_repo=" user/waves ", token=None)
    told = Maker(Editor(shelf)).push(asked)["pushed"]
    assert told.startswith("Published: [user/waves](http")
    (again,) = DirectionSet.from_pretrained("user/waves", model)
    assert again.attribute == "Waves"
    shelf.limits = PUBLIC
    with pytest.raises(HublatentError, match="Sign in"):
        Maker(Editor(shelf)).push(asked)
    asked.token = SimpleNamespace(token="hf_write")
    asked.push_repo = "user/signed-in"
    Maker(Editor(shelf)).push(asked)
    assert "user/signed-in" in hub.repositories
