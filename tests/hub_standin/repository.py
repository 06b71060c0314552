"""What is on the stand-in Hub: accounts, repositories, commits, files and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml  # type: ignore[import-untyped]

DATE = "2024-01-01T00:00:00.000Z"  # of every commit: nothing here depends on the clock
# The Hub keeps binary files out of git by these names (its .gitattributes), or by their size.
LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pkl", ".npy", ".npz", ".png")
LARGE_BYTES = 10 << 20
GIT_ATTRIBUTES = "\n".join(
    f"*{suffix} filter=lfs diff=lfs merge=lfs -text" for suffix in LARGE_SUFFIXES
)


@dataclass(frozen=True)
class Account:
    """Whose a token is.

    Attributes:
        user: the user's name.
        organizations: the namespaces, besides the user's own, where the user may write.
        write: whether the token allows writing at all.
    """

    user: str
    organizations: tuple[str, ...] = ()
    write: bool = True

    def owns(self, repo: str) -> bool:
        """Whether the repository lies in one of the account's namespaces."""
        return repo.split("/")[0] in (self.user, *self.organizations)


@dataclass(frozen=True)
class Commit:
    """One commit: the whole content of the repository, and where it came from."""

    oid: str
    parent: str | None
    title: str
    description: str
    files: dict[str, bytes] = field(repr=False)


@dataclass
class Repository:
    """A model repository: commits, and the names that point to them."""

    id: str
    private: bool = False
    gated: bool = False
    disabled: bool = False
    allowed: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, str] = field(default_factory=dict)  # "refs/pr/1" -> commit
    tampered: dict[str, tuple[bytes | None, int | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = {".gitattributes": GIT_ATTRIBUTES.encode()}
        self.branches["main"] = self._add(None, first, "initial commit", "").oid

    def resolve(self, revision: str) -> str:
        """The commit that a branch, tag, pull request or commit id names; KeyError if none."""
        for names in (self.branches, self.tags, self.pull_requests):
            if revision in names:
                return names[revision]
        return self.commits[revision].oid

    def history(self, revision: str) -> list[Commit]:
        """A commit and its ancestors, newest first."""
        oid: str | None = self.resolve(revision)
        found = []
        while oid is not None:
            found.append(self.commits[oid])
            oid = found[-1].parent
        return found

    def commit(
        self, revision: str, changes: Mapping[str, bytes | None], title: str, description: str = ""
    ) -> Commit:
        """Change files of a branch or pull request; None deletes. KeyError if there is none."""
        names = self.branches if revision in self.branches else self.pull_requests
        made = self._add(names[revision], changes, title, description)
        names[revision] = made.oid
        return made

    def open_pull_request(self, revision: str) -> str:
        """Start a pull request from a revision; its name is returned."""
        name = f"refs/pr/{len(self.pull_requests) + 1}"
        self.pull_requests[name] = self.resolve(revision)
        return name

    def _add(
        self, parent: str | None, changes: Mapping[str, bytes | None], title: str, description: str
    ) -> Commit:
        merged: dict[str, bytes | None] = {}
        merged.update(self.commits[parent].files if parent else {})
        merged.update(changes)
        files = {path: content for path, content in merged.items() if content is not None}
        text = json.dumps([self.id, parent, len(self.commits), title, description])
        text += "".join(f"\n{path} {git_sha1(files[path])}" for path in sorted(files))
        made = Commit(hashlib.sha1(text.encode()).hexdigest(), parent, title, description, files)
        self.commits[made.oid] = made
        return made


def git_sha1(content: bytes) -> str:
    """Git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str, size: int) -> bool:
    """Whether the Hub stores a file of this name and size outside git (LFS)."""
    return path.endswith(LARGE_SUFFIXES) or size > LARGE_BYTES


def etag(path: str, content: bytes) -> str:
    """The identity of a file's content: SHA-256 for large files, git's SHA-1 for others."""
    large = is_large(path, len(content))
    return hashlib.sha256(content).hexdigest() if large else git_sha1(content)


def describe(repository: Repository, path: str, content: bytes) -> dict[str, Any]:
    """A file's entry in the Hub's listings."""
    claimed = repository.tampered.get(path, (None, None))[1]
    size = len(content) if claimed is None else claimed
    entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": git_sha1(content)}
    if is_large(path, len(content)):
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{etag(path, content)}\n"
            f"size {len(content)}\n"
        ).encode()
        entry["oid"] = git_sha1(pointer)
        entry["lfs"] = {"oid": etag(path, content), "size": size, "pointerSize": len(pointer)}
    return entry


def front_matter(text: str) -> dict[str, Any]:
    """The YAML head of a model card; ValueError where it is none."""
    match = re.match(r"\s*---\r?\n(.*?)\r?\n---(\r?\n|$)", text, re.DOTALL)
    if match is None:
        return {}
    try:
        head = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    if not isinstance(head, dict):
        raise ValueError("the head of a card is a mapping")
    return head


def _sibling(repository: Repository, path: str, content: bytes, blobs: bool) -> dict[str, Any]:
    entry = describe(repository, path, content)
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": entry["size"], "blobId": entry["oid"]}
    if blobs and "lfs" in entry:
        sibling["lfs"] = {**entry["lfs"], "sha256": entry["lfs"]["oid"]}
    return sibling


def model_info(repository: Repository, commit: Commit, blobs: bool) -> dict[str, Any]:
    """What the Hub tells of a repository at a commit; with blobs, sizes and hashes of its files."""
    head: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        head = front_matter(commit.files.get("README.md", b"").decode(errors="replace"))
    library = [head["library_name"]] if "library_name" in head else []
    return {
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.id.split("/")[0],
        "sha": commit.oid,
        "lastModified": DATE,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": repository.disabled,
        "tags": [*head.get("tags", []), *library],
        "cardData": json.loads(json.dumps(head, default=str)),  # dates become text
        "siblings": [
            _sibling(repository, path, content, blobs)
            for path, content in sorted(commit.files.items())
        ],
    }
