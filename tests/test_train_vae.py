"""Training VAEs: exact resumption, several processes, what a run leaves behind, and bad input."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import hublatent
from hublatent.data import FaceDataset, load_dataset
from hublatent.errors import DataError, HublatentError, exit_on_user_error
from hublatent.evaluation.rate import decompose_kl, kl_divergence
from tests.training_helpers import ENVIRONMENT, PROJECT, in_two_processes, kill_after_lines, launch
from training.objectives import OBJECTIVES, Batch
from training.objectives.beta_tcvae import ESTIMATORS, importance_weights
from training.objectives.objective import (
    calibrated_reconstruction,
    gaussian_reconstruction,
    sample_posterior,
)
from training.recipes import RECIPES, VAERecipe
from training.train_vae import Arguments, Trainer, preview, train
from training.trainers.commands import parse_command
from training.trainers.loop import Journal, parameter_count, start_accelerator, step_generator
from training.trainers.run import Run, read_settings

N_TRAIN, N_VALIDATION, N_TEST = 24, 8, 8
TINY = VAERecipe(
    "btcvae", image_size=16, latent_dim=4, width=4, max_width=8, n_stages=2,
    objective="beta-tcvae", beta=2.0, epochs=3, batch_size=10,
)  # fmt: skip
# The same recipe, on the command line. fp32 and one layout: a stopwatch would choose between them.
TINY_OPTIONS = [
    "--recipe", "btcvae-celeba", "--image-size", "16", "--latent-dim", "4", "--width", "4",
    "--max-width", "8", "--n-stages", "2", "--epochs", "3", "--batch-size", "10",
    "--precision", "fp32", "--memory-format", "channels-last",
]  # fmt: skip


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CSV: smooth coloured pictures."""
    folder = tmp_path_factory.mktemp("faces")
    generator = np.random.default_rng(0)
    partition = [0] * N_TRAIN + [1] * N_VALIDATION + [2] * N_TEST
    rows = ["name,identity,partition,Smiling"]
    for i, part in enumerate(partition):
        corners = generator.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        name = f"{i:03d}.png"
        Image.fromarray(corners).resize((16, 16), Image.Resampling.BILINEAR).save(folder / name)
        rows.append(f"{name},{i},{part},{i % 2}")
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def dataset(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    return load_dataset(faces, 16, cache=tmp_path_factory.mktemp("cache"), progress=False)


def arguments(faces: Path, out: Path, **values: Any) -> Arguments:
    words = ["--data", str(faces), "--out", str(out), "--cache", str(out.parent / "cache")]
    parsed = parse_command(Arguments, RECIPES, [*TINY_OPTIONS, *words])
    return replace(parsed, settings=replace(parsed.settings, **values))


def trainer(
    dataset: FaceDataset,
    recipe: VAERecipe = TINY,
    memory_format: str = "contiguous",
    state: dict[str, Any] | None = None,
) -> Trainer:
    asked = {"precision": "fp32", "memory_format": memory_format}
    settings: Any = SimpleNamespace(settings=recipe, state_seconds=60.0, **asked)
    ours = Trainer(settings, dataset, start_accelerator())
    ours.choose_arithmetic(state)
    if state is not None:
        ours.load_state(state)
    return ours


# --- recipes and the command line -----------------------------------------------------------------


def test_the_small_recipes_differ_in_nothing_but_the_objective() -> None:
    grid = [name for name in RECIPES if name.startswith("grid-")]
    plain = {"architecture": "vae", "objective": "beta-vae", "beta": 1.0, "gamma": 1.0}
    for small in (("betavae-celeba", "btcvae-celeba"), grid):
        assert len({replace(RECIPES[name], **plain) for name in small}) == 1
    assert RECIPES["betavae-celeba"].beta == RECIPES["btcvae-celeba"].beta >= 2
    assert RECIPES["grid-vae-1"].beta == RECIPES["vae-celeba"].beta == 1
    assert RECIPES["grid-vae-1"].objective == "beta-vae"


def test_parameter_counts() -> None:
    counts = {name: parameter_count(recipe.build()) for name, recipe in RECIPES.items()}
    assert counts == {
        "vae-celeba": 6_204_275,
        "betavae-celeba": 1_299_487,
        "btcvae-celeba": 1_299_487,
        "factorvae-celeba": 1_299_487,
        "lsavae-celeba": 1_299_487,
        "ae-celeba": 1_082_271,
        "sprites-betavae": 363_287,
        "sprites-btcvae": 363_287,
        "sprites-factorvae": 363_287,
        "paper-vae": 6_297_699,
        **dict.fromkeys(("paper-betavae", "paper-btcvae-as-coded", "paper-btcvae"), 12_923_203),
        **{name: 810_847 for name in RECIPES if name.startswith("grid-")},
    }


def test_any_recipe_value_can_be_overridden() -> None:
    words = ["--recipe", "betavae-celeba", "--data", "D", "--out", "O"]
    changes = ["--beta", "7", "--no-flip", "--likelihood", "gaussian"]
    parsed = parse_command(Arguments, RECIPES, words + changes)
    expected = replace(RECIPES["betavae-celeba"], beta=7.0, flip=False, likelihood="gaussian")
    assert parsed.settings == expected
    assert (parsed.data, parsed.out, parsed.recipe) == ("D", Path("O"), "betavae-celeba")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--recipe", "btcvae-celebs"], "Did you mean btcvae-celeba"),
        (["--recipe=tcvae"], "Did you mean paper-btcvae"),
        (["--data", "x"], "--recipe is missing. Available: ae-celeba, betavae-celeba"),
    ],
)
def test_unknown_recipes_get_the_nearest_names(words: list[str], match: str) -> None:
    with pytest.raises(DataError, match=match):
        parse_command(Arguments, RECIPES, words)


