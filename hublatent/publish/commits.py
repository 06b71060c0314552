"""The one commit that takes a folder to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi

from hublatent.errors import HubError
from hublatent.hub.client import call_hub, check_repo_id
from hublatent.hub.download import PUBLISHED_FILES


def publish(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    message: str = "Publish with hublatent",
    files: tuple[str, ...] = PUBLISHED_FILES,
) -> str:
    """Send the published files of a folder to the Hub in one commit.

    Args:
        folder: the folder; only the names in `files` are sent.
        repo: the Hub id; made where it does not exist, unless `create_pr`.
        private: whether a new repository is private; an existing public one is then refused.
        revision: the branch to commit to; made where it does not exist, unless `create_pr`.
        create_pr: open a pull request instead of committing to the branch.
        token: a Hub token with write access; None takes the stored one.
        message: the commit's summary.
        files: the allow-list.

    Returns:
        The URL of the commit or pull request; of the latest commit where nothing has changed.

    Raises:
        HubError: the Hub refused, or somebody else committed in between.
    """
    check_repo_id(repo)
    paths = [Path(folder) / name for name in files if (Path(folder) / name).is_file()]
    if not paths:
        raise HubError(f"{folder} holds none of {', '.join(files)}; there is nothing to publish.")
    api = HfApi(token=token)

    def commit() -> str:
        if not create_pr:
            api.create_repo(repo, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
        info = api.model_info(repo, revision=revision)
        if private and not info.private:
            raise HubError(
                f"{repo} exists and is public; nothing was sent. Drop private to publish."
            )
        additions = [CommitOperationAdd(path_in_repo=p.name, path_or_fileobj=p) for p in paths]
        where: dict[str, Any] = {"revision": revision, "create_pr": create_pr}
        try:
            for addition in additions:
                # One by one in this thread: several would each retry for half a minute.
                api.preupload_lfs_files(repo, [addition], **where)
            result = api.create_commit(
                repo, additions, commit_message=message, parent_commit=info.sha, **where
            )
        except RuntimeError as error:  # in which the client hides why a large file did not arrive
            reason = f" ({error.__cause__})" if error.__cause__ is not None else ""
            first_line = f"{error}{reason}".splitlines()[0].rstrip(". )")
            raise HubError(f"Nothing was published to {repo}: {first_line}. Try again.") from error
        return str(result.pr_url or result.commit_url)

    return call_hub(commit, repo, revision)


def repo_has_file(
    name: str, repo: str, revision: str | None = None, token: str | bool | None = None
) -> bool:
    """Whether a repository of the Hub, if it exists, holds a file, on its main branch or another.

    Raises:
        HubError: the id is none, or the Hub refused.
    """
    check_repo_id(repo)
    api = HfApi(token=token)

    def on(branch: str | None) -> bool:
        return call_hub(lambda: api.file_exists(repo, name, revision=branch), repo, branch)

    return on(None) or (revision is not None and on(revision))
