"""Snapshots of the Hub: all files of one commit, checked against the size and hash it lists."""

from __future__ import annotations

import hashlib
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from hublatent.checkpoint import CONFIG_NAME, PICKLE_SUFFIXES, WEIGHTS_NAME
from hublatent.errors import HubError, shorten
from hublatent.hub.client import CONNECT_SECONDS, call_hub, check_repo_id, is_transient, like_folder
from hublatent.storage import write_text

DIRECTIONS_NAME = "directions.safetensors"
MAP_NAME = "latent_map.safetensors"
CARD_NAME = "README.md"
SAMPLES_NAME = "samples.png"
MODEL_FILES = (CONFIG_NAME, WEIGHTS_NAME)
DISCRIMINATOR_NAME = "discriminator.safetensors"  # beside a generator, for whoever trains it on
PUBLISHED_FILES = (*MODEL_FILES, DIRECTIONS_NAME, CARD_NAME, SAMPLES_NAME, DISCRIMINATOR_NAME)
MAX_DOWNLOAD_BYTES = 2 << 30
MAX_LISTING_BYTES = 16 << 20
_COMMIT = re.compile("[0-9a-f]{40}")

logger = logging.getLogger("hublatent")


@dataclass(frozen=True)
class Snapshot:
    """The files of one repository at one 40-digit commit, or a plain folder (commit None).

    `source` is what the user named, a folder or a Hub id.
    """

    source: str
    folder: Path
    commit: str | None