@pytest.mark.parametrize("words", [["--beta", "x"], ["--objective", "gan"], ["--unknown", "1"], []])
def test_bad_options_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_command(Arguments, RECIPES, ["--recipe", "vae-celeba", *words])
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("learning_rate", 0.0), ("beta", -1.0), ("warm_up", 1.0), ("ema", 1.5)],
)
def test_values_that_cannot_be_trained_with_are_named(name: str, value: float) -> None:
    with pytest.raises(DataError, match=f"--{name.replace('_', '-')} {value}; expected"):
        replace(TINY, **{name: value}).check()


# --- one step -------------------------------------------------------------------------------------


def _terms(dataset: FaceDataset, recipe: VAERecipe) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    """What the objective says of a batch, and the same batch's passes by hand."""
    torch.manual_seed(0)
    model = recipe.build()
    objective = OBJECTIVES[recipe.objective](recipe, 100, recipe.latent_dim, torch.device("cpu"))
    images = dataset.batch(range(10))  # type: ignore[arg-type]
    batch = Batch(images, torch.zeros(10, 0), torch.Generator().manual_seed(1), images_seen=50)
    terms = objective.terms(model, batch)
    mean, log_variance = model.encode_distribution(images)
    z = sample_posterior(mean, log_variance, torch.Generator().manual_seed(1))
    return terms, (mean, log_variance, z, model.decode_unclamped(z), images)


def test_beta_vae_minimises_its_objective(dataset: FaceDataset) -> None:
    recipe = replace(TINY, objective="beta-vae", beta=3.0, likelihood="gaussian", sigma=0.5)
    terms, (mean, log_variance, _, decoded, images) = _terms(dataset, recipe)
    rec = gaussian_reconstruction(decoded, images, 0.5)
    kl = kl_divergence(mean, log_variance)
    torch.testing.assert_close(terms["loss"], rec + 3 * kl)
    torch.testing.assert_close(terms["mse"], ((decoded - images) / 2).square().mean())


def test_capacity_vae_minimises_its_objective(dataset: FaceDataset) -> None:
    recipe = replace(
        TINY, objective="capacity-vae", capacity=20.0, capacity_images=200, capacity_weight=9.0
    )
    terms, (mean, log_variance, _, decoded, images) = _terms(dataset, recipe)
    rec = calibrated_reconstruction(decoded, images)
    kl = kl_divergence(mean, log_variance)
    torch.testing.assert_close(terms["loss"], rec + 9 * (kl - 20 * 50 / 200).abs())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_beta_tcvae_minimises_its_objective(dataset: FaceDataset, estimator: str) -> None:
    recipe = replace(TINY, beta=6.0, alpha=0.5, gamma=2.0, estimator=estimator)
    terms, (mean, log_variance, z, decoded, images) = _terms(dataset, recipe)
    rec = calibrated_reconstruction(decoded, images)
    weights = importance_weights(10, 100, estimator)
    mi, tc, dw = decompose_kl(z, mean, log_variance, weights)
    torch.testing.assert_close(terms["loss"], rec + 0.5 * mi + 6 * tc + 2 * dw)


