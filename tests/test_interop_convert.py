"""Others' checkpoints: the golden images come out of them, and nothing in them runs."""

from __future__ import annotations

import argparse
import gzip
import json
import math
import pickle
import random
import re
import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hublatent.errors import CheckpointError, HublatentError
from hublatent.images import to_pil, to_tensor
from hublatent.interop.convert import convert
from hublatent.interop.layouts import channel_rule
from hublatent.interop.untrusted import UnreadableFileError
from hublatent.inversion.projection import project
from hublatent.model import LatentModel
from hublatent.models import load
from hublatent.models.stylegan2 import StyleGAN2
from hublatent.perception.classifier import AttributeClassifier
from tests.foreign_writers import (
    Call,
    Persistent,
    array_claiming,
    conditional_generator,
    genforce_stylegan2,
    nvidia_generator,
    nvidia_modules,
    nvidia_tree,
    nvidia_weights,
    rosinality_weights,
    tensor_claiming,
    tensorflow_variables,
    torch_legacy,
    write_nvidia,
    write_tensorflow_networks,
)

pytestmark = pytest.mark.usefixtures("fast_reader")


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


def our_name(name: str) -> str:
    """StyleGAN2's own name of a weight of NVIDIA's."""
    name = name.replace("mapping.fc", "mapping_network.").replace("mapping.w_avg", "latent_mean")
    name = name.replace("synthesis.b4.const", "const").replace("synthesis.b", "blocks.")
    return name.replace("torgb", "to_rgb")


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
    with pytest.raises(UnreadableFileError, match="do not follow"):
        channel_rule({4: 8, 8: 8, 16: 3, 32: 4})


def _with(path: str, **settings: object) -> Persistent:
    generator = nvidia_generator(nvidia_weights(32))
    generator.child(path).state |= settings
    return generator


def _with_child(path: str, name: str, class_name: str, weight: Tensor) -> Persistent:
    generator = nvidia_generator(nvidia_weights(32))
    child = Persistent(class_name, "", _parameters={"weight": weight})
    generator.child(path).state["_modules"][name] = child
    return generator


def _with_weight(path: str, kind: str, name: str, value: Tensor) -> Persistent:
    generator = nvidia_generator(nvidia_weights(32))
    generator.child(path).state[kind][name] = value
    return generator


