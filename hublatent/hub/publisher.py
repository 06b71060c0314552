"""The one arrow that points up: models, directions and maps publish themselves when asked to."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def publisher() -> Any:
    """The module `hublatent.publish`, imported at the first use, so that no value imports cards."""
    return import_module("hublatent.publish")
