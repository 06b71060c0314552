"""AttributeClassifier and its training: what it computes, calibration, resumption, bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, nn

from hublatent.data import FaceDataset, load_dataset
from hublatent.errors import CheckpointError, DataError, HublatentError
from hublatent.perception.classifier import (
    CELEBA_ATTRIBUTES,
    AttributeClassifier,
    join_names,
    split_names,
)
from tests.training_helpers import kill_after_lines
from training.train_classifier import RECIPES, Arguments, ClassifierRecipe, Trainer, mix, train
from training.trainers.classifier.distort import Distortion, blur, distort, resampling
from training.trainers.classifier.scores import (
    calibration_error,
    fit_temperature,
    held_out_scores,
    mean_auroc,
)
from training.trainers.commands import parse_command
from training.trainers.loop import parameter_count, start_accelerator
from training.trainers.run import Run

PROJECT = Path(__file__).resolve().parent.parent
N_TRAIN, N_VALIDATION, N_TEST = 24, 16, 16
TINY = ClassifierRecipe(image_size=16, width=4, epochs=3, batch_size=10)
TINY_OPTIONS = [
    "--recipe", "attributes-celeba", "--image-size", "16", "--width", "4", "--epochs", "3",
    "--batch-size", "10", "--precision", "fp32",
]  # fmt: skip
STILL = Distortion(0, 0, 0, 0, 0, 0, 0)


def tiny(**values: Any) -> AttributeClassifier:
    """A small classifier in which nothing is 0 or 1 by chance."""
    arguments = {"image_size": 16, "width": 4, "attributes": "Eyeglasses,Male,Smiling", **values}
    torch.manual_seed(0)
    model = AttributeClassifier(**arguments).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_()
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.uniform_(0.5, 1.5)
    nn.init.normal_(model.pool[0].weight)
    return model


def images(n: int = 3, size: int = 16) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


# --- the network ----------------------------------------------------------------------------------


def test_attributes_are_celebas_in_its_order(celeba: Path) -> None:
    with (celeba / "list_attr_celeba.txt").open(encoding="utf-8") as file:
        next(file)
        assert tuple(next(file).split()) == split_names(CELEBA_ATTRIBUTES)


def test_index() -> None:
    model = AttributeClassifier(width=1)
    found = [model.index(name) for name in ("5_o_Clock_Shadow", "Eyeglasses", "Male", "Smiling")]
    assert found == [0, 15, 20, 31]
    with pytest.raises(HublatentError, match="Did you mean Eyeglasses"):
        model.index("eyeglases")


def test_parameter_count() -> None:
    # Convolutions 3x3, or 4x4 where they halve the image, without bias; two numbers per normalised
    # channel; an average over 4x4 positions; a linear head with bias.
    widths = [36, 72, 144, 288]
    stem = 27 * 18 + 2 * 18 + 16 * 18 * 36 + 2 * 36
    expected = stem + 2 * (9 * 36 * 36 + 2 * 36) + 288 * (16 + 40) + 40
    for n_in, n_out in pairwise(widths):
        expected += 16 * n_in * n_out + 9 * n_out**2 + n_in * n_out + 6 * n_out
    assert parameter_count(AttributeClassifier()) == expected == 1_958_746


@pytest.mark.parametrize("size", [8, 16, 23, 64])
def test_shapes_whatever_the_images_size(size: int) -> None:
    model = tiny(n_blocks=2)
    x = images(2, size)
    assert model(x).shape == (2, 3) and model(x).dtype == torch.float32
    assert model.features(x).shape == (2, 32)
    shapes = [tuple(maps.shape) for maps in model.feature_maps(x)]
    assert shapes == [(2, 4, 8, 8), (2, 8, 4, 4), (2, 16, 2, 2), (2, 32, 1, 1)]


def test_logits_are_linear_in_the_features_and_divided_by_the_temperature() -> None:
    model = tiny()
    model.temperature.copy_(torch.tensor([1.0, 2.0, 4.0]))
    features = model.features(images())
    expected = features @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images()), expected / torch.tensor([1.0, 2.0, 4.0]))
    torch.testing.assert_close(model.probabilities(images()), 1 / (1 + (-model(images())).exp()))


def test_features_average_positions_by_weights() -> None:
    model = tiny(image_size=32)
    weights, norm = model.pool[0].weight[:, 0], model.pool[1]  # (F, 2, 2)
    averages = (model._activations(images(3, 32))[-1] * weights).sum(dim=(2, 3))
    expected = (averages - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    torch.testing.assert_close(model.features(images(3, 32)), expected)


def test_at_first_all_positions_weigh_alike() -> None:
    torch.manual_seed(0)
    model = AttributeClassifier(image_size=32, width=4, attributes="a").eval()
    expected = model._activations(images(3, 32))[-1].mean(dim=(2, 3))
    torch.testing.assert_close(model.features(images(3, 32)), expected, atol=1e-4, rtol=1e-4)


def test_a_block_by_hand() -> None:
    """The last stage, recomputed from its weights in the plainest way."""
    model = tiny().double()
    x = torch.rand(2, 16, 4, 4, dtype=torch.float64)
    block = model.stages[3][0]

    def normalised(y: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        shape = (1, -1, 1, 1)
        scale = norm.weight / (norm.running_var + 1e-5).sqrt()
        return (y - norm.running_mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)

    def conv(y: Tensor, weight: Tensor, stride: int) -> Tensor:
        unfolded = nn.functional.unfold(y, weight.shape[-1], padding=1, stride=stride)
        side = y.shape[-1] // stride
        return (weight.flatten(1) @ unfolded).view(len(y), -1, side, side)

    main = normalised(conv(x, block.main[0].weight, 2), block.main[1]).clamp(min=0)
    main = normalised(conv(main, block.main[3].weight, 1), block.main[4])
    mean = x.view(2, 16, 2, 2, 2, 2).mean(dim=(3, 5))  # (2, 16, 2, 2)
    short = torch.einsum("bihw,oi->bohw", mean, block.shortcut[1].weight[:, :, 0, 0])
    short = normalised(short, block.shortcut[2])
    torch.testing.assert_close(block(x), (main + short).clamp(min=0))


def test_feature_maps_have_unit_vectors() -> None:
    model = tiny()
    raw = model._activations(images())
    for maps, plain in zip(model.feature_maps(images()), raw, strict=True):
        length = plain.norm(dim=1, keepdim=True)
        seen = (length > 0.01).expand_as(maps)
        torch.testing.assert_close(maps[seen], (plain / length)[seen], atol=1e-4, rtol=1e-4)


def test_feature_maps_of_dead_channels_have_finite_gradients() -> None:
    model = tiny()
    for stage in model.stages:  # all outputs are 0
        nn.init.zeros_(stage[0].main[-1].weight)
        nn.init.constant_(stage[0].main[-1].bias, -1e3)
    x = images().requires_grad_()
    sum(maps.sum() for maps in model.feature_maps(x)).backward()  # type: ignore[union-attr]
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


@pytest.mark.parametrize("size", [8, 16, 40])
@pytest.mark.parametrize("output", ["forward", "features", "feature_maps"])
def test_gradient_with_respect_to_images(size: int, output: str) -> None:
    """Along a straight way between two images the gradients integrate to the difference."""
    model = tiny()
    start, end = images(2, size)
    n = 512
    way = (torch.arange(n) + 0.5).view(-1, 1, 1, 1) / n
    x = (start + way * (end - start)).requires_grad_()

    def values(y: Tensor) -> Tensor:
        found = getattr(model, output)(y)
        maps = [m.flatten(1) for m in (found if isinstance(found, list) else [found])]
        flat = torch.cat(maps, dim=1)
        return flat @ torch.linspace(-30, 30, flat.shape[1])  # (n,)

    (gradients,) = torch.autograd.grad(values(x).sum(), x)
    integral = float((gradients * (end - start)).sum() / n)
    with torch.no_grad():
        difference = float(values(end[None]) - values(start[None]))
    assert abs(difference) > 1e-3
    assert integral == pytest.approx(difference, rel=0.01, abs=1e-4)


def test_other_sizes_are_resized_as_pillow_does() -> None:
    model, x = tiny(), images(1, 40)
    planes = [Image.fromarray(plane.numpy()) for plane in x[0]]
    resized = [np.asarray(p.resize((16, 16), Image.Resampling.BILINEAR)) for p in planes]
    expected = model(torch.from_numpy(np.stack(resized))[None])
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)


def test_bf16_stays_near_and_answers_in_float32() -> None:
    model = tiny().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits, maps = model(images()), model.feature_maps(images())
    assert logits.dtype == torch.float32 and all(m.dtype == torch.float32 for m in maps)
    torch.testing.assert_close(logits, model(images()), atol=0.1, rtol=0.05)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 1, 16, 16), r"\(1, 1, 16, 16\); expected \(B, 3"),
        ((3, 16, 16), r"\(3, 16, 16\); expected \(B, 3"),
        ((1, 3, 16, 20), r"\(1, 3, 16, 20\); expected \(B, 3, H, H\)"),
    ],
)
def test_other_images_are_refused(shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(HublatentError, match=match):
        tiny()(torch.zeros(shape))


@pytest.mark.parametrize(
    "values",
    [
        {"image_size": 24}, {"image_size": 1 << 20}, {"width": 10**6}, {"width": 4.0},
        {"n_blocks": 0}, {"channels": 5}, {"dropout": 1.0}, {"attributes": ""},
        {"attributes": "a,,b"}, {"attributes": "a,a"}, {"attributes": "a, b"}, {"attributes": 7},
    ],
)  # fmt: skip
def test_absurd_arguments_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=f"{next(iter(values))} = "):
        tiny(**values)


def test_names_survive_joining() -> None:
    assert split_names(join_names(("a", "b_c"))) == ("a", "b_c")
    with pytest.raises(CheckpointError):
        join_names(("a,b", "b"))


# --- the folder -----------------------------------------------------------------------------------


def test_saving_and_loading(tmp_path: Path) -> None:
    model = tiny(n_blocks=2)
    model.temperature.copy_(torch.tensor([1.5, 2.0, 0.5]))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"] == "attribute-classifier"
    assert config["attributes"] == "Eyeglasses,Male,Smiling"
    loaded = AttributeClassifier.from_pretrained(tmp_path)
    assert not loaded.training and loaded.attribute_names == ("Eyeglasses", "Male", "Smiling")
    assert torch.equal(loaded(images()), model(images()))


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "nan"])
def test_loading_is_strict(tmp_path: Path, change: str) -> None:
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    if change == "missing":
        del weights["temperature"]
    elif change == "extra":
        weights["other"] = torch.zeros(1)
    elif change == "shape":
        weights["temperature"] = torch.ones(1)
    else:
        weights["temperature"] = torch.full((3,), float("nan"))
    save_file(weights, path)
    with pytest.raises(CheckpointError, match="other" if change == "extra" else "temperature"):
        AttributeClassifier.from_pretrained(tmp_path)


# --- variation of the photographs -----------------------------------------------------------------


def _matrix(factor: float = 1.0, shift: float = 0.0, sigma: float = 0.0, size: int = 16) -> Tensor:
    values = (torch.tensor([v]) for v in (factor, shift, sigma))
    return resampling(size, *values)[0]


def test_resampling_in_closed_form() -> None:
    x = torch.arange(16.0)
    torch.testing.assert_close(_matrix() @ x, x)
    torch.testing.assert_close(_matrix(factor=-1) @ x, x.flip(0))
    torch.testing.assert_close(_matrix(shift=2 / 16) @ x, (x - 2).clamp(min=0))
    torch.testing.assert_close(_matrix(factor=2) @ x, (x - 7.5) / 2 + 7.5)
    torch.testing.assert_close(_matrix(factor=0.5) @ x, ((x - 7.5) * 2 + 7.5).clamp(0, 15))
    torch.testing.assert_close(_matrix(1.3, 0.1, 2.0).sum(dim=1), torch.ones(16))


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_blur_is_scipys_away_from_the_border(sigma: float) -> None:
    x = images(1, 48)
    expected = gaussian_filter(x[0].numpy(), (0, sigma, sigma), truncate=8)
    found = blur(x, sigma)[0].numpy()
    np.testing.assert_allclose(found[:, 16:-16, 16:-16], expected[:, 16:-16, 16:-16], atol=1e-5)


def test_without_variation_half_of_the_images_are_mirrored() -> None:
    x = images(400)
    varied = distort(x, STILL, torch.Generator().manual_seed(0))
    plain = (varied - x).abs().amax(dim=(1, 2, 3)) < 1e-5
    mirrored = (varied - x.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert bool((plain ^ mirrored).all()) and 150 < int(plain.sum()) < 250


def test_variation_follows_its_generator() -> None:
    drawn = [
        distort(images(), Distortion(noise=0.1), torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_brightness_contrast_and_saturation() -> None:
    x = (images(50) + images(50).flip(3)) / 2  # mirroring changes nothing
    draws = torch.Generator().manual_seed(0)
    added = distort(x, replace(STILL, brightness=0.3), draws) - x
    per_image = added.mean(dim=(1, 2, 3))
    torch.testing.assert_close(added, per_image[:, None, None, None].expand_as(added))
    assert 0.2 < float(per_image.abs().max()) <= 0.3
    varied = distort(x, replace(STILL, contrast=0.5), draws)
    torch.testing.assert_close(varied.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)))
    ratio = varied.mean(dim=1).std(dim=(1, 2)) / x.mean(dim=1).std(dim=(1, 2))
    assert 1 / 1.5 <= float(ratio.min()) < 0.8 and 1.2 < float(ratio.max()) <= 1.5


# --- calibration and scores -----------------------------------------------------------------------


def _synthetic(n: int, temperature: float) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, 4, generator=draws)
    labels = torch.rand(n, 4, generator=draws) < (logits / temperature).sigmoid()
    return logits, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_of_synthetic_logits(temperature: float) -> None:
    logits, labels = _synthetic(20_000, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_temperature_minimises_the_cross_entropy() -> None:
    logits, labels = _synthetic(50, 2.0)
    truth = labels.numpy().ravel()

    def loss(log_t: float) -> float:
        return float(
            log_loss(truth, 1 / (1 + np.exp(-logits.double().numpy().ravel() / np.exp(log_t))))
        )

    best = np.log(fit_temperature(logits, labels))
    assert loss(best) < min(loss(best - 1e-3), loss(best + 1e-3))


@pytest.mark.parametrize("sign", [1, -1])
def test_no_temperature_fits_perfect_or_opposite_logits(sign: int) -> None:
    labels = torch.arange(20).view(10, 2) % 3 == 0
    with pytest.raises(DataError, match="No temperature fits"):
        fit_temperature(sign * (labels.float() * 2 - 1), labels)


def test_calibration_error_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.random(300), rng.random(300) < 0.3
    weights = rng.integers(0, 3, (4, 300)).astype(np.float32)
    for w, found in zip(weights, calibration_error(weights, p, labels), strict=True):
        # Written out, with each image repeated as often as it is drawn.
        q, y = np.repeat(p, w.astype(int)), np.repeat(labels, w.astype(int))
        expected = 0.0
        for b in range(15):
            inside = (q >= b / 15) & (q < (b + 1) / 15)
            if inside.any():
                expected += inside.mean() * abs(q[inside].mean() - y[inside].mean())
        assert found == pytest.approx(expected, abs=1e-6)


def test_calibration_error_of_extremes() -> None:
    once = np.ones((1, 10))
    labels = np.arange(10) < 5
    assert calibration_error(once, labels.astype(float), labels)[0] == 0
    assert calibration_error(once, (~labels).astype(float), labels)[0] == 1


def test_scores_of_held_out_images() -> None:
    logits, labels = _synthetic(200, 2.0)
    truth = labels.numpy().copy()
    truth[:, 3] = False
    identities = np.arange(200) // 4
    scores = held_out_scores(logits, truth, identities, ("a", "b", "c", "absent"))
    expected = [roc_auc_score(truth[:, k], logits[:, k]) for k in range(3)]
    for name, value in zip("abc", expected, strict=True):
        auroc = scores["attributes"][name]["auroc"]
        assert auroc["value"] == pytest.approx(value)
        assert auroc["low"] < auroc["value"] < auroc["high"]
        ece = scores["attributes"][name]["ece"]
        assert 0 <= ece["low"] < ece["value"] < ece["high"]
    assert scores["attributes"]["absent"]["auroc"] is None
    assert scores["attributes"]["absent"]["n_positive"] == 0
    assert scores["mean"]["auroc"]["value"] == pytest.approx(np.mean(expected))
    assert mean_auroc(logits, truth) == pytest.approx(np.mean(expected))
    json.dumps(scores, allow_nan=False)


# --- training -------------------------------------------------------------------------------------


def write_faces(folder: Path, partition: list[int]) -> Path:
    """A folder with a CSV: noisy pictures, bright ones "Pale", with a few mistakes."""
    rng = np.random.default_rng(0)
    rows = ["name,identity,partition,Pale,Random"]
    for i, part in enumerate(partition):
        pale = i % 2
        pixels = rng.integers(60, 160, (16, 16, 3)) + 60 * pale
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{i},{part},{pale ^ (i % 7 == 0)},{i // 2 % 2}")
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    partition = [0] * N_TRAIN + [1] * N_VALIDATION + [2] * N_TEST
    return write_faces(tmp_path_factory.mktemp("faces"), partition)


@pytest.fixture(scope="module")
def dataset(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    return load_dataset(faces, 16, cache=tmp_path_factory.mktemp("cache"), progress=False)


def trainer(
    dataset: FaceDataset, recipe: ClassifierRecipe = TINY, precision: str = "fp32"
) -> Trainer:
    settings: Any = SimpleNamespace(settings=recipe, precision=precision)
    return Trainer(settings, dataset, start_accelerator())


def arguments(faces: Path, out: Path, *options: str) -> Arguments:
    words = ["--data", str(faces), "--out", str(out), "--cache", str(out.parent / "cache")]
    return parse_command(Arguments, RECIPES, [*TINY_OPTIONS, *words, *options])


def _equal(ours: nn.Module, theirs: nn.Module) -> bool:
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_the_judge_is_another_network_trained_otherwise() -> None:
    serving, judge = RECIPES["attributes-celeba"], RECIPES["judge-celeba"]
    assert serving.seed != judge.seed and serving.width != judge.width
    assert serving.distortion != judge.distortion


def test_any_value_can_be_overridden() -> None:
    words = ["--recipe", "judge-celeba", "--data", "D", "--out", "O", "--blur", "0.1", "--ema", "0"]
    judge = RECIPES["judge-celeba"]
    expected = replace(judge, ema=0.0, distortion=replace(judge.distortion, blur=0.1))
    assert parse_command(Arguments, RECIPES, words).settings == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("learning_rate", 0.0), ("warm_up", 1.0), ("ema", 1.5), ("mixup", 1.1)],
)
def test_values_that_cannot_be_trained_with_are_named(name: str, value: float) -> None:
    with pytest.raises(DataError, match=f"--{name.replace('_', '-')} {value}; expected"):
        replace(TINY, **{name: value}).check()


def test_images_and_labels_are_mixed_alike() -> None:
    """Where an image's value is its label, it still is after mixing with its neighbour's."""
    labels = torch.rand(500, 1)
    flat = labels[:, :, None, None].expand(-1, 3, 2, 2)
    mixed, mixed_labels = mix(flat, labels, 0.4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed, mixed_labels[:, :, None, None].expand_as(mixed))
    share = (mixed_labels - labels) / (labels.roll(1, 0) - labels)
    assert share.min() >= 0 and share.max() < 0.401 and 0.15 < share.mean() < 0.25


def test_no_share_mixes_nothing() -> None:
    pair = images(4), torch.rand(4, 2)
    assert all(map(torch.equal, mix(*pair, 0.0, torch.Generator()), pair))


def test_only_training_images_are_seen(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, distortion=STILL, mixup=0.0, batch_size=8))
    known = dataset.batch(range(len(dataset)))  # type: ignore[arg-type]
    known = torch.stack([known, known.flip(3)], dim=1)  # (N, 2, C, H, W)
    seen = []
    for _ in range(3):
        batch, labels = ours.next_batch()
        nearest = (batch[:, None, None] - known).abs().mean(dim=(3, 4, 5)).amin(dim=2).argmin(dim=1)
        assert torch.equal(labels, torch.from_numpy(dataset.labels[nearest]).float())
        seen += nearest.tolist()
        ours.n_steps += 1
    assert sorted(seen) == list(range(N_TRAIN))


def test_the_first_prediction_is_the_prevalence(dataset: FaceDataset) -> None:
    model = trainer(dataset).published
    share = (dataset.labels[:N_TRAIN].sum(axis=0) + 1) / (N_TRAIN + 2)
    expected = torch.from_numpy(share).float().expand(4, -1)
    torch.testing.assert_close(model.probabilities(images(4)), expected)


def test_training_learns(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, epochs=40, learning_rate=0.01, dropout=0.0))
    losses = [ours.step()["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.05


def test_averaged_weights(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, ema=0.9))
    ours.step()
    expected = {k: v.clone() for k, v in ours.model.state_dict().items()}
    for _ in range(2):
        ours.step()
        for name, value in ours.model.state_dict().items():
            expected[name] = 0.9 * expected[name] + 0.1 * value
    for name, value in ours.published.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])


def test_measuring_the_precision_does_not_touch_the_run(dataset: FaceDataset) -> None:
    forced = trainer(dataset)
    measured = trainer(dataset, precision="auto")
    measured.choose_arithmetic(None)
    assert measured.precision in ("fp32", "bf16")
    assert _equal(measured.model, forced.model) and _equal(measured.published, forced.published)


def test_a_diverged_loss_is_refused_before_it_reaches_the_weights(dataset: FaceDataset) -> None:
    ours = trainer(dataset)
    ours.model.head.weight.data.fill_(float("inf"))
    before = {k: v.clone() for k, v in ours.model.named_parameters()}
    with pytest.raises(HublatentError, match="diverged after 0 images"):
        ours.step()
    assert all(torch.equal(v, before[k]) for k, v in ours.model.named_parameters())


def test_a_resumed_trainer_equals_an_unbroken_one(dataset: FaceDataset, tmp_path: Path) -> None:
    unbroken = trainer(dataset)
    for _ in range(6):
        unbroken.step()
    run = Run(tmp_path / "run")
    broken = trainer(dataset)
    for step in range(6):
        if step in (1, 4):
            run.save_state(broken.state())
            torch.manual_seed(99)
            broken, state = trainer(dataset, precision="auto"), run.load_state()
            assert state is not None
            broken.choose_arithmetic(state)
            broken.load_state(state)
            assert broken.precision == "fp32"
        broken.step()
    assert _equal(broken.model, unbroken.model) and _equal(broken.published, unbroken.published)


def test_what_a_run_leaves_behind(faces: Path, tmp_path: Path) -> None:
    results = train(arguments(faces, tmp_path / "run", "--export", str(tmp_path / "card")))
    assert results is not None
    names = {path.name for path in (tmp_path / "card").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md", "results.json"}
    stored = json.loads((tmp_path / "card" / "results.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(results))
    model = AttributeClassifier.from_pretrained(tmp_path / "card")
    assert model.attribute_names == ("Pale", "Random")
    assert model.temperature.tolist() == pytest.approx([results["temperature"]] * 2)
    data = load_dataset(faces, 16, cache=tmp_path / "cache", progress=False)
    test = data.indices("test")
    with torch.no_grad():
        logits = model(data.batch(test)).numpy()
    for k, name in enumerate(("Pale", "Random")):
        auroc = results["test"]["attributes"][name]["auroc"]["value"]
        assert auroc == pytest.approx(roc_auc_score(data.labels[test, k], logits[:, k]))
    assert results["validation"]["loss"] <= results["validation"]["loss_uncalibrated"]
    card = (tmp_path / "card" / "README.md").read_text(encoding="utf-8")
    assert "license: unknown\n" in card  # these pictures are no data set whose terms are known
    assert f"| {results['test']['mean']['auroc']['value']:.3f} (" in card
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2, 3]
    # Done already: the same command only judges and writes again, the same.
    again = train(arguments(faces, tmp_path / "run", "--export", str(tmp_path / "again")))
    assert again == results


def test_a_killed_run_ends_like_an_unbroken_one(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--epochs", "30", "--state-seconds", "0")
    killed, unbroken = (arguments(faces, tmp_path / n, *options) for n in ("killed", "unbroken"))
    log = tmp_path / "killed" / "log.jsonl"
    kill_after_lines(5, log, lambda: train(killed))
    train(killed)
    assert "resumes at" in capsys.readouterr().out
    train(unbroken)
    ours, theirs = (
        AttributeClassifier.from_pretrained(tmp_path / name / "model")
        for name in ("killed", "unbroken")
    )
    assert _equal(ours, theirs)
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == list(
        range(1, 31)
    )


@pytest.mark.parametrize("missing", [0, 1])
def test_data_without_training_or_validation_images(tmp_path: Path, missing: int) -> None:
    (tmp_path / "data").mkdir()
    write_faces(tmp_path / "data", [2 if part == missing else part for part in [0, 1, 2] * 8])
    with pytest.raises(DataError, match="a classifier needs both"):
        train(arguments(tmp_path / "data", tmp_path / "run"))


def test_a_run_with_other_settings_is_not_resumed(faces: Path, tmp_path: Path) -> None:
    train(arguments(faces, tmp_path / "run", "--seed", "0"))
    with pytest.raises(DataError, match="other settings"):
        train(arguments(faces, tmp_path / "run", "--seed", "1"))


def test_batches_too_small_for_their_statistics(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--batch-size 1 with 1 process"):
        train(arguments(faces, tmp_path / "run", "--batch-size", "1"))