UNSUPPORTED = {
    "resnet": (lambda: _with("synthesis.b8", architecture="resnet"), "'resnet'"),
    "resnet by its weights": (
        lambda: _with_child("synthesis.b8", "skip", "Conv2dLayer", torch.ones(8, 8, 1, 1)),
        "resnet",
    ),
    "another activation, told by the constructor's arguments": (
        lambda: _without_activation("relu"),
        "'relu'",
    ),
    "class-conditional": (lambda: conditional_generator(n_classes=10), "10 classes"),
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
        lambda: _with_weight("synthesis.b4.conv1", "_parameters", "bias", torch.ones(4096)),
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
    assert "64 numbers" in claim(tensor_claiming(few, (2**60, 8), (8, 1)))
    assert "64 numbers" in claim(tensor_claiming(few, (-8, 8), (8, 1)))
    assert "damaged pickle" in claim(array_claiming(np.zeros(8), (billion,)))


def test_files_that_end_pythons_own_unpickler_are_refused(tmp_path):
    path = tmp_path / "net.pkl"
    path.write_bytes(b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.")
    assert "ended the process" in refusal(path, tmp_path)
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")  # a memo of two thousand million entries
    assert "memory" in refusal(path, tmp_path)
    path.write_bytes(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.")
    assert "memory" in refusal(path, tmp_path)


def test_modules_nested_without_end_are_refused(tmp_path):
    generator = nvidia_generator(nvidia_weights(32))
    module = generator.child("mapping")
    for _ in range(40):  # each module twice inside the next: 2**40 paths
        module = Persistent("Module", "", _modules=OrderedDict(a=module, b=module))
    generator.state["_modules"]["more"] = module
    path = write_nvidia(tmp_path / "net.pkl", generator)
    assert "nested without end" in refusal(path, tmp_path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html>quota</html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (gzip.compress(b"x"), "gzip"),
        (b"GGUF\x03\0\0\0", "language model"),
        (b"\x89PNG\r\n\x1a\n", "is a picture (PNG). Converted are pickles and torch.save of"),
        (b"what is this?", "no known format"),
        (pickle.dumps({"G": None}), "holds G"),
        (pickle.dumps([1, 2]), "list of 2"),
        (pickle.dumps((1, {}, 2)), "(G, D, G_ema)"),
        (pickle.dumps(3), "holds int"),
    ],
)
def test_other_files_are_named_for_what_they_are(content, word, tmp_path):
    path = tmp_path / "net.pkl"
    path.write_bytes(content)
    assert word in refusal(path, tmp_path)


def test_other_checkpoints_are_named_for_what_they_are(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        convert(tmp_path / "none.pkl", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"is a folder\. Converted are pickles"):
        convert(tmp_path, tmp_path / "out")
    path = tmp_path / "net.pt"
    for content, word in (
        ({"GAN": {"S.net.0.weight": torch.ones(2)}, "version": "1.8"}, "lucidrains"),
        ({"g_running": {}, "generator": {}}, "holds g_running, generator"),
        ({"progression.0.conv1.weight_orig": torch.ones(2)}, "style-based-gan-pytorch"),
        ({"encoder.weight": torch.ones(2)}, "unknown network, or not all of it (encoder.weight"),
    ):
        torch.save(content, path)
        assert word in refusal(path, tmp_path)
    save_file({"a": torch.ones(2)}, path)
    assert "safetensors" in refusal(path, tmp_path)
    np.savez(tmp_path / "w.npz", w=np.ones((1, 2)))
    assert "NumPy" in refusal(tmp_path / "w.npz", tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rosinality.pt", ("stylegan2-pytorch", "lacks the weight")),
        ("genforce.pth", ("stylegan2-pytorch", "lacks the weight")),
        ("e4e_encoder.pt", ("stylegan2-pytorch", "lacks the weight")),
        ("stylegan1.pkl", ("TensorFlow", "not all of it")),
        ("google_drive_quota.pkl", ("HTML page",)),
        ("lfs_pointer.pkl", ("git lfs pull",)),
        ("projected_w.npz", ("NumPy",)),
        ("z_boundary_cast.pt", ("expected a generator",)),
    ],
)
def test_files_of_the_wild_are_named_for_what_they_are(name, words, shared, tmp_path):
    with pytest.raises(CheckpointError) as caught:
        convert(shared / "wild" / name, tmp_path / "out")
    assert all(word in str(caught.value) for word in words)


def test_what_lacks_weights_is_not_taken_for_another_architecture(tmp_path):
    weights = nvidia_weights(32)
    del weights["synthesis.b16.torgb.weight"]
    message = refusal(torch_file(tmp_path / "net.pt", weights), tmp_path)
    assert "NVIDIA's PyTorch format" in message and "synthesis.b16.torgb.weight" in message
    for height in (4, 8):
        del weights[f"synthesis.b{height}.torgb.weight"]
    assert "architecture 'orig'" in refusal(torch_file(tmp_path / "net.pt", weights), tmp_path)


# Other layouts: each draws the golden images.


def read_golden(shared: Path, name: str) -> dict[str, Tensor]:
    return load_file(shared / "golden" / f"{name}.safetensors")


def generator_of(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix("G."): v for k, v in golden.items() if k.startswith("G.")}


def torch_file(path: Path, content: object) -> Path:
    with nvidia_modules():
        torch.save(content, path)
    return path


def as_e4e(weights: dict[str, Tensor]) -> dict[str, object]:
    decoder = {f"decoder.{k}": v for k, v in rosinality_weights(weights).items()}
    return {
        "state_dict": {"encoder.body.weight": torch.ones(3), **decoder},
        "latent_avg": weights["mapping.w_avg"].repeat(8, 1),
        "opts": argparse.Namespace(checkpoint_path=Path("x")),
    }


LAYOUTS = {
    "a state dict": lambda weights: weights,
    "a state dict of a wrapped network": lambda w: {f"module.{k}": v for k, v in w.items()},
    "a network": nvidia_generator,
    "a tuple of networks": lambda w: (None, None, nvidia_generator(w)),
    "stylegan2-pytorch": lambda weights: {
        "g": {}, "g_ema": rosinality_weights(weights), "latent_avg": weights["mapping.w_avg"],
        "args": argparse.Namespace(size=32),
    },
    "an encoder's decoder": as_e4e,
    "genforce": lambda weights: {
        "generator": {}, "generator_smooth": genforce_stylegan2(weights), "discriminator": {}
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stylegan2_in_other_layouts(layout, golden, tmp_path):
    path = torch_file(tmp_path / "net.pt", LAYOUTS[layout](generator_of(golden)))
    model = convert(path, tmp_path / "out", n_samples=50)
    assert_golden(model, golden)
    assert_golden(load(tmp_path / "out"), golden)


@pytest.mark.parametrize("layout", ["a state dict", "stylegan2-pytorch", "genforce"])
def test_weights_of_strange_shapes_are_a_sentence(layout, golden, tmp_path):
    whole = LAYOUTS[layout](generator_of(golden))
    weights = whole.get("g_ema", whole.get("generator_smooth", whole))
    draws = random.Random(0)
    for name in draws.sample(sorted(weights), 25):
        strange = draws.choice([(5,), (0,), (5, 7), (2, 2, 2, 2, 2), (1, 3, 5, 5)])
        kept, weights[name] = weights[name], torch.ones(strange)
        refusal(torch_file(tmp_path / "net.pt", whole), tmp_path)
        weights[name] = kept


def test_of_a_pickled_tuple_the_averaged_generator_is_taken(golden, tmp_path):
    networks = (nvidia_generator(nvidia_weights(32)), Persistent("Discriminator", ""))
    with nvidia_modules():
        content = pickle.dumps((*networks, nvidia_generator(generator_of(golden))))
    (tmp_path / "net.pkl").write_bytes(content)
    assert_golden(convert(tmp_path / "net.pkl", tmp_path / "out", n_samples=50), golden)


def test_stylegan2_of_tensorflow(golden, tmp_path):
    variables = tensorflow_variables(genforce_stylegan2(generator_of(golden)))
    model = convert(
        write_tensorflow_networks(tmp_path / "net.pkl", variables), tmp_path / "out", n_samples=50
    )
    assert_golden(model, golden)


def assert_draws(model: LatentModel, latents: Tensor, images: Tensor) -> None:
    if latents.ndim == 2 and len(model.latent_shape) == 2:
        latents = latents[:, None].repeat(1, model.latent_shape[0], 1)
    with torch.no_grad():
        torch.testing.assert_close(model.synthesize(latents), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["genforce", "InterFaceGAN", "TensorFlow"])
def test_stylegan(form, shared, tmp_path):
    golden = read_golden(shared, "stylegan1_tiny")
    weights = generator_of(golden)
    if form == "TensorFlow":
        path = write_tensorflow_networks(tmp_path / "net", tensorflow_variables(weights))
    else:
        content = weights if form == "InterFaceGAN" else {"generator_smooth": weights}
        if form == "InterFaceGAN":
            content = {interfacegan_name(k): v for k, v in weights.items()}
        path = torch_file(tmp_path / "net", content)
    convert(path, tmp_path / "out", n_samples=50)
    model = load(tmp_path / "out")
    assert_draws(model, golden["io.w"], golden["io.img_w"])
    assert_draws(model, golden["io.wplus"], golden["io.img_wplus"])
    with torch.no_grad():
        truncated = model.mapping(golden["io.z"], truncation=0.5, cutoff=4)
    torch.testing.assert_close(truncated, golden["io.w_psi05_cut4"], atol=1e-5, rtol=0)


def interfacegan_name(name: str) -> str:
    if name.startswith("mapping"):
        return name.replace("weight", "linear.weight").replace("bias", "wscale.bias")
    if name == "synthesis.layer0.const":
        return "synthesis.layer0.first_layer"
    name = name.replace("style.weight", "epilogue.style_mod.dense.linear.weight")
    name = name.replace("style.bias", "epilogue.style_mod.dense.wscale.bias")
    name = name.replace("apply_noise", "epilogue.apply_noise")
    name = re.sub(r"(layer\d+)\.bias", r"\1.epilogue.bias", name)
    return re.sub(r"((?:layer|output)\d+)\.(weight|bias)", r"\1.conv.\2", name)


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_progan(protocol, shared, tmp_path):
    golden = read_golden(shared, "pggan_tiny")
    weights = generator_of(golden)
    if protocol is None:
        path = torch_file(tmp_path / "net", {"generator_smooth": weights})
    else:
        variables = tensorflow_variables(weights)
        path = write_tensorflow_networks(tmp_path / "net", variables, protocol)
    convert(path, tmp_path / "out")
    model = load(tmp_path / "out")
    assert_draws(model, golden["io.z"], golden["io.img"])
    assert "sphere" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("name", ["stylegan3_t_tiny", "stylegan3_r_tiny"])
@pytest.mark.parametrize("form", ["pickle", "network", "state dict"])
def test_stylegan3(name, form, shared, tmp_path):
    golden = read_golden(shared, name)
    weights = generator_of(golden)
    with safe_open(shared / "golden" / f"{name}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
    network = nvidia_tree(weights, **config)
    if form == "pickle":
        path = write_nvidia(tmp_path / "net", network)
    else:
        path = torch_file(tmp_path / "net", network if form == "network" else weights)
    convert(path, tmp_path / "out", n_samples=50)
    model = load(tmp_path / "out")
    assert_draws(model, golden["io.ws"], golden["io.img_ws"])
    assert_draws(model, golden["io.wplus"], golden["io.img_wplus"])
    with torch.no_grad():
        truncated = model.mapping(golden["io.z"], truncation=0.5)
    torch.testing.assert_close(truncated, golden["io.ws_psi05"], atol=1e-5, rtol=0)


def test_stylegan3s_strange_settings_are_a_sentence(shared, tmp_path):
    network = nvidia_tree(generator_of(read_golden(shared, "stylegan3_t_tiny")))
    network.child("synthesis").state["margin_size"] = math.inf
    assert "infinity" in refusal(write_nvidia(tmp_path / "net", network), tmp_path)


def test_a_name_may_claim_any_height_without_taking_memory(tmp_path):
    claimed = [f"synthesis.b{height}.conv1.weight" for height in range(9000, 9999)]
    weights = {**nvidia_weights(32), **dict.fromkeys(claimed, torch.ones(1))}
    path = torch_file(tmp_path / "net", weights)
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (4 << 30), before[1]))
    try:
        assert "does not fit" in refusal(path, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_stylegan3s_settings_that_a_state_dict_hides_are_not_guessed(shared, tmp_path):
    weights = generator_of(read_golden(shared, "stylegan3_t_tiny"))
    weights["synthesis.L1_24_24.up_filter"] = weights["synthesis.L1_24_24.up_filter"].roll(1)
    path = torch_file(tmp_path / "net", weights)
    assert "other frequencies" in refusal(path, tmp_path)


@pytest.mark.parametrize("kind", ["stylegan", "progan"])
def test_fused_upsampling_is_turned_into_the_plain_one(kind, tmp_path):
    """From 128 pixels on NVIDIA's kernels are those of a transposed convolution."""
    generator = torch.Generator().manual_seed(0)
    plain = tensorflow_variables(grown_weights(kind, generator))
    name = "128x128/Conv0_up/weight" if kind == "stylegan" else "128x128/Conv0/weight"
    kernel = torch.from_numpy(plain[name])  # height, width, in, out
    if kind == "progan":
        for height in (8, 16, 32, 64, 128):
            value = plain.pop(f"{height}x{height}/Conv0/weight").transpose(0, 1, 3, 2)
            plain[f"{height}x{height}/Conv0_up/weight"] = value  # height, width, out, in
            plain[f"{height}x{height}/Conv0_up/bias"] = plain.pop(f"{height}x{height}/Conv0/bias")
    path = write_tensorflow_networks(tmp_path / "net", plain)
    model = convert(path, tmp_path / "out", n_samples=50)
    x = torch.randn(1, kernel.shape[2], 5, 5, generator=generator)
    # NVIDIA's upscale2d_conv2d, fused: the kernel's four shifted copies, summed, with stride 2.
    padded = F.pad(kernel.permute(2, 3, 0, 1), (1, 1, 1, 1))  # in, out, 5, 5
    summed = sum(padded[..., i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1))
    expected = F.conv_transpose2d(x, summed, stride=2, padding=1)
    drawn = F.conv2d(F.interpolate(x, scale_factor=2), model.layers[10].weight, padding=1)
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=0)


def grown_weights(kind: str, generator: torch.Generator) -> dict[str, Tensor]:
    """A generator of 128 pixels with few channels, in genforce's names."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    prefix = "synthesis." if kind == "stylegan" else ""
    weights = {f"{prefix}lod": torch.zeros(())}
    for i in range(12):
        n_in, n_out = (4 if i < 11 else 2), (4 if i < 10 else 2)
        layer, height = f"{prefix}layer{i}", 4 * 2 ** (i // 2)
        weights[f"{layer}.bias"] = draw(n_out)
        if i or kind == "progan":
            weights[f"{layer}.weight"] = draw(n_out, n_in, *((3, 3) if i else (4, 4)))
        if kind == "stylegan":
            weights |= {
                f"{layer}.style.weight": draw(2 * n_out, 4), f"{layer}.style.bias": draw(2 * n_out),
                f"{layer}.apply_noise.weight": draw(n_out),
                f"{layer}.apply_noise.noise": draw(1, 1, height, height),
            }  # fmt: skip
        if i % 2:
            weights[f"{prefix}output{i // 2}.weight"] = draw(3, n_out, 1, 1)
            weights[f"{prefix}output{i // 2}.bias"] = draw(3)
    if kind == "stylegan":
        weights |= {
            "synthesis.layer0.const": draw(1, 4, 4, 4), "truncation.w_avg": draw(4),
            "mapping.dense0.weight": draw(4, 4), "mapping.dense0.bias": draw(4),
        }  # fmt: skip
    return weights


def test_half_grown_generators_are_refused(shared, tmp_path):
    weights = generator_of(read_golden(shared, "pggan_tiny"))
    path = torch_file(tmp_path / "net", weights | {"lod": torch.tensor(1.5)})
    assert "not grown" in refusal(path, tmp_path)


# Classes and channels.


def test_a_class_is_fixed(tmp_path):
    network = conditional_generator()
    path = write_nvidia(tmp_path / "net.pkl", network)
    message = refusal(path, tmp_path)
    assert "3 classes" in message and "--class 0 to 2" in message
    with pytest.raises(CheckpointError, match="--class 0 to 2"):
        convert(path, tmp_path / "out", class_index=3)
    model = convert(path, tmp_path / "out", class_index=2, n_samples=50)

    # The mapping network once more, by hand, with the label's embedding beside z.
    parts = {k: v.detach() for k, v in parameters(network.child("mapping")).items()}
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    label = torch.eye(3)[2].repeat(5, 1)
    y = label @ parts["embed.weight"].T / np.sqrt(3) + parts["embed.bias"]
    x = torch.cat([F.normalize(z) * np.sqrt(8), F.normalize(y) * np.sqrt(8)], dim=1)
    for name in ("fc0", "fc1"):
        weight = parts[f"{name}.weight"]
        x = x @ weight.T * (0.01 / np.sqrt(weight.shape[1])) + parts[f"{name}.bias"] * 0.01
        x = F.leaky_relu(x, 0.2) * np.sqrt(2)
    torch.testing.assert_close(model.mapping(z)[:, 0], x, atol=1e-5, rtol=0)
    assert "number 2" in (tmp_path / "out" / "README.md").read_text()

    plain = write_nvidia(tmp_path / "plain.pkl", nvidia_generator(nvidia_weights(32)))
    with pytest.raises(CheckpointError, match="without classes"):
        convert(plain, tmp_path / "out", class_index=0)


def parameters(network: Persistent) -> dict[str, Tensor]:
    found = {}
    for name, child in network.state["_modules"].items():
        found |= {f"{name}.{k}": v for k, v in child.state["_parameters"].items()}
    return found


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_generators(channels, tmp_path):
    weights = nvidia_weights(32)
    for name in list(weights):
        if "torgb.weight" in name or "torgb.bias" in name:
            weights[name] = weights[name][:1].repeat(channels, *[1] * (weights[name].ndim - 1))
    path = write_nvidia(tmp_path / "net.pkl", nvidia_generator(weights))
    model = convert(path, tmp_path / "out", n_samples=50)
    drawn = model.decode(model.sample_latents(2))
    assert drawn.shape == (2, channels, 32, 32)
    torch.manual_seed(0)
    classifier = AttributeClassifier(attributes="Hat", image_size=32, width=8).eval()
    images = to_tensor(to_pil(drawn), 32, channels)
    found = project(
        model, images, perceptual="features", classifier=classifier, n_steps=2, n_candidates=4
    )
    assert found.images.shape == drawn.shape and bool(torch.isfinite(found.errors).all())


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
