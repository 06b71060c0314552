"""Which models the app offers, which may be opened, and what strangers may ask of the machine."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hublatent.demo import shelf as shelf_module
from hublatent.demo.faces import Photo
from hublatent.demo.session import EditRequest
from hublatent.demo.shelf import (
    BEST_METHOD,
    LOCAL,
    PUBLIC,
    ModelShelf,
    collect_models,
    find_models,
    n_bytes,
    offered_methods,
)
from hublatent.errors import CheckpointError, HubError, HublatentError, ImageError
from hublatent.hub import Snapshot
from tests.test_app import png_bytes
from tests.tiny_models import random_directions, save_model, tiny_eigenfaces, tiny_vae


@pytest.fixture
def shelf(model_cards: Path) -> ModelShelf:
    return ModelShelf(find_models(model_cards), device="cpu")


def as_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[dict[str, object]]:
    """Let every Hub id be the given folder; returns what was asked."""
    asked: list[dict[str, object]] = []

    def snapshot(source: str, **options: object) -> Snapshot:
        asked.append({"source": source, **options})
        return Snapshot(source, folder, "c" * 40)

    monkeypatch.setattr(shelf_module, "snapshot", snapshot)
    return asked


def test_only_folders_with_a_latent_model_are_offered(model_cards: Path, tmp_path: Path) -> None:
    assert list(find_models(model_cards)) == [
        "betavae-tiny",
        "eigenfaces-tiny",
        "stylegan2-tiny",
        "vae-tiny",
    ]
    for name, config in (("broken", "{"), ("other", '{"architecture": "bert"}'), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
        (tmp_path / name / "model.safetensors").touch()
    (tmp_path / "no-weights").mkdir()
    (tmp_path / "no-weights" / "config.json").write_text('{"architecture": "vae"}')
    assert find_models(tmp_path) == {}
    assert find_models(tmp_path / "missing") == {}


def test_a_folder_that_training_wrote_is_called_by_its_run(tmp_path: Path) -> None:
    run = save_model(tiny_vae(), tmp_path / "btcvae-mine" / "model")
    assert collect_models((str(run),), tmp_path / "none") == {"btcvae-mine": str(run)}


def test_a_visitor_cannot_open_a_folder_of_the_host(
    model_cards: Path, shelf: ModelShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a visitor's path reached the loader")

    monkeypatch.setattr(shelf_module, "snapshot", refuse)
    monkeypatch.chdir(model_cards.parent)
    inside = f"{model_cards.name}/vae-tiny"
    assert Path(inside).is_dir()
    names = (
        inside,
        str(model_cards / "vae-tiny"),
        "../x",
        "~/x",
        "a/b/c",
        "vae",
        "",
        "a/..",
        "a\n/b",
    )
    for name in names:
        with pytest.raises(HubError, match="no Hub id"):
            shelf.open(name)


def test_at_home_a_folder_may_be_typed(model_cards: Path) -> None:
    at_home = ModelShelf({}, device="cpu", limits=LOCAL)
    assert at_home.open(str(model_cards / "vae-tiny")).directions is not None
    with pytest.raises(HublatentError):
        at_home.open("../no-such-folder")


def test_a_visitors_hub_id_is_read_without_the_hosts_token_and_within_limits(
    model_cards: Path, shelf: ModelShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = as_hub(monkeypatch, model_cards / "vae-tiny")
    assert shelf.open("user/model").directions is not None
    config, model = asked
    assert config["files"] == ("config.json",), "the architecture is known before the download"
    assert model["revision"] == "c" * 40, "both are of one commit"
    assert all(a["token"] is False and a["source"] == "user/model" for a in asked)
    assert model["max_bytes"] == PUBLIC.download_bytes == 200_000_000


def test_an_unknown_architecture_is_not_downloaded(
    shelf: ModelShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "bert", "format_version": 1}')
    asked = as_hub(monkeypatch, tmp_path)
    with pytest.raises(CheckpointError, match="Unknown architecture 'bert'"):
        shelf.open("user/model")
    assert len(asked) == 1


def test_two_visitors_load_a_model_once(model_cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = as_hub(monkeypatch, model_cards / "eigenfaces-tiny")
    shelf = ModelShelf({"m": "user/m"}, device="cpu")
    threads = [threading.Thread(target=shelf.open, args=("m",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 2, "config and weights, once"


def test_the_longest_unused_models_leave_at_the_memory_ceiling(model_cards: Path) -> None:
    path = str(model_cards / "eigenfaces-tiny")
    size = n_bytes(tiny_eigenfaces())
    assert size == 4 * (3 * 32 * 32 * (6 + 1) + 6 + 36)
    catalogue = {f"m{i}": path for i in range(4)}
    shelf = ModelShelf(catalogue, device="cpu", limits=replace(PUBLIC, open_bytes=2 * size))
    first, second = shelf.open("m0"), shelf.open("m1")
    assert shelf.open("m0") is first
    shelf.open("m2")
    assert shelf.open_bytes == 2 * size
    assert shelf.open("m0") is first
    assert shelf.open("m1") is not second
    tight = ModelShelf(catalogue, device="cpu", limits=replace(PUBLIC, open_bytes=1))
    assert tight.open("m0") is tight.open("m0"), "the one in use stays"


def test_strangers_uploads_are_limited_in_bytes_and_pixels() -> None:
    with pytest.raises(ImageError, match="at most 100 "):
        Photo.open(png_bytes(), replace(PUBLIC, upload_bytes=100))
    with pytest.raises(ImageError, match="pixels"):
        Photo.open(png_bytes((40, 50)), replace(PUBLIC, upload_pixels=1999))
    limits = replace(PUBLIC, upload_pixels=2000, face_side=16)
    face = Photo.open(png_bytes((40, 50)), limits).face(limits)
    assert face.picture.size == (16, 16)


def test_strangers_read_no_path_of_the_machine(model_cards: Path, tmp_path: Path) -> None:
    broken = save_model(tiny_vae(), tmp_path / "secret" / "broken")
    (broken / "model.safetensors").write_bytes(b"12345678901234567")
    for limits, told in ((PUBLIC, False), (LOCAL, True)):
        shelf = ModelShelf({"broken": str(broken)}, device="cpu", limits=limits)
        with pytest.raises(CheckpointError) as caught:
            shelf.open("broken")
        assert "secret" in str(caught.value)
        text = shelf.tell(caught.value)
        assert ("secret" in text) == told and "model.safetensors" in text
    public = ModelShelf({}, device="cpu")
    for kept in ("see https://huggingface.co/user/model/tree", "user/model is gated", "1/2 or -1"):
        assert public.tell(HublatentError(kept)) == kept
    assert public.tell(HublatentError("'/home/me/.cache/x/config.json' is bad, ~/a/b too")) == (
        "'config.json' is bad, b too"
    )


def test_in_public_every_event_waits_in_a_bounded_queue(shelf: ModelShelf) -> None:
    page = pytest.importorskip("hublatent.demo.page")
    blocks = page.build_app(shelf)
    events = [f for f in blocks.fns.values() if f.fn is not None]
    assert all(event.queue for event in events if event.name != "leave")
    assert {e.concurrency_id for e in events if e.name not in ("edit", "leave")} == {
        "page", "opening", "projection", "stop",
    }  # fmt: skip
    assert blocks._queue.max_size == page.MAX_WAITING
    assert blocks._queue.default_concurrency_limit == page.N_AT_ONCE
    assert [e.concurrency_limit for e in events if e.name == "project"] == [1]
    assert blocks.analytics_enabled is False


def test_the_best_of_each_model_is_what_its_file_says(tmp_path: Path) -> None:
    model = tiny_vae()
    found = random_directions(model)
    folder = save_model(model, tmp_path / "vae", found)
    opened = ModelShelf({"vae": str(folder)}, device="cpu").open("vae")
    assert opened.find("Male", BEST_METHOD).method == "joint", "where nothing was measured"
    told = replace(opened, directions=replace(found, defaults={"Male": ("svm", "")}))
    assert offered_methods([told])[0] == EditRequest().method == BEST_METHOD, "it comes first"
    assert told.find("Male", BEST_METHOD).method == "svm"
    alone = replace(found, directions=tuple(d for d in found if d.method == "svm"))
    assert offered_methods([replace(opened, directions=alone)]) == ("svm",)