def test_penalised_tc_minimises_its_objective(dataset: FaceDataset) -> None:
    recipe = replace(TINY, objective="penalised-tc", beta=6.0, estimator="mws")
    terms, (mean, log_variance, _, decoded, images) = _terms(dataset, recipe)
    rec = calibrated_reconstruction(decoded, images)
    draws = torch.Generator().manual_seed(1)
    torch.randn(mean.shape, generator=draws)  # of the latent that is decoded
    anew = sample_posterior(mean, log_variance, draws)
    weights = importance_weights(10, 100, "mws")
    _, tc, _ = decompose_kl(anew, mean, log_variance, weights)
    kl = kl_divergence(mean, log_variance)
    torch.testing.assert_close(terms["loss"], rec + kl + 5 * tc)


def test_a_constant_rate_stays_where_the_warm_up_left_it(dataset: FaceDataset) -> None:
    recipe = replace(TINY, epochs=100, warm_up=0.1, batch_size=24, schedule="constant")
    ours = trainer(dataset, recipe)
    rates = []
    for step in (0, 5, 10, 60, 99):
        ours.n_steps = step
        rates.append(ours.learning_rate())
    assert rates[0] < rates[1] < rates[2] == rates[3] == rates[4] == pytest.approx(1e-3)


def test_learning_rate_warms_up_and_falls_to_zero(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, epochs=100, warm_up=0.1, batch_size=24))
    rates = []
    for step in range(100):
        ours.n_steps = step
        rates.append(ours.learning_rate())
    assert ours.n_total_steps == 100
    assert rates[:10] == pytest.approx([1e-3 * (i + 1) / 11 for i in range(10)])
    assert rates[10] == pytest.approx(1e-3) and rates[55] == pytest.approx(0.5e-3)
    assert 0 < rates[99] < 1e-6 and rates[10:] == sorted(rates[10:], reverse=True)


def test_epochs_show_every_image_once_in_another_order(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, batch_size=8, flip=False))
    known = dataset.batch(ours.indices)
    orders = []
    for _ in range(2):
        seen = []
        for _ in range(3):
            batch = ours.batch(ours.draws()).images
            distance = (batch[:, None] - known).abs().amax(dim=(2, 3, 4))
            seen += distance.argmin(dim=1).tolist()
            assert distance.amin(dim=1).max() == 0
            ours.n_steps += 1
        assert sorted(seen) == list(range(N_TRAIN))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_half_of_the_images_are_mirrored(dataset: FaceDataset) -> None:
    plain = trainer(dataset, replace(TINY, batch_size=24, flip=False))
    flipping = trainer(dataset, replace(TINY, batch_size=24))
    mirrored = 0
    for _ in range(10):
        originals, images = (
            plain.batch(plain.draws()).images,
            flipping.batch(flipping.draws()).images,
        )
        for original, image in zip(originals, images, strict=True):
            mirrored += int(torch.equal(image, original.flip(2)))
            assert torch.equal(image, original) or torch.equal(image, original.flip(2))
        plain.n_steps += 1
        flipping.n_steps += 1
    assert 0.4 < mirrored / 240 < 0.6


def test_training_lowers_the_loss(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, epochs=40))
    losses = [ours.step()["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 30


def test_averaged_weights(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, ema=0.9))
    ours.step()
    expected = {k: v.clone() for k, v in ours.model.state_dict().items()}
    for _ in range(2):
        ours.step()
        for name, value in ours.model.state_dict().items():
            if value.is_floating_point():
                expected[name] = 0.9 * expected[name] + 0.1 * value
    for name, value in ours.published.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])


def test_a_diverged_loss_is_refused_before_it_reaches_the_weights(dataset: FaceDataset) -> None:
    ours = trainer(dataset, replace(TINY, learning_rate=1e30, warm_up=0.0))
    with pytest.raises(HublatentError, match=r"diverged after \d+ images"):
        for _ in range(5):
            before = {k: v.clone() for k, v in ours.model.named_parameters()}
            ours.step()
    assert all(torch.equal(v, before[k]) for k, v in ours.model.named_parameters())


