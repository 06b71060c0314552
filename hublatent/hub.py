"""The Hugging Face Hub: pinned snapshots in, atomic commits out, errors in plain words.

`HubModel` is the one mixin that every model here shares. It builds on PyTorchModelHubMixin, but
reads strictly: config and weights come from one commit, and every tensor has to fit.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, PyTorchModelHubMixin, snapshot_download
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined, unused-ignore]
from torch import Tensor

from hublatent import checkpoint
from hublatent.checkpoint import CONFIG_NAME, FORMAT_VERSION, WEIGHTS_NAME
from hublatent.errors import CheckpointError, HubError

DIRECTIONS_NAME = "directions.safetensors"
CARD_NAME = "README.md"
SAMPLES_NAME = "samples.png"
MODEL_FILES = (CONFIG_NAME, WEIGHTS_NAME)
PUBLISHED_FILES = (CONFIG_NAME, WEIGHTS_NAME, DIRECTIONS_NAME, CARD_NAME, SAMPLES_NAME)
MAX_DOWNLOAD_BYTES = 2 << 30
HUB_TIMEOUT_SECONDS = 10.0

logger = logging.getLogger("hublatent")
Model = TypeVar("Model", bound="HubModel")


@dataclass(frozen=True)
class Snapshot:
    """The files of one repository at one commit, or a plain folder.

    Attributes:
        source: what the user named, a folder or a Hub id.
        folder: where the files lie.
        commit: the 40-digit commit; None for a plain folder.
    """

    source: str
    folder: Path
    commit: str | None


def snapshot(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    files: tuple[str, ...] = MODEL_FILES,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
) -> Snapshot:
    """Resolve a folder or a Hub id to files on this machine, all of one commit.

    Args:
        source: an existing folder, which wins, or a Hub id such as "user/btcvae-celeba".
        revision: branch, tag or commit on the Hub.
        token: a Hub token; None takes the stored one.
        cache_dir: where downloads are kept; None takes the Hub client's folder.
        local_files_only: take what is in the cache and ask nobody.
        files: the names that are wanted; others are never downloaded.
        max_bytes: refuse a larger download.

    Returns:
        The snapshot.

    Raises:
        HubError: the source does not exist, may not be read, is too large or cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Snapshot(str(source), folder, None)
    _check_repo_id(str(source))
    repo = str(source)

    def download(local: bool) -> Path:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=list(files),
                local_files_only=local,
            )
        )

    if local_files_only:
        path = _explained(lambda: download(True), repo, revision)
        return Snapshot(repo, path, path.name)
    try:
        commit = _check_remote(repo, revision, token, files, max_bytes)
    except (httpx2.TransportError, hub_errors.OfflineModeIsEnabled) as error:
        path = _explained(lambda: download(True), repo, revision)
        logger.warning("The Hub cannot be reached (%s); %s comes from the cache.", error, repo)
        return Snapshot(repo, path, path.name)
    path = _explained(lambda: download(False), repo, revision)
    if path.name != commit:
        raise HubError(f"{repo} was changed while it was being read; try again.")
    return Snapshot(repo, path, commit)


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
        repo: the Hub id; made where it does not exist.
        private: whether a new repository is private.
        revision: the branch to commit to.
        create_pr: open a pull request instead of committing to the branch.
        token: a Hub token with write access; None takes the stored one.
        message: the commit's summary.
        files: the allow-list.

    Returns:
        The commit's URL.

    Raises:
        HubError: the Hub refused, or somebody else committed in between.
    """
    _check_repo_id(repo)
    paths = [Path(folder) / name for name in files if (Path(folder) / name).is_file()]
    if not paths:
        raise HubError(f"{folder} holds none of {', '.join(files)}; there is nothing to publish.")
    api = HfApi(token=token)

    def commit() -> str:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        parent = api.model_info(repo, revision=revision, timeout=HUB_TIMEOUT_SECONDS).sha
        result = api.create_commit(
            repo,
            [CommitOperationAdd(path_in_repo=p.name, path_or_fileobj=p) for p in paths],
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=parent,
        )
        return str(result.pr_url or result.commit_url)

    return _explained(commit, repo, revision)


class HubModel(PyTorchModelHubMixin, library_name="hublatent", license="other"):
    """What every model here shares: a folder format, strict loading, publishing.

    A subclass's `__init__` takes named JSON scalars only, keeps each as an attribute of the same
    name, and refuses values out of range: its signature is the format of config.json.
    """

    architecture: ClassVar[str]
    commit: str | None = None

    @property
    def config(self) -> dict[str, Any]:
        """config.json's content: architecture, format version and every `__init__` argument."""
        arguments = {name: getattr(self, name) for name in checkpoint.init_parameters(type(self))}
        return {
            "architecture": self.architecture,
            "format_version": FORMAT_VERSION,
            **arguments,
        }

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls: type[Model],
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        device: str | None = None,
    ) -> Model:
        """Load a model of this class from a folder or the Hub.

        Args:
            source: an existing folder, which wins, or a Hub id.
            revision: branch, tag or commit on the Hub.
            token: a Hub token; None takes the stored one.
            cache_dir: where downloads are kept.
            local_files_only: take what is in the cache and ask nobody.
            device: where to put the model; None leaves it on the CPU.

        Returns:
            The model, in evaluation mode; its `commit` names the Hub commit.

        Raises:
            HubError: the source cannot be had.
            CheckpointError: it is another architecture's, or incomplete or damaged.
        """
        where = snapshot(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return cls.from_snapshot(where, device=device)

    @classmethod
    def from_snapshot(cls: type[Model], where: Snapshot, device: str | None = None) -> Model:
        """Load a model of this class from files that are already here."""
        config = checkpoint.read_config(where.folder)
        if config["architecture"] != cls.architecture:
            raise CheckpointError(
                f"{where.source} is of the architecture {config['architecture']!r}; "
                f"{cls.__name__} reads {cls.architecture!r}. hublatent.load() picks the class."
            )
        described = f"{where.source}/{CONFIG_NAME}"
        arguments = checkpoint.check_arguments(cls, config, described)
        model = cls(**arguments)
        checkpoint.load_weights(model, where.folder / WEIGHTS_NAME)  # type: ignore[arg-type]
        model.commit = where.commit
        return model.eval() if device is None else model.eval().to(device)  # type: ignore[attr-defined]

    def save_pretrained(self, save_directory: str | Path) -> None:  # type: ignore[override]
        """Write config.json and model.safetensors into a folder, both or neither.

        Args:
            save_directory: the folder; made where it is missing. Other files in it stay.
        """
        checkpoint.write_checkpoint(Path(save_directory), self.config, self._weights())

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        directions: Any = None,
        private: bool = False,
        revision: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        commit_message: str = "Publish with hublatent",
    ) -> str:
        """Publish the model, and a DirectionSet beside it, in one commit.

        Args:
            repo_id: the Hub id; made where it does not exist.
            directions: a DirectionSet measured on this model, or None.
            private: whether a new repository is private.
            revision: the branch to commit to.
            create_pr: open a pull request instead.
            token: a Hub token with write access; None takes the stored one.
            commit_message: the commit's summary.

        Returns:
            The commit's URL.

        Raises:
            HubError: the Hub refused.
            DirectionError: the directions belong to another model.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if directions is not None:
                directions.check_fits(self)
                directions.save(Path(folder) / DIRECTIONS_NAME)
            return publish(
                folder,
                repo_id,
                private=private,
                revision=revision,
                create_pr=create_pr,
                token=token,
                message=commit_message,
            )

    def _weights(self) -> dict[str, Tensor]:
        return self.state_dict()  # type: ignore[attr-defined]


def _check_repo_id(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except hub_errors.HFValidationError as error:
        raise HubError(
            f"{repo!r} is neither an existing folder nor a Hub id such as 'user/model'."
        ) from error


def _check_remote(
    repo: str, revision: str | None, token: str | bool | None, files: tuple[str, ...], limit: int
) -> str:
    """Look at a repository before downloading: does it hold the files, and how large are they?"""
    api = HfApi()
    try:
        info = api.model_info(
            repo, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT_SECONDS, token=token
        )
    except hub_errors.HfHubHTTPError as error:
        raise explain(error, repo, revision) from error
    sizes = {s.rfilename: s.size or 0 for s in info.siblings or []}
    if files[0] not in sizes:
        raise HubError(f"{repo} holds no {files[0]}; it is not a hublatent repository.")
    total = sum(size for name, size in sizes.items() if name in files)
    if total > limit:
        raise HubError(
            f"{repo} would download {total / 1e6:,.0f} MB; the limit is {limit / 1e6:,.0f} MB. "
            "Raise max_bytes if you trust it."
        )
    return str(info.sha)


Result = TypeVar("Result")


def _explained(action: Callable[[], Result], repo: str, revision: str | None) -> Result:
    """Run a Hub action; what the client raises becomes one HubError in plain words."""
    try:
        return action()
    except (
        hub_errors.HfHubHTTPError,
        hub_errors.LocalEntryNotFoundError,
        hub_errors.OfflineModeIsEnabled,
        httpx2.HTTPError,
        OSError,
    ) as error:
        raise explain(error, repo, revision) from error


def explain(error: Exception, repo: str, revision: str | None = None) -> HubError:
    """Put an error of the Hub client into one sentence that says what to do.

    Args:
        error: what huggingface_hub or its HTTP library raised.
        repo: the Hub id.
        revision: the revision asked for.

    Returns:
        The error to raise.
    """
    for kind, sentence in _SENTENCES:
        if isinstance(error, kind):
            return HubError(sentence.format(repo=repo, revision=revision or "main"))
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in _STATUS_SENTENCES:
        return HubError(_STATUS_SENTENCES[status].format(repo=repo))
    if isinstance(error, hub_errors.HfHubHTTPError):
        return HubError(f"The Hub answered {status} for {repo}. Try again later.")
    if isinstance(error, httpx2.HTTPError):
        return HubError(f"The connection to the Hub broke while {repo} was in hand. Try again.")
    return HubError(f"{repo} could not be written or read here: {error}.")


# Most specific first: a gated repository is also a missing one to the client.
_SENTENCES: tuple[tuple[type[Exception], str], ...] = (
    (
        hub_errors.GatedRepoError,
        "{repo} is gated: ask for access on its page on the Hub, then log in with: hf auth login",
    ),
    (
        hub_errors.RepositoryNotFoundError,
        "{repo} does not exist on the Hub, or is private: check the spelling, or log in with: "
        "hf auth login",
    ),
    (hub_errors.DisabledRepoError, "{repo} has been disabled on the Hub."),
    (
        hub_errors.RevisionNotFoundError,
        "{repo} has no revision {revision!r}; expected a branch, a tag or a commit.",
    ),
    (hub_errors.RemoteEntryNotFoundError, "{repo} lacks a file that was asked for."),
    (
        hub_errors.LocalEntryNotFoundError,
        "{repo} at {revision} is not in the cache, and the Hub cannot be reached. "
        "Try again with a connection.",
    ),
    (
        hub_errors.OfflineModeIsEnabled,
        "{repo} is not in the cache, and HF_HUB_OFFLINE forbids to ask the Hub.",
    ),
)
_STATUS_SENTENCES = {
    401: "The Hub wants a login for {repo}: run hf auth login, or pass a token.",
    403: "The token in use may not do this to {repo}; it needs write access to its owner's models.",
    409: "{repo} is being changed by somebody else. Try again.",
    412: "{repo} was changed by somebody else meanwhile; nothing was overwritten. Try again.",
    429: "The Hub asks to slow down. Try {repo} again in a few minutes.",
}
