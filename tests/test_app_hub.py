"""Models of the Hub, found by the app, against the stand-in Hub."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from hublatent.demo.hub_search import MAX_FOUND, found_html, search_hub
from hublatent.demo.shelf import LOCAL, ModelShelf
from hublatent.errors import HubError
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
    html = found_html([found])
    assert "with directions" in html and "ann/faces-vae" in html
    shelf = ModelShelf({}, device="cpu", limits=LOCAL)
    assert shelf.open("ann/faces-vae").directions is not None
    assert "Nothing" in found_html(search_hub("<b>nothing"))


def test_few_are_shown_and_a_hub_that_is_away_is_one_sentence(
    hub: HubStandIn, client: ClientState
) -> None:
    for i in range(MAX_FOUND + 3):
        hub.create(f"ann/m{i}", {"README.md": CARD})
    assert len(search_hub("")) == MAX_FOUND
    hub.__exit__(None, None, None)
    with pytest.raises(HubError):
        search_hub("")