def test_arithmetic_is_measured_without_touching_the_run(
    dataset: FaceDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    forced = trainer(dataset)
    measured = trainer(dataset)
    measured.arguments.precision = measured.arguments.memory_format = "auto"
    measured.choose_arithmetic(None)
    assert measured.precision in ("fp32", "bf16")
    assert measured.memory_format in ("contiguous", "channels-last")
    printed = capsys.readouterr().out
    assert "fp32 contiguous" in printed and "bf16 channels-last" in printed
    assert _equal_weights(measured.model.state_dict(), forced.model.state_dict())


def test_a_trainer_that_reads_no_number_each_step_learns_the_same(
    dataset: FaceDataset, tmp_path: Path
) -> None:
    plain, deferred = trainer(dataset), trainer(dataset)
    deferred.reads_each_step = False
    deferred.pixels = torch.from_numpy(dataset.images[deferred.indices])
    logs = []
    for name, ours in (("plain", plain), ("deferred", deferred)):
        (tmp_path / name).mkdir()
        journal = Journal(Run(tmp_path / name), ours)
        for _ in range(4):
            journal.after_step(ours.step())
        journal.log()
        logs += _log(tmp_path / name)[-1:]
    assert _equal_weights(deferred.model.state_dict(), plain.model.state_dict())
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-5)


def test_a_diverged_sum_is_refused_before_a_state_is_written(
    dataset: FaceDataset, tmp_path: Path
) -> None:
    ours = trainer(dataset, replace(TINY, learning_rate=1e30, warm_up=0.0))
    ours.reads_each_step = False
    journal = Journal(Run(tmp_path), ours)
    for _ in range(2):
        journal.after_step(ours.step())
    with pytest.raises(HublatentError, match="diverged after 20 images"):
        journal.save_state()
    assert not list(tmp_path.glob("state*"))


# --- resumption -----------------------------------------------------------------------------------


def _equal_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())


@pytest.mark.parametrize("memory_format", ["contiguous", "channels-last"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ema": 0.9},
        {"objective": "capacity-vae"},
        {"architecture": "factorvae", "objective": "factorvae", "discriminator_width": 8},
        {"architecture": "autoencoder", "objective": "autoencoder"},
        {"architecture": "lsavae", "objective": "lsavae", "style_dim": 3},
    ],
)
def test_a_resumed_trainer_equals_an_unbroken_one(
    dataset: FaceDataset, tmp_path: Path, memory_format: str, values: dict[str, Any]
) -> None:
    recipe = replace(TINY, **values)
    unbroken = trainer(dataset, recipe, memory_format)
    for _ in range(6):
        unbroken.step()
    run = Run(tmp_path / "run")
    broken = trainer(dataset, recipe, memory_format)
    for step in range(6):
        if step in (1, 4):
            run.save_state(broken.state())
            broken = trainer(dataset, recipe, "auto", run.load_state())
            assert broken.memory_format == memory_format
        broken.step()
    assert _equal_weights(broken.published.state_dict(), unbroken.published.state_dict())


def _command(faces: Path, out: Path, *options: str) -> list[str]:
    script = str(PROJECT / "training" / "train_vae.py")
    where = ["--data", str(faces), "--out", str(out), "--cache", str(out.parent / "cache")]
    return [sys.executable, script, *TINY_OPTIONS, *where, *options]


def test_a_killed_run_ends_like_an_unbroken_one(faces: Path, tmp_path: Path) -> None:
    options = ("--epochs", "40", "--state-seconds", "0", "--ema", "0.9")
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"

    def run(out: Path) -> None:
        train(parse_command(Arguments, RECIPES, _command(faces, out, *options)[2:]))

    for n_lines in (5, 20):
        kill_after_lines(n_lines, killed / "log.jsonl", lambda: run(killed))
        assert not (killed / "model").exists()
    for out in (killed, unbroken):
        run(out)
    weights = [load_file(run / "model" / "model.safetensors") for run in (killed, unbroken)]
    assert _equal_weights(*weights)
    assert _without_times(_log(killed)) == _without_times(_log(unbroken))


