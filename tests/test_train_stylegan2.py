"""Training StyleGAN2: the objective, ADA and KID against plain truth, and exact resumption."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import training.train_stylegan2 as script
from hublatent.data import FaceDataset, load_dataset
from hublatent.errors import CheckpointError, DataError, HublatentError
from hublatent.hub import DISCRIMINATOR_NAME
from hublatent.models.stylegan2 import StyleGAN2
from hublatent.publish import check_folder
from tests.training_helpers import in_two_processes, kill_after_lines, read_log, write_faces
from training.cards import make_card
from training.train_stylegan2 import (
    RECIPES,
    Arguments,
    KernelDistance,
    StyleGAN2Recipe,
    Trainer,
    train,
)
from training.trainers.commands import parse_command
from training.trainers.loop import parameters_of, start_accelerator, step_generator
from training.trainers.run import Run
from training.trainers.stylegan2 import adversarial
from training.trainers.stylegan2.augment import (
    AdaptiveProbability,
    augment,
    random_colours,
    random_geometry,
    warp,
)
from training.trainers.stylegan2.kid import squared_mmd

N_TRAIN, N_VALIDATION = 20, 8
TINY = StyleGAN2Recipe(
    image_size=16, latent_dim=8, z_dim=8, mapping_layers=2, channel_base=64, channel_max=8,
    channel_min=4, batch_size=8, r1_every=3, path_length_every=2, path_length_from=16,
    ada_target=-0.5, ada_images=100, ada_from=0,
)  # fmt: skip
TINY_OPTIONS = [
    "--recipe", "stylegan2-celeba", "--image-size", "16", "--latent-dim", "8", "--z-dim", "8",
    "--mapping-layers", "2", "--channel-base", "64", "--channel-max", "8", "--channel-min", "4",
    "--batch-size", "8", "--r1-every", "3", "--path-length-every", "2", "--path-length-from", "16",
    "--ada-target", "-0.5", "--ada-images", "100", "--ada-from", "0", "--images", "160",
    "--log-every", "16", "--grid-every", "80", "--precision", "fp32",
]  # fmt: skip


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder, N_TRAIN, N_VALIDATION)
    return folder


@pytest.fixture(scope="module")
def dataset(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    return load_dataset(faces, 16, cache=tmp_path_factory.mktemp("cache"), progress=False)


def trainer(
    dataset: FaceDataset, recipe: StyleGAN2Recipe = TINY, state: dict[str, Any] | None = None
) -> Trainer:
    settings: Any = SimpleNamespace(settings=recipe, images=1000, kid_classifier=None)
    ours = Trainer(settings, dataset, start_accelerator())
    if state is not None:
        ours.load_state(state)
    return ours


def arguments(faces: Path, out: Path, *words: str) -> Arguments:
    where = ["--data", str(faces), "--out", str(out), "--cache", str(out.parent / "cache")]
    return parse_command(Arguments, RECIPES, [*TINY_OPTIONS, *where, *words])


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert not different


# --- the objective --------------------------------------------------------------------------------


def test_losses_are_the_negative_log_probabilities() -> None:
    fake, real = torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.5], [3.0]])
    torch.testing.assert_close(adversarial.generator_loss(fake), -fake.sigmoid().log().mean())
    expected = -(1 - fake.sigmoid()).log().mean() - real.sigmoid().log().mean()
    torch.testing.assert_close(adversarial.discriminator_loss(fake, real), expected)


def test_r1_of_a_linear_discriminator_is_its_squared_norm() -> None:
    weight = torch.randn(3, 4, 4)
    real = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = (real * weight).sum(dim=(1, 2, 3)).reshape(-1, 1)
    torch.testing.assert_close(adversarial.r1_penalty(real, logits), weight.square().sum())


def test_path_lengths_of_a_linear_generator() -> None:
    jacobian = torch.randn(3 * 4 * 4, 6)
    latents = torch.randn(5, 2, 6, requires_grad=True)
    images = (latents.sum(dim=1) @ jacobian.T).reshape(5, 3, 4, 4)
    noise = torch.randn(5, 3, 4, 4)
    expected = (noise.flatten(1) @ jacobian / 4).norm(dim=1)
    torch.testing.assert_close(adversarial.path_lengths(images, latents, noise), expected)


def test_the_average_has_the_half_life() -> None:
    keep = adversarial.average_keep(10**6, 32, half_life=10_000, ramp_up=0.05)
    assert keep ** (10_000 / 32) == pytest.approx(0.5)
    early = adversarial.average_keep(2_000, 32, half_life=10_000, ramp_up=0.05)
    assert early ** (100 / 32) == pytest.approx(0.5)
    assert adversarial.average_keep(0, 32, 10_000, 0.05) == 0


def test_averaging_moves_towards_the_model() -> None:
    average, model = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = 0.9 * average.weight.detach() + 0.1 * model.weight.detach()
    adversarial.update_average(average, model, 0.9)
    torch.testing.assert_close(average.weight.detach(), expected)


def test_lazy_regularisation_corrects_adam() -> None:
    group = adversarial.lazy_adam([nn.Parameter(torch.zeros(1))], 0.0025, 16).param_groups[0]
    assert group["lr"] == pytest.approx(0.0025 * 16 / 17)
    assert group["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert adversarial.lazy_adam([nn.Parameter(torch.zeros(1))], 1.0, 0).param_groups[0]["lr"] == 1


def test_w_noise_is_measured_in_standard_deviations_of_w() -> None:
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(4000, 3, 2, generator=draws) * torch.tensor([1.0, 5.0])
    moved = adversarial.perturbed(latents, 0.2, draws) - latents
    torch.testing.assert_close(moved.std(dim=0), torch.tensor([[0.2, 1.0]] * 3), rtol=0.1, atol=0)
    assert adversarial.perturbed(latents, 0.0, draws) is latents


def test_a_share_of_the_training_latents_mixes_two_styles() -> None:
    model = StyleGAN2(32, latent_dim=8, z_dim=8)
    draws = torch.Generator().manual_seed(0)
    latents = adversarial.draw_latents(model, 400, 0.7, draws).detach()
    changes = (latents[:, 1:] != latents[:, :-1]).any(dim=2).sum(dim=1)
    assert set(changes.tolist()) == {0, 1}
    assert 0.62 < (changes == 1).float().mean() < 0.78
    assert torch.unique(latents[:, 0], dim=0).shape[0] == 400


# --- adaptive augmentation ------------------------------------------------------------------------


def test_the_probability_follows_r_t() -> None:
    probability = AdaptiveProbability(target=0.6, ramp_images=1000)
    for _ in range(7):  # it moves after every fourth step
        probability.update(0.9, 10)
    assert probability.p == pytest.approx(0.04)
    copy = AdaptiveProbability(0.6, 1000)
    copy.load_state_dict(probability.state_dict())
    for ours in (probability, copy):
        ours.update(-10.0, 10)  # the mean of the four falls below the target
        assert ours.p == pytest.approx(0.0)
    for _ in range(4000):
        probability.update(1.0, 10)
    assert probability.p == 1


def test_augmentation_waits_until_there_is_something_to_know_by_heart(
    dataset: FaceDataset,
) -> None:
    waiting = trainer(dataset, replace(TINY, ada_target=-1.0, ada_from=4 * TINY.batch_size))
    for _ in range(4):
        waiting.step()
    assert waiting.probability.p == 0
    for _ in range(4):  # as many as one update takes
        waiting.step()
    assert waiting.probability.p > 0


def test_without_probability_images_stay_the_same() -> None:
    images = torch.randn(4, 3, 8, 8)
    assert augment(images, 0.0, torch.Generator()) is images


def test_turns_flips_and_whole_shifts_keep_every_pixel() -> None:
    images = torch.randn(4, 3, 8, 8)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    flip = torch.diag(torch.tensor([-1.0, 1, 1]))
    shift = torch.tensor([[1.0, 0, 2 * 2 / 8], [0, 1, 0], [0, 0, 1]])
    warped = warp(images, torch.stack([torch.eye(3), quarter, flip, shift]))
    assert torch.equal(warped[0], images[0])
    torch.testing.assert_close(warped[1], images[1].rot90(1, (1, 2)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(warped[2], images[2].flip(2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(warped[3][..., :6], images[3][..., 2:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("p", [0.05, 0.3, 1.0])
def test_share_of_images_that_keep_their_geometry(p: float) -> None:
    matrices = random_geometry(20_000, p, 64, torch.Generator().manual_seed(0))
    same = (matrices == torch.eye(3)).all(dim=2).all(dim=1).float().mean()
    # A flip is neutral in 1 of 2 cases, a quarter turn in 1 of 4, a shift of -8 to 8 pixels in
    # 1 of 16; five others never, two rotations together with probability p.
    expected = (1 - p / 2) * (1 - 3 * p / 4) * (1 - 15 * p / 16) ** 2 * (1 - p) ** 5
    assert float(same) == pytest.approx(expected, abs=0.01)


def test_geometry_follows_the_papers_distributions() -> None:
    matrices = random_geometry(20_000, 1.0, 64, torch.Generator().manual_seed(0))
    # Neither rotations, flips nor the area-preserving stretch change the determinant's size.
    area = matrices[:, :2, :2].det()
    assert float(area.abs().log2().std()) == pytest.approx(0.4, abs=0.02)  # scale 2^N(0, 0.2^2)
    assert float((area < 0).float().mean()) == pytest.approx(0.5, abs=0.02)


def test_colours_follow_the_papers_distributions() -> None:
    matrices = random_colours(20_000, 1.0, torch.Generator().manual_seed(0))
    grey = torch.tensor([1.0, 1, 1, 0]) / math.sqrt(3)
    along = matrices @ grey  # the grey axis is scaled by the contrast, and turned by a luma flip
    size = along[:, :3] @ grey[:3]
    torch.testing.assert_close(along[:, :3], size[:, None] * grey[:3], atol=1e-4, rtol=1e-4)
    assert float(size.abs().log2().std()) == pytest.approx(0.5, abs=0.02)
    assert float((size < 0).float().mean()) == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(matrices[:, 3], torch.eye(4)[3].expand(20_000, -1))
    neutral = random_colours(50, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(neutral, torch.eye(4).expand(50, -1, -1))


def test_augmentation_passes_gradients_and_follows_the_generator() -> None:
    images = torch.randn(8, 3, 16, 16, requires_grad=True)
    first, again = (augment(images, 0.6, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, images)
    (gradient,) = torch.autograd.grad(first.square().sum(), images)
    assert gradient.isfinite().all() and (gradient.abs().sum(dim=(1, 2, 3)) > 0).all()
    grey = augment(torch.randn(4, 1, 16, 16), 1.0, torch.Generator().manual_seed(0))
    assert grey.shape == (4, 1, 16, 16)


# --- the kernel distance --------------------------------------------------------------------------


def test_kid_equals_the_slow_sums() -> None:
    draws = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 3, generator=draws), torch.randn(7, 3, generator=draws) + 0.5

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float((a * b).sum()) / 3 + 1) ** 3

    within_x = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    within_y = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    between = [kernel(a, b) for a in x for b in y]
    expected = np.mean(within_x) + np.mean(within_y) - 2 * np.mean(between)
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-5)


def test_kid_is_unbiased_and_sees_a_shift() -> None:
    draws = torch.Generator().manual_seed(0)

    def estimates(shift: float, n: int, m: int) -> np.ndarray:
        pairs = [
            (torch.randn(n, 4, generator=draws), torch.randn(m, 4, generator=draws) + shift)
            for _ in range(400)
        ]
        return np.array([squared_mmd(x, y) for x, y in pairs])

    for n, m in ((4, 4), (30, 6)):
        same = estimates(0.0, n, m)
        assert abs(same.mean()) < 4 * same.std() / math.sqrt(len(same))
    shifted = estimates(1.0, 30, 30)
    assert shifted.mean() > 5 * estimates(0.0, 30, 30).std()


def test_kid_needs_two_images() -> None:
    with pytest.raises(HublatentError, match="got 1 and 4 images"):
        squared_mmd(torch.zeros(1, 2), torch.zeros(4, 2))


class Colours:
    """Features that any network could have: the mean colour."""

    def features(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def test_the_best_model_is_the_one_of_the_smallest_distance(
    faces: Path, dataset: FaceDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "load_feature_network", lambda folder, device: Colours())
    distances = iter([0.5, 0.2, 0.3, 0.1])
    monkeypatch.setattr(KernelDistance, "measure", lambda self: next(distances))
    train(arguments(faces, tmp_path / "run", "--kid-every", "40"))
    lines = [line for line in read_log(tmp_path / "run") if "kid" in line]
    assert [(line["images"], line["kid"]) for line in lines] == [
        (40, 0.5), (80, 0.2), (120, 0.3), (160, 0.1),
    ]  # fmt: skip
    state = Run(tmp_path / "run").load_state()
    assert state is not None and state["progress"]["best_kid"] == 0.1
    best = load_file(tmp_path / "run" / "best" / "model.safetensors")
    assert_equal(best, load_file(tmp_path / "run" / "latest" / "model.safetensors"))
    card = make_card.assemble(
        make_card.Arguments(tmp_path / "run", "best", tmp_path / "card", sample_rows=6)
    )
    check_folder(card)
    text = (card / "README.md").read_text(encoding="utf-8")
    assert "--images 160 " in text and "--channel-max 8" in text and "--no-noise" not in text
    assert "Kernel distance" in text and "0.1." in text
    assert str(tmp_path) not in text
    # A later, worse model does not replace it; a network with another floor starts afresh.
    distances = iter([0.4])
    train(arguments(faces, tmp_path / "run", "--kid-every", "40", "--images", "200"))
    assert_equal(best, load_file(tmp_path / "run" / "best" / "model.safetensors"))
    monkeypatch.setattr(Colours, "features", lambda self, images: images.std(dim=(2, 3)))
    distances = iter([0.9])
    train(arguments(faces, tmp_path / "run", "--kid-every", "40", "--images", "240"))
    assert load_file(tmp_path / "run" / "best" / "model.safetensors").keys() == best.keys()
    with pytest.raises(AssertionError):
        assert_equal(best, load_file(tmp_path / "run" / "best" / "model.safetensors"))


def test_the_distance_is_measured_on_fixed_samples(dataset: FaceDataset) -> None:
    ours = trainer(dataset)
    distance = KernelDistance(Colours(), ours, n_samples=12)
    assert distance.measure() == distance.measure()
    colours = Colours().features(dataset.batch(dataset.indices("validation")))
    draws = torch.Generator().manual_seed(TINY.seed + 1)
    samples = ours.average.decode(ours.average.sample_latents(12, generator=draws))
    assert distance.measure() == pytest.approx(squared_mmd(Colours().features(samples), colours))


# --- a step ---------------------------------------------------------------------------------------


def test_a_steps_gradients_are_those_of_two_separate_losses(
    dataset: FaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trainer(dataset, replace(TINY, r1_every=1000, path_length_weight=0.0))
    ours.n_steps = 1
    ours.probability.p = 0.4
    taken: list[list[Tensor | None]] = []

    def take(optimizer: torch.optim.Optimizer) -> None:
        taken.append([p.grad for p in parameters_of(optimizer)])
        optimizer.zero_grad(set_to_none=True)

    monkeypatch.setattr(ours, "apply", take)
    ours.step()
    ours.n_steps = 1
    draws = step_generator(0, 1, 0)
    real = augment(ours.next_batch(), 0.4, draws)
    w = adversarial.draw_latents(ours.generator, 8, 0.9, draws)
    fake = ours.generator.synthesize(w, "random", draws)
    fake = augment(fake, 0.4, draws)
    g_loss = F.softplus(-ours.discriminator(fake)).mean()
    d_loss = F.softplus(ours.discriminator(fake.detach())).mean()
    d_loss = d_loss + F.softplus(-ours.discriminator(real)).mean()
    expected = [
        torch.autograd.grad(d_loss, parameters_of(ours.d_optimizer)),
        torch.autograd.grad(g_loss, parameters_of(ours.g_optimizer)),
    ]
    for mine, plain in zip(taken, expected, strict=True):
        for one, other in zip(mine, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_regularisers_run_when_they_are_due(dataset: FaceDataset) -> None:
    ours = trainer(dataset)
    reports = [ours.step() for _ in range(7)]
    assert ["r1" in r for r in reports] == [True, False, False] * 2 + [True]
    assert ["path_length" in r for r in reports] == [False, False, True, False, True, False, True]
    assert ours.path_mean > 0 and ours.images_seen == 56
    assert ours.probability.p == pytest.approx(32 / 100)  # r_t is above -0.5 here


def test_without_noise_everything_follows_from_w(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, noise=False))
    for _ in range(5):
        ours.step()
    latents = ours.average.sample_latents(3)
    first, second = (ours.average.synthesize(latents, "random") for _ in range(2))
    assert torch.equal(first, second)
    noisy = trainer(dataset)
    noisy.step()
    strengths = [v for k, v in noisy.generator.state_dict().items() if "noise_strength" in k]
    assert all(float(s) != 0 for s in strengths)


def test_the_average_lags_behind_the_generator(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, ema_ramp_up=1.0, ema_half_life=8))
    expected = weights(ours.average)
    for step in range(3):
        ours.step()
        keep = 0.5 if step else 0.0
        for name, value in ours.generator.state_dict().items():
            expected[name] = keep * expected[name] + (1 - keep) * value
    for name, value in ours.average.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_epochs_show_every_image_once_and_mirror_half(dataset: FaceDataset) -> None:
    plain = trainer(dataset, replace(TINY, batch_size=10, flip=False))
    flipping = trainer(dataset, replace(TINY, batch_size=10))
    known = dataset.batch(plain.indices)
    seen: list[int] = []
    mirrored = 0
    for _ in range(4):
        originals, images = plain.next_batch(), flipping.next_batch()
        distance = (originals[:, None] - known).abs().amax(dim=(2, 3, 4))
        seen += distance.argmin(dim=1).tolist()
        mirrored += sum(torch.equal(i, o.flip(2)) for o, i in zip(originals, images, strict=True))
        plain.n_steps += 1
        flipping.n_steps += 1
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(N_TRAIN))
    assert seen[:20] != seen[20:]
    assert 8 <= mirrored <= 32


def test_training_samples_are_typical_for_generators_of_the_same_seed(dataset: FaceDataset) -> None:
    """Initial weights drawn from the plain seed would be the z of a sampling generator again."""
    ours = trainer(dataset, replace(TINY, latent_dim=64, z_dim=64))
    first, other = (
        ours.generator.sample_latents(64, generator=torch.Generator().manual_seed(s))
        for s in (TINY.seed, TINY.seed + 17)
    )
    assert float(first.square().mean() / other.square().mean()) == pytest.approx(1, abs=0.15)


def test_a_diverged_loss_is_refused_before_it_reaches_the_weights(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, learning_rate=1e30))
    with pytest.raises(HublatentError, match=r"diverged after \d+ images"):
        for _ in range(5):
            before = weights(ours.generator)
            ours.step()
    assert_equal(weights(ours.generator), before)


def test_generated_colours_approach_the_real_ones(dataset: FaceDataset) -> None:
    recipe = replace(TINY, batch_size=16, ada_target=1.0, path_length_weight=0.0, r1_gamma=0.1)
    ours = trainer(dataset, replace(recipe, ema_half_life=200))
    real = dataset.batch(ours.indices)

    def distance() -> float:
        draws = torch.Generator().manual_seed(1)
        samples = ours.average.decode(ours.average.sample_latents(200, generator=draws))
        return squared_mmd(F.avg_pool2d(samples, 8).flatten(1), F.avg_pool2d(real, 8).flatten(1))

    before = distance()
    for _ in range(100):
        ours.step()
    assert distance() < before / 2


# --- resumption -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [{}, {"w_noise": 0.1}, {"path_length_weight": 0.0}, {"noise": False}]
)
def test_a_resumed_trainer_equals_an_unbroken_one(
    dataset: FaceDataset, tmp_path: Path, values: dict[str, Any]
) -> None:
    recipe = replace(TINY, **values)
    unbroken, broken = trainer(dataset, recipe), trainer(dataset, recipe)
    run = Run(tmp_path / "run")
    for step in range(7):
        unbroken.step()
        if step in (1, 5):
            run.save_state(broken.state())
            broken = trainer(dataset, recipe, run.load_state())
        broken.step()
    for name in ("generator", "discriminator", "average"):
        assert_equal(weights(getattr(broken, name)), weights(getattr(unbroken, name)))
    assert broken.state()["probability"] == unbroken.state()["probability"]


def test_a_killed_run_ends_like_an_unbroken_one(faces: Path, tmp_path: Path) -> None:
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    saving = arguments(faces, killed, "--state-seconds", "0")
    for n_lines in (3, 7):
        kill_after_lines(n_lines, killed / "log.jsonl", lambda: train(saving))
    for whole in (saving, arguments(faces, unbroken)):
        train(whole)
    found, expected = (
        load_file(run / name) for name in ("state.safetensors",) for run in (killed, unbroken)
    )
    assert_equal(found, expected)
    assert read_log(killed) == read_log(unbroken)
    pictures = [sorted(p.name for p in run.glob("*.png")) for run in (killed, unbroken)]
    assert pictures[0] == pictures[1] == ["samples-00000080.png", "samples-00000160.png"]


def test_a_run_leaves_a_model_with_latent_statistics_and_can_be_prolonged(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(arguments(faces, run, "--images", "80"))
    output = capsys.readouterr().out
    assert "seed 0" in output and "No --kid-classifier" in output
    model = StyleGAN2.from_pretrained(run / "latest")
    w = model.sample_latents(2000, generator=torch.Generator().manual_seed(9))[:, 0]
    torch.testing.assert_close(model.latent_mean, w.mean(dim=0), atol=0.1, rtol=0.1)
    before = len(read_log(run))
    train(arguments(faces, run))
    assert "resumes at 80 images" in capsys.readouterr().out
    assert len(read_log(run)) == 2 * before
    assert StyleGAN2.from_pretrained(run / "latest").fingerprint() != model.fingerprint()


def test_the_learning_rate_falls_to_0_over_the_last_images(
    faces: Path, dataset: FaceDataset, tmp_path: Path
) -> None:
    falls = ("--learning-rate-falls-over", "80", "--log-every", "8")
    train(arguments(faces, tmp_path / "run", *falls))
    rates = {line["images"]: line["learning_rate"] for line in read_log(tmp_path / "run")}
    assert rates == {
        seen: pytest.approx(0.0025 * min(1.0, (160 - seen) / 80)) for seen in range(8, 161, 8)
    }
    # The optimisers take it: with 1 / 10 of the rate left, a step moves the weights by as little.
    moved = {}
    for left in (80, 8):
        ours = trainer(dataset, replace(TINY, learning_rate_falls_over=80))
        before = ours.generator.const.detach().clone()
        ours.arguments.images = left
        ours.step()
        moved[left] = (ours.generator.const - before).abs().max().item()
    assert moved[8] == pytest.approx(moved[80] / 10, rel=1e-2)


def test_the_generator_may_learn_at_a_share_of_the_discriminators_rate(
    dataset: FaceDataset,
) -> None:
    moved = {}
    for share in (1.0, 0.1):
        ours = trainer(dataset, replace(TINY, generator_share=share))
        weights = ours.generator.const, ours.discriminator.out.weight
        before = [weight.detach().clone() for weight in weights]
        ours.step()
        moved[share] = [(w - b).abs().max().item() for w, b in zip(weights, before, strict=True)]
    of_generator, of_discriminator = zip(*moved.values(), strict=True)
    assert of_generator[1] == pytest.approx(of_generator[0] / 10, rel=1e-2)
    assert of_discriminator[1] == pytest.approx(of_discriminator[0])


def test_a_run_killed_while_its_learning_rate_falls_ends_like_an_unbroken_one(
    faces: Path, tmp_path: Path
) -> None:
    """It is prolonged, slows down and gets another half-life, all on resuming."""
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    for run in (killed, unbroken):
        train(arguments(faces, run, "--images", "64"))
        settings = json.loads((run / "settings.json").read_text())
        del settings["learning_rate_falls_over"]  # a run of a version that had none
        (run / "settings.json").write_text(json.dumps(settings))
    slow = ("--learning-rate-falls-over", "80", "--ema-half-life", "50", "--state-seconds", "0")
    kill_after_lines(8, killed / "log.jsonl", lambda: train(arguments(faces, killed, *slow)))
    train(arguments(faces, killed, *slow))
    train(arguments(faces, unbroken, *slow))
    found, expected = (load_file(run / "state.safetensors") for run in (killed, unbroken))
    assert_equal(found, expected)
    assert read_log(killed) == read_log(unbroken)
    settings = json.loads((killed / "settings.json").read_text())
    assert (settings["learning_rate_falls_over"], settings["ema_half_life"]) == (80, 50)
    with pytest.raises(DataError, match=r"learning_rate 0\.0025 -> 0\.001"):
        train(arguments(faces, killed, *slow, "--learning-rate", "0.001"))


def test_another_run_is_gone_on_from_at_another_pace(faces: Path, tmp_path: Path) -> None:
    """Its learning rate, its fall and the half-life of the average are the new run's."""
    train(arguments(faces, tmp_path / "first", "--images", "80"))
    start = ("--start-from", str(tmp_path / "first"), "--learning-rate", "1e-30")
    pace = ("--ema-half-life", "0", "--learning-rate-falls-over", "16", "--log-every", "8")
    train(arguments(faces, tmp_path / "second", *start, *pace, "--images", "96"))
    states = [Run(tmp_path / name).load_state() for name in ("first", "second")]
    first, second = (state for state in states if state is not None)
    assert_equal(second["generator"], first["generator"])  # it stood still
    assert torch.equal(second["average"]["const"], second["generator"]["const"])  # no memory
    assert not torch.equal(first["average"]["const"], first["generator"]["const"])
    assert [line["learning_rate"] for line in read_log(tmp_path / "second")] == [5e-31, 0.0]


