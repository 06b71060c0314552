"""The stand-in Hub's HTTP side: requests, replies, and the faults a test asks for."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_standin.repository import Account

if TYPE_CHECKING:
    from tests.hub_standin.hub import HubStandIn


@dataclass
class Reply:
    """An answer to be sent."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818 - the Hub says no: not an error of the stand-in
    """Carries the reply that says why."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.reply = refusal(status, message, code)


def json_reply(content: Any, status: int = 200) -> Reply:
    """An answer in JSON."""
    body = json.dumps(content).encode()
    return Reply(status, body, {"Content-Type": "application/json; charset=utf-8"})


def refusal(status: int, message: str, code: str | None = None) -> Reply:
    """An error as the Hub words it: X-Error-Code and X-Error-Message, and the text in JSON."""
    reply = json_reply({"error": message}, status)
    reply.headers["X-Error-Message"] = message
    if code is not None:
        reply.headers["X-Error-Code"] = code
    return reply


@dataclass
class Fault:
    """What goes wrong for requests whose method and path match, as often as `times` says."""

    pattern: str
    method: str | None
    times: int | None  # None: every time
    reply: Reply | None = None  # answered in place of the true reply
    drop_after: int | None = None  # else: bytes of the body that still go; None: not even the head
    reset: bool = False  # the connection is reset (RST) rather than closed (FIN)
    pause: float | None = None  # else: seconds between two bytes of the true body
    flood: bool = False  # else: a body without an end, whose length is not announced
    action: Callable[[], object] | None = None  # run before the true reply is made

    def take(self, method: str, path: str) -> bool:
        """Whether this request is struck; counts down. The caller holds the lock."""
        if self.times == 0 or (self.method or method) != method:
            return False
        if not fnmatch.fnmatchcase(path, self.pattern):
            return False
        self.times = None if self.times is None else self.times - 1
        return True


@dataclass
class Request:
    """One request that arrived."""

    method: str
    path: str  # decoded, without the query
    token: str | None
    headers: Mapping[str, str] = field(repr=False)  # names in lower case


@dataclass
class Call:
    """One request, as the routes see it."""

    hub: HubStandIn
    method: str
    account: Account | None
    headers: Mapping[str, str]
    query: Mapping[str, list[str]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def asks(self, flag: str) -> bool:
        """Whether a flag of the query is set."""
        return self.query.get(flag, [""])[0].lower() in ("1", "true")


class Server(socketserver.ThreadingTCPServer):
    """A thread per connection, each of which can be closed from outside."""

    allow_reuse_address = True
    daemon_threads = False  # so that server_close() waits for them
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], hub: HubStandIn) -> None:
        self.hub = hub
        self._connections: set[socket.socket] = set()
        self._to_reset: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a connection's thread."""
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection: with FIN, or with RST where that was asked for."""
        with self._guard:
            self._connections.discard(request)
            reset = request in self._to_reset
            self._to_reset.discard(request)
        if reset:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def reset(self, request: socket.socket) -> None:
        """Have a connection end with RST: a linger time of zero makes close() send it."""
        request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._guard:
            self._to_reset.add(request)

    def close_connections(self) -> None:
        """Wake every thread that waits for a client's next request."""
        with self._guard:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here; anything else is a bug and is printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with kept-alive connections, as the client uses it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: do not wait for the first's ACK
    server: Server
    routes: ClassVar[list[tuple[str, re.Pattern[str], Callable[..., Reply]]]] = []

    def answer(self) -> None:
        """Answer one request, with whatever was asked to go wrong."""
        hub = self.server.hub
        url = urlsplit(self.path)
        path = unquote(url.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        request = Request(
            self.command, path, token, {k.lower(): v for k, v in self.headers.items()}
        )
        body = self._read_body()
        faults = hub.arrived(request)
        for fault in faults:
            if fault.action is not None:
                fault.action()
        spoilt = next((fault for fault in faults if fault.action is None), None)
        reply = None if spoilt is None else spoilt.reply
        if reply is None:
            reply = self._true_reply(request, body, url.path, parse_qs(url.query))
        if spoilt is not None and (spoilt.pause is not None or spoilt.flood):
            self._send_slowly(reply, spoilt)
        elif spoilt is not None and spoilt.reply is None:
            self._break_off(reply, spoilt)
        else:
            self._send_head(reply)
            self._send_body(reply.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - http.server's names

    def _true_reply(
        self, request: Request, body: bytes, path: str, query: dict[str, list[str]]
    ) -> Reply:
        hub = self.server.hub
        method = "GET" if request.method == "HEAD" else request.method
        try:
            with hub.lock:
                if request.token is not None and request.token not in hub.tokens:
                    raise Refused(401, "Invalid credentials in Authorization header")
                account = hub.tokens[request.token] if request.token is not None else None
                call = Call(hub, request.method, account, request.headers, query, body)
                for wanted, pattern, answer in self.routes:
                    match = pattern.fullmatch(path)
                    if match and wanted == method:
                        # The client quotes the slashes of a revision, so split before unquoting.
                        groups = {k: unquote(v) for k, v in match.groupdict("").items()}
                        return answer(call, **groups)
            raise Refused(404, f"The stand-in has no {request.method} {path}", "RepoNotFound")
        except Refused as refused:
            return refused.reply

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send_head(self, reply: Reply) -> None:
        self.send_response(reply.status)
        headers = dict(reply.headers)
        if "Transfer-Encoding" not in headers:
            headers.setdefault("Content-Length", str(len(reply.body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_body(self, body: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_slowly(self, reply: Reply, fault: Fault) -> None:
        """Byte by byte, or on and on, until the client hangs up."""
        length = {"Transfer-Encoding": "chunked"} if fault.flood else {}
        self.send_response(reply.status)
        for name, value in {
            **(length or {"Content-Length": str(len(reply.body))}),
            **reply.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        if self.command == "HEAD":
            return
        if not fault.flood:
            for i in range(len(reply.body)):
                self.wfile.write(reply.body[i : i + 1])
                self.server.hub.closing.wait(fault.pause)
        while fault.flood and not self.server.hub.closing.is_set():
            self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    def _break_off(self, reply: Reply, fault: Fault) -> None:
        if fault.drop_after is not None:
            self._send_head(reply)
            self._send_body(reply.body[: fault.drop_after])
        self.close_connection = True
        if fault.reset:
            # RST throws away what the client has not read yet: let it read first.
            self.server.hub.closing.wait(0.02)
            self.server.reset(self.connection)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: tests read `hub.requests`."""


def route(method: str, pattern: str) -> Callable[[Callable[..., Reply]], Callable[..., Reply]]:
    """Register an answer; <repo> is "owner/name", <name> one segment of the path, <name*> many."""
    expression = pattern.replace("<repo>", "(?P<repo>[^/]+/[^/]+?)")
    expression = re.sub(r"<(\w+)\*>", r"(?P<\1>.+)", expression)
    expression = re.sub(r"(?<!P)<(\w+)>", r"(?P<\1>[^/]+)", expression)

    def register(answer: Callable[..., Reply]) -> Callable[..., Reply]:
        Handler.routes.append((method, re.compile(expression), answer))
        return answer

    return register
