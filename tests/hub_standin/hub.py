"""The stand-in Hub itself: what is on it, and what is to go wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from tests.hub_standin import routes  # noqa: F401 - registers the answers
from tests.hub_standin.repository import Account, Commit, Repository, etag, is_large
from tests.hub_standin.server import Fault, Reply, Request, Server, refusal


class HubStandIn:
    """A Hub in memory, served on a free port of 127.0.0.1 while the `with` block lasts.

    Attributes:
        url: the endpoint, "http://127.0.0.1:PORT".
        tokens: access tokens and whose they are. At the start "hf_write" and "hf_read" are user's
            (the latter may not write), "hf_stranger" is somebody else's.
        requests: every request so far, in the order of arrival.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, Account] = {
            "hf_write": Account("user", organizations=("team",)),
            "hf_read": Account("user", organizations=("team",), write=False),
            "hf_stranger": Account("stranger"),
        }
        self.requests: list[Request] = []
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}  # SHA-256 -> content (LFS)
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self._faults: list[Fault] = []
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    def __enter__(self) -> HubStandIn:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen; on the same port as before, if there was one."""
        self.closing.clear()
        self._server = Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        # shutdown() waits for one poll: keep it short.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), name="hub-standin", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection, and wait for the threads that served them."""
        if self._server is None or self._thread is None:
            return
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()
        self._server = self._thread = None

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Refuse connections inside the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    # What is on the Hub ----------------------------------------------------------------------

    def create(
        self,
        repo: str,
        files: Mapping[str, bytes | str] | None = None,
        *,
        private: bool = False,
        gated: bool = False,
        disabled: bool = False,
        allowed: tuple[str, ...] = (),
    ) -> str:
        """Make a repository; with files, a second commit follows the Hub's own first one.

        Args:
            repo: "owner/name"; any owner.
            files: path -> content.
            private: hidden from everyone but its owner.
            gated: listed for everyone, files for its owner and `allowed` only.
            disabled: as if taken down.
            allowed: the users who were granted access to a gated repository.

        Returns:
            The commit of `main`.
        """
        with self.lock:
            made = Repository(repo, private, gated, disabled, set(allowed))
            self.repositories[repo] = made
            return self.commit(repo, files) if files else made.branches["main"]

    def commit(
        self,
        repo: str,
        files: Mapping[str, bytes | str | None],
        *,
        message: str = "A change by somebody else",
        revision: str = "main",
    ) -> str:
        """Commit on the server's side, as another user would; None deletes a file."""
        changes = {k: v.encode() if isinstance(v, str) else v for k, v in files.items()}
        with self.lock:
            for path, content in changes.items():
                if content is not None and is_large(path, len(content)):
                    self.large_files[etag(path, content)] = content
            return self.repositories[repo].commit(revision, changes, message).oid

    def commits(self, repo: str, revision: str = "main") -> list[Commit]:
        """The history of a branch, tag or commit, newest first."""
        with self.lock:
            return self.repositories[repo].history(revision)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What a revision holds: path -> content."""
        return dict(self.commits(repo, revision)[0].files)

    def branch(self, repo: str, name: str, revision: str = "main") -> None:
        """Make a branch at a revision."""
        with self.lock:
            made = self.repositories[repo]
            made.branches[name] = made.resolve(revision)

    def tag(self, repo: str, name: str, revision: str = "main") -> None:
        """Make a tag at a revision."""
        with self.lock:
            made = self.repositories[repo]
            made.tags[name] = made.resolve(revision)

    # What goes wrong ---------------------------------------------------------------------------

    def fail(
        self,
        path_pattern: str,
        *,
        status: int = 500,
        times: int | None = None,
        method: str | None = None,
        retry_after: int | None = None,
        error_code: str | None = None,
        message: str = "The stand-in was told to fail",
    ) -> None:
        """Answer matching requests with an error.

        Args:
            path_pattern: a glob over the decoded path; * matches slashes too.
            status: the HTTP status.
            times: how many requests fail before the truth is told again; None for all.
            method: "GET", "HEAD", "POST", ...; None for any.
            retry_after: seconds for the Retry-After header.
            error_code: the Hub's X-Error-Code.
            message: the Hub's X-Error-Message.
        """
        reply = refusal(status, message, error_code)
        if retry_after is not None:
            reply.headers["Retry-After"] = str(retry_after)
        self._add(Fault(path_pattern, method, times, reply=reply))

    def answer(
        self,
        path_pattern: str,
        body: bytes,
        headers: Mapping[str, str] = {},
        method: str = "GET",
    ) -> None:
        """Answer matching requests with 200 and this body."""
        reply = Reply(200, body, {"Content-Type": "application/json", **headers})
        self._add(Fault(path_pattern, method, None, reply=reply))

    def drip(self, path_pattern: str, pause: float) -> None:
        """Send the bodies of matching GET requests byte by byte, with a pause in between."""
        self._add(Fault(path_pattern, "GET", None, pause=pause))

    def flood(self, path_pattern: str) -> None:
        """Answer matching GET requests with a body that never ends, nor says how long it is."""
        self._add(Fault(path_pattern, "GET", None, flood=True))

    def drop_connection(
        self,
        path_pattern: str,
        *,
        after_bytes: int | None = 0,
        times: int | None = 1,
        method: str | None = "GET",
        reset: bool = False,
    ) -> None:
        """Break the connection in the middle of a reply.

        Args:
            path_pattern: a glob over the decoded path.
            after_bytes: how much of the body still arrives; None: not even the head.
            times: how many replies break; None for all.
            method: as in `fail`.
            reset: reset the connection, which the client does not retry, instead of closing it,
                after which it tries up to five times, a second apart, to go on where the last
                whole chunk (constants.DOWNLOAD_CHUNK_SIZE, 10 MB) ended.
        """
        self._add(Fault(path_pattern, method, times, drop_after=after_bytes, reset=reset))

    def before(
        self, path_pattern: str, action: Callable[[], object], *, times: int | None = 1
    ) -> None:
        """Run something when a matching request has come and before it is answered."""
        self._add(Fault(path_pattern, None, times, action=action))

    def stall(self, path_pattern: str, seconds: float, *, times: int | None = 1) -> None:
        """Keep matching requests waiting; `stop` ends the wait."""
        self.before(path_pattern, lambda: self.closing.wait(seconds), times=times)

    def tamper(
        self, repo: str, path: str, *, content: bytes | None = None, size: int | None = None
    ) -> None:
        """Send other bytes than a file's, or claim another size; hashes stay the true file's."""
        with self.lock:
            self.repositories[repo].tampered[path] = (content, size)

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        with self.lock:
            self._faults.clear()
            for repository in self.repositories.values():
                repository.tampered.clear()

    def _add(self, fault: Fault) -> None:
        with self.lock:
            self._faults.append(fault)

    def arrived(self, request: Request) -> list[Fault]:
        """Note a request; the faults it meets are every action and the first of the others."""
        met: list[Fault] = []
        with self.lock:
            self.requests.append(request)
            for fault in self._faults:
                spoilt = any(other.action is None for other in met)
                if spoilt and fault.action is None:
                    continue
                if fault.take(request.method, request.path):
                    met.append(fault)
        return met
