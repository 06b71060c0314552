"""Models, directions and maps publish themselves when asked to, by a package above them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

PUBLISHER = f"{__name__.partition('.')[0]}.publish"  # a name, not an import: arrows point down


def publisher() -> Any:
    """The package that writes cards and uploads, imported when it is first needed."""
    return import_module(PUBLISHER)
