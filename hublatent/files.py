"""Writing files so that a full disk or a kill never leaves a half-written or lost one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it becomes `path`, on an error it vanishes.

    Args:
        path: the file to write; its folder is made where it is missing.

    Yields:
        The temporary path, on the same file system, so that the final rename is atomic.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a published file is as readable as any other.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder_update(
    folder: str | Path, names: tuple[str, ...]
) -> Iterator[Mapping[str, Path]]:
    """Write several files of one folder together: none is replaced before all are written.

    Args:
        folder: the folder to write into.
        names: the files to be written.

    Yields:
        For each name the temporary path to write it to.
    """
    with ExitStack() as stack:
        yield {name: stack.enter_context(atomic_path(Path(folder) / name)) for name in names}


def portable(path: str | Path) -> str:
    """A path as a published command may name it: without this machine's folders.

    Args:
        path: of a file or folder, or a Hub id.

    Returns:
        The path relative to the working folder, where it lies below it or was given so; otherwise
        its last part.
    """
    path = Path(path)
    if not path.is_absolute():
        return str(path)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def _umask() -> int:
    """The process's umask; reading it means setting it for a moment."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
