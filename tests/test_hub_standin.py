"""The stand-in Hub against the real huggingface_hub client: each test drives one of its answers."""

from __future__ import annotations

import gc
import json
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub import errors as hub_errors
from huggingface_hub.hf_api import RepoFile, RepoSibling
from huggingface_hub.utils._http import _DEFAULT_RETRY_ON_EXCEPTIONS as NETWORK_ERRORS

from tests.hub_standin import Account, ClientState, HubStandIn, connected, etag, run_python

REPO = "user/model"
WEIGHTS = bytes(range(256)) * 16
FILES = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "folder/note.txt": b"hello\n"}


def push(files: dict[str, bytes], token: str | None = None, **options: Any) -> CommitInfo:
    """One commit of some files by the real client."""
    additions = [CommitOperationAdd(path, content) for path, content in files.items()]
    return HfApi(token=token).create_commit(REPO, additions, commit_message="A push", **options)


def siblings(repo: str, *, files_metadata: bool = True) -> dict[str, RepoSibling]:
    """The files that model_info lists."""
    found = HfApi().model_info(repo, files_metadata=files_metadata).siblings
    return {sibling.rfilename: sibling for sibling in found or []}


def blobs(client: ClientState) -> set[str]:
    """What lies in the client's cache of REPO, half files included."""
    return {path.name for path in client.cache.glob("models--*/blobs/*")}


# Files go up and come back ---------------------------------------------------------------------


def test_files_pushed_come_back_as_they_were(hub: HubStandIn, client: ClientState) -> None:
    assert HfApi().create_repo(REPO, exist_ok=True).repo_id == REPO
    made = push(FILES)
    assert made.oid == hub.commits(REPO)[0].oid
    assert made.commit_url == f"{hub.url}/{REPO}/commit/{made.oid}"
    assert FILES.items() <= hub.files(REPO).items()

    folder = Path(snapshot_download(REPO))
    assert folder.name == made.oid
    assert {p: (folder / p).read_bytes() for p in FILES} == FILES
    assert [c.title for c in HfApi().list_repo_commits(REPO)] == ["A push", "initial commit"]


