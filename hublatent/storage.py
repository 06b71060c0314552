"""Files that strangers may have written, read within limits; and files written whole or not."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hublatent.errors import DataError, HublatentError, shorten

TORN_PATTERN = ".*.????????.tmp"  # names that `atomic_path` gives
LOCK_NAME = ".lock"  # of a folder that one process writes into
MAX_HEADER_BYTES = 8 << 20  # of a safetensors file; its own reader takes 100 MB of JSON
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # what git leaves in a large file's place
Value = TypeVar("Value")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected printable characters")
    return text


# What a stranger's JSON may say: it goes to terminals, cards and the app.
Text = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it becomes `path`, on an error it vanishes.

    Folders are made where they are missing; an OSError names `path`, whatever it was about.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix, temporary = f".{target.name}.", None
    try:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes private files; a published file is as readable as any other.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
    except OSError as error:
        names_it = error.filename is None or Path(error.filename).name.startswith(prefix)
        if error.errno is not None and names_it:
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Be the one process that writes into a folder; what a killed writer left torn is removed.

    Raises:
        HublatentError: another process writes into it.
    """
    path = Path(folder) / LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise HublatentError(
            f"Another process is writing into {folder}. Wait until it has ended, or stop it, or "
            "give another folder."
        ) from error
    try:
        for pattern in (TORN_PATTERN, f"*/{TORN_PATTERN}"):
            for torn in Path(folder).glob(pattern):
                torn.unlink(missing_ok=True)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder_update(
    folder: str | Path, names: tuple[str, ...]
) -> Iterator[Mapping[str, Path]]:
    """Write several files of a folder together, each to the path that is given for its name.

    None is replaced before all are written.
    """
    with ExitStack() as stack:
        yield {name: stack.enter_context(atomic_path(Path(folder) / name)) for name in names}


def portable(path: str | Path) -> str:
    """A path as a published command may name it, without this machine's folders.

    Relative to the working folder where it lies below it or was given so, else its last part.
    """
    path = Path(path)
    if not path.is_absolute():
        return str(path)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def parse_json(text: str) -> Any:
    """Parse JSON in which no object gives a key twice: which of the two counts is anyone's guess.

    A ValueError or RecursionError says that it is no JSON, gives one twice, or is nested too deep.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("an object gives a key twice")
        return found

    return json.loads(text, object_pairs_hook=unique)


def checked(kind: type[Value], value: Any) -> Value:
    """A parsed JSON value as a dataclass, pydantic model or other annotated type.

    Raises:
        ValueError: names the first part that is missing, unknown, of another type or out of range.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        part, reason = ascii(".".join(map(str, first["loc"]))[:100]), first["msg"]
        if first["type"] in ("missing", "missing_argument"):
            raise ValueError(f"it lacks {part}.") from error
        if not first["loc"]:  # nested too deeply, or with half a character
            raise ValueError(f"it cannot be read: {reason}.") from error
        reason = reason.replace("Input should be", "expected").replace("Value error, ", "")
        raise ValueError(f"{part} is {shorten(first['input'])}; {reason}.") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply.") from error


@dataclass(frozen=True)
class TensorFormat:
    """A kind of safetensors file whose metadata hold one JSON document, under the format's name."""

    name: str  # of the document and of its key in the metadata
    version: int  # the newest, which is written; files of 1 to `version` are read
    noun: str  # what a file holds, for messages, such as "directions"
    error: type[HublatentError] = DataError  # where a file cannot be read
    hint: str = ""  # what to do about a safetensors file of another kind, for messages

    def write(
        self, path: str | Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]
    ) -> None:
        """Write a file, atomically; `format` and `version` are put into the document."""
        text = json.dumps({"format": self.name, "version": self.version, **document})
        with atomic_path(path) as temporary:
            save_safetensors(tensors, temporary, {self.name: text})

    def read(self, path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Read a file's document, `format` and `version` included, and all its tensors."""
        with self._open(Path(path)) as file:
            document = self._parse(file.metadata() or {}, Path(path))
            return document, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def read_document(self, path: str | Path) -> dict[str, Any]:
        """Read a file's document alone."""
        with self._open(Path(path)) as file:
            return self._parse(file.metadata() or {}, Path(path))

    def _open(self, path: Path) -> AbstractContextManager[Any]:
        if not path.is_file():
            raise self.error(f"{path} does not exist; expected a file of {self.noun}.")
        return open_safetensors(path, self.error)

    def _parse(self, metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
        text = metadata.get(self.name)
        if text is None:
            raise self.error(
                f"{path} is a safetensors file, but holds no {self.noun}. {self.hint}".strip()
            )
        try:
            document = parse_json(text)
        except (ValueError, RecursionError) as error:
            raise self.error(f"{path}: its metadata is not JSON: {error}.") from error
        if not isinstance(document, dict) or document.get("format") != self.name:
            raise self.error(f"{path}: its metadata is not a {self.name} document.")
        version = document.get("version")
        if type(version) is not int or not 1 <= version <= self.version:
            raise self.error(
                f"{path} has version {shorten(version)}; this hublatent reads 1 to {self.version}. "
                "For a newer one, run: pip install --upgrade hublatent"
            )
        return document


@contextmanager
def open_safetensors(path: Path, error: type[HublatentError]) -> Iterator[Any]:
    """Open a safetensors file with a header of a sane size; `error` says how it is damaged."""
    unreadable = f"{path} is not a readable safetensors file"
    try:
        with path.open("rb") as file:
            start = file.read(100)
        n_bytes = int.from_bytes(start[:8], "little")
        if start.startswith(LFS_POINTER):
            raise error(f"{unreadable}: it is a Git LFS pointer, not the file; run: git lfs pull")
        if start.lstrip().startswith(b"<"):
            raise error(f"{unreadable}: it is an HTML page, not the file; download it again")
        if n_bytes > MAX_HEADER_BYTES:
            limit = f"more than {MAX_HEADER_BYTES:,}"
            raise error(f"{unreadable}: its header claims {n_bytes:,} bytes, {limit}")
        with safe_open(path, framework="pt") as opened:
            yield opened
    except SafetensorError as damage:
        raise error(f"{unreadable}: {shorten(str(damage))[1:-1]}.") from damage
    except OSError as failure:
        raise error(f"{unreadable}: {failure}.") from failure


def save_safetensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file; a full disk is the OSError that it is for every other file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata=dict(metadata))
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Let an OSError inside the block name the file that is wanted, not its temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error
