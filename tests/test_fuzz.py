"""Damaged and hostile files: refused by a sentence, or read as exactly what they hold.

Mutated models, configs, directions and foreign files are read under three guards: memory is capped,
nothing may be written, started, connected or unpickled, and an example has a deadline. What loads
is compared with a plain reader of the file's bytes.
"""

from __future__ import annotations

import json
import math
import os
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hublatent
from hublatent.direction import Direction, Origin
from hublatent.direction_set import DIRECTIONS, DirectionSet
from hublatent.errors import HublatentError
from hublatent.interop.convert import read_generator
from hublatent.interop.directions import import_directions
from hublatent.models import BetaVAE, Eigenfaces, StyleGAN2
from hublatent.perception.classifier import AttributeClassifier
from hublatent.publish import load_published
from tests.foreign_writers import (
    nvidia_generator,
    nvidia_weights,
    write_ganspace,
    write_higan,
    write_nvidia,
    write_torch,
)

MEMORY = 1 << 30  # bytes beyond what the process has already
WIDTH = 6
EXAMPLES = {"model": 350, "header": 350, "config": 350, "directions": 250, "document": 350}
EXAMPLES |= {"foreign": 450, "nvidia": 150}


def fuzz(name: str, seconds: float = 20.0) -> Callable[[Any], Any]:
    """The same examples at every run, each with a deadline."""
    return settings(
        max_examples=EXAMPLES[name],
        deadline=seconds * 1000,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# Guards -------------------------------------------------------------------------------------------

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
FORBIDDEN = (
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
    "os.truncate", "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen",
    "shutil.", "socket.connect", "pickle.find_class", "exec", "ctypes.dlopen",
)  # fmt: skip
_seen: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & WRITING and "__pycache__" not in str(path):
            _seen.append(f"open {path!r} for writing")
    elif event.startswith(FORBIDDEN):
        _seen.append(f"{event} {arguments!r:.100}")


sys.addaudithook(_watch)


@contextmanager
def guarded() -> Iterator[None]:
    """Memory is capped, and nothing may be written, run, connected or unpickled."""
    global _seen
    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    _seen = []
    try:
        yield
    finally:
        seen, _seen = _seen, None
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert not seen


def outcome(read: Callable[[], Any]) -> Any:
    """What a guarded reader returns; None where it refuses in one short sentence."""
    with guarded():
        try:
            return read()
        except HublatentError as error:
            sentence = str(error)
    assert "\n" not in sentence and len(sentence) < 3000
    sentence.encode()  # half a surrogate pair could not be printed
    return None


# Files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of tiny models, one of each kind of network."""
    torch.manual_seed(0)
    built = [
        BetaVAE(8, channels=1, latent_dim=3, width=2, max_width=2, n_stages=1),
        Eigenfaces(8, channels=1, latent_dim=3),
        AttributeClassifier(attributes="Hat,Beard", image_size=16, width=8),
        StyleGAN2(16, 1, latent_dim=4, z_dim=4, mapping_layers=1, channel_base=16, channel_max=2,
                  channel_min=1),
    ]  # fmt: skip
    folders = []
    for model in built:
        folders.append(tmp_path_factory.mktemp(model.architecture))
        model.save_pretrained(folders[-1])
        load_published(folders[-1])  # imports what is imported at the first use
    return folders


@pytest.fixture(scope="module")
def directions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = [
        Direction(
            name,
            "svm",
            torch.eye(WIDTH)[i],
            sigma=1.0,
            threshold=0.5,
            gain=2.0,
            origin=Origin("encoded", "x"),
        )
        for i, name in enumerate(("Hat", "Beard"))
    ]
    path = tmp_path_factory.mktemp("set") / "directions.safetensors"
    DirectionSet(tuple(found), "vae", "z", "ab" * 32).save(path)
    return path


@pytest.fixture(scope="module")
def gan() -> StyleGAN2:
    """What the foreign files, unless damaged, fit."""
    torch.manual_seed(0)
    return StyleGAN2(
        16,
        1,
        latent_dim=WIDTH,
        z_dim=4,
        mapping_layers=1,
        channel_base=64,
        channel_max=4,
        channel_min=1,
    )


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, gan: StyleGAN2) -> list[bytes]:
    """A small file of each foreign format."""
    folder = tmp_path_factory.mktemp("foreign")
    row = np.random.default_rng(0).standard_normal((1, WIDTH))
    row /= np.linalg.norm(row)
    np.save(folder / "interfacegan.npy", row)
    write_higan(folder / "higan.npy", row, "2-4")
    write_ganspace(folder / "ganspace.pkl", row.astype(np.float32), 1, 3, 1.0)
    components = {"comp": torch.ones(2, 1, WIDTH), "std": torch.ones(2)}
    write_torch(folder / "pca.pt", components)
    torch.save(torch.ones(1, WIDTH), folder / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(folder / "named.npz", vector=np.ones(WIDTH, np.float32))
    (folder / "channels.json").write_text("[[2, 1], [0, 0]]")
    for path in folder.iterdir():
        import_directions([path], "Age", gan, space="w")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def read_plainly(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A safetensors file by the letter of its format: the header, and the tensors."""
    (n_header,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n_header])
    body = data[8 + n_header :]
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            dtype = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8"}[entry["dtype"]]
            tensors[name] = np.frombuffer(body[start:end], dtype).reshape(entry["shape"])
    return header.get("__metadata__", {}), tensors


def with_header(data: bytes, header: str) -> bytes:
    """The file with another header before the same tensors' bytes."""
    (n_header,) = struct.unpack("<Q", data[:8])
    encoded = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + data[8 + n_header :]


def header_of(data: bytes) -> dict[str, Any]:
    (n_header,) = struct.unpack("<Q", data[:8])
    parsed: dict[str, Any] = json.loads(data[8 : 8 + n_header])
    return parsed


# Mutations ----------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["../x", "/etc/passwd", "a\0b", "..", "", "C:\\x", "\u202eevil", "\ud800", "x" * 5000, "é.svm",
     "~/x", "con", "\n", "__metadata__", "Hat.svm.vector", "latent_mean"]
) | st.text(max_size=8)  # fmt: skip
DEEP = st.sampled_from([60, 900, 100_000]).map(lambda n: "[" * n + "]" * n)
NUMBERS = st.sampled_from(
    [0, -1, 1, 2, 3, 8, 16, 1024, 4096, 2**31, 2**63, 2**64, 10**400, True, 1.5, -0.0, 1e308,
     math.nan, math.inf, -math.inf]
) | st.integers()  # fmt: skip
JSON = st.recursive(
    st.none() | NUMBERS | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """Flip, drop, insert and repeat bytes; most of it near the start, where headers are."""
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        end = len(damaged) if draw(st.booleans()) else min(len(damaged), 96)
        at = draw(st.integers(0, max(end - 1, 0)))
        kind = draw(st.sampled_from(["flip", "set", "cut", "insert", "repeat", "length"]))
        if kind == "flip" and damaged:
            damaged[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and damaged:
            damaged[at] = draw(st.sampled_from([0, 1, 0x2E, 0x7F, 0x80, 0xFF]))
        elif kind == "cut":
            del damaged[at:]
        elif kind == "insert":
            damaged[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "repeat":
            damaged[at:at] = damaged[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 50))
        elif kind == "length":
            claim = draw(st.sampled_from([0, 1, 2**16, 2**24, 2**40, 2**62, 2**64 - 1]))
            damaged[:8] = struct.pack("<Q", claim)
    return bytes(damaged)


@st.composite
def lying_header(draw: st.DrawFn, data: bytes) -> bytes:
    """Change what a safetensors header says, or the numbers behind it."""
    header = header_of(data)
    names = [name for name in header if name != "__metadata__"]
    name = draw(st.sampled_from(names))
    entry = header[name]
    kinds = ["rename", "dtype", "shape", "offsets", "twice", "metadata", "value", "extra", "drop"]
    kind = draw(st.sampled_from(kinds))
    if kind == "rename":
        header[draw(NAMES)] = header.pop(name)
    elif kind == "dtype":
        kinds = ["F64", "F16", "BF16", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "", "f32", 3]
        entry["dtype"] = draw(st.sampled_from(kinds))
    elif kind == "shape":
        shapes = [[], [0], [-1], [2**40], [2**63], [2**32, 2**32], [1] * 70, [1.5], "x", None]
        entry["shape"] = draw(
            st.sampled_from([*shapes, entry["shape"][::-1], [*entry["shape"], 1]])
        )
    elif kind == "offsets":
        start, end = entry["data_offsets"]
        other = header[draw(st.sampled_from(names))]["data_offsets"]
        lies = [other, [end, start], [start - 4, end], [start, end + 4], [start + 1, end + 1],
                [-8, 8], [2**62, 2**62 + end - start], [start], [], None]  # fmt: skip
        entry["data_offsets"] = draw(st.sampled_from(lies))
    elif kind == "twice":
        first = json.dumps({name: header[draw(st.sampled_from(names))]})[1:-1]
        return with_header(data, "{" + first + ", " + json.dumps(header)[1:])
    elif kind == "metadata":
        text = draw(st.just('"' + "x" * 3_000_000 + '"') | DEEP | JSON.map(json.dumps))
        return with_header(data, json.dumps(header)[:-1] + f', "__metadata__": {{"x": {text}}}}}')
    elif kind == "value":
        value = draw(st.sampled_from([math.nan, math.inf, -math.inf, 1e38, 0.0]))
        at = len(data) - 4 * draw(st.integers(1, 12))
        return data[:at] + struct.pack("<f", value) + data[at + 4 :]
    elif kind == "extra":
        header[draw(NAMES)] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    else:
        del header[name]
    return with_header(data, json.dumps(header))


@st.composite
def lying_json(draw: st.DrawFn, document: Any) -> str:
    """Change values and keys of a JSON document, at any depth; or replace all of it."""
    text = json.dumps(document)
    kind = draw(st.sampled_from(["value", "value", "value", "key", "drop", "twice", "deep", "all"]))
    if kind == "all":
        return draw(JSON.map(json.dumps) | DEEP)
    copy = json.loads(text)
    places = list(_places(copy))
    for _ in range(draw(st.integers(1, 2))):
        owner, key = draw(st.sampled_from(places))
        if kind == "deep":
            owner[key] = "@deep@"
        elif kind == "value" or isinstance(owner, list):
            owner[key] = draw(JSON)
        elif kind == "key":
            owner[draw(NAMES)] = owner.get(key)
        elif kind == "drop":
            owner.pop(key, None)
    text = json.dumps(copy).replace('"@deep@"', draw(DEEP) if kind == "deep" else "")
    if kind == "twice":
        return text.replace("{", '{"architecture": "eigenfaces", "sigma": 3, ', 1)
    return text


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each (object, key) and (list, index) of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


# Models -------------------------------------------------------------------------------------------


def check_model(folder: Path, config: bytes, weights: bytes) -> None:
    """Load a folder of these files; what loads is what the files say, and finite."""
    (folder / "config.json").write_bytes(config)
    (folder / "model.safetensors").write_bytes(weights)
    model = outcome(lambda: load_published(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    if model is None:
        return
    stated = json.loads(config)
    assert model.config | stated == model.config and list(stated) == list(dict(stated))
    _, tensors = read_plainly(weights)
    found = model.state_dict()
    assert found.keys() == tensors.keys()
    for name, tensor in found.items():
        assert bool(torch.isfinite(tensor).all())
        assert np.array_equal(tensor.numpy(), tensors[name])


def test_damaged_weights(models: list[Path], tmp_path: Path) -> None:
    @fuzz("model")
    @given(st.data())
    def run(draws: st.DataObject) -> None:
        source = draws.draw(st.sampled_from(models))
        weights = draws.draw(damage((source / "model.safetensors").read_bytes()))
        check_model(tmp_path, (source / "config.json").read_bytes(), weights)

    run()


def test_lying_headers(models: list[Path], tmp_path: Path) -> None:
    @fuzz("header")
    @given(st.data())
    def run(draws: st.DataObject) -> None:
        source = draws.draw(st.sampled_from(models))
        weights = draws.draw(lying_header((source / "model.safetensors").read_bytes()))
        check_model(tmp_path, (source / "config.json").read_bytes(), weights)

    run()


def test_lying_configs(models: list[Path], tmp_path: Path) -> None:
    @fuzz("config")
    @given(st.data())
    def run(draws: st.DataObject) -> None:
        source = draws.draw(st.sampled_from(models))
        content = (source / "config.json").read_bytes()
        text = lying_json(json.loads(content)).map(lambda t: t.encode("utf-8", "surrogatepass"))
        config = draws.draw(st.one_of(text, text, damage(content)))
        check_model(tmp_path, config, (source / "model.safetensors").read_bytes())

    run()


@pytest.mark.parametrize("size", [1024, 512])
def test_a_huge_model_is_refused_before_memory_is_taken_for_it(
    size: int, models: list[Path], tmp_path: Path
) -> None:
    config = json.loads((models[1] / "config.json").read_text())
    config |= {"image_size": size, "channels": 4, "latent_dim": 4096}  # 68 GB, 17 GB
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = (models[1] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert outcome(lambda: hublatent.load(tmp_path)) is None


def test_pickles_and_code_beside_a_model_are_not_read(models: list[Path], tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "model.pkl", "modeling_vae.py"):
        (tmp_path / name).write_text("raise SystemExit('executed')")
    config = json.loads((models[0] / "config.json").read_text())
    weights = (models[0] / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HublatentError, match=r"Not read, since a pickle.*pytorch_model\.bin"):
        hublatent.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert outcome(lambda: hublatent.load(tmp_path)) is not None
    config["auto_map"] = {"AutoModel": "modeling_vae.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HublatentError, match="unknown keys: auto_map"):
        hublatent.load(tmp_path)


# Directions ---------------------------------------------------------------------------------------


def check_directions(path: Path, content: bytes) -> None:
    """Read a direction file; what is read is what the file says, and can be written again."""
    path.write_bytes(content)
    found = outcome(lambda: DirectionSet.load(path))
    assert list(path.parent.iterdir()) == [path]
    if found is None:
        return
    metadata, tensors = read_plainly(content)
    stated = json.loads(metadata[DIRECTIONS.name])
    assert [d.name for d in found] == [
        f"{d['attribute']}.{d['method']}" for d in stated["directions"]
    ]
    assert (found.architecture, found.fingerprint) == (
        stated["architecture"], stated["fingerprint"],
    )  # fmt: skip
    for direction in found:
        assert np.array_equal(
            direction.vector.numpy(),
            tensors[f"{direction.attribute}.{found.method_of(direction)}.vector"],
        )
        assert bool(torch.isfinite(direction.vector).all())
        numbers = [direction.sigma, direction.threshold, direction.gain, direction.surviving_norm]
        numbers += [x for s in direction.scores.values() for x in (s.value, s.low, s.high)]
        assert all(x is None or math.isfinite(x) for x in numbers)
        origin = direction.origin
        texts = [direction.name, origin and str(origin), direction.preprocessing, *direction.scores]
        assert all(text is None or text.isprintable() for text in texts)
    found.save(path)
    assert [replace(d, vector=0 * d.vector + 1) for d in DirectionSet.load(path)]


def test_damaged_directions(directions: Path, tmp_path: Path) -> None:
    data = directions.read_bytes()

    @fuzz("directions")
    @given(st.one_of(damage(data), lying_header(data)))
    def run(content: bytes) -> None:
        check_directions(tmp_path / "directions.safetensors", content)

    run()


def test_lying_directions(directions: Path, tmp_path: Path) -> None:
    data = directions.read_bytes()
    document = json.loads(header_of(data)["__metadata__"][DIRECTIONS.name])
    document["directions"][0]["scores"] = {"accuracy": [0.5, 0.4, 0.6]}
    document["directions"][0]["conditioned_on"] = ["Male.svm"]

    @fuzz("document")
    @given(lying_json(document))
    def run(text: str) -> None:
        header = header_of(data) | {"__metadata__": {DIRECTIONS.name: text}}
        check_directions(tmp_path / "directions.safetensors", with_header(data, json.dumps(header)))

    run()


@pytest.mark.parametrize("piece", ["[],", "1,", '{"a":['])
def test_an_enormous_document_is_refused_in_little_memory(
    piece: str, directions: Path, tmp_path: Path
) -> None:
    data = directions.read_bytes()
    n = (7 << 20) // len(piece) // 2
    text = "[" + piece * n + "0]"
    header = header_of(data) | {"__metadata__": {DIRECTIONS.name: text}}
    path = tmp_path / "directions.safetensors"
    path.write_bytes(with_header(data, json.dumps(header)))
    assert outcome(lambda: DirectionSet.load(path)) is None
    header["__metadata__"][DIRECTIONS.name] = text * 3
    path.write_bytes(with_header(data, json.dumps(header)))
    with pytest.raises(HublatentError, match="header claims"):
        DirectionSet.load(path)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a\0b", "..", "a/b", "\u202eevil", "x" * 300])
def test_names_that_are_paths_are_no_directions(
    name: str, directions: Path, tmp_path: Path
) -> None:
    data = directions.read_bytes()
    header = header_of(data)
    document = json.loads(header["__metadata__"][DIRECTIONS.name])
    document["directions"][0]["attribute"] = name
    header[f"{name}.svm.vector"] = header.pop("Hat.svm.vector")
    header["__metadata__"] = {DIRECTIONS.name: json.dumps(document)}
    (tmp_path / "x.safetensors").write_bytes(with_header(data, json.dumps(header)))
    with pytest.raises(HublatentError, match=r"no attribute or method name|printable"):
        DirectionSet.load(tmp_path / "x.safetensors")


# Others' files ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fast_reader")
def test_damaged_foreign_directions(foreign: list[bytes], gan: StyleGAN2, tmp_path: Path) -> None:
    path = tmp_path / "age_boundary"

    @fuzz("foreign")
    @given(st.data())
    def run(draws: st.DataObject) -> None:
        path.write_bytes(draws.draw(damage(draws.draw(st.sampled_from(foreign)))))
        model = draws.draw(st.sampled_from([None, gan]))
        space = None if model is None else "w"
        imported = outcome(lambda: import_directions([path], "Age", model, space=space))
        for direction in imported.directions if imported else ():
            assert model is None or tuple(direction.vector.shape) == model.latent_shape
            assert bool(torch.isfinite(direction.vector).all())
        for line in imported.report if imported else ():
            assert "\n" not in line and len(line) < 3000
            line.encode()

    run()


@pytest.mark.usefixtures("fast_reader")
def test_damaged_nvidia_pickles(tmp_path: Path) -> None:
    path = write_nvidia(
        tmp_path / "net.pkl",
        nvidia_generator(nvidia_weights(16, width=4, channel_base=32, channel_max=2)),
    )
    data = path.read_bytes()
    assert read_generator(path).model

    @fuzz("nvidia")
    @given(damage(data))
    def run(content: bytes) -> None:
        path.write_bytes(content)
        model = outcome(lambda: read_generator(path).model)
        if model is not None:
            assert all(bool(torch.isfinite(t).all()) for t in model.state_dict().values())

    run()