def test_hashes_are_those_of_git_and_of_lfs(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files={"note.txt": "hello\n", "empty.npz": b""})
    # `printf 'hello\n' | git hash-object --stdin`, and the SHA-256 of nothing.
    assert etag("note.txt", b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    listed = siblings(REPO)
    assert listed["note.txt"].blob_id == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert (listed["note.txt"].size, listed["note.txt"].lfs) == (6, None)
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    lfs = listed["empty.npz"].lfs
    assert lfs is not None and (lfs.size, lfs.sha256) == (0, nothing)
    assert {s.size for s in siblings(REPO, files_metadata=False).values()} == {None}


def test_an_unchanged_push_makes_no_commit(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files=FILES)
    before = hub.commits(REPO)
    assert push(FILES).oid == before[0].oid
    assert hub.commits(REPO) == before
    assert push({**FILES, "config.json": b"{}"}).oid != before[0].oid
    # Only what changed travelled: the weights were not uploaded again.
    assert not [r for r in hub.requests if r.path.startswith("/lfs-storage/")]


def test_files_and_folders_are_deleted(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files={**FILES, "folder/deep/x.txt": b"x"})
    gone = [CommitOperationDelete("config.json"), CommitOperationDelete("folder/")]
    HfApi().create_commit(REPO, gone, commit_message="Away")
    assert set(hub.files(REPO)) == {".gitattributes", "model.safetensors"}
    with pytest.raises(hub_errors.RemoteEntryNotFoundError):
        HfApi().delete_file("absent", REPO)


def test_listings_agree(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files={**FILES, "folder/deep/x.txt": b"x"})
    api = HfApi()
    everything = {*FILES, "folder/deep/x.txt", ".gitattributes"}
    assert set(api.list_repo_files(REPO)) == everything
    assert {e.path for e in api.list_repo_tree(REPO)} == {
        ".gitattributes", "config.json", "model.safetensors", "folder",
    }  # fmt: skip
    assert {e.path for e in api.list_repo_tree(REPO, "folder")} == {
        "folder/note.txt", "folder/deep",
    }  # fmt: skip
    (found,) = api.get_paths_info(REPO, ["model.safetensors", "no"])
    assert isinstance(found, RepoFile) and found.size == len(WEIGHTS)
    assert api.file_exists(REPO, "folder/note.txt")
    assert not api.file_exists(REPO, "folder/no.txt")


def test_cards_are_read_and_checked(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO)
    push({"README.md": b"---\nlicense: other\nlibrary_name: hublatent\ntags: [faces]\n---\n# Hi\n"})
    card = HfApi().model_info(REPO).card_data
    assert card is not None and card.license == "other"
    hub.create("user/secret", files=hub.files(REPO), private=True)
    hub.create("team/plain")
    assert [m.id for m in HfApi(token=False).list_models(filter="hublatent")] == [REPO]
    assert {m.id for m in HfApi().list_models(filter=["hublatent", "faces"])} == {
        REPO, "user/secret",
    }  # fmt: skip
    assert [m.id for m in HfApi().list_models(author="team")] == ["team/plain"]
    with pytest.raises(ValueError, match="Invalid metadata"):
        push({"README.md": b"---\nlicense: [\n---\n"})
    with pytest.warns(UserWarning, match="empty or missing"):
        push({"README.md": b"# No head\n"})


def test_safetensors_headers_are_read_by_range(hub: HubStandIn, client: ClientState) -> None:
    size = 1 << 18
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    head = json.dumps({"__metadata__": {"k": "v"}, "t": tensor}).encode()
    content = struct.pack("<Q", len(head)) + head + bytes(size)
    hub.create(REPO, files={"model.safetensors": content})
    found = HfApi().parse_safetensors_file_metadata(REPO, "model.safetensors")
    assert found.metadata == {"k": "v"}
    assert found.tensors["t"].shape == [size]
    assert hub.requests[-1].headers["range"] == "bytes=0-100000"


# Revisions -------------------------------------------------------------------------------------


def test_branches_tags_and_commits_are_revisions(hub: HubStandIn, client: ClientState) -> None:
    first = hub.create(REPO, files=FILES)
    api = HfApi()
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="try/it")
    second = push({"config.json": b"{}"}, revision="try/it").oid
    for revision, commit in (("main", first), ("v1", first), ("try/it", second), (second, second)):
        assert api.model_info(REPO, revision=revision).sha == commit
        assert Path(snapshot_download(REPO, revision=revision)).name == commit
    refs = api.list_repo_refs(REPO)
    assert {b.name: b.target_commit for b in refs.branches} == {"main": first, "try/it": second}
    assert [t.ref for t in refs.tags] == ["refs/tags/v1"]

    api.create_tag(REPO, tag="v1", exist_ok=True)
    with pytest.raises(hub_errors.HfHubHTTPError, match="409"):
        api.create_branch(REPO, branch="try/it")
    api.delete_tag(REPO, tag="v1")
    api.delete_branch(REPO, branch="try/it")
    for call in (snapshot_download, api.model_info):
        with pytest.raises(hub_errors.RevisionNotFoundError):
            call(REPO, revision="v1")


def test_a_stale_parent_is_refused(hub: HubStandIn, client: ClientState) -> None:
    seen = hub.create(REPO, files=FILES)
    hub.before("*/commit/main", lambda: hub.commit(REPO, {"config.json": "theirs"}))
    with pytest.raises(hub_errors.HfHubHTTPError) as caught:
        push({"config.json": b"mine"}, parent_commit=seen)
    assert caught.value.response.status_code == 412
    assert hub.files(REPO)["config.json"] == b"theirs"
    push({"config.json": b"mine"}, parent_commit=hub.commits(REPO)[0].oid)
    assert hub.files(REPO)["config.json"] == b"mine"


