"""Asking the Hugging Face Hub: bounded waiting, and the client's errors in plain words."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import errors as hub_errors
from huggingface_hub import get_session, hf_raise_for_status
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined, unused-ignore]

from hublatent.errors import HubError, HublatentError, shorten

# Seconds; the read limit is long because the Hub may take its time over a large commit.
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
# The client would retry a busy or ill Hub for half a minute, or as long as the Hub says.
MAX_FAILED_ANSWERS = 2
# Reading may take so long to begin, then has to go on at this rate, and ends at the latest then.
GRACE_SECONDS = 30.0
MIN_BYTES_PER_SECOND = 20_000
DEADLINE_SECONDS = 4 * 3600.0
SLACK_BYTES = 1 << 16  # for what comes beside a file, such as the text of a redirect
MAX_COMPRESSED_BYTES = 1 << 20  # a small answer may unpack to a thousand times its size
_BUSY = (408, 429, 500, 502, 503, 504)

# huggingface_hub 1 speaks through httpx, 2 through httpx2, whose exceptions are unrelated classes.
HTTPError: type[Exception] = next(
    kind for kind in hub_errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"
)
_http = importlib.import_module(HTTPError.__module__.partition(".")[0])
TransportError: type[Exception] = _http.TransportError

Result = TypeVar("Result")


@dataclass
class _Patience:
    """How much one action may ask of us: failed answers, seconds and bytes."""

    max_bytes: int | None = None  # of one answer; None where nothing is watched, as in uploads
    n_failed: int = 0
    n_bytes: int = 0
    start: float = field(default_factory=time.monotonic)

    def check_pace(self, n_new: int = 0) -> None:
        """Count what has arrived; refuse a Hub that keeps us waiting."""
        self.n_bytes += n_new
        seconds = time.monotonic() - self.start
        allowed = GRACE_SECONDS + self.n_bytes / MIN_BYTES_PER_SECOND
        if self.max_bytes is not None and seconds > min(allowed, DEADLINE_SECONDS):
            raise HubError(
                f"The Hub sent {self.n_bytes:,} bytes in {seconds:.0f} seconds; that is too slow. "
                "Try again with a better connection."
            )


_patience: ContextVar[_Patience | None] = ContextVar("hublatent_patience", default=None)


class _Watched(_http.SyncByteStream):  # type: ignore[name-defined]
    """An answer's body, read no further than its limit and no slower than is bearable."""

    def __init__(self, body: Any, patience: _Patience, limit: int) -> None:
        self._body, self._patience, self._limit = body, patience, limit

    def __iter__(self) -> Iterator[bytes]:
        n_bytes = 0
        for chunk in self._body:
            n_bytes += len(chunk)
            if n_bytes > self._limit:
                raise HubError(
                    f"The Hub sent more than was announced ({self._limit:,} bytes at most); the "
                    "rest was not read. Try again."
                )
            self._patience.check_pace(len(chunk))
            yield chunk

    def close(self) -> None:
        self._body.close()


@contextmanager
def bounded(max_bytes: int | None = None) -> Iterator[None]:
    """Inside the block this thread's requests have time limits and few retries.

    With max_bytes, answers are watched for their size and pace. The client's session is shared by
    the whole process: its hooks act only on requests that are made inside such a block.
    """
    session = get_session()
    for event, hook in (("request", _limit_times), ("response", _limit_answers)):
        hooks = session.event_hooks
        if hook not in hooks[event]:
            hooks[event].append(hook)
            session.event_hooks = hooks
    outer = _patience.set(_Patience(max_bytes))
    try:
        yield
    finally:
        _patience.reset(outer)


def _limit_times(request: Any) -> None:
    patience = _patience.get()
    if patience is None:
        return
    patience.check_pace()
    if patience.max_bytes is not None:
        request.headers["Accept-Encoding"] = "identity"
    given = request.extensions.get("timeout", {})
    limits = {"connect": CONNECT_SECONDS, "pool": CONNECT_SECONDS}
    limits |= {"read": READ_SECONDS, "write": READ_SECONDS}
    known = {name: seconds for name, seconds in given.items() if seconds is not None}
    request.extensions["timeout"] = limits | known


def _limit_answers(response: Any) -> None:
    """Watch an answer; raise where the client would wait too long before it asks again."""
    patience = _patience.get()
    if patience is None:
        return
    if patience.max_bytes is not None:
        packed = response.headers.get("content-encoding", "identity") != "identity"
        limit = patience.max_bytes + SLACK_BYTES
        limit = min(limit, MAX_COMPRESSED_BYTES) if packed else limit
        response.stream = _Watched(response.stream, patience, limit)
    if response.status_code not in _BUSY:
        return
    patience.n_failed += 1
    told_to_wait = response.status_code == 429 or "retry-after" in response.headers
    if told_to_wait or patience.n_failed > MAX_FAILED_ANSWERS:
        response.read()
        hf_raise_for_status(response)


