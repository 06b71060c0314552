"""A public app with strangers in it: turns, refusals, addresses, and the disk."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from hublatent.demo.faces import drawn_face
from hublatent.demo.session import EditRequest, Refusal, compare_edits
from hublatent.demo.shelf import PUBLIC, ModelShelf, find_models, trim_cache
from hublatent.demo.visitors import MAX_WAITING, FairQueue, visitor_of


def request_from(host: str, **headers: str) -> Any:
    return SimpleNamespace(client=SimpleNamespace(host=host), headers=headers)


class Event:
    """As Gradio's queue has them."""

    def __init__(self, host: str, kind: str = "page") -> None:
        self.request, self.session_hash = request_from(host), host
        self.concurrency_id = kind


class Queue:
    """Gradio's queue in short: first come, first served, two at a time."""

    def __init__(self) -> None:
        self.lanes = {k: SimpleNamespace(queue=[]) for k in ("page", "projection")}
        self.event_queue_per_concurrency_id = self.lanes
        self.active_jobs: list[Any] = [None, None]

    async def push(self, **_: Any) -> str:
        return "taken"

    def get_events(self) -> Any:
        for kind, lane in self.lanes.items():
            if lane.queue:
                return [lane.queue.pop(0)], False, kind
        return None


def waiting(queue: Queue, *hosts: str) -> None:
    queue.lanes["page"].queue += [Event(host) for host in hosts]


def test_whoever_used_least_comes_first_and_nobody_runs_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    queue = Queue()
    fair = FairQueue(queue)
    waiting(queue, "9.9.9.9", "9.9.9.9", "9.9.9.9", "1.1.1.1")
    first = queue.get_events()[0]
    queue.active_jobs[0] = first
    second = queue.get_events()[0]
    assert [first[0].session_hash, second[0].session_hash] == ["9.9.9.9", "1.1.1.1"]
    queue.active_jobs[1] = second
    assert queue.get_events() is None, "one of a visitor's requests runs at a time"
    assert len(queue.lanes["page"].queue) == 2
    queue.lanes["projection"].queue.append(Event("9.9.9.9", "projection"))
    assert queue.get_events()[2] == "projection", "but for a search, which takes long"
    now += 5.0
    queue.active_jobs[:] = [None, None]
    waiting(queue, "2.2.2.2")
    assert queue.get_events()[0][0].session_hash == "2.2.2.2"
    assert fair.used("9.9.9.9", now) == pytest.approx(5 + 5)  # the search too
    assert fair.used("9.9.9.9", now + 30) == pytest.approx(5)


@pytest.mark.anyio
async def test_a_visitor_may_not_fill_the_queue() -> None:
    queue = Queue()
    FairQueue(queue)
    waiting(queue, *["9.9.9.9"] * MAX_WAITING)
    body = SimpleNamespace(session_hash="s", data=[])
    refused = await queue.push(body=body, request=request_from("9.9.9.9"), username=None)
    assert refused[0] is False and "of your requests" in refused[1]
    taken = await queue.push(body=body, request=request_from("1.1.1.1"), username=None)
    assert taken == "taken"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_visitors_are_told_apart_by_their_address() -> None:
    assert visitor_of(request_from("8.8.8.8"), "s") == "8.8.8.8"
    behind = {"x-forwarded-for": "4.4.4.4, 10.0.0.2"}
    assert visitor_of(request_from("10.0.0.1", **behind), "s") == "4.4.4.4"
    assert visitor_of(request_from("8.8.8.8", **behind), "s") == "8.8.8.8", "anybody may say so"
    assert visitor_of(request_from("127.0.0.1"), "s") == "s"


def test_what_takes_too_long_is_stopped_with_a_sentence(
    model_cards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(PUBLIC, request_seconds=0)
    shelf = ModelShelf(find_models(model_cards), device="cpu", limits=limits)
    face = drawn_face(shelf.open("vae-tiny"), 0)
    rows = compare_edits(shelf, face, EditRequest(models=("vae-tiny",)))
    assert isinstance(rows[0], Refusal) and "stopped" in rows[0].problem and not rows[0].pending


def test_the_app_fetches_no_address_for_a_stranger(model_cards: Path) -> None:
    from hublatent.demo.page import launch

    shelf = ModelShelf(find_models(model_cards), device="cpu")
    blocks = launch(shelf, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        url = f"{blocks.local_url}gradio_api/call/edit"
        picture = {"path": "https://example.com/x.png", "meta": {"_type": "gradio.FileData"}}
        values = [picture, None, 0, ["vae-tiny"], "Smiling", "joint", [], "sigma", 1, "as found"]
        answer = httpx.post(url, json={"data": values})
    finally:
        blocks.close()
    assert answer.status_code == 400 and "upload the file" in answer.text


def test_visitors_models_leave_before_those_of_the_app(model_cards: Path) -> None:
    path = str(model_cards / "eigenfaces-tiny")
    shelf = ModelShelf({"ours": path, "more": path}, device="cpu")
    size = sum(t.nbytes for t in shelf.open("ours").model.state_dict().values())
    shelf.limits = replace(PUBLIC, open_bytes=2 * size, local_paths=True)
    shelf.open(path)
    shelf.open("more")
    assert list(shelf._open) == ["ours", "more"]


def test_the_longest_unused_download_leaves_the_disk(tmp_path: Path) -> None:
    import os

    for i, name in enumerate(("old", "newer", "newest")):
        repo = tmp_path / f"models--user--{name}"
        files = repo / "snapshots" / (str(i) * 40)
        files.mkdir(parents=True)
        (repo / "blobs").mkdir()
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(str(i) * 40)
        (repo / "blobs" / "b").write_bytes(bytes(1000))
        (files / "config.json").symlink_to(repo / "blobs" / "b")
        os.utime(repo / "blobs" / "b", (1000 + i, 1000 + i))
    trim_cache(tmp_path, 2000, "user/newest")
    assert sorted(p.name for p in tmp_path.glob("models--*")) == [
        "models--user--newer", "models--user--newest",
    ]  # fmt: skip
    trim_cache(tmp_path, 10, "user/newest")
    assert [p.name for p in tmp_path.glob("models--*")] == ["models--user--newest"]