def _log(run: Path) -> list[dict[str, Any]]:
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _without_times(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in log]


# --- a whole run ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(arguments(faces, out))
    return out


def test_a_run_leaves_a_loadable_model_with_its_latent_statistics(
    finished: Path, dataset: FaceDataset
) -> None:
    model = hublatent.load(finished / "model")
    assert isinstance(model, hublatent.BetaTCVAE) and not model.training
    with torch.no_grad():
        latents = model.encode(dataset.batch(np.arange(N_TRAIN + N_VALIDATION))).numpy()
    np.testing.assert_allclose(model.latent_mean.numpy(), latents.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(
        model.latent_covariance.numpy(), np.cov(latents, rowvar=False), rtol=1e-4, atol=1e-6
    )


def test_results_are_those_of_the_saved_model(finished: Path, dataset: FaceDataset) -> None:
    results = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    model = hublatent.load(finished / "model")
    images = dataset.batch(np.arange(N_TRAIN + N_VALIDATION, len(dataset)))
    with torch.no_grad():
        mean, log_variance = model.encode_distribution(images)
        decoded = model.decode(mean)
    pixels = [(t.double().numpy() + 1) / 2 for t in (decoded, images)]
    assert results["test"]["mse"] == pytest.approx(np.mean((pixels[0] - pixels[1]) ** 2), rel=1e-4)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
    assert results["test"]["kl"] == pytest.approx(float(kl), rel=1e-4)
    assert results["test"]["n_images"] == N_TEST
    assert results["fingerprint"] == model.fingerprint()
    assert results["data"] == dataset.digest
    assert results["images_seen"] == 80  # 8 steps of 10 complete 3 epochs of 24
    assert results["recipe"]["epochs"] == 3 and results["precision"] == "fp32"


def test_each_epoch_has_a_log_line_and_a_picture(finished: Path) -> None:
    log = _log(finished)
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert [line["images"] for line in log] == [30, 50, 80]
    for name in ("loss", "total_correlation", "mse", "watched_mse", "images_per_second"):
        assert all(np.isfinite(line[name]) for line in log)
    for epoch in (1, 2, 3):
        with Image.open(finished / f"epoch-{epoch:04d}.png") as picture:
            # Originals, reconstructions, samples, and a traversal of each of the 4 dimensions.
            assert picture.size == (8 * 16, 7 * 16)


def test_a_finished_run_given_again_changes_nothing(
    finished: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "model" / "model.safetensors").read_bytes(), _log(finished)
    train(arguments(faces, finished))
    assert ((finished / "model" / "model.safetensors").read_bytes(), _log(finished)) == before
    assert "resumes at 80 images" in capsys.readouterr().out


@pytest.mark.parametrize("values", [{"objective": "beta-vae"}, {"architecture": "vae"}])
def test_other_settings_are_refused_and_named(
    finished: Path, faces: Path, values: dict[str, Any]
) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in finished.iterdir())
    with pytest.raises(DataError) as refused:
        train(arguments(faces, finished, epochs=5, **values))
    (name,) = values
    assert "epochs 3 -> 5" in str(refused.value) and name in str(refused.value)
    assert "batch_size" not in str(refused.value)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in finished.iterdir()) == before


@pytest.mark.parametrize("where", ["not-a-folder/run", "not-a-folder"])
def test_a_folder_that_cannot_be_written_to(
    faces: Path, tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "not-a-folder").write_text("a file", encoding="utf-8")
    asked = replace(arguments(faces, tmp_path / where), cache=tmp_path / "cache")
    with pytest.raises(SystemExit) as exit_:
        exit_on_user_error(lambda: train(asked))
    assert exit_.value.code == 2
    message = capsys.readouterr().err.rsplit("error: ")[-1]  # after the progress bar
    assert str(tmp_path / where) in message and message.count("\n") == 1
    assert (tmp_path / "not-a-folder").read_text(encoding="utf-8") == "a file"


