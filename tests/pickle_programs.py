"""Pickles as random programs: what no writer writes, and a stranger may."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

from hypothesis import strategies as st

from hublatent.interop import untrusted
from hublatent.interop.untrusted import UnreadableFileError, read_untrusted

NAMES = st.sampled_from(
    ["os system", "builtins eval", "builtins getattr", "subprocess Popen", "posix execv",
     "numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype",
     "numpy.core.numeric _frombuffer", "numpy.core.multiarray scalar", "_codecs encode",
     "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage",
     "torch.storage _load_from_bytes", "torch_utils.persistence _reconstruct_persistent_obj",
     "dnnlib.tflib.network Network", "torch.nn.modules.linear Linear", "builtins set",
     "argparse Namespace", "torch Size", "hublatent.interop.reader main", "pickle loads",
     "builtins dict.fromkeys"]
)  # fmt: skip
TEXTS = st.sampled_from(
    ["f4", "<", "O8", "touch PWNED_FILE", "__setstate__", "__class__", "__reduce__", "__dict__",
     "state", "class_name", "G_ema", "_modules", "w" * 300, "\ud800"]
) | st.text(max_size=6)  # fmt: skip
INTEGERS = st.sampled_from([0, 1, 2, 3, 255, 2**31 - 1]) | st.integers(-3, 40)
# Opcodes without an argument, those that build containers and call things more often.
PLAIN = st.sampled_from(
    list("(]})l.0012tdaeuRRRbbbo" + "NQ")
    + [
        chr(c)
        for c in (0x81, 0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8F, 0x90, 0x91, 0x92, 0x93, 0x94)
    ]
)


@st.composite
def instructions(draw: st.DrawFn) -> bytes:
    """One opcode with its argument, or a few that belong together."""
    kinds = ["plain"] * 3 + ["name", "text", "number", "memo", "call", "bytes", "double", "length"]
    kind = draw(st.sampled_from(kinds))
    if kind == "plain":
        return draw(PLAIN).encode("latin1")
    if kind in ("name", "call"):
        name = b"c" + draw(NAMES).replace(" ", "\n", 1).encode() + b"\n"
        if kind == "name":
            return name
        arguments = b"".join(draw(st.lists(instructions(), max_size=4)))
        return name + b"(" + arguments + b"t" + draw(st.sampled_from([b"R", b"\x81", b"Rb"]))
    if kind == "text":
        encoded = draw(TEXTS).encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(encoded)) + encoded
    if kind == "number":
        return b"J" + struct.pack("<i", draw(INTEGERS))
    if kind == "memo":
        return draw(st.sampled_from([b"h", b"q"])) + bytes([draw(st.integers(0, 5))])
    if kind == "bytes":
        content = draw(st.binary(max_size=16) | st.just(pickle.dumps([1])))
        return b"C" + bytes([len(content)]) + content
    if kind == "double":  # what holds itself twice, again and again
        return b"](h\x00h\x00eq\x00" * draw(st.integers(1, 40))
    opcode = draw(st.sampled_from([b"\x8e", b"\x8d", b"\x96"]))
    return opcode + struct.pack("<Q", draw(st.sampled_from([3, 2**20, 2**40, 2**63])))


PROGRAMS = st.lists(instructions(), max_size=40).map(
    lambda parts: b"\x80\x04]q\x00" + b"".join(parts) + b"."
)


def check(program: bytes, path: Path) -> bool:
    """Read a program: nothing of it may run, and it is read, or refused by a short sentence.

    Returns:
        Whether it was read.
    """
    path.write_bytes(program)
    try:
        read_untrusted(path, 1 << 20)
    except UnreadableFileError as error:
        sentence = str(error)
        assert "\n" not in sentence and len(sentence) < 1000 and sentence.isprintable()
        # Not so where it did something forbidden, or took all the seconds of a processor it may.
        assert "ended the process" not in sentence
        return False
    assert untrusted._run.__name__ == "run", "the reader that watches what a file does is in place"
    return True
