"""The errors a user can cause; each says what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
import io
import os
import re
import reprlib
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn, TypeVar

from safetensors import SafetensorError

MAX_OFFERED = 5  # names in a message
MIN_ENDING = 3  # letters that may stand for the name they end
Result = TypeVar("Result")


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


def find_name(given: str, available: Iterable[str]) -> str | None:
    """The name that somebody means: in any case, with any separators, or only how it ends.

    "eyeglasses", "wearing hat" and "glasses" are understood; "beard" is not, since of CelebA's
    names only No_Beard ends so and means the opposite. None where none or several are meant.
    """
    wanted = _letters(given)
    spelled = {name: _letters(name) for name in available}
    alike = [name for name, letters in spelled.items() if letters == wanted]
    if not alike and len(wanted) >= MIN_ENDING:
        alike = [
            name
            for name, letters in spelled.items()
            if letters.endswith(wanted) and not letters.startswith("no")
        ]
    return given if given in spelled else alike[0] if len(alike) == 1 else None


def unknown_name(kind: str, given: str, available: Iterable[str]) -> str:
    """A sentence or two that say that a name, of such a kind as "attribute", is unknown.

    They offer the nearest ones of those that would have been accepted.
    """
    names = sorted(available)
    wanted, spelled = _letters(given), {_letters(name): name for name in names}
    near = difflib.get_close_matches(wanted, spelled, 3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(spelled[letters] for letters in near)}?" if near else ""
    if len(names) > MAX_OFFERED:
        near += difflib.get_close_matches(wanted, spelled, MAX_OFFERED, cutoff=0)
        offered = list(dict.fromkeys(near))[:MAX_OFFERED]
        shown = ", ".join(spelled[letters] for letters in offered)
        return f"Unknown {kind} {shorten(given)}.{hint} Nearest of {len(names)}: {shown}."
    return f"Unknown {kind} {shorten(given)}.{hint} Available: {', '.join(names) or 'none'}."


def shorten(value: object) -> str:
    """A value of somebody's file for a message: like `repr`, but never long nor deep."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    return short.repr(value)


def exit_on_user_error(main: Callable[[], Result], program: str = "error") -> Result:
    """Run a command; the user's mistakes end it with one sentence on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of few letters shows escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        result = main()
        sys.stdout.flush()
        return result
    except BrokenPipeError:  # such as `| head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except HublatentError as error:
        _fail(program, f"{error}")
    except OSError as error:  # a full disk, a folder that may not be written
        name, reason = error.filename or "A file", error.strerror or error
        _fail(program, f"{name} cannot be read or written: {reason}.")
    except SafetensorError as error:  # how safetensors reports a full disk
        _fail(program, f"A safetensors file could not be written or read: {error}.")


def _fail(program: str, sentence: str) -> NoReturn:
    print(f"{program}: {sentence}", file=sys.stderr)
    raise SystemExit(2) from None


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
