"""project(): held to the model's own samples, whose latents and pictures are known."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from hublatent import AttributeClassifier, project
from hublatent.cli import main
from hublatent.errors import HublatentError
from hublatent.images import open_image, save_png, to_pil, to_tensor
from hublatent.inversion.latents_file import PROJECTED
from hublatent.inversion.optimiser import DescentSettings, noise_regularization
from hublatent.inversion.perceptual import lpips_embedding
from hublatent.inversion.projection import DivergedError, Projection
from hublatent.models import StyleGAN2
from tests.tiny_models import random_directions, save_model, tiny_eigenfaces, tiny_stylegan2

SIZE = 16
FAST = {"n_steps": 20, "n_candidates": 32}


def faint_stylegan2(seed: int, noise_strength: float = 0.0) -> StyleGAN2:
    """Random weights, whose pictures stay within [-1, 1], so that clamping hides nothing."""
    torch.manual_seed(seed)
    model = tiny_stylegan2(SIZE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("to_rgb.weight"):
                parameter.mul_(0.2)
            if name.endswith("noise_strength"):
                parameter.fill_(noise_strength)
    model.measure_latents(1000)
    return model


@pytest.fixture(scope="module")
def model() -> StyleGAN2:
    return faint_stylegan2(0)


@pytest.fixture(scope="module")
def classifier() -> AttributeClassifier:
    torch.manual_seed(1)
    return AttributeClassifier(SIZE, width=8, attributes="Smiling,Male").eval()


@pytest.fixture(scope="module")
def images(model: StyleGAN2) -> Tensor:
    """Pictures that the model can draw, from samples that are not among the candidates."""
    with torch.no_grad():
        return model.decode(model.sample_latents(4, generator=seeded(99)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mse(first: Tensor, second: Tensor) -> Tensor:
    """(B,), for pixels in [0, 1]."""
    return ((first - second) / 2).square().mean(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def found(model: StyleGAN2, classifier: AttributeClassifier, images: Tensor) -> Projection:
    return project(model, images, classifier=classifier, n_steps=120, n_candidates=32)


def test_a_models_own_samples_are_found_again(model, images, found):
    with torch.no_grad():
        candidates = model.decode(model.sample_latents(256, generator=seeded()))
    best = torch.stack([mse(candidates, image[None]).min() for image in images])
    assert (found.errors < best / 5).all() and found.errors.sum() < best.sum() / 10


def test_what_a_projection_holds(model, images, found):
    assert found.latents.shape == (4, *model.latent_shape)
    assert not found.latents.requires_grad and not found.losses.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(found.images, model.decode(found.latents))
    torch.testing.assert_close(found.errors, mse(found.images, images))
    assert found.losses.shape == (int(found.steps.max()), 4)
    for losses, n in zip(found.losses.T, found.steps.tolist(), strict=True):
        assert losses[:n].isfinite().all() and losses[n:].isnan().all()
        assert losses[n - 1] < losses[0] / 5
    with pytest.raises(AttributeError):
        found.steps = found.steps  # type: ignore[misc]


def test_bfloat16_finds_about_as_near_a_picture(model, classifier, images, found):
    options = {"classifier": classifier, "n_steps": 120, "n_candidates": 32, "precision": "bf16"}
    half = project(model, images, **options)
    assert half.latents.dtype == half.images.dtype == half.losses.dtype == torch.float32
    assert not torch.equal(half.latents, found.latents)
    assert half.errors.mean() < 3 * found.errors.mean() + 1e-4
    with torch.no_grad():
        torch.testing.assert_close(half.images, model.decode(half.latents))


def test_results_do_not_depend_on_the_batch(model, classifier, images):
    options = {**FAST, "classifier": classifier}
    together = project(model, images, **options)
    for i in (0, 3):
        alone = project(model, images[i : i + 1], **options)
        torch.testing.assert_close(alone.latents[0], together.latents[i], rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(alone.losses[:, 0], together.losses[:, i], rtol=1e-3, atol=1e-4)
    in_pairs = project(model, images, batch_size=3, **options)
    torch.testing.assert_close(in_pairs.latents, together.latents, rtol=1e-2, atol=1e-2)


def test_the_seed_decides_the_candidates(model, classifier, images):
    def run(seed: int) -> Tensor:
        options = {"classifier": classifier, "n_steps": 2, "n_candidates": 64}
        return project(model, images, seed=seed, **options).losses

    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))


def test_tied_layers_share_one_code_as_long_as_asked(model, classifier, images):
    def run(share: float) -> Projection:
        return project(model, images, classifier=classifier, tied_layers=share, **FAST)

    tied, half, free = run(1.0), run(0.5), run(0.0)
    assert torch.equal(tied.latents, tied.latents[:, :1].expand_as(tied.latents))
    assert not torch.equal(half.latents, half.latents[:, :1].expand_as(half.latents))
    # The same descent until the layers part.
    torch.testing.assert_close(half.losses[:11], tied.losses[:11])
    assert not torch.allclose(free.losses[1:11], tied.losses[1:11])
    with pytest.raises(HublatentError, match=r"tied_layers 1\.5; expected a share"):
        run(1.5)


def test_an_image_that_has_converged_leaves_the_batch(model, classifier, images, monkeypatch):
    """A candidate's own picture cannot be improved; a stranger's can."""
    drawn = []
    synthesize = StyleGAN2.synthesize

    def counting(self, latents, *rest):
        drawn.append(len(latents))
        return synthesize(self, latents, *rest)

    with torch.no_grad():
        easy = model.decode(model.latent_mean.expand(1, *model.latent_shape))
    monkeypatch.setattr(StyleGAN2, "synthesize", counting)
    both = torch.cat([easy, images[:1]])
    result = project(model, both, classifier=classifier, n_steps=60, n_candidates=0)
    assert result.steps[0] < result.steps[1] and 1 in drawn and 2 in drawn
    assert result.errors[0] < 1e-6


def test_without_layers_nothing_waits_until_they_part(classifier):
    eigenfaces = tiny_eigenfaces(SIZE)
    with torch.no_grad():
        easy = eigenfaces.decode(eigenfaces.latent_mean[None])
    options = {"classifier": classifier, "n_steps": 60, "n_candidates": 0}
    steps = [project(eigenfaces, easy, tied_layers=t, **options).steps for t in (0.0, 0.9)]
    assert steps[0] == steps[1] < 30


def test_noise_maps_are_fitted_but_not_kept(classifier, monkeypatch):
    """Pictures drawn with other noise are explained better; the model stays as it was."""
    monkeypatch.setattr(
        "hublatent.inversion.optimiser.NOISE_WEIGHT", 1.0
    )  # 16 pixels cannot be very white
    noisy = faint_stylegan2(2, noise_strength=1.0)
    with torch.no_grad():
        codes = noisy.sample_latents(3, generator=seeded(99))
        pictures = noisy.synthesize(codes, "random", seeded(5)).clamp(-1, 1)
    before = noisy.fingerprint()
    options = {"n_steps": 40, "n_candidates": 32, "classifier": classifier}
    fitted = project(noisy, pictures, **options)
    fixed = project(noisy, pictures, optimize_noise=False, **options)
    assert (fitted.losses[-1] < 0.95 * fixed.losses[-1]).all()
    assert noisy.fingerprint() == before
    assert all(p.grad is None and p.requires_grad for p in noisy.parameters())
    with torch.no_grad():
        torch.testing.assert_close(fitted.images, noisy.decode(fitted.latents))


def test_noise_regularization_by_hand():
    """The definition, value by value; white noise is far below a wave."""
    maps = torch.randn(2, 1, 16, 16, generator=seeded())
    expected = []
    for n in maps[:, 0].double().numpy():
        total = 0.0
        for level in (n, n.reshape(8, 2, 8, 2).mean(axis=(1, 3)) * 2):
            r = len(level)
            left = sum(level[y, x] * level[y, x - 1] for y in range(r) for x in range(r)) / r**2
            up = sum(level[y, x] * level[y - 1, x] for y in range(r) for x in range(r)) / r**2
            total += left**2 + up**2
        expected.append(total)
    torch.testing.assert_close(
        noise_regularization(maps), torch.tensor(expected), rtol=1e-4, atol=1e-6,
        check_dtype=False,
    )  # fmt: skip
    wave = torch.sin(torch.arange(16) * math.pi / 4).expand(1, 1, 16, 16) * math.sqrt(2)
    assert noise_regularization(wave) > 10 * noise_regularization(maps).max()


def test_the_rate_rises_and_falls():
    settings = DescentSettings(n_steps=100, learning_rate=0.2)
    rates = [settings.rate(step) for step in range(100)]
    assert 0 < rates[0] < rates[3] < rates[10] == rates[70] == pytest.approx(0.2)
    assert 0 < rates[-1] < 0.002


def test_any_architecture_can_be_projected_into(classifier):
    """Eigenfaces' best latents for the pixel loss are known: the encoding itself."""
    eigenfaces = tiny_eigenfaces(SIZE)
    with torch.no_grad():
        eigenfaces.latent_covariance.copy_(torch.eye(6))
        picture = eigenfaces.decode(torch.randn(2, 6, generator=seeded()) / 2)
    result = project(eigenfaces, picture, classifier=classifier, n_steps=150, pixel_weight=1e3)
    torch.testing.assert_close(result.latents, eigenfaces.encode(picture), rtol=0, atol=0.1)


