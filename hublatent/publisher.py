"""What publishes and writes cards: whoever lies on a floor below asks for it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Publisher(Protocol):
    """What `hublatent.publish` offers to the floors below it."""

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

    def push_map(self, latent_map: Any, repo: str, **options: Any) -> str:
        """Publish a map between two latent spaces; returns the commit's URL."""

    def converted_card(
        self,
        model: Any,
        name: str,
        about: str,
        licence_name: str,
        licence_link: str,
        terms: str,
    ) -> str:
        """The card of a model that was converted from another program's file."""


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
