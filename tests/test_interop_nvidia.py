"""NVIDIA's pickles: the golden pictures come out of them, and nothing in them runs."""

from __future__ import annotations

import pickle
import random
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from hublatent.errors import CheckpointError, HublatentError
from hublatent.interop.nvidia import channel_rule, convert
from hublatent.interop.nvidia_names import our_name
from hublatent.interop.unpickle import PickleError
from hublatent.models.stylegan2 import StyleGAN2
from tests.foreign_writers import (
    Call,
    Persistent,
    array_claiming,
    nvidia_generator,
    nvidia_weights,
    tensor_claiming,
    torch_legacy,
    write_nvidia,
    write_tensorflow,
)


@pytest.fixture()
def mark(tmp_path: Path) -> Path:
    """A file that every hostile source would make."""
    return tmp_path / "mark"


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    with safe_open(shared / "golden" / "stylegan2_tiny.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def golden_generator(golden: dict[str, Tensor], **options: object) -> Persistent:
    weights = {k.removeprefix("G."): v for k, v in golden.items() if k.startswith("G.")}
    return nvidia_generator(weights, **options)  # type: ignore[arg-type]


def assert_golden(model: StyleGAN2, golden: dict[str, Tensor]) -> None:
    with torch.no_grad():
        w = model.mapping(golden["io.z"])
        truncated = model.mapping(golden["io.z"], truncation=0.5, cutoff=4)
        for name, latents, noise in (
            ("img_const", w, "const"),
            ("img_none", w, "none"),
            ("img_psi05_cut4", truncated, "const"),
            ("img_wplus_const", golden["io.wplus"], "const"),
        ):
            picture = model.synthesize(latents, noise)  # type: ignore[arg-type]
            torch.testing.assert_close(picture, golden[f"io.{name}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("image_size", [32, 64, 128, 256, 512, 1024])
def test_every_weight_arrives_and_the_source_text_never_runs(image_size, tmp_path, mark):
    weights = nvidia_weights(image_size)
    source = f"open({str(mark)!r}, 'w').close()"
    path = write_nvidia(tmp_path / "net.pkl", nvidia_generator(weights, module_src=source))
    convert(path, tmp_path / "out", n_samples=50)
    assert not mark.exists()

    model = StyleGAN2.from_pretrained(tmp_path / "out")
    assert model.image_size == image_size
    assert model.latent_shape == (2 * (image_size.bit_length() - 2), 8)
    state = model.state_dict()
    arrived = {our_name(k): v for k, v in weights.items() if not k.endswith("resample_filter")}
    assert set(arrived) | {"latent_covariance"} == set(state)
    for name, value in arrived.items():
        assert torch.equal(state[name], value), name
    assert "no commercial use" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("with_settings", [True, False])
def test_golden_weights_give_the_golden_pictures(golden, tmp_path, protocol, with_settings):
    generator = golden_generator(golden, with_settings=with_settings)
    path = write_nvidia(tmp_path / "net.pkl", generator, protocol)
    model = convert(path, tmp_path / "out", n_samples=50)
    assert_golden(model, golden)
    assert_golden(StyleGAN2.from_pretrained(tmp_path / "out"), golden)


def test_unusual_gains_are_folded_into_the_weights(golden, tmp_path):
    generator = golden_generator(golden)
    for name, gain in (
        ("mapping.fc1", "weight_gain"),
        ("synthesis.b8.conv0.affine", "weight_gain"),
        ("synthesis.b16.torgb", "weight_gain"),
    ):
        layer = generator.child(name)
        layer.state["_parameters"]["weight"] = torch.nn.Parameter(
            layer.state["_parameters"]["weight"] * 4, False
        )
        layer.state[gain] /= 4
    bias = generator.child("mapping.fc2").state["_parameters"]["bias"]
    generator.child("mapping.fc2").state["_parameters"]["bias"] = bias * 2
    generator.child("mapping.fc2").state["bias_gain"] /= 2
    model = convert(write_nvidia(tmp_path / "net.pkl", generator), tmp_path / "out", n_samples=50)
    assert_golden(model, golden)


def test_another_mapping_multiplier_is_found(golden, tmp_path):
    # weight * multiplier is what counts: the same network written with another multiplier.
    weights = {k.removeprefix("G."): v for k, v in golden.items() if k.startswith("G.")}
    scaled = {k: v / 3 if k.startswith("mapping.fc") else v for k, v in weights.items()}
    generator = nvidia_generator(scaled, multiplier=0.03)
    model = convert(write_nvidia(tmp_path / "net.pkl", generator), tmp_path / "out", n_samples=50)
    assert model.mapping_lr_multiplier == pytest.approx(0.03)
    assert_golden(model, golden)


def test_layers_without_noise_draw_the_pictures_without_noise(golden, tmp_path):
    generator = golden_generator(golden)
    for block in generator.child("synthesis").state["_modules"].values():
        for name, layer in block.state["_modules"].items():
            if name.startswith("conv"):
                layer.state["use_noise"] = False
                del layer.state["_parameters"]["noise_strength"]
                del layer.state["_buffers"]["noise_const"]
    model = convert(write_nvidia(tmp_path / "net.pkl", generator), tmp_path / "out", n_samples=50)
    with torch.no_grad():
        picture = model.synthesize(golden["io.ws"], "const")
    torch.testing.assert_close(picture, golden["io.img_none"], atol=1e-4, rtol=0)


def test_the_clamp_is_honoured(tmp_path):
    weights = nvidia_weights(32)
    unset = write_nvidia(tmp_path / "a.pkl", nvidia_generator(weights))
    clamped = write_nvidia(tmp_path / "b.pkl", nvidia_generator(weights, conv_clamp=256))
    assert convert(unset, tmp_path / "a", n_samples=50).conv_clamp == 0
    assert convert(clamped, tmp_path / "b", n_samples=50).conv_clamp == 256


def test_statistics_are_those_of_mapped_samples(golden, tmp_path):
    path = write_nvidia(tmp_path / "net.pkl", golden_generator(golden))
    model = convert(path, tmp_path / "out")
    # The mapping network once more, by hand, on other samples.
    w = np.random.default_rng(1).standard_normal((40_000, 32))
    w /= np.sqrt((w**2).mean(axis=1, keepdims=True) + 1e-8)
    for i in range(3):
        weight, bias = (golden[f"G.mapping.fc{i}.{kind}"].numpy() for kind in ("weight", "bias"))
        w = w @ weight.T * (0.01 / np.sqrt(32)) + bias * 0.01
        w = np.where(w > 0, w, 0.2 * w) * np.sqrt(2)
    covariance = np.cov(w.T)
    difference = np.linalg.norm(model.latent_covariance.numpy() - covariance)
    assert difference < 0.05 * np.linalg.norm(covariance)
    assert torch.equal(model.latent_mean, golden["G.mapping.w_avg"])  # NVIDIA truncates about it

    generator = golden_generator(golden)
    del generator.child("mapping").state["_buffers"]["w_avg"]
    model = convert(write_nvidia(path, generator), tmp_path / "out")
    assert np.abs(model.latent_mean.numpy() - w.mean(axis=0)).max() < 0.1


def test_channels_follow_nvidias_rule():
    heights = [2**i for i in range(2, 11)]
    for base, maximum in ((32768, 512), (16384, 512), (100, 64), (103, 7), (1024, 1)):
        widths = {h: min(base // h, maximum) for h in heights if base // h}
        found = channel_rule(widths)
        assert {h: min(found[0] // h, found[1]) for h in widths} == widths
    with pytest.raises(PickleError, match="do not follow"):
        channel_rule({4: 8, 8: 8, 16: 3, 32: 4})


def _with(path: str, **settings: object) -> Persistent:
    generator = nvidia_generator(nvidia_weights(32))
    generator.child(path).state |= settings
    return generator


def _with_child(path: str, name: str, class_name: str) -> Persistent:
    generator = nvidia_generator(nvidia_weights(32))
    generator.child(path).state["_modules"][name] = Persistent(class_name, "")
    return generator


def _with_weight(path: str, kind: str, name: str, value: Tensor) -> Persistent:
    generator = nvidia_generator(nvidia_weights(32))
    generator.child(path).state[kind][name] = value
    return generator


UNSUPPORTED = {
    "resnet": (lambda: _with("synthesis.b8", architecture="resnet"), "'resnet'"),
    "resnet by its module": (lambda: _with_child("synthesis.b8", "skip", "Conv2dLayer"), "resnet"),
    "another activation, told by the constructor's arguments": (
        lambda: _without_activation("relu"),
        "'relu'",
    ),
    "alias-free": (lambda: _with_child("synthesis", "input", "SynthesisInput"), "alias-free"),
    "class-conditional": (lambda: _with("mapping", c_dim=10), "class-conditional"),
    "another activation": (lambda: _with("synthesis.b8.conv0", activation="swish"), "'swish'"),
    "another mapping": (lambda: _with("mapping.fc0", activation="relu"), "'relu'"),
    "mixed clamps": (lambda: _with("synthesis.b8.conv0", conv_clamp=9), "different conv_clamp"),
    "an absurd gain": (lambda: _with("mapping.fc0", weight_gain=float("nan")), "weight_gain = nan"),
    "another filter": (
        lambda: _with_weight("synthesis.b8", "_buffers", "resample_filter", torch.ones(4, 4) / 16),
        "[1, 3, 3, 1]",
    ),
    "NaN": (
        lambda: _with_weight("mapping.fc0", "_parameters", "bias", torch.full((8,), torch.nan)),
        "NaN",
    ),
    "another shape": (
        lambda: _with_weight("synthesis.b8.conv0", "_parameters", "bias", torch.ones(5)),
        "(5,)",
    ),
    "widths of a huge model, claimed by small tensors": (
        lambda: _with_weight("synthesis.b4.conv1", "_parameters", "weight", torch.ones(4096, 1)),
        "channels",
    ),
}


def _without_activation(value: str) -> Persistent:
    """A generator whose activation only its constructor's arguments tell."""
    generator = _with("", _init_kwargs={"synthesis_kwargs": {"activation": value}})
    for block in generator.child("synthesis").state["_modules"].values():
        for layer in block.state["_modules"].values():
            layer.state.pop("activation", None)
    return generator


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_would_draw_other_pictures_is_refused(case, tmp_path):
    make, word = UNSUPPORTED[case]
    path = write_nvidia(tmp_path / "net.pkl", make())
    assert word in refusal(path, tmp_path)


def refusal(path: Path, tmp_path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        convert(path, tmp_path / "out", n_samples=50)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message
    assert not (tmp_path / "out").exists()
    return message


def snapshot_with(payload: bytes) -> bytes:
    """A pickled dictionary whose G_ema is a given pickle."""
    return b"\x80\x02}X\x05\x00\x00\x00G_ema" + payload[2:-1] + b"s."


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "getattr")],
)
def test_hostile_calls_are_named_and_not_run(module, name, tmp_path, mark):
    call = Call(module, name, f"touch {mark}")
    path = tmp_path / "net.pkl"
    path.write_bytes(snapshot_with(call.dumps()))
    assert f"{module}.{name}" in refusal(path, tmp_path)
    assert not mark.exists()


def test_a_call_hidden_in_nested_reduces_is_not_run(tmp_path, mark):
    inner = Call("os", "system", f"touch {mark}").dumps()[2:-1]
    # OrderedDict() whose state is _rebuild_parameter(os.system(...), ...), and so on.
    outer = b"\x80\x02ccollections\nOrderedDict\n)R(ctorch._utils\n_rebuild_parameter\n("
    outer += inner + b"\x89}tRtb."
    path = tmp_path / "net.pkl"
    path.write_bytes(snapshot_with(outer))
    assert "os.system" in refusal(path, tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("form", ["legacy", "bare", "again"])
def test_a_payload_inside_a_storage_is_not_run(form, tmp_path, mark):
    payload = Call("os", "system", f"touch {mark}").dumps()
    if form == "again":  # inside a storage inside a storage
        payload = Call("torch.storage", "_load_from_bytes", torch_legacy(payload)).dumps()
    inside = payload if form == "bare" else torch_legacy(payload)
    # What Python's own unpickler makes of it, so that the test is about a payload that works.
    torch.storage._load_from_bytes(inside) if form == "legacy" else None
    assert mark.exists() == (form == "legacy")
    mark.unlink(missing_ok=True)

    path = tmp_path / "net.pkl"
    path.write_bytes(snapshot_with(Call("torch.storage", "_load_from_bytes", inside).dumps()))
    message = refusal(path, tmp_path)
    assert ("_load_from_bytes" if form == "again" else "os.system") in message
    assert not mark.exists()


def test_absurd_claims_are_refused_before_memory_is_taken(tmp_path):
    def claim(value: object) -> str:
        generator = nvidia_generator(nvidia_weights(32))
        generator.child("mapping.fc0").state["_parameters"]["weight"] = value
        return refusal(write_nvidia(tmp_path / "net.pkl", generator), tmp_path)

    few, billion = torch.zeros(64), 10**9
    assert "(1000000000, 8)" in claim(tensor_claiming(few, (billion, 8), (8, 1)))
    assert "(1000000000, 8)" in claim(tensor_claiming(few, (billion, 8), (0, 0)))
    assert "64 numbers" in claim(tensor_claiming(few, (8, 8), (8, 2)))
    assert "1,000,000,000 numbers" in claim(tensor_claiming(few, (8, 8), (8, 1), count=billion))
    assert "impossible shape" in claim(tensor_claiming(few, (2**60, 8), (8, 1)))
    assert "impossible shape" in claim(tensor_claiming(few, (-8, 8), (8, 1)))
    assert "(1000000000,)" in claim(array_claiming(np.zeros(8), (billion,)))


def test_files_that_end_pythons_own_unpickler_are_refused(tmp_path):
    path = tmp_path / "net.pkl"
    path.write_bytes(b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.")
    assert "dictionary key" in refusal(path, tmp_path)
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")  # a memo of two thousand million entries
    assert "no networks" in refusal(path, tmp_path)
    path.write_bytes(b"\x80\x02" + b"]0" * 2_000_000 + b".")
    assert "operations" in refusal(path, tmp_path)
    path.write_bytes(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.")
    assert "truncated" in refusal(path, tmp_path)


def test_modules_nested_without_end_are_refused(tmp_path):
    generator = nvidia_generator(nvidia_weights(32))
    module = generator.child("mapping")
    for _ in range(40):  # each module twice inside the next: 2**40 paths
        module = Persistent("Module", "", _modules=OrderedDict(a=module, b=module))
    generator.state["_modules"]["more"] = module
    path = write_nvidia(tmp_path / "net.pkl", generator)
    assert "nested without end" in refusal(path, tmp_path)


def test_other_files_are_named_for_what_they_are(tmp_path):
    assert "TensorFlow" in refusal(write_tensorflow(tmp_path / "tf.pkl"), tmp_path)
    for content, word in (
        (b"", "empty"),
        (b"<html>", "no pickle"),
        (pickle.dumps({"G": None}), "holds G"),
        (pickle.dumps([1, 2]), "no networks"),
    ):
        path = tmp_path / "net.pkl"
        path.write_bytes(content)
        assert word in refusal(path, tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        convert(tmp_path / "none.pkl", tmp_path / "out")


def test_truncated_and_flipped_files_never_crash(tmp_path):
    path = write_nvidia(tmp_path / "net.pkl", nvidia_generator(nvidia_weights(32)))
    data, rng = path.read_bytes(), random.Random(0)
    # The pictures are robust to most flips in tensors; the structure is where it matters.
    for trial in range(150):
        damaged = bytearray(data)
        if trial % 3 == 0:
            del damaged[rng.randrange(len(data)) :]
        for _ in range(rng.randrange(1, 8) if trial % 3 else 0):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            convert(path, tmp_path / f"out{trial}", n_samples=20)
        except HublatentError as error:
            assert "\n" not in str(error)
        else:
            assert trial % 3, "a truncated file was converted"