def test_a_pull_request_leaves_main_alone(hub: HubStandIn, client: ClientState) -> None:
    main = hub.create(REPO, files=FILES)
    made = push({"config.json": b"{}"}, token="hf_stranger", create_pr=True)
    assert (made.pr_url, made.pr_revision) == (f"{hub.url}/{REPO}/discussions/1", "refs/pr/1")
    assert hub.commits(REPO)[0].oid == main
    assert hub.files(REPO, "refs/pr/1")["config.json"] == b"{}"
    assert Path(snapshot_download(REPO, revision="refs/pr/1")).name == made.oid
    requests = HfApi().list_repo_refs(REPO, include_pull_requests=True).pull_requests
    assert [r.ref for r in requests or []] == ["refs/pr/1"]


# Who may do what -------------------------------------------------------------------------------


def test_private_looks_like_missing_to_others(hub: HubStandIn, client: ClientState) -> None:
    HfApi().create_repo(REPO, private=True)
    assert HfApi().model_info(REPO).private
    for repo in (REPO, "user/absent"):
        for token in ("hf_stranger", False):
            with pytest.raises(hub_errors.RepositoryNotFoundError):
                snapshot_download(repo, token=token)
            with pytest.raises(hub_errors.RepositoryNotFoundError):
                HfApi(token=token).model_info(repo)
    assert HfApi().repo_exists(REPO) and not HfApi().repo_exists("user/absent")


@pytest.mark.parametrize("token", ["hf_stranger", False])
def test_gated_is_listed_but_not_served(
    hub: HubStandIn, client: ClientState, token: str | bool
) -> None:
    hub.create(REPO, files=FILES, gated=True)
    assert HfApi(token=token).model_info(REPO).gated == "manual"
    for call in (snapshot_download, HfApi().auth_check):
        with pytest.raises(hub_errors.GatedRepoError):
            call(REPO, token=token)
    hub.create(REPO, files=FILES, gated=True, allowed=("stranger",))
    assert Path(snapshot_download(REPO, token="hf_stranger")).is_dir()


def test_a_disabled_repository(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files=FILES, disabled=True)
    with pytest.raises(hub_errors.DisabledRepoError):
        HfApi().model_info(REPO)


@pytest.mark.parametrize("token", ["hf_read", "hf_stranger"])
def test_tokens_that_may_not_write(hub: HubStandIn, client: ClientState, token: str) -> None:
    hub.create(REPO, files=FILES)
    for attempt in (
        lambda: HfApi(token=token).create_repo("user/other"),
        lambda: HfApi(token=token).create_branch(REPO, branch="b"),
        lambda: push({"config.json": b"{}"}, token=token),
    ):
        with pytest.raises(hub_errors.HfHubHTTPError, match="403"):
            attempt()
    assert set(hub.repositories) == {REPO} and len(hub.commits(REPO)) == 2


def test_namespaces(hub: HubStandIn, client: ClientState) -> None:
    for owner in ("nobody", "stranger"):
        with pytest.raises(hub_errors.HfHubHTTPError, match="namespace") as caught:
            HfApi().create_repo(f"{owner}/model", exist_ok=True)
        assert caught.value.response.status_code == 403
    assert HfApi().create_repo("team/model").repo_id == "team/model"
    assert HfApi().create_repo("bare").repo_id == "user/bare"
    hub.tokens = {"hf_new": Account("nobody")}
    assert HfApi(token="hf_new").whoami()["name"] == "nobody"
    HfApi(token="hf_new").create_repo("nobody/model")
    HfApi(token="hf_new").delete_repo("nobody/model")
    assert "nobody/model" not in hub.repositories