def test_a_full_disk_costs_one_sentence_and_no_earlier_state(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(arguments(faces, out))
    before = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def fill_disk() -> None:  # files of this process can grow no larger than 8 kB
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))

    ended = subprocess.run(
        _command(faces, out), env=ENVIRONMENT, preexec_fn=fill_disk, capture_output=True, text=True
    )
    message = ended.stderr.rsplit("error: ")[-1]
    assert ended.returncode == 2 and "File too large" in message and message.count("\n") == 1
    assert {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_too_few_images_for_a_batch(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--batch-size 25 is more than the 24 training images"):
        train(arguments(faces, tmp_path / "run", batch_size=25))


def test_a_network_that_does_not_fit_the_images(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(HublatentError, match="divisible"):
        train(arguments(faces, tmp_path / "run", n_stages=5))


# --- evaluation -----------------------------------------------------------------------------------


def test_evaluation_leaves_the_model_as_it_was(dataset: FaceDataset) -> None:
    torch.manual_seed(0)
    model = TINY.build().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    preview(model, dataset.batch([0, 1, 2]), seed=0)
    assert model.training and _equal_weights(model.state_dict(), before)


# --- several processes ----------------------------------------------------------------------------


def _save_gradients(faces: Path, out: Path) -> None:
    """One of two processes: a step's gradients, averaged over both."""
    data = load_dataset(faces, 16, cache=out.parent / "cache", progress=False)
    ours = trainer(data)
    assert ours.accelerator.num_processes == 2
    if ours.accelerator.is_main_process:
        ours.optimizer.register_step_pre_hook(
            lambda *_: save_file({k: p.grad for k, p in ours.model.named_parameters()}, out)
        )
    ours.step()
    ours.accelerator.wait_for_everyone()


def _both_halves(alone: Trainer) -> None:
    """Leave the gradients of a step of two processes, one after the other in this one."""
    for process in (0, 1):
        alone.accelerator = SimpleNamespace(process_index=process, num_processes=2)  # type: ignore[assignment]
        terms = alone.objective.terms(alone.model, alone.batch(alone.draws()))
        (0.5 * terms["loss"]).backward()


def test_gradients_of_two_processes(faces: Path, dataset: FaceDataset, tmp_path: Path) -> None:
    in_two_processes(lambda: _save_gradients(faces, tmp_path / "gradients.safetensors"))
    found = load_file(tmp_path / "gradients.safetensors")
    alone = trainer(dataset)
    _both_halves(alone)
    expected = {k: p.grad for k, p in alone.model.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)
    assert max(float(g.abs().max()) for g in expected.values()) > 0.1


@pytest.mark.slow
def test_two_processes_train_one_model(faces: Path, dataset: FaceDataset, tmp_path: Path) -> None:
    launch(*_command(faces, tmp_path / "run")[1:])
    run = tmp_path / "run"
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["n_processes"] == 2 and results["images_seen"] == 80
    assert [line["epoch"] for line in _log(run)] == [1, 2, 3]
    # The plain version: one process, two half-batches, the same optimiser.
    alone = trainer(dataset, memory_format="channels-last")
    for _ in range(alone.n_total_steps):
        _both_halves(alone)
        for group in alone.optimizer.param_groups:
            group["lr"] = alone.learning_rate()
        alone.optimizer.step()
        alone.optimizer.zero_grad()
        alone.n_steps += 1
    found = load_file(run / "model" / "model.safetensors")
    for name, value in alone.model.named_parameters():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-2, atol=1e-4)


def test_processes_draw_different_noise() -> None:
    first, second = (torch.randn(5, generator=step_generator(0, 3, k)) for k in (0, 1))
    assert not torch.equal(first, second)


def test_a_setting_that_a_run_is_older_than_has_its_default(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.open({"seed": 0}, is_main=True):
        pass
    defaults = {"share": 1.0, "seed": 5}
    other = run.open({"seed": 0, "share": 0.5}, is_main=True, defaults=defaults)
    with pytest.raises(DataError, match=r"\(share 1\.0 -> 0\.5\)"), other:
        pass
    with run.open({"seed": 0, "share": 1.0}, True, defaults=defaults):
        assert read_settings(tmp_path) == {"seed": 0, "share": 1.0}


def test_a_run_goes_on_after_a_recipe_got_a_setting(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(arguments(faces, tmp_path / "run"))
    path = tmp_path / "run" / "settings.json"
    settings = json.loads(path.read_text())
    del settings["margin"]
    path.write_text(json.dumps(settings))
    train(arguments(faces, tmp_path / "run"))
    assert "resumes at" in capsys.readouterr().out