def test_in_training_and_inference_mode(model, classifier, images):
    """Both modules are judged in evaluation mode, and left in the mode they had."""
    expected = project(model, images[:2], classifier=classifier, **FAST)
    statistics = classifier.stem[1].running_mean.clone()
    with torch.inference_mode():
        classifier.train()
        result = project(model, images[:2] + 0, classifier=classifier, **FAST)
    assert classifier.training and torch.equal(statistics, classifier.stem[1].running_mean)
    classifier.eval()
    torch.testing.assert_close(result.latents, expected.latents)


def test_a_model_built_in_inference_mode(images, classifier):
    with torch.inference_mode():
        built = tiny_stylegan2(SIZE)
    with pytest.raises(HublatentError, match=r"StyleGAN2 was built in torch.inference_mode"):
        project(built, images, classifier=classifier)


def test_progress_ends_at_the_total(model, classifier, images):
    calls: list[tuple[int, int]] = []
    project(
        model, images, classifier=classifier, batch_size=3, **FAST,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    done = [call[0] for call in calls]
    assert done == sorted(done) and calls[-1] == (80, 80) and done[0] <= 3


# --- what can go wrong ----------------------------------------------------------------------------


class Diverging(StyleGAN2):
    """Draws NaN for codes that have moved more than `limit` from the mean."""

    limit = 0.0

    def synthesize(self, latents, *rest):  # type: ignore[override]
        drawn = super().synthesize(latents, *rest)
        far = (latents - self.latent_mean).abs().amax(dim=(1, 2)) > self.limit
        return torch.where(far[:, None, None, None], math.nan, drawn)


def diverging(model: StyleGAN2, limit: float) -> Diverging:
    built = Diverging(
        SIZE, latent_dim=16, z_dim=16, mapping_layers=2, channel_base=256, channel_max=16
    ).eval()  # fmt: skip
    built.load_state_dict(model.state_dict())
    built.limit = limit
    return built


def test_a_diverging_image_is_tried_again_at_a_lower_rate(model, classifier, images):
    """Thirty steps of a tenth of the rate stay within the limit that the full rate crosses."""
    options = {"classifier": classifier, "n_steps": 30, "n_candidates": 0, "learning_rate": 0.1}
    spread = float(model.latent_covariance.diagonal().mean().sqrt())
    result = project(diverging(model, 0.9 * spread), images[:2], **options)
    slow = project(model, images[:2], **{**options, "learning_rate": 0.01})
    torch.testing.assert_close(result.losses, slow.losses, rtol=1e-3, atol=1e-4)


def test_an_image_that_diverges_twice_is_named(model, classifier, images):
    """The mean latent's own picture is found near the mean, the other beyond the limit."""
    with torch.no_grad():
        mean = model.decode(model.latent_mean.expand(1, *model.latent_shape))
    spread = float(model.latent_covariance.diagonal().mean().sqrt())
    options = {"n_steps": 30, "n_candidates": 0, "learning_rate": 1.0, "batch_size": 1}
    both = torch.cat([mean, images[:1]])
    with pytest.raises(DivergedError, match="image 1 diverged") as caught:
        project(diverging(model, 0.9 * spread), both, classifier=classifier, **options)
    assert caught.value.indices == (1,)


@pytest.mark.parametrize("words", ["CUDA out of memory.", "DefaultCPUAllocator: not enough memory"])
def test_too_little_memory_halves_the_batch(model, classifier, images, monkeypatch, words):
    expected = project(model, images, classifier=classifier, **FAST)
    synthesize = StyleGAN2.synthesize

    def hungry(self, latents, *rest):
        if torch.is_grad_enabled() and len(latents) > 2:
            raise RuntimeError(words)
        return synthesize(self, latents, *rest)

    monkeypatch.setattr(StyleGAN2, "synthesize", hungry)
    with pytest.warns(UserWarning, match="for 4 images at once; going on with 2"):
        result = project(model, images, classifier=classifier, **FAST)
    torch.testing.assert_close(result.latents, expected.latents, rtol=1e-2, atol=1e-2)


def test_too_little_memory_for_one_image(model, classifier, images, monkeypatch):
    def starving(self, latents, *rest):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(StyleGAN2, "synthesize", starving)
    with warnings.catch_warnings(), pytest.raises(HublatentError, match="single image"):
        warnings.simplefilter("ignore")
        project(model, images, classifier=classifier, **FAST)


def test_other_errors_are_not_taken_for_memory(model, classifier, images, monkeypatch):
    def broken(self, latents, *rest):
        raise RuntimeError("shapes disagree")

    monkeypatch.setattr(StyleGAN2, "synthesize", broken)
    with pytest.raises(RuntimeError, match="shapes disagree"):
        project(model, images, classifier=classifier, **FAST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps 0"),
        ({"n_candidates": -1}, "n_candidates -1"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"pixel_weight": -1.0}, "pixel_weight"),
        ({"precision": "fp16"}, "Unknown precision 'fp16'"),
        ({"batch_size": 0}, "batch_size"),
        ({"perceptual": "vgg"}, "Unknown perceptual loss 'vgg'"),
        ({"classifier": None, "perceptual": "features"}, "classifier=AttributeClassifier"),
    ],
)
def test_settings_out_of_range(model, classifier, images, options, message):
    with pytest.raises(HublatentError, match=message):
        project(model, images, **{"classifier": classifier, **options})


