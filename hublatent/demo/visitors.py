"""Strangers share the machine: whoever has used it least comes first, and nobody fills the queue.

Gradio's queue is first come, first served: one visitor who asks for much makes all others wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

MAX_WAITING = 6  # requests of one visitor; a page sends one of each kind at a time
HALF_LIFE = 30.0  # seconds after which half of what a visitor used is forgotten
SMALL = 0.01  # seconds; what is left of a visitor below this is dropped
# A search in the latent space runs for long, and one at a time: it takes no turn from the rest.
APART = "projection"


class FairQueue:
    """Lets the visitors of a Gradio queue, made by Blocks.queue(), take turns."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue
        self._push, self._next = queue.push, queue.get_events
        self._used: dict[str, tuple[float, float]] = {}  # visitor -> seconds, and when that was
        self._running: dict[int, tuple[Any, float]] = {}  # events, and when they began
        queue.push, queue.get_events = self.push, self.next_events

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Take a request, unless its visitor has too many that wait."""
        visitor = visitor_of(request, body.session_hash)
        waiting = sum(_visitor(event) == visitor for event in self._waiting())
        if waiting >= MAX_WAITING:
            text = f"{waiting} of your requests are waiting; at most {MAX_WAITING} may. Try again."
            return False, text, "queue_full"
        if _names_address(body.data):  # Gradio would fetch it
            return False, "Addresses are not opened here: upload the file.", "error"
        return await self._push(body=body, request=request, username=username)

    def next_events(self) -> Any:
        """What runs next: of those of whom nothing runs, the visitor who has used least."""
        now = time.monotonic()
        self._account(now)
        busy = {
            _visitor(event) for event, _ in self._running.values() if event.concurrency_id != APART
        }
        queues = self.queue.event_queue_per_concurrency_id.values()
        held: list[tuple[Any, list[Any]]] = []
        for queue in queues:
            behind = [e for e in queue.queue if e.concurrency_id != APART and _visitor(e) in busy]
            ready = [event for event in queue.queue if event not in behind]
            ready.sort(key=lambda event: self.used(_visitor(event), now))
            queue.queue[:] = ready
            held.append((queue, behind))
        found = self._next()
        for queue, behind in held:
            queue.queue.extend(behind)
        for event in found[0] if found else ():
            self._running[id(event)] = event, now
        return found

    def used(self, visitor: str, now: float) -> float:
        """The seconds of the machine that a visitor lately used."""
        seconds, since = self._used.get(visitor, (0.0, now))
        return float(seconds * 0.5 ** ((now - since) / HALF_LIFE))

    def _account(self, now: float) -> None:
        """Note what the events took that have ended."""
        active = {id(event) for job in self.queue.active_jobs if job for event in job}
        for key in [key for key in self._running if key not in active]:
            event, began = self._running.pop(key)
            visitor = _visitor(event)
            self._used[visitor] = self.used(visitor, now) + now - began, now
        if len(self._used) > 10_000:
            self._used = {v: u for v, u in self._used.items() if self.used(v, now) > SMALL}

    def _waiting(self) -> Iterator[Any]:
        for queue in self.queue.event_queue_per_concurrency_id.values():
            yield from queue.queue


def visitor_of(request: Any, session: str | None) -> str:
    """Who sends a request: the address; behind a proxy of this machine, the one it passes on.

    Args:
        request: with `headers` and `client`, as Starlette has them.
        session: of the page, which tells visitors apart where there is no address of theirs.
    """
    host = request.client.host if request.client else ""
    forwarded = request.headers.get("x-forwarded-for", "")
    if forwarded and _is_private(host):
        return str(forwarded.split(",")[0].strip())
    return str(session or host) if host in ("127.0.0.1", "::1", "") else str(host)


def _names_address(data: Any) -> bool:
    """Whether somewhere in a request an address stands where the path of a file should."""
    if isinstance(data, dict):
        path = str(data.get("path", "")).strip().lower()
        return path.startswith(("http:", "https:")) or any(map(_names_address, data.values()))
    return isinstance(data, (list, tuple)) and any(map(_names_address, data))


def _visitor(event: Any) -> str:
    return visitor_of(event.request, event.session_hash)


def _is_private(host: str) -> bool:
    try:
        return ip_address(host).is_private
    except ValueError:
        return False
