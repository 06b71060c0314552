"""Pulling and publishing against the stand-in Hub: every trouble is one typed error, in seconds."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import errors as hub_errors
from safetensors.torch import save_file

import hublatent
from hublatent.cli import main
from hublatent.direction_set import DirectionSet
from hublatent.errors import DirectionError, HubError
from hublatent.hub import DISCRIMINATOR_NAME, PUBLISHED_FILES, snapshot
from hublatent.model import LatentModel
from hublatent.publish import CardInput, check_card, check_folder, publish, render_card
from tests.hub_standin import ClientState, HubStandIn, run_python
from tests.tiny_models import random_directions, save_model, tiny_stylegan2, tiny_vae

REPO = "user/vae"
CARD = "---\nlicense: mit\n---\n# A model\n"
SECONDS = 6.0  # what the client may sleep in all before the user hears of the trouble


@pytest.fixture(scope="module")
def model() -> LatentModel:
    torch.manual_seed(0)
    return tiny_vae()


@pytest.fixture(scope="module")
def folder(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save_model(model, tmp_path_factory.mktemp("card"), random_directions(model))
    (path / "README.md").write_text(CARD)
    return path


@pytest.fixture
def published(hub: HubStandIn, client: ClientState, folder: Path) -> str:
    """The model on the Hub; returns its commit."""
    return hub.create(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})


def same_weights(a: LatentModel, b: LatentModel) -> bool:
    return a.fingerprint() == b.fingerprint()


def blobs(client: ClientState) -> list[Path]:
    return [path for path in client.cache.rglob("blobs/*") if path.is_file()]


# Pulling ------------------------------------------------------------------------------------------


def test_a_model_and_its_directions_come_back(
    published: str, client: ClientState, model: LatentModel
) -> None:
    loaded = hublatent.load(REPO)
    assert same_weights(loaded, model) and loaded.commit == published and not loaded.training
    directions = DirectionSet.from_pretrained(REPO, loaded)
    assert [d.name for d in directions] == [d.name for d in random_directions(model)]
    assert not {path.name for path in client.cache.rglob("snapshots/*/*")} - {
        "config.json", "model.safetensors", "directions.safetensors",
    }  # fmt: skip


def test_revisions(hub: HubStandIn, published: str, model: LatentModel) -> None:
    hub.tag(REPO, "v1")
    hub.commit(REPO, {"config.json": "{}"})
    for revision in ("v1", published):
        assert same_weights(hublatent.load(REPO, revision=revision), model)
    with pytest.raises(HubError, match="no revision 'v2'"):
        hublatent.load(REPO, revision="v2")


def test_files_are_of_the_commit_that_was_looked_up(
    hub: HubStandIn, published: str, model: LatentModel
) -> None:
    hub.before("*/resolve/*", lambda: hub.commit(REPO, {"model.safetensors": b"another"}))
    assert hublatent.load(REPO).commit == published


@pytest.mark.parametrize("trouble", ["unreachable", "429", "503", "dropped"])
def test_the_cache_serves_while_the_hub_is_away(
    trouble: str,
    hub: HubStandIn,
    published: str,
    client: ClientState,
    model: LatentModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hublatent.load(REPO)
    client.slept.clear()
    if trouble == "dropped":
        hub.drop_connection("/api/models/*", after_bytes=None, times=None)
    elif trouble != "unreachable":
        hub.fail("*", status=int(trouble), retry_after=3600)
    away = hub.unreachable() if trouble == "unreachable" else contextlib.nullcontext()
    with away, caplog.at_level(logging.WARNING, "hublatent"):
        loaded = hublatent.load(REPO)
    assert same_weights(loaded, model) and loaded.commit == published
    assert "comes from the cache" in caplog.text and published in caplog.text
    assert sum(client.slept) <= SECONDS


def test_a_download_that_fails_half_way_leaves_the_old_commit_whole(
    hub: HubStandIn, published: str, client: ClientState, model: LatentModel
) -> None:
    hublatent.load(REPO)
    hub.commit(REPO, {"config.json": "{}", "model.safetensors": b"new" * 1000})
    hub.fail("*/resolve/*/model.safetensors", status=429, method="GET")
    assert hublatent.load(REPO).commit == published
    assert hublatent.load(REPO, local_files_only=True).commit == published


@pytest.mark.parametrize(
    ("pattern", "status", "says"),
    [
        ("/api/models/*", 429, "slow down"),
        ("/api/models/*", 500, "answered 500"),
        ("*/resolve/*", 429, "slow down"),
        ("*/resolve/*", 503, "answered 503"),
    ],
)
def test_an_ill_hub_and_nothing_cached(
    pattern: str, status: int, says: str, hub: HubStandIn, published: str, client: ClientState
) -> None:
    hub.fail(pattern, status=status, retry_after=3600)
    with pytest.raises(HubError, match=says) as caught:
        hublatent.load(REPO)
    assert sum(client.slept) <= SECONDS
    causes = []
    error: BaseException | None = caught.value
    while error := error.__cause__ if error else None:
        causes.append(error)
    statuses = [e.response.status_code for e in causes if isinstance(e, hub_errors.HfHubHTTPError)]
    assert status in statuses
    hub.heal()
    hublatent.load(REPO)


def test_nobody_there_and_nothing_cached(hub: HubStandIn, client: ClientState) -> None:
    with hub.unreachable(), pytest.raises(HubError, match="cannot be reached") as caught:
        hublatent.load(REPO)
    assert REPO in str(caught.value) and caught.value.__cause__ is not None
    assert sum(client.slept) <= SECONDS


def test_without_looking_up(published: str, client: ClientState) -> None:
    with pytest.raises(HubError, match="not in the cache") as caught:
        hublatent.load(REPO, local_files_only=True)
    assert "reached" not in str(caught.value)
    hublatent.load(REPO)
    assert hublatent.load(REPO, local_files_only=True).commit == published


def test_directions_alone_in_the_cache_are_no_model(published: str) -> None:
    DirectionSet.from_pretrained(REPO)
    with pytest.raises(HubError, match="not in the cache"):
        hublatent.load(REPO, local_files_only=True)


def test_offline_mode(hub: HubStandIn, published: str, tmp_path: Path) -> None:
    code = f"import hublatent; print(hublatent.load({REPO!r}).commit)"
    assert run_python(hub, code, tmp_path).stdout.strip() == published
    offline = run_python(hub, code, tmp_path, environment={"HF_HUB_OFFLINE": "1"})
    assert offline.stdout.strip() == published, offline.stderr


def test_wrong_content_is_thrown_away(
    hub: HubStandIn, published: str, client: ClientState, folder: Path, model: LatentModel
) -> None:
    true = (folder / "model.safetensors").read_bytes()
    hub.tamper(REPO, "model.safetensors", content=true[:-1] + bytes([true[-1] ^ 1]))
    for _ in range(2):
        with pytest.raises(HubError, match=r"model\.safetensors of user/vae did not arrive"):
            hublatent.load(REPO)
    assert not any(path.read_bytes()[:64] == true[:64] for path in blobs(client))
    hub.heal()
    assert same_weights(hublatent.load(REPO), model)


def test_a_small_file_is_held_to_its_git_hash(hub: HubStandIn, published: str) -> None:
    true = hub.files(REPO)["config.json"]
    hub.tamper(REPO, "config.json", content=true.replace(b"8", b"9"))
    with pytest.raises(HubError, match=r"config\.json of user/vae did not arrive"):
        hublatent.load(REPO)


def test_a_wrong_size(hub: HubStandIn, published: str, model: LatentModel) -> None:
    hub.tamper(REPO, "model.safetensors", size=100)
    with pytest.raises(HubError, match="size"):
        hublatent.load(REPO)
    hub.heal()
    assert same_weights(hublatent.load(REPO), model)


def test_a_connection_that_breaks_in_the_middle(
    hub: HubStandIn, published: str, client: ClientState, model: LatentModel
) -> None:
    hub.drop_connection("*/model.safetensors", after_bytes=50, times=None, reset=True)
    with pytest.raises(HubError, match="connection broke"):
        hublatent.load(REPO)
    assert sum(client.slept) <= SECONDS
    hub.heal()
    assert same_weights(hublatent.load(REPO), model)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pkl"])
def test_pickles_are_refused_by_name_before_any_download(
    name: str, hub: HubStandIn, client: ClientState
) -> None:
    hub.create(REPO, {"config.json": "{}", name: b"\x80\x02."})
    with pytest.raises(HubError, match=name.replace(".", r"\.")) as caught:
        hublatent.load(REPO)
    assert "model.safetensors" in str(caught.value)
    assert not any("/resolve/" in request.path for request in hub.requests)


def test_too_large_is_refused_before_any_download(hub: HubStandIn, published: str) -> None:
    with pytest.raises(HubError, match="limit"):
        snapshot(REPO, max_bytes=1000)
    assert not any("/resolve/" in request.path for request in hub.requests)


def test_who_may_not_read(hub: HubStandIn, client: ClientState) -> None:
    files = {"config.json": "{}", "model.safetensors": b"x"}
    hub.create("other/private", files, private=True)
    hub.create("other/gated", files, gated=True)
    hub.create("other/disabled", files, disabled=True)
    for name, says in (("private", "private"), ("gated", "gated"), ("disabled", "disabled")):
        with pytest.raises(HubError, match=says):
            hublatent.load(f"other/{name}")
    with pytest.raises(HubError, match="does not exist"):
        hublatent.load("user/nothing")
    with pytest.raises(HubError, match="neither an existing folder nor a Hub id"):
        hublatent.load("a folder/that is not there")


def listing(**changes: object) -> bytes:
    """What the Hub says of a repository, with changes to its entry of model.safetensors."""
    lfs = {"sha256": "0" * 64, "size": 3, "pointerSize": 1}
    weights = {"rfilename": "model.safetensors", "size": 3, "blobId": "0" * 40, "lfs": lfs}
    config = {"rfilename": "config.json", "size": 2, "blobId": "0" * 40}
    whole = {k: changes.pop(k) for k in set(changes) - set(weights)}
    siblings = [config, weights | changes]
    return json.dumps({"id": REPO, "sha": "a" * 40, "siblings": siblings, **whole}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"3", b'"text"', b"{}", b"<html>Log in to our hotel</html>",
        b"\xff\xfe",
        b"[" * 100_000, b'{"id": 3}', b'{"id": "user/vae", "siblings": 3}',
        b'{"id": "user/vae", "siblings": [3]}', b'{"id": "user/vae", "siblings": [{}]}',
        listing(sha=None), listing(sha="../../etc"), listing(sha=7),
        listing(size=None), listing(size="3"), listing(size=-1),
        listing(lfs={"sha256": None, "size": 3, "pointerSize": 1}), listing(lfs=3),
        listing(lfs=None, blobId=None), listing(rfilename=None),
        listing(lastModified="yesterday"), listing(createdAt=3), listing(safetensors=3),
        listing(evalResults=3), listing(siblings={"a": 3}),
        listing(rfilename="../model.safetensors"), listing(size=1e300),
        listing(rfilename="config.json"), listing(siblings=[None]), b'"\\ud800"', b"NaN",
        b'{"error": "no"}', b'{"id": 1e999}',
    ],
)  # fmt: skip
def test_any_malformed_answer_is_a_sentence(
    body: bytes, hub: HubStandIn, client: ClientState
) -> None:
    hub.create(REPO, {"config.json": "{}", "model.safetensors": b"abc"})
    hub.answer("/api/models/*", body)
    with pytest.raises(HubError, match=REPO) as caught:
        hublatent.load(REPO)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert not any("/resolve/" in request.path for request in hub.requests)


@pytest.mark.parametrize("path", ["/api/repos/create", "*/preupload/*", "*/commit/*"])
@pytest.mark.parametrize("body", [b"", b"null", b"[3]", b'{"url": 3, "commitUrl": 3, "files": 3}'])
def test_a_malformed_answer_to_a_push_is_a_sentence(
    path: str, body: bytes, hub: HubStandIn, client: ClientState, folder: Path
) -> None:
    hub.answer(path, body, method="POST")
    with pytest.raises(HubError, match=REPO) as caught:
        publish(folder, REPO)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_file_without_the_hubs_headers_is_a_sentence(hub: HubStandIn, published: str) -> None:
    for method in ("HEAD", "GET"):
        hub.fail("*/resolve/*", status=200, method=method)
    with pytest.raises(HubError, match="not the Hub"):
        hublatent.load(REPO)


@pytest.mark.parametrize("path", ["/api/models/*", "*/resolve/*/model.safetensors"])
def test_a_hub_that_drips_is_left(
    path: str, hub: HubStandIn, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hublatent.hub.client.GRACE_SECONDS", 0.3)
    monkeypatch.setattr("hublatent.hub.client.MIN_BYTES_PER_SECOND", 1e7)
    hub.drip(path, pause=0.02)
    with pytest.raises(HubError, match="too slow"):
        hublatent.load(REPO)


def test_a_download_ends_at_the_deadline(
    hub: HubStandIn, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hublatent.hub.client.DEADLINE_SECONDS", 0.3)
    hub.drip("*/resolve/*/model.safetensors", pause=0.02)
    with pytest.raises(HubError, match="too slow"):
        hublatent.load(REPO)


@pytest.mark.parametrize("path", ["/api/models/*", "*/resolve/*/model.safetensors"])
def test_more_than_was_announced_is_not_read(
    path: str, hub: HubStandIn, published: str, client: ClientState, model: LatentModel
) -> None:
    hub.flood(path)
    with pytest.raises(HubError, match="more than was announced"):
        hublatent.load(REPO)
    assert sum(p.stat().st_size for p in client.cache.rglob("*") if p.is_file()) < 1 << 20
    hub.heal()
    assert same_weights(hublatent.load(REPO), model)


def test_no_access_is_not_about_writing(hub: HubStandIn, published: str) -> None:
    hub.fail("/api/models/*", status=403)
    with pytest.raises(HubError, match="no access to user/vae"):
        hublatent.load(REPO)


@pytest.mark.parametrize("name", ["a" * 5000, "~nosuchuser", "~nosuchuser/x", "a\0b", "x/" * 99])
def test_absurd_ids_are_a_sentence(name: str, client: ClientState) -> None:
    with pytest.raises(HubError, match="neither an existing folder nor a Hub id") as caught:
        hublatent.load(name)
    assert len(str(caught.value)) < 200


def test_a_mistyped_folder_gets_the_nearest_one(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cards" / "btcvae-celeba").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for start in ("", "./", f"{tmp_path}/"):
        with pytest.raises(HubError, match=r"Did you mean \S*cards/btcvae-celeba\?"):
            hublatent.load(f"{start}cards/btcvae-celba")
    with pytest.raises(HubError) as caught:
        hublatent.load("cards/something-else")
    assert "Did you mean" not in str(caught.value)


def test_weights_are_hashed_when_they_arrive_and_when_they_changed(
    hub: HubStandIn, published: str, client: ClientState, monkeypatch: pytest.MonkeyPatch
) -> None:
    hublatent.load(REPO)
    with monkeypatch.context() as patch:
        patch.setattr("hublatent.hub.download.hashlib", None)
        assert hublatent.load(REPO).commit == published
    (weights,) = (p for p in blobs(client) if p.stat().st_size > 10_000)
    true = weights.read_bytes()
    weights.write_bytes(true[:-1] + bytes([true[-1] ^ 1]))
    with pytest.raises(HubError, match="did not arrive"):
        hublatent.load(REPO)


def test_optional_files(hub: HubStandIn, published: str, client: ClientState) -> None:
    def names(**options: bool) -> set[str]:
        where = snapshot(REPO, optional=PUBLISHED_FILES[2:], **options)  # type: ignore[arg-type]
        return {path.name for path in where.folder.iterdir()}

    wanted = {"config.json", "model.safetensors", "directions.safetensors", "README.md"}
    assert names() == wanted == names(local_files_only=True)


# Publishing ---------------------------------------------------------------------------------------


def test_one_commit_of_the_allow_list(
    hub: HubStandIn, client: ClientState, folder: Path, tmp_path: Path, model: LatentModel
) -> None:
    (folder / "stray.bin").write_bytes(b"not for the Hub")
    url = publish(folder, REPO, private=True)
    (folder / "stray.bin").unlink()
    assert url.endswith(hub.commits(REPO)[0].oid) and len(hub.commits(REPO)) == 2
    assert set(hub.files(REPO)) - {".gitattributes"} == {p.name for p in folder.iterdir()}
    assert same_weights(hublatent.load(REPO), model)
    assert publish(folder, REPO) == url and len(hub.commits(REPO)) == 2
    hub.repositories[REPO].private = False
    with pytest.raises(HubError, match="is public"):
        publish(folder, REPO, private=True)


def test_a_branch_and_a_pull_request(hub: HubStandIn, client: ClientState, folder: Path) -> None:
    hub.create("other/vae", {"README.md": CARD})
    before = hub.commits("other/vae")[0].oid
    assert "/discussions/" in publish(folder, "other/vae", create_pr=True)
    assert hub.commits("other/vae")[0].oid == before
    publish(folder, REPO, revision="trial")
    assert "config.json" in hub.files(REPO, "trial") and "config.json" not in hub.files(REPO)


def test_a_pull_request_of_nothing(hub: HubStandIn, published: str, folder: Path) -> None:
    assert publish(folder, REPO, create_pr=True).endswith(published)


def test_somebody_else_was_faster(hub: HubStandIn, published: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    mine = save_model(tiny_vae(), tmp_path / "mine")
    hub.before("*/commit/*", lambda: hub.commit(REPO, {"README.md": "theirs"}))
    with pytest.raises(HubError, match="nothing was overwritten"):
        publish(mine, REPO)
    assert hub.files(REPO)["README.md"] == b"theirs"


@pytest.mark.parametrize("token", [None, "hf_read", "hf_stranger"])
def test_who_may_not_write(
    token: str | None, hub: HubStandIn, client: ClientState, folder: Path
) -> None:
    client.log_in(token)
    with pytest.raises(HubError, match=r"log in|login|may not") as caught:
        publish(folder, REPO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize(
    "pattern", ["/lfs-storage/*", "*/lfs/objects/batch", "*/commit/*", "/api/*"]
)
def test_a_failed_upload(
    pattern: str, status: int, hub: HubStandIn, client: ClientState, folder: Path
) -> None:
    hub.fail(pattern, status=status)
    with pytest.raises(HubError) as caught:
        publish(folder, REPO)
    assert REPO in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert sum(client.slept) <= SECONDS
    hub.heal()
    publish(folder, REPO)
    assert "model.safetensors" in hub.files(REPO)


def test_publishing_to_nobody(hub: HubStandIn, client: ClientState, folder: Path) -> None:
    with hub.unreachable(), pytest.raises(HubError, match="cannot be reached"):
        publish(folder, REPO)
    assert sum(client.slept) <= SECONDS


def test_names_the_hub_would_not_take(client: ClientState, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="Hub id"):
        publish(folder, "user/with a space")
    with pytest.raises(HubError, match="nothing to publish"):
        publish(tmp_path, REPO)


def test_push_from_python(hub: HubStandIn, client: ClientState, model: LatentModel) -> None:
    directions = random_directions(model)
    model.push_to_hub(REPO, directions=directions)
    assert {*PUBLISHED_FILES} - {DISCRIMINATOR_NAME} <= set(hub.files(REPO))
    check_card(snapshot(REPO, files=("README.md",)).folder / "README.md")
    directions.push_to_hub("user/directions")
    assert len(DirectionSet.from_pretrained("user/directions", model)) == len(directions)
    with pytest.raises(DirectionError, match="fingerprint"):
        model.push_to_hub(REPO, directions=replace(directions, fingerprint="0" * 64))


def test_a_discriminator_goes_along_with_a_card_that_names_it(
    hub: HubStandIn, client: ClientState, tmp_path: Path
) -> None:
    generator, folder = tiny_stylegan2(), tmp_path / "gan"
    generator.save_pretrained(folder)
    (folder / "README.md").write_text(render_card(CardInput(REPO, generator)), encoding="utf-8")
    check_folder(folder)
    save_file({"out.bias": torch.zeros(1)}, folder / DISCRIMINATOR_NAME)
    with pytest.raises(HubError, match=r"does not say what discriminator\.safetensors is for"):
        check_folder(folder)
    card = render_card(CardInput(REPO, generator, discriminator=True))
    assert "for fine-tuning" in card
    (folder / "README.md").write_text(card, encoding="utf-8")
    assert hublatent.load(folder).fingerprint() == generator.fingerprint()
    assert check_folder(folder).config == generator.config
    publish(folder, REPO)
    main(["pull", REPO, "--out", str(tmp_path / "pulled")])
    pulled = (tmp_path / "pulled" / DISCRIMINATOR_NAME).read_bytes()
    assert pulled == (folder / DISCRIMINATOR_NAME).read_bytes()
    (folder / DISCRIMINATOR_NAME).write_bytes(b"half of it")
    with pytest.raises(HubError, match="not a readable safetensors file"):
        check_folder(folder)


def test_push_from_python_keeps_a_card(
    hub: HubStandIn, client: ClientState, model: LatentModel, folder: Path
) -> None:
    publish(folder, REPO)
    card = hub.files(REPO)["README.md"]
    model.push_to_hub(REPO, directions=random_directions(model, seed=5))
    assert hub.files(REPO)["README.md"] == card


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (None, "needs a card"),
        ("# no head", "license"),
        ("---\nlicense: [\n---\n", "parse"),
        (
            "---\nlicense: mit\nmodel-index:\n- name: x\n  results:\n  - task: {type: t}\n"
            "    dataset: {name: d, type: d}\n    metrics: [{type: auroc, value: .nan}]\n---\n",
            "auroc = nan",
        ),
    ],
)
def test_cards_that_do_not_go_up(card: str | None, says: str, folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    check_folder(tmp_path)
    (tmp_path / "README.md").unlink()
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    with pytest.raises(HubError, match=says):
        check_folder(tmp_path)


def test_directions_of_other_weights_do_not_go_up(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.manual_seed(2)
    save_model(tiny_vae(), tmp_path)
    with pytest.raises(DirectionError, match="fingerprint"):
        check_folder(tmp_path)
