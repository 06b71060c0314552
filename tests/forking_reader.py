"""The reading process, started once and forked for every file: as strict, and faster for tests.

In the forked process nothing may be written, started or connected: trying ends it with FORBIDDEN.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hublatent.interop.reader import answer_for, limit_process

FORBIDDEN = 99
SECONDS = 10
_EVENTS = (
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
    "os.truncate", "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen",
    "shutil.", "socket.connect", "pickle.find_class", "exec", "ctypes.dlopen",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_reading = False


def serve() -> None:
    """Read the files whose paths come on standard input; answer each on standard output."""
    for encoding in ("cp437", "latin1", "utf-32-le"):  # a codec is a module: imported at first use
        "".encode(encoding)
    sys.addaudithook(_watch)
    for line in sys.stdin:
        path, *wanted = line.rstrip("\n").split("\t")
        child = os.fork()
        if not child:
            _read(path, wanted)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            _write(code, b"")


def _read(path: str, wanted: Sequence[str]) -> None:
    global _reading
    size = Path(path).stat().st_size
    limit_process(size)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    with Path(path).open("rb") as file:
        _reading = True
        answer = answer_for(file, size, wanted)
    _write(0, answer)
    os._exit(0)


def _write(code: int, answer: bytes) -> None:
    frame = code.to_bytes(8, "little", signed=True) + len(answer).to_bytes(8, "little")
    sys.stdout.buffer.write(frame + answer)
    sys.stdout.buffer.flush()


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _reading:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
    if writes or event.startswith(_EVENTS):
        print(event, str(arguments)[:200], file=sys.stderr, flush=True)
        os._exit(FORBIDDEN)


class ForkingReader:
    """The other end; `run` stands for the function that starts a process for each file."""

    def __init__(self, command: list[str]) -> None:
        code = command[4].replace("hublatent.interop.reader import main", "tests.forking_reader "
                                  "import serve").replace("main()", "serve()")  # fmt: skip
        self.process = subprocess.Popen(
            [*command[:4], code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, path: Path, size: int, wanted: Sequence[str]) -> tuple[int, bytes]:
        """The exit code of the reading, and its answer."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\t".join([str(path), *wanted]).encode() + b"\n")
        self.process.stdin.flush()
        frame = self.process.stdout.read(16)
        code = int.from_bytes(frame[:8], "little", signed=True)
        assert code != FORBIDDEN, "the file made its reader write or start something"
        return code, self.process.stdout.read(int.from_bytes(frame[8:], "little"))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