def test_logins(hub: HubStandIn, client: ClientState) -> None:
    assert HfApi().whoami()["name"] == "user"
    assert HfApi(token="hf_read").whoami()["auth"]["accessToken"]["role"] == "read"
    client.log_in("hf_expired")
    with pytest.raises(hub_errors.HfHubHTTPError, match="Invalid user token"):
        HfApi().whoami()
    client.log_in(None)
    with pytest.raises(hub_errors.LocalTokenNotFoundError):
        HfApi().whoami()
    with pytest.raises(hub_errors.HfHubHTTPError, match="401"):
        HfApi().create_repo(REPO)


# What goes wrong -------------------------------------------------------------------------------


def test_too_many_requests_then_enough(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files=FILES)
    hub.fail("*/tree/*", status=429, times=2, retry_after=5)
    assert Path(snapshot_download(REPO)).is_dir()
    assert client.slept == [6.0, 6.0]  # what was asked for and a second more


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_stays_ill(hub: HubStandIn, client: ClientState, status: int) -> None:
    hub.create(REPO, files=FILES)
    hub.fail("/api/models/*", status=status, message="Not now")
    with pytest.raises(hub_errors.HfHubHTTPError) as caught:
        HfApi().model_info(REPO)
    assert caught.value.response.status_code == status
    assert caught.value.response.headers["X-Error-Message"] == "Not now"
    assert client.slept == []  # this call does not retry
    with pytest.raises(hub_errors.LocalEntryNotFoundError):
        snapshot_download(REPO)
    hub.heal()
    assert Path(snapshot_download(REPO)).is_dir()


def test_faults_come_in_turn_and_by_method(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files=FILES)
    hub.fail("*/config.json", status=404, times=1, method="HEAD", error_code="EntryNotFound")
    hub.fail("*/config.json", status=403, times=1, method="HEAD", error_code="GatedRepo")
    with pytest.raises(hub_errors.RemoteEntryNotFoundError):
        hf_hub_download(REPO, "config.json")
    with pytest.raises(hub_errors.GatedRepoError):
        hf_hub_download(REPO, "config.json")
    assert Path(hf_hub_download(REPO, "config.json")).read_bytes() == FILES["config.json"]


def test_a_closed_connection_is_resumed(
    hub: HubStandIn, client: ClientState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)  # what it resumes in multiples of
    hub.create(REPO, files=FILES)
    hub.drop_connection("*/model.safetensors", after_bytes=1000)
    path = Path(snapshot_download(REPO)) / "model.safetensors"
    assert path.read_bytes() == WEIGHTS
    ranges = [r.headers.get("range") for r in hub.requests if r.path.endswith(path.name)]
    assert ranges == [None, None, "bytes=1000-"]  # HEAD, and two GETs
    assert client.slept == [1]


@pytest.mark.parametrize(
    ("after_bytes", "times", "reset"), [(1000, 1, True), (0, None, False), (None, None, False)]
)
def test_a_connection_that_breaks_for_good(
    hub: HubStandIn, client: ClientState, after_bytes: int | None, times: int | None, reset: bool
) -> None:
    hub.create(REPO, files=FILES)
    hub.drop_connection("*/model.safetensors", after_bytes=after_bytes, times=times, reset=reset)
    with pytest.raises(NETWORK_ERRORS):
        snapshot_download(REPO)
    assert etag("model.safetensors", WEIGHTS) not in blobs(client)
    assert not [name for name in blobs(client) if name.endswith(".incomplete")]
    hub.heal()
    folder = Path(snapshot_download(REPO))
    assert {p: (folder / p).read_bytes() for p in FILES} == FILES


def test_a_wrong_size_is_noticed(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files=FILES)
    hub.tamper(REPO, "model.safetensors", size=len(WEIGHTS) + 1)
    assert siblings(REPO)["model.safetensors"].size == len(WEIGHTS) + 1
    with pytest.raises(OSError, match="Consistency check failed"):
        snapshot_download(REPO)
    hub.heal()
    hub.tamper(REPO, "model.safetensors", content=WEIGHTS[:-1])
    folder = Path(snapshot_download(REPO))
    # HEAD and GET agree here: only the listing knows better, and the client does not compare.
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS[:-1]