def call_hub(
    action: Callable[[], Result], repo: str, revision: str | None = None,
    max_bytes: int | None = None,
) -> Result:  # fmt: skip
    """Run a Hub action, bounded; what the client raises becomes one HubError in plain words.

    Args:
        repo, revision: what was asked for, for the message.
        max_bytes: the largest answer, where the action only reads.
    """
    try:
        with bounded(max_bytes):
            return action()
    except HublatentError:
        raise
    except (HTTPError, OSError) as error:
        raise explain(error, repo, revision) from error
    # What the client makes of an answer in another form than the Hub's.
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise HubError(
            f"What answered for {repo} is not the Hub, or not well ({shorten(str(error))}); is a "
            "proxy in between?"
        ) from error


def is_transient(error: BaseException | None) -> bool:
    """Whether an error says that the Hub is away or busy, so that a cached copy may serve."""
    if isinstance(error, hub_errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return is_transient(error.__cause__)
    if isinstance(error, hub_errors.HfHubHTTPError):
        return _status(error) in _BUSY
    return isinstance(error, (TransportError, hub_errors.OfflineModeIsEnabled))


def check_repo_id(repo: str) -> None:
    """Refuse what is no Hub id."""
    try:
        validate_repo_id(repo)
    except hub_errors.HFValidationError as error:
        raise HubError(
            f"{shorten(repo)} is neither an existing folder nor a Hub id such as 'user/model'."
            f"{like_folder(repo)}"
        ) from error


def like_folder(source: str) -> str:
    """A question that offers the existing folders nearest to a mistyped one; "" without any."""
    try:
        path = Path(source).expanduser()
        names = [other.name for other in path.parent.iterdir() if other.is_dir()]
    except (OSError, RuntimeError, ValueError):  # there is no such parent, or it may not be read
        return ""
    near = get_close_matches(path.name, names, 3, cutoff=0.7)
    return f" Did you mean {' or '.join(str(path.parent / name) for name in near)}?" * bool(near)


def explain(error: BaseException, repo: str, revision: str | None = None) -> HubError:
    """Put what the Hub client raised into one sentence that says what to do."""
    # "Not in the cache" is what the client says at last; why the Hub was no help is the cause.
    if isinstance(error, hub_errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return explain(error.__cause__, repo, revision)
    for kind, sentence in _SENTENCES.items():
        if isinstance(error, kind):
            return HubError(sentence.format(repo=repo, revision=revision or "main"))
    status = _status(error)
    if status == 403 and _method(error) in ("GET", "HEAD"):
        return HubError(f"The token in use, or having none, gives no access to {repo}.")
    if status in _STATUS_SENTENCES:
        return HubError(_STATUS_SENTENCES[status].format(repo=repo))
    if isinstance(error, hub_errors.HfHubHTTPError):
        return HubError(f"The Hub answered {status} for {repo}. Try again later.")
    if "Consistency check failed" in str(error):
        return HubError(f"A file of {repo} did not come with the size it was announced with.")
    return HubError(f"{repo} could not be written or read here: {error}.")


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _method(error: BaseException) -> str | None:
    return getattr(getattr(getattr(error, "response", None), "request", None), "method", None)


# Most specific first: a gated repository is also a missing one to the client.
_SENTENCES: dict[type[BaseException], str] = {
    hub_errors.GatedRepoError:
    "{repo} is gated: ask for access on its page on the Hub, then log in with: hf auth login",
    hub_errors.RepositoryNotFoundError:
    "{repo} does not exist on the Hub, or is private: check the spelling, or log in with: "
    "hf auth login",
    hub_errors.DisabledRepoError: "{repo} has been disabled on the Hub.",
    hub_errors.RevisionNotFoundError:
    "{repo} has no revision {revision!r}; expected a branch, a tag or a commit.",
    hub_errors.FileMetadataError: "What answered for {repo} is not the Hub; is a proxy in between?",
    hub_errors.RemoteEntryNotFoundError: "{repo} lacks a file that was asked for.",
    hub_errors.LocalEntryNotFoundError:
    "{repo} at {revision} is not in the cache, or not whole. Load it once with a connection and "
    "without local_files_only.",
    hub_errors.OfflineModeIsEnabled:
    "{repo} is not in the cache, and HF_HUB_OFFLINE forbids to ask the Hub.",
    TransportError:
    "The Hub cannot be reached, or the connection broke, over {repo}. Try again with a connection.",
}  # fmt: skip
_STATUS_SENTENCES = {
    401: "The Hub wants a login for {repo}: run hf auth login, or pass a token.",
    403: "The token in use may not do this to {repo}; it needs write access to its owner's models.",
    409: "{repo} is being changed by somebody else. Try again.",
    412: "{repo} was changed by somebody else meanwhile; nothing was overwritten. Try again.",
    429: "The Hub asks to slow down. Try {repo} again in a few minutes.",
}
