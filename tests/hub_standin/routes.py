"""The stand-in Hub's answers, one function for each endpoint that the client calls."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from tests.hub_standin.access import check_gate, commit_at, namespaced, readable, writable
from tests.hub_standin.repository import (
    DATE,
    Commit,
    describe,
    etag,
    front_matter,
    git_sha1,
    is_large,
    model_info,
)
from tests.hub_standin.server import Call, Refused, Reply, json_reply, route


@route("GET", "/api/whoami-v2")
def _whoami(call: Call) -> Reply:
    if call.account is None:
        raise Refused(401, "Invalid username or password.")
    role = "write" if call.account.write else "read"
    return json_reply(
        {
            "type": "user",
            "name": call.account.user,
            "orgs": [{"type": "org", "name": name} for name in call.account.organizations],
            "auth": {"type": "access_token", "accessToken": {"role": role}},
        }
    )


@route("POST", "/api/validate-yaml")
def _validate_yaml(call: Call) -> Reply:
    try:
        head = front_matter(call.json()["content"])
    except ValueError as error:
        return json_reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if head else [{"message": "empty or missing yaml metadata in repo card"}]
    return json_reply({"errors": [], "warnings": warnings})


@route("POST", "/api/repos/create")
def _create(call: Call) -> Reply:
    name = namespaced(call)
    answer = {"url": f"{call.hub.url}/{name}", "name": name, "id": name}
    if name in call.hub.repositories:
        return json_reply({"error": "You already created this model repo", **answer}, 409)
    asked = call.json()
    # Older clients send "private", newer ones "visibility".
    private = asked.get("visibility") == "private" or asked.get("private", False)
    call.hub.create(name, private=private)
    return json_reply(answer)


@route("DELETE", "/api/repos/delete")
def _delete(call: Call) -> Reply:
    name = namespaced(call)
    readable(call, name)
    del call.hub.repositories[name]
    return Reply()


@route("GET", "/api/models")
def _list_models(call: Call) -> Reply:
    author, search = (call.query.get(key, [""])[0] for key in ("author", "search"))
    wanted = set(call.query.get("filter", []))
    listed = []
    for name, repository in call.hub.repositories.items():
        visible = not repository.private or (call.account is not None and call.account.owns(name))
        info = model_info(repository, repository.commits[repository.branches["main"]], blobs=False)
        if visible and name.startswith(f"{author}/" if author else "") and search in name:
            listed += [info] * wanted.issubset(info["tags"])
    return json_reply(listed)


@route("GET", "/api/models/<repo>")
@route("GET", "/api/models/<repo>/revision/<revision>")
def _model_info(call: Call, repo: str, revision: str = "main") -> Reply:
    repository = readable(call, repo)
    return json_reply(model_info(repository, commit_at(repository, revision), call.asks("blobs")))


@route("GET", "/api/models/<repo>/tree/<revision>(?:/<folder>)?")
def _tree(call: Call, repo: str, revision: str, folder: str = "") -> Reply:
    repository = readable(call, repo)
    recursive = call.asks("recursive")
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, content in sorted(commit_at(repository, revision).files.items()):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            name = prefix + "/".join(parts[:depth])
            oid = git_sha1(name.encode())
            entries[name] = {"type": "directory", "path": name, "oid": oid, "size": 0}
        if recursive or len(parts) == 1:
            entries[path] = describe(repository, path, content)
    if folder and not entries:
        raise Refused(404, f"{folder} does not exist", "EntryNotFound")
    return json_reply(list(entries.values()))


@route("POST", "/api/models/<repo>/paths-info/<revision>")
def _paths_info(call: Call, repo: str, revision: str) -> Reply:
    repository = readable(call, repo)
    files = commit_at(repository, revision).files
    asked = parse_qs(call.body.decode()).get("paths", [])
    return json_reply([describe(repository, path, files[path]) for path in asked if path in files])


@route("GET", "/api/models/<repo>/refs")
def _refs(call: Call, repo: str) -> Reply:
    repository = readable(call, repo)

    def listed(names: dict[str, str], prefix: str) -> list[dict[str, str]]:
        return [{"name": n, "ref": prefix + n, "targetCommit": oid} for n, oid in names.items()]

    return json_reply(
        {
            "branches": listed(repository.branches, "refs/heads/"),
            "tags": listed(repository.tags, "refs/tags/"),
            "converts": [],
            "pullRequests": listed(repository.pull_requests, ""),
        }
    )


@route("GET", "/api/models/<repo>/commits/<revision>")
def _commits(call: Call, repo: str, revision: str) -> Reply:
    repository = readable(call, repo)
    history = repository.history(commit_at(repository, revision).oid)
    return json_reply(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.description,
                "date": DATE,
                "authors": [{"user": repo.split("/")[0]}],
            }
            for commit in history
        ]
    )


@route("GET", "/api/models/<repo>/auth-check")
@route("GET", "/api/models/<repo>/auth-check/<write>")
def _auth_check(call: Call, repo: str, write: str = "") -> Reply:
    check_gate(call, writable(call, repo) if write else readable(call, repo))
    return Reply()


@route("POST", "/api/models/<repo>/branch/<branch>")
def _create_branch(call: Call, repo: str, branch: str) -> Reply:
    repository = writable(call, repo)
    if branch in repository.branches:
        raise Refused(409, f"Reference already exists: {branch}")
    start = commit_at(repository, call.json().get("startingPoint") or "main")
    repository.branches[branch] = start.oid
    return Reply()


@route("POST", "/api/models/<repo>/tag/<revision>")
def _create_tag(call: Call, repo: str, revision: str) -> Reply:
    repository = writable(call, repo)
    tag = call.json()["tag"]
    if tag in repository.tags:
        raise Refused(409, f"Tag reference exists already: {tag}")
    repository.tags[tag] = commit_at(repository, revision).oid
    return Reply()


@route("DELETE", "/api/models/<repo>/(?P<kind>branch|tag)/<name>")
def _delete_reference(call: Call, repo: str, kind: str, name: str) -> Reply:
    repository = writable(call, repo)
    names = repository.branches if kind == "branch" else repository.tags
    if name not in names or (kind, name) == ("branch", "main"):
        raise Refused(404, f"Invalid rev id: {name}", "RevisionNotFound")
    del names[name]
    return Reply()


@route("POST", "/api/models/<repo>/preupload/<revision>")
def _preupload(call: Call, repo: str, revision: str) -> Reply:
    repository = writable(call, repo, pull_request=call.asks("create_pr"))
    files = commit_at(repository, revision).files
    answers = []
    for asked in call.json()["files"]:
        path = asked["path"]
        mode = "lfs" if is_large(path, asked["size"]) else "regular"
        answer = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if path in files:
            answer["oid"] = etag(path, files[path])  # an unchanged file is not sent again
        answers.append(answer)
    return json_reply({"files": answers})


@route("POST", "/<repo>.git/info/lfs/objects/batch")
def _lfs_batch(call: Call, repo: str) -> Reply:
    writable(call, repo, pull_request=True)
    objects = []
    for asked in call.json()["objects"]:
        answer = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in call.hub.large_files:
            answer["actions"] = {"upload": {"href": f"{call.hub.url}/lfs-storage/{asked['oid']}"}}
        objects.append(answer)
    return json_reply({"transfer": "basic", "objects": objects})


@route("PUT", "/lfs-storage/<oid>")
def _lfs_upload(call: Call, oid: str) -> Reply:
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise Refused(400, "The content does not have the hash it was announced with")
    call.hub.large_files[oid] = call.body
    return Reply()


@route("POST", "/api/models/<repo>/commit/<revision>")
def _commit(call: Call, repo: str, revision: str) -> Reply:
    create_pr = call.asks("create_pr")
    repository = writable(call, repo, pull_request=create_pr)
    head = commit_at(repository, revision)
    if not create_pr and revision not in {*repository.branches, *repository.pull_requests}:
        raise Refused(404, f"Not a branch: {revision}", "RevisionNotFound")
    lines = [json.loads(line) for line in call.body.splitlines()]
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, head.oid):
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    changes: dict[str, bytes | None] = {}
    for line in lines[1:]:
        changes.update(_changes(call, head, line["key"], line["value"]))
    target = repository.open_pull_request(revision) if create_pr else revision
    made = repository.commit(target, changes, header["summary"], header["description"])
    answer = {"success": True, "commitOid": made.oid}
    answer["commitUrl"] = f"{call.hub.url}/{repo}/commit/{made.oid}"
    if create_pr:
        number = target.rsplit("/", 1)[1]
        answer["pullRequestUrl"] = f"{call.hub.url}/{repo}/discussions/{number}"
    return json_reply(answer)


def _changes(
    call: Call, head: Commit, kind: str, value: dict[str, Any]
) -> Iterator[tuple[str, bytes | None]]:
    path = value["path"]
    if kind == "file":
        yield path, base64.b64decode(value["content"])
    elif kind == "lfsFile":
        if value["oid"] not in call.hub.large_files:
            raise Refused(400, f"{path} was not uploaded before it was committed")
        yield path, call.hub.large_files[value["oid"]]
    else:
        prefix = path.rstrip("/") + "/" if kind == "deletedFolder" else None
        gone = [p for p in head.files if p == path or (prefix and p.startswith(prefix))]
        if not gone:
            raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
        yield from ((p, None) for p in gone)


@route("GET", "/<repo>/resolve/<revision>/<path*>")
def _resolve(call: Call, repo: str, revision: str, path: str) -> Reply:
    repository = readable(call, repo)
    check_gate(call, repository)
    commit = commit_at(repository, revision)
    if path not in commit.files:
        refused = Refused(404, "Entry not found", "EntryNotFound")
        refused.reply.headers["X-Repo-Commit"] = commit.oid
        raise refused
    true = commit.files[path]
    content, claimed = repository.tampered.get(path, (None, None))
    body = true if content is None else content
    headers = {
        "ETag": f'"{etag(path, true)}"',
        "X-Repo-Commit": commit.oid,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if call.method == "HEAD" and claimed is not None:
        headers["Content-Length"] = str(claimed)
    return _ranged(Reply(200, body, headers), call.headers.get("range"))


def _ranged(reply: Reply, asked: str | None) -> Reply:
    """Cut a reply to a Range header of one range (RFC 9110, section 14)."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
    if match is None:
        return reply
    size = len(reply.body)
    first = int(match.group(1))
    last = min(int(match.group(2) or size - 1), size - 1)
    if first > last:
        return Reply(416, b"", {**reply.headers, "Content-Range": f"bytes */{size}"})
    headers = {**reply.headers, "Content-Range": f"bytes {first}-{last}/{size}"}
    return Reply(206, reply.body[first : last + 1], headers)