def test_a_wrong_hash_is_not_noticed_by_the_client(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files=FILES)
    hub.tamper(REPO, "model.safetensors", content=WEIGHTS[::-1])
    path = Path(snapshot_download(REPO)) / "model.safetensors"
    assert path.read_bytes() == WEIGHTS[::-1]
    assert path.resolve().name == etag("model.safetensors", WEIGHTS)  # under the true file's name


def test_the_cache_serves_while_the_hub_is_away(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO, files=FILES)
    folder = snapshot_download(REPO)
    asked = len(hub.requests)
    with hub.unreachable():
        assert snapshot_download(REPO) == folder
        with pytest.raises(hub_errors.LocalEntryNotFoundError):
            snapshot_download("user/other")
        with pytest.raises(NETWORK_ERRORS):
            HfApi().model_info(REPO)
    assert snapshot_download(REPO, local_files_only=True) == folder
    assert len(hub.requests) == asked
    assert HfApi().model_info(REPO).sha == Path(folder).name


def test_a_hub_that_does_not_answer(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO)
    hub.stall("/api/models/*", seconds=30)
    with pytest.raises(NETWORK_ERRORS):
        HfApi().model_info(REPO, timeout=0.1)


# The stand-in as a neighbour -------------------------------------------------------------------


def test_endpoint_arguments_need_no_patching(hub: HubStandIn, tmp_path: Path) -> None:
    commit = hub.create(REPO, files=FILES)
    assert HfApi(endpoint=hub.url, token="hf_write").model_info(REPO).sha == commit
    folder = snapshot_download(REPO, endpoint=hub.url, cache_dir=tmp_path, token=False)
    assert Path(folder).name == commit


def test_a_fresh_interpreter(hub: HubStandIn, tmp_path: Path) -> None:
    hub.create(REPO, files=FILES)
    code = f"import huggingface_hub as h; print(h.hf_hub_download({REPO!r}, 'config.json'))"
    done = run_python(hub, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == FILES["config.json"]
    assert tmp_path in Path(done.stdout.strip()).parents
    assert {r.token for r in hub.requests if REPO in r.path} == {"hf_write"}
    done = run_python(hub, code, tmp_path / "..", environment={"HF_HUB_OFFLINE": "1"}, token=None)
    assert done.returncode == 1 and "LocalEntryNotFoundError" in done.stderr


def test_many_clients_at_once(hub: HubStandIn, client: ClientState) -> None:
    hub.create(REPO)

    def push_one(number: int) -> str:
        return push({f"{number}.npy": bytes([number]) * 5000}).oid

    with ThreadPoolExecutor(8) as pool:
        commits = set(pool.map(push_one, range(16)))
    assert {c.oid for c in hub.commits(REPO)} > commits and len(commits) == 16
    folder = Path(snapshot_download(REPO))
    assert all((folder / f"{n}.npy").read_bytes() == bytes([n]) * 5000 for n in range(16))


def test_nothing_is_left_over(tmp_path: Path) -> None:
    fds = Path("/proc/self/fd")
    if not fds.is_dir():
        pytest.skip("counts open sockets in /proc/self/fd, which this system lacks")

    def sockets() -> int:
        gc.collect()
        return sum(link.is_symlink() and "socket" in str(link.readlink()) for link in fds.iterdir())

    open_before, threads_before = sockets(), threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(3):
            with HubStandIn() as hub, connected(hub, tmp_path):
                hub.create(REPO, files=FILES)
                hub.drop_connection("*/config.json", after_bytes=2, reset=True)
                with pytest.raises(NETWORK_ERRORS):
                    hf_hub_download(REPO, "config.json")
                hub.stall("/api/models/*", seconds=30)
                with pytest.raises(NETWORK_ERRORS):
                    HfApi().model_info(REPO, timeout=0.05)
        assert sockets() == open_before
    assert threading.active_count() == threads_before