def test_another_run_can_be_fine_tuned_with_noise_on_w(faces: Path, tmp_path: Path) -> None:
    train(arguments(faces, tmp_path / "first", "--images", "80"))
    options = ("--start-from", str(tmp_path / "first"), "--w-noise", "0.1", "--images", "96")
    train(arguments(faces, tmp_path / "second", *options))
    assert [line["images"] for line in read_log(tmp_path / "second")] == [96]
    with pytest.raises(DataError, match="w_noise"):
        train(arguments(faces, tmp_path / "second", "--images", "96"))


def test_no_discriminator_goes_on_with_another_blur_than_it_learned_with(
    faces: Path, tmp_path: Path
) -> None:
    train(arguments(faces, tmp_path / "first", "--images", "16"))
    for number, folder in enumerate((tmp_path / "first", tmp_path / "first" / "latest")):
        options = ("--start-from", str(folder), "--images", "32")
        with pytest.raises(CheckpointError, match=r"not blur.*--no-discriminator-blurs"):
            out = tmp_path / f"refused-{number}"
            train(arguments(faces, out, *options, "--discriminator-blurs"))
        train(arguments(faces, tmp_path / f"taken-{number}", *options))
    with pytest.raises(DataError, match="discriminator_blurs"):
        train(arguments(faces, tmp_path / "first", "--images", "32", "--discriminator-blurs"))


