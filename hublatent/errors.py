"""The errors a user can cause; each says what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HublatentError(ValueError):
    """Base class of every mistake that the caller can mend; scripts turn it into exit code 2."""


class ImageError(HublatentError):
    """A picture cannot be read, or is not the kind of picture that was asked for."""


class DataError(HublatentError):
    """A training set is missing, empty or contradicts itself."""


class CheckpointError(HublatentError):
    """A model folder is incomplete, of another architecture, or does not fit its own config."""


class DirectionError(HublatentError):
    """A direction is malformed, or belongs to another model."""


class HubError(HublatentError):
    """The Hugging Face Hub, or the way to it, refused a request."""


def unknown_name(kind: str, given: str, available: Iterable[str]) -> str:
    """Say that a name is unknown, offering the nearest known ones first.

    Args:
        kind: what the name stands for, such as "attribute".
        given: the unknown name.
        available: every name that would have been accepted.

    Returns:
        One sentence for an error message.
    """
    names = sorted(available)
    by_lower_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(given.lower(), by_lower_case, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(by_lower_case[name] for name in near)}?" if near else ""
    return f"Unknown {kind} {given!r}.{hint} Available: {', '.join(names) or 'none'}."
