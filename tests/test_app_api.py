"""The endpoints, with gradio_client and with an MCP client."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hublatent.demo.faces import drawn_face, latents_of
from hublatent.demo.shelf import BEST_METHOD, ModelShelf, find_models
from hublatent.direction_set import DirectionSet
from hublatent.editing import edit
from hublatent.errors import HublatentError
from hublatent.images import to_pil
from hublatent.inversion import projection
from tests.tiny_models import ATTRIBUTES, METHODS

ENDPOINTS = ("edit", "compare_at_equal_effect", "compose", "encode", "directions", "make_direction")
FACE = {"source": "vae-tiny", "seed": 3}


@pytest.fixture(scope="module")
def shelf(model_cards: Path) -> ModelShelf:
    return ModelShelf(find_models(model_cards), device="cpu")


@pytest.fixture(scope="module")
def address(shelf: ModelShelf) -> Iterator[str]:
    pytest.importorskip("mcp", reason="gradio[mcp] is not installed")
    from hublatent.demo.page import launch

    blocks = launch(
        shelf, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, mcp_server=True
    )
    yield blocks.local_url
    blocks.close()


@pytest.fixture(scope="module")
def client(address: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    module = pytest.importorskip("gradio_client")
    folder = tmp_path_factory.mktemp("downloads")
    return module.Client(address, verbose=False, download_files=str(folder))


def picture_file(folder: Path, content: bytes | None = None) -> Any:
    from gradio_client import handle_file

    if content is None:
        pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        content = buffer.getvalue()
    (folder / "face.png").write_bytes(content)
    return handle_file(str(folder / "face.png"))


def test_every_endpoint_is_described_with_names_and_choices(client: Any) -> None:
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert set(described) == {f"/{name}" for name in ENDPOINTS}
    for name, endpoint in described.items():
        assert endpoint["description"], name
        assert not any("_" in r["label"] and r["label"][-1].isdigit() for r in endpoint["returns"])
        assert all(p["parameter_has_default"] for p in endpoint["parameters"])
    given = {p["parameter_name"]: p["type"] for p in described["/edit"]["parameters"]}
    assert given["attribute"]["enum"] == list(ATTRIBUTES)
    assert set(given["method"]["enum"]) == {BEST_METHOD, *METHODS}


def test_an_edit_is_the_models_own_arithmetic(client: Any, shelf: ModelShelf) -> None:
    pictures, answers = client.predict(
        **FACE, models=["vae-tiny"], attribute="Smiling", method="joint", strength=2.0,
        api_name="/edit",
    )  # fmt: skip
    opened = shelf.open("vae-tiny")
    with torch.inference_mode():
        moved = edit(latents_of(opened, drawn_face(opened, 3)), opened.find("Smiling", "joint"), 2)
        (expected,) = to_pil(opened.model.decode(moved))
    with Image.open(pictures[0]["image"]) as shown:
        assert shown.convert("RGB").tobytes() == expected.convert("RGB").tobytes()
    assert pictures[0]["caption"] == answers[0]["model"] == "vae-tiny"
    assert answers[0]["strength_sigma"] == 2.0


def test_one_models_problem_is_an_answer(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def project(*_: object, **__: object) -> None:
        raise HublatentError("The projection diverged.")

    monkeypatch.setattr(projection, "project", project)
    pictures, answers = client.predict(
        image=picture_file(tmp_path), models=["vae-tiny", "stylegan2-tiny"], api_name="/edit"
    )
    assert len(pictures) == 1
    assert [("problem" in answer) for answer in answers] == [False, True]


def test_a_composition_adds_its_changes(client: Any, shelf: ModelShelf) -> None:
    changes = {"Smiling": 1.0, "Male": -2.0}
    pictures, answers = client.predict(
        **FACE, models=["vae-tiny"], changes=changes, method="joint", api_name="/compose"
    )
    assert answers[0]["model"] == "vae-tiny" and "words" in answers[0]
    opened = shelf.open("vae-tiny")
    with torch.inference_mode():
        z = latents_of(opened, drawn_face(opened, 3))
        for name, strength in changes.items():
            z = edit(z, opened.find(name, "joint"), strength)
        (expected,) = to_pil(opened.model.decode(z))
    with Image.open(pictures[0]["image"]) as shown:
        small = shown.convert("RGB").resize(expected.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(small, float) - np.asarray(expected, float)).mean() < 1


def test_encoding_returns_the_latent(client: Any, shelf: ModelShelf) -> None:
    picture, answer = client.predict(**FACE, model="betavae-tiny", api_name="/encode")
    opened = shelf.open("betavae-tiny")
    with torch.inference_mode():
        expected = latents_of(opened, drawn_face(shelf.open("vae-tiny"), 3))[0]
    assert np.allclose(answer["latents"], expected.tolist(), atol=1e-5)
    assert answer["mean_squared_error"] > 0 and Path(picture).is_file()


def test_a_direction_is_made_from_seeds(client: Any, shelf: ModelShelf) -> None:
    files, answers = client.predict(
        name="Waves", source="vae-tiny", with_seeds=[0, 1, 2, 3, 4], without_seeds=[5, 6, 7, 8, 9],
        models=["vae-tiny"], api_name="/make_direction",
    )  # fmt: skip
    assert answers[0]["model"] == "vae-tiny" and 0 <= answers[0]["accuracy"][0] <= 1
    (direction,) = DirectionSet.load(files[0], shelf.open("vae-tiny").model)
    assert direction.attribute == "Waves"


def test_directions_are_listed(client: Any) -> None:
    found = client.predict(model="vae-tiny", api_name="/directions")
    assert {(d["attribute"], d["method"]) for d in found} == {
        (a, m) for a in ATTRIBUTES for m in METHODS
    }
    assert all(d["threshold"] == 0.5 and d["sigma"] > 0 for d in found)


@pytest.mark.parametrize(
    ("endpoint", "values", "sentence"),
    [
        ("edit", {"models": ["vae-tiny"] * 9}, "at most 8"),
        ("edit", {"hold": "Male"}, "list of names"),
        ("edit", {"hold": [["Male"]]}, "expected a text"),
        ("edit", {"strength": "much"}, "expected a number"),
        ("edit", {"strength": [1]}, "expected a number"),
        ("edit", {"strength": 7}, "expected -6 to 6"),
        ("edit", {"mode": "sideways"}, "Unknown mode"),
        ("edit", {"layers": "x-y"}, "layers"),
        ("edit", {"seed": -1}, "expected 0 to"),
        ("edit", {"source": None}, "send an image"),
        ("edit", {"source": "no such model"}, "no Hub id"),
        ("compose", {"changes": {}}, "1 to 8 attributes"),
        ("compose", {"changes": {"Male": "x"}}, "expected a number"),
        ("compose", {"changes": {"Male": 1}, "mix": 101}, "expected 0 to 100"),
        ("encode", {"model": 5}, "expected a text"),
        ("directions", {"model": "/etc/passwd"}, "no Hub id"),
        ("make_direction", {"with_seeds": [1, 2]}, "a name"),
        ("make_direction", {"name": "x", "with_seeds": [1, 2]}, "5 to 50 are needed"),
        ("make_direction", {"name": "x", "with_seeds": [0] * 51}, "at most 50"),
    ],
)
def test_a_mistake_is_raised_with_its_sentence(
    client: Any, endpoint: str, values: dict[str, Any], sentence: str
) -> None:
    face = {"source": "vae-tiny", "models": ["vae-tiny"]}
    takes = {"encode": ("source",), "directions": ()}.get(endpoint, tuple(face))
    given = {**{key: face[key] for key in takes}, **values}
    with pytest.raises(Exception, match=sentence):
        client.predict(**given, api_name=f"/{endpoint}")


def test_a_file_that_is_no_picture_is_refused(client: Any, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="not a picture"):
        client.predict(
            image=picture_file(tmp_path, b"no picture"), models=["vae-tiny"], api_name="/edit"
        )


def test_an_mcp_client_finds_the_tools_and_edits(address: str) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def talk() -> tuple[list[Any], Any, Any]:
        url = f"{address}gradio_api/mcp/"
        async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write) as me:
            await me.initialize()
            tools = (await me.list_tools()).tools
            name = next(tool.name for tool in tools if tool.name.endswith("edit"))
            call = {**FACE, "models": ["vae-tiny"], "attribute": "Male", "strength": 1.5}
            done = await me.call_tool(name, call)
            refused = await me.call_tool(name, {**call, "strength": 70})
            return tools, done, refused

    tools, done, refused = asyncio.run(talk())
    assert {tool.name.split("app_")[-1] for tool in tools} >= set(ENDPOINTS)
    for tool in tools:
        properties = tool.inputSchema["properties"]
        assert tool.description and all(p.get("description") for p in properties.values())
    text = " ".join(part.text for part in done.content if part.type == "text")
    assert not done.isError and "strength_sigma" in text
    assert refused.isError and "expected -6 to 6" in refused.content[0].text
    json.dumps([tool.inputSchema for tool in tools])