def test_images_that_do_not_fit(model, classifier, images):
    for given, message in (
        (images[:0], "no images"),
        (torch.zeros(1, 3, 32, 32), r"expected \(B, 3, 16, 16\)"),
        (images * 255, r"Image 0 .* expected \[-1, 1\]"),
        (torch.cat([images[:1], images[:1] * math.nan]), "Image 1 holds values that are not"),
    ):
        with pytest.raises(HublatentError, match=message):
            project(model, given, classifier=classifier)


# --- LPIPS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lpips_network():
    """The lpips package's network with a random backbone: nothing is downloaded."""
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    return lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).requires_grad_(False)


def test_the_embedding_is_lpips(lpips_network):
    first, second = torch.rand(2, 3, 3, 32, 32, generator=seeded()) * 2 - 1
    expected = lpips_network(first, second).flatten()
    embed = lpips_embedding(lpips_network)
    found = (embed(first) - embed(second)).square().sum(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_projection_by_lpips(model, images, lpips_network, monkeypatch):
    monkeypatch.setattr("hublatent.inversion.perceptual.load_lpips", lambda device: lpips_network)
    result = project(model, images[:1], perceptual="lpips", n_steps=12, n_candidates=0)
    assert result.losses[-1] < result.losses[0]


def test_lpips_without_its_weights(model, images, monkeypatch, tmp_path):
    from urllib.error import URLError

    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(HublatentError, match=r'cannot be downloaded.*choose perceptual="features"'):
        project(model, images, perceptual="lpips")


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(model, classifier, tmp_path_factory) -> tuple[Path, Path]:
    """A model's folder with directions, and a classifier's."""
    root = tmp_path_factory.mktemp("models")
    save_model(model, root / "gan", random_directions(model))
    classifier.save_pretrained(root / "attributes")
    return root / "gan", root / "attributes"


@pytest.fixture(scope="module")
def pictures(images, tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("pictures")
    paths = [root / "anna.png", root / "ben.png"]
    for picture, path in zip(to_pil(images[:2]), paths, strict=True):
        save_png(picture, path)
    return paths


def words(*parts: object) -> list[str]:
    return [str(part) for part in parts]


def test_the_command_writes_latents_and_pictures(model, folders, pictures, tmp_path, capsys):
    gan, attributes = folders
    main(words("project", gan, *pictures, "--out", tmp_path, "--classifier", attributes,
               "--steps", 20))  # fmt: skip
    printed = capsys.readouterr().out
    with safe_open(tmp_path / "latents.safetensors", framework="pt") as file:
        latents, errors = file.get_tensor("latents"), file.get_tensor("errors")
    document = PROJECTED.read_document(tmp_path / "latents.safetensors")
    assert document["fingerprint"] == model.fingerprint() and document["names"] == ["anna", "ben"]
    originals = to_tensor([open_image(path) for path in pictures], SIZE)
    with torch.no_grad():
        torch.testing.assert_close(errors, mse(model.decode(latents), originals))
    for name, error, latent in zip(("anna", "ben"), errors, latents, strict=True):
        path = tmp_path / f"{name}-projected.png"
        assert f"{path}: mean squared error {error:.5f}" in printed
        with torch.no_grad():
            assert open_image(path) == to_pil(model.decode(latent[None]))[0]


def test_edit_projects_where_there_is_no_encoder(folders, pictures, tmp_path, capsys, monkeypatch):
    def quick(*given, **options):
        return project(*given, **{**options, "n_steps": 5})

    monkeypatch.setattr("hublatent.inversion.projection.project", quick)
    gan, attributes = folders
    main(words("edit", gan, pictures[0], "--attribute", "Smiling", "--strength", 2,
               "--out", tmp_path / "out.png", "--classifier", attributes))  # fmt: skip
    assert "Smiling.joint by +2.00" in capsys.readouterr().out
    assert open_image(tmp_path / "out.png").size == (SIZE, SIZE)


def test_mistakes_of_the_command(folders, pictures, tmp_path, capsys, monkeypatch):
    gan, attributes = folders
    monkeypatch.setattr("hublatent.inversion.perceptual.DEFAULT_CLASSIFIER", "no/such-folder")
    fine = ("--out", tmp_path / "out", "--classifier", attributes)
    labelled = ("--perceptual", "features", "--classifier")
    for given, message in (
        ((gan, pictures[0], pictures[0], *fine), "redrawn as anna-projected.png"),
        ((gan, tmp_path / "none.png", *fine), "none.png does not exist"),
        ((gan, pictures[0], *fine, "--steps", 0), "n_steps 0"),
        ((gan, pictures[0], *fine[:2], *labelled, "no/such-folder"), "--classifier"),
        ((gan, pictures[0], *fine[:2], *labelled, gan), "AttributeClassifier"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words("project", *given))
        assert stop.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