class HubOptions(TypedDict, total=False):
    """What `snapshot` may be told about asking the Hub."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool


def snapshot(
    source: str | Path, *, revision: str | None = None, token: str | bool | None = None,
    cache_dir: str | Path | None = None, local_files_only: bool = False,
    files: tuple[str, ...] = MODEL_FILES, optional: tuple[str, ...] = (),
    max_bytes: int = MAX_DOWNLOAD_BYTES,
) -> Snapshot:  # fmt: skip
    """Resolve a folder or a Hub id to files on this machine, all of one commit.

    While the Hub is away or busy, the cache's copy serves, with a warning in the log.

    Args:
        source: an existing folder, which wins, or a Hub id such as "user/btcvae-celeba".
        revision: branch, tag or commit on the Hub.
        token: a Hub token; None takes the stored one.
        cache_dir: where downloads are kept; None takes the Hub client's own.
        local_files_only: take what is in the cache and ask nobody.
        files: the names that have to be there; others are never downloaded.
        optional: names that are taken too where the repository has them.
        max_bytes: refuse a larger download.

    Raises:
        HubError: the source does not exist, lacks a file, may not be read, is too large, did not
            arrive as announced, or cannot be reached.
    """
    folder = local_folder(source)
    if folder is not None:
        return Snapshot(str(source), folder, None)
    repo = str(source)
    check_repo_id(repo)
    download = partial(hf_hub_download, repo, token=token, cache_dir=cache_dir)

    def file(name: str, commit: str | None, size: int | None = None) -> Path:
        """A file of so many bytes; without a size from the cache, asking nobody."""
        get = partial(download, name, revision=commit, local_files_only=size is None)
        return Path(call_hub(get, repo, revision, size))

    def cached() -> Snapshot:
        paths = [file(name, revision) for name in files]
        return Snapshot(repo, paths[0].parent, paths[0].parent.name)

    if local_files_only:
        return cached()
    look_up = partial(
        HfApi(token=token).model_info, repo, revision=revision, files_metadata=True,
        timeout=CONNECT_SECONDS,
    )  # fmt: skip
    try:
        info = call_hub(look_up, repo, revision, MAX_LISTING_BYTES)
        wanted, commit = _check_files(repo, info, files, optional, max_bytes), str(info.sha)
        for name, announced in wanted.items():
            path = file(name, commit, announced.size)
            _check_content(repo, path, announced)
        if revision is None or not _COMMIT.fullmatch(revision):
            # Only now, with every file there, is the branch's name pointed at this commit.
            file(name, revision, announced.size)
        return Snapshot(repo, path.parent, commit)
    except HubError as error:
        if isinstance(error.__cause__, RepositoryNotFoundError):
            raise _no_folder_either(repo, error) from error.__cause__
        if not is_transient(error.__cause__):
            raise
        try:
            found = cached()
        except HubError:
            raise _no_folder_either(repo, error) from error.__cause__
        logger.warning("%s %s comes from the cache, at %s.", error, repo, found.commit)
        return found


def _no_folder_either(source: str, error: HubError) -> HubError:
    """A mistyped path looks like a Hub id: say that it was tried as both."""
    return HubError(f"There is no folder {source}.{like_folder(source)} As a Hub id: {error}")


def local_folder(source: str | Path) -> Path | None:
    """The existing folder that a source names; None where it can only be a Hub id."""
    try:
        folder = Path(source).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long; of an unknown user; with a NUL
        return None


def _check_files(
    repo: str, info: ModelInfo, files: tuple[str, ...], optional: tuple[str, ...], limit: int
) -> dict[str, RepoSibling]:
    """Look at a repository before downloading: does it hold the files, and how large are they?"""
    if not _COMMIT.fullmatch(str(info.sha)):
        raise HubError(f"The Hub names {shorten(info.sha)} as the commit of {repo}; that is none.")
    found = {s.rfilename: s for s in info.siblings or [] if isinstance(s.rfilename, str)}
    missing = [name for name in files if name not in found]
    if missing:
        pickles = sorted(name for name in found if name.endswith(PICKLE_SUFFIXES))
        hint = f" Not read, since a pickle can run code: {', '.join(pickles[:3])}." * bool(pickles)
        if DIRECTIONS_NAME in found:
            hint += " It holds directions: use --only-directions or DirectionSet.from_pretrained."
        raise HubError(
            f"{repo} holds no {' and no '.join(missing)}; it is not what was asked for.{hint}"
        )
    wanted = {name: found[name] for name in (*files, *optional) if name in found}
    for name, announced in wanted.items():
        if type(announced.size) is not int or announced.size < 0 or not _hash_of(announced):
            raise HubError(
                f"The Hub lists {name} of {repo} without its size or hash, so nobody could tell "
                "whether it arrives whole; it was not downloaded."
            )
    total = sum(s.size or 0 for s in wanted.values())
    if total > limit:
        raise HubError(
            f"{repo} would download {total / 1e6:,.0f} MB; the limit is {limit / 1e6:,.0f} MB. "
            "Raise max_bytes if you trust it."
        )
    return wanted


def _hash_of(announced: RepoSibling) -> str | None:
    """The hash that the Hub lists: sha256 of a large file, else the name that git gives to it."""
    expected = announced.blob_id if announced.lfs is None else announced.lfs.sha256
    length = 40 if announced.lfs is None else 64
    known = isinstance(expected, str) and re.fullmatch(rf"[0-9a-f]{{{length}}}", expected)
    return expected if known else None


def _check_content(repo: str, path: Path, announced: RepoSibling) -> None:
    """Compare a file with the size and hash that the Hub lists; take a wrong one out of the cache.

    The client itself does not look at hashes. What has been compared is noted beside the file, with
    its size and time, so that large weights are not read twice each time they are loaded.
    """
    expected = str(_hash_of(announced))
    stat = path.stat()
    note = path.parents[2] / ".hublatent" / expected  # in the repository's folder of the cache
    seen = f"{stat.st_size} {stat.st_mtime_ns}"
    if stat.st_size == announced.size and note.is_file() and note.read_text() == seen:
        return
    digest = hashlib.sha256() if announced.lfs else hashlib.sha1(f"blob {stat.st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if stat.st_size == announced.size and digest.hexdigest() == expected:
        with suppress(OSError):  # a cache that may not be written is compared each time
            write_text(note, seen)
        return
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise HubError(
        f"{path.name} of {repo} did not arrive as the Hub lists it (its size or hash is another); "
        "it was thrown away. Try again."
    )
