"""What publishes: models and direction sets ask for it here, for it lies on a floor above them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Publisher(Protocol):
    """What `hublatent.publish` offers to `push_to_hub`."""

    def push_model(self, model: Any, repo: str, *, directions: Any = None, **options: Any) -> str:
        """Publish a model and its directions; returns the commit's URL."""

    def push_directions(
        self,
        directions: Any,
        repo: str,
        *,
        model: Any = None,
        base_model: str | None = None,
        **options: Any,
    ) -> str:
        """Publish a direction set without its model; returns the commit's URL."""


_load: Callable[[], Publisher] | None = None


def register_publisher(load: Callable[[], Publisher]) -> None:
    """Say how the publisher is imported; `hublatent/__init__.py` does, for `hublatent.publish`."""
    global _load
    _load = load


def publisher() -> Publisher:
    """The registered publisher, imported now."""
    if _load is None:
        raise RuntimeError("No publisher is registered; hublatent/__init__.py has to run first.")
    return _load()
