"""The process that reads others' files: its limits, its answers, and files made to break it."""

from __future__ import annotations

import io
import logging
import os
import pickle
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import save_file

from hublatent.interop import reader, untrusted
from hublatent.interop.untrusted import Module, UnreadableFileError, read_untrusted, reader_command
from tests.foreign_writers import Call, nvidia_generator, nvidia_weights, write_nvidia
from tests.pickle_programs import PROGRAMS, check

MAX = 1 << 30


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read_untrusted(path, MAX)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 500
    return sentence


# The process itself.


def test_it_starts_at_once_without_torch(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    start = time.monotonic()
    assert np.array_equal(read_untrusted(tmp_path / "a.npy", MAX).value, np.ones(3))
    assert time.monotonic() - start < 2  # 0.25 s on a quiet machine
    command = reader_command()
    command[4] = command[4].replace("; main()", "; print('torch' in sys.modules)")
    assert subprocess.check_output(command).strip() == b"False"


def test_what_it_hands_back_is_plain(tmp_path):
    weights = nvidia_weights(16)
    path = write_nvidia(tmp_path / "net.pkl", nvidia_generator(weights))
    content = read_untrusted(path, MAX, ("G_ema",))
    assert content.form == "pickle" and list(content.value) == ["G_ema"]
    generator = content.value["G_ema"]
    assert isinstance(generator, Module) and generator.class_name == "Generator"
    const = generator.state["_modules"]["synthesis"].state["_modules"]["b4"].state
    found = const["_parameters"]["const"]
    assert np.array_equal(found, weights["synthesis.b4.const"].numpy())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no such limits")
@pytest.mark.parametrize("name", ["stackglobal_module_bomb", "dtype_code_bomb", "bytes8_huge"])
def test_bombs_end_in_the_process_that_reads_them(name, shared):
    start = time.monotonic()
    refusal(shared / "wild" / "hostile" / f"{name}.pkl")
    assert time.monotonic() - start < 10


def test_time_is_limited(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones(3))
    monkeypatch.setattr(untrusted, "seconds_for", lambda size: 0.001)
    assert "takes more than 0 seconds" in refusal(tmp_path / "a.npy")


def test_a_process_that_ends_is_a_sentence(tmp_path):
    path = tmp_path / "net.pkl"
    path.write_bytes(b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.")  # hashing it needs a stack
    assert "ended the process that read it (SIGSEGV" in refusal(path)


def test_a_system_without_limits_says_so(tmp_path, monkeypatch, caplog):
    np.save(tmp_path / "a.npy", np.ones(3))

    def run(path: Path, size: int, wanted: object) -> tuple[int, bytes]:
        with path.open("rb") as file:
            return 0, reader.answer_for(file, size, (), ["memory"])

    monkeypatch.setattr(untrusted, "_run", run)
    with caplog.at_level(logging.WARNING):
        read_untrusted(tmp_path / "a.npy", MAX)
    assert "cannot limit a process's memory; only the time" in caplog.text


def test_missing_and_large_files(tmp_path):
    assert refusal(tmp_path / "none") == "does not exist"
    assert refusal(tmp_path) == "is a folder"
    (tmp_path / "a").write_bytes(bytes(100))
    with pytest.raises(UnreadableFileError, match="100 bytes; at most 99"):
        read_untrusted(tmp_path / "a", 99)


# Hostile files, by a reader that also watches what they do.


def test_hostile_files_are_refused_by_a_sentence(shared, fast_reader):
    paths = sorted((shared / "wild" / "hostile").iterdir())
    assert len(paths) > 10
    for path in paths:
        if path.stem == "build_obj":
            assert read_untrusted(path, MAX).value == {}
        else:
            refusal(path)


def test_zips_that_unfold_without_end_are_refused(tmp_path, fast_reader):
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(1 << 24))  # 128 MB, of which a zip makes 130 kB
    for names in (("a.npy",), ("a/data.pkl", "a/data/0")):
        path = tmp_path / f"{len(names)}.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, zeros.getvalue())
        assert "unfolds to" in refusal(path)
    path = tmp_path / "lying.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", zeros.getvalue())
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = data.index(signature) + place
        data[at : at + 4] = (1000).to_bytes(4, "little")  # the size that the zip claims
    path.write_bytes(data)
    assert "damaged zip" in refusal(path)


def test_whatever_a_damaged_file_raises_is_a_sentence(tmp_path, fast_reader):
    path = tmp_path / "a"
    for names, content, says in (
        (("a.npy",), b"", "damaged zip"),
        (("a/data.pkl", "a/constants.pkl"), b"\x80\x02N.", "TorchScript"),
        (("a.npz",), b"", "neither torch.save nor numpy.savez"),
        ((), b"\x80\x04.", "damaged pickle"),
        ((), b"\x93NUMPY\x01\0", "damaged NumPy file"),
        ((), bytes([2, *bytes(7)]) + b"{{" + bytes(9), "damaged safetensors file"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, content)
        if not names:
            path.write_bytes(content)
        assert says in refusal(path), content


def test_a_name_given_twice_and_a_key_of_a_thousand_digits_are_sentences(tmp_path, fast_reader):
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("a.npy", b"")
    assert "two files of one name" in refusal(path)
    path.write_bytes(pickle.dumps({10**1000: 1}))
    assert "neither a text nor an integer" in refusal(path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_safetensors_of_every_precision(tmp_path, fast_reader, dtype):
    values = torch.tensor([[1.0, -2.5, 0.125]], dtype=dtype)
    save_file({"Age": values}, tmp_path / "a.safetensors")
    found = read_untrusted(tmp_path / "a.safetensors", MAX).value["Age"]
    assert found.tolist() == values.tolist()


def test_one_storage_viewed_without_end_is_refused(tmp_path, fast_reader):
    numbers = torch.zeros(1 << 20)
    torch.save([numbers.view(1024, 1024)[i:] for i in range(64)], tmp_path / "views.pt")
    assert "more numbers than" in refusal(tmp_path / "views.pt")


def test_texts_of_strangers_are_shown_short_and_printable(tmp_path, fast_reader):
    path = tmp_path / "net.pkl"
    path.write_bytes(Call("os", "x" * 5000).dumps())
    assert len(refusal(path)) < 300
    path.write_bytes(Call("o\x1b[31ms", "system").dumps())
    assert "\x1b" not in refusal(path)


def test_random_programs_neither_run_nor_hang(tmp_path, fast_reader):
    outcomes = []

    @settings(
        max_examples=100, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(PROGRAMS)
    def run(program: bytes) -> None:
        outcomes.append(check(program, tmp_path / "program.pkl"))

    run()
    assert not (Path.cwd() / "PWNED_FILE").exists()
    assert True in outcomes and False in outcomes