# --- several processes ----------------------------------------------------------------------------


def test_a_generator_without_discriminator_gets_one_that_first_learns_alone(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(arguments(faces, tmp_path / "first", "--images", "16"))
    published = tmp_path / "first" / "latest"
    (published / DISCRIMINATOR_NAME).unlink()
    start = ("--start-from", str(published), "--start-images", "80", "--discriminator-alone", "16")
    train(arguments(faces, tmp_path / "run", *start, "--images", "96"))
    assert "learns alone for the first 16 images" in capsys.readouterr().out
    old, new = (
        StyleGAN2.from_pretrained(folder) for folder in (published, tmp_path / "run/latest")
    )
    assert_equal(weights(old), weights(new))
    assert (tmp_path / "run" / "latest" / DISCRIMINATOR_NAME).is_file()
    train(arguments(faces, tmp_path / "run", *start, "--images", "104"))  # and goes on from there
    assert not torch.equal(StyleGAN2.from_pretrained(tmp_path / "run/latest").const, old.const)
    # Whoever starts from what this run left waits for nothing, and its card says so.
    start = ("--start-from", str(tmp_path / "run" / "latest"), "--images", "8")
    train(arguments(faces, tmp_path / "next", *start))
    assert "learns alone" not in capsys.readouterr().out
    out = tmp_path / "cards" / "tiny"
    make_card.assemble(make_card.Arguments(tmp_path / "next", "latest", out))
    assert "for fine-tuning" in (out / "README.md").read_text(encoding="utf-8")
    assert (out / DISCRIMINATOR_NAME).is_file()


def _train_as_one_process(faces: Path, out: Path) -> None:
    """One of two processes: a few steps, then the first writes both processes' weights."""
    data = load_dataset(faces, 16, cache=out / "cache", progress=False)
    ours = trainer(data)
    assert ours.accelerator.num_processes == 2
    reports = [ours.step() for _ in range(4)]
    path = out / f"process-{ours.accelerator.process_index}.safetensors"
    extra = {"reports": torch.tensor([[r["d_loss"], r["r_t"]] for r in reports])}
    save_file({**weights(ours.generator), **extra}, path)
    ours.accelerator.wait_for_everyone()


def test_two_processes_train_one_model(faces: Path, tmp_path: Path) -> None:
    in_two_processes(lambda: _train_as_one_process(faces, tmp_path))
    first, second = (load_file(tmp_path / f"process-{i}.safetensors") for i in (0, 1))
    # They see different images and draw different noise: only averaged gradients keep them equal.
    assert_equal(first, second)
    in_two_processes(lambda: train(arguments(faces, tmp_path / "run", "--images", "32")))
    assert [line["images"] for line in read_log(tmp_path / "run")] == [16, 32]


# --- the command line and bad input ---------------------------------------------------------------


def test_any_recipe_value_can_be_overridden() -> None:
    words = ["--recipe", "stylegan2-celeba", "--data", "D", "--out", "O"]
    changes = ["--r1-gamma", "7", "--no-flip", "--w-noise", "0.05", "--images", "9"]
    parsed = parse_command(Arguments, RECIPES, words + changes)
    expected = replace(RECIPES["stylegan2-celeba"], r1_gamma=7.0, flip=False, w_noise=0.05)
    assert parsed.settings == expected and parsed.images == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0), ("learning_rate", 0.0), ("r1_gamma", -1.0), ("style_mixing", 1.5),
        ("ada_target", 2.0), ("w_noise", -0.1), ("r1_every", 0), ("ada_images", 0),
        ("learning_rate", math.nan),
    ],
)  # fmt: skip
def test_values_that_cannot_be_trained_with_are_named(name: str, value: float) -> None:
    with pytest.raises(DataError, match=f"--{name.replace('_', '-')} {value}; expected"):
        replace(TINY, **{name: value}).check()


def test_a_run_to_start_from_must_be_one_of_the_same_network(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no state"):
        train(arguments(faces, tmp_path / "run", "--start-from", str(tmp_path / "nothing")))
    train(arguments(faces, tmp_path / "other", "--images", "8", "--channel-min", "2"))
    for folder in ("other", "other/latest"):  # a run, and a model
        with pytest.raises(DataError, match=r"another network: channel_min 2 \(recipe: 4\)"):
            train(arguments(faces, tmp_path / "run", "--start-from", str(tmp_path / folder)))


def test_a_fine_tuned_model_says_what_it_started_from(faces: Path, tmp_path: Path) -> None:
    train(arguments(faces, tmp_path / "first", "--images", "8"))
    words = ("--start-from", str(tmp_path / "first"), "--w-noise", "0.2", "--images", "16")
    train(arguments(faces, tmp_path / "second", *words))
    command = json.loads((tmp_path / "second" / "results.json").read_text())["command"]
    assert "first" in command.split("--start-from ")[1].split()[0]
    assert "--w-noise 0.2" in command and str(tmp_path) not in command
    found = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("first", "second")]
    assert [r["earlier_commands"] for r in found] == [[], [found[0]["command"]]]


def test_a_finished_runs_command_has_its_whole_length(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distances = iter([0.3, 0.1, 0.2])  # the second of three is the best
    monkeypatch.setattr(KernelDistance, "measure", lambda _: next(distances))
    monkeypatch.setattr(script, "load_feature_network", lambda *_: Colours())
    words = ("--images", "24", "--kid-every", "8", "--learning-rate-falls-over", "16")
    train(arguments(faces, tmp_path / "run", *words))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["images_seen"] == 16 and "--images 24" in results["command"]


def test_other_settings_are_refused_and_named(faces: Path, tmp_path: Path) -> None:
    train(arguments(faces, tmp_path / "run", "--images", "8"))
    with pytest.raises(DataError, match=r"r1_gamma 1\.0 -> 5\.0"):
        train(arguments(faces, tmp_path / "run", "--images", "8", "--r1-gamma", "5"))


def test_a_missing_classifier_costs_one_sentence(faces: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "classifier")
    with pytest.raises(HublatentError, match="classifier"):
        train(arguments(faces, tmp_path / "run", "--kid-classifier", folder))


def test_the_bad_option_ends_with_exit_code_2(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        arguments(faces, tmp_path / "run", "--r1-gamma", "much")
    assert exit_.value.code == 2
