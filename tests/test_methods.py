"""Methods beyond labels: pairs, assessor, components, factorisation, axis, quantities, styles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hublatent import VAE, AttributeClassifier
from hublatent.cli import main
from hublatent.data import load_dataset
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery import LabelledLatents, discover, unlabelled
from hublatent.discovery.methods.assessor import learn
from hublatent.discovery.methods.components import principal_components, weight_factors
from hublatent.discovery.methods.pairs import common_direction, direction_of_pairs, with_styles
from hublatent.discovery.methods.stylespace import channel_direction, relevance
from hublatent.discovery.quantities import (
    face_quantities,
    find_measured,
    read_quantities,
    with_quantities,
)
from hublatent.discovery.unlabelled import discover_unlabelled
from hublatent.editing import edit
from hublatent.errors import DataError, DirectionError, HublatentError
from hublatent.images import open_image, to_pil, to_tensor
from hublatent.model import LatentModel
from hublatent.models import LSAVAE
from hublatent.models.style_space import StyleSpace
from hublatent.perception.faces import FaceDetector
from hublatent.publish.card_tables import with_measured
from hublatent.stats import Estimate
from tests.comparison_helpers import N_PIXELS, SIZE, linear_model, write_known_faces
from tests.tiny_models import save_model, tiny_stylegan2

D = 6


class Linear(LatentModel):
    """A model whose pictures are linear in its latents: (B, D) -> (B, 1, 4, 4)."""

    architecture = "linear"

    def __init__(self) -> None:
        super().__init__(4, 1, (D,))
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(16, D))
        mixing = torch.randn(D, D)
        self.latent_covariance.copy_(mixing @ mixing.T / D + 0.1 * torch.eye(D))
        self.latent_mean.normal_()

    def decode(self, latents: Tensor) -> Tensor:
        return (latents @ self.weight.T).reshape(-1, 1, 4, 4)

    def first_affine(self, layers: object = None) -> Tensor:
        return self.weight


@pytest.fixture(scope="module")
def model() -> Linear:
    return Linear().eval()


def cosine(a: object, b: object) -> float:
    first, second = (torch.as_tensor(x).double().flatten() for x in (a, b))
    return float(first @ second / first.norm() / second.norm())


# --- pairs ----------------------------------------------------------------------------------------


def noisy_pairs(model: Linear, n: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    truth = torch.eye(D)[1]
    before = model.sample_latents(n, generator=generator)
    after = before + truth + noise * torch.randn(n, D, generator=generator)
    return before, after, truth


def test_pairs_that_agree_give_their_change(model: Linear) -> None:
    before, after, truth = noisy_pairs(model, 5, 0.0)
    found = direction_of_pairs(model, before, after, "Eyeglasses")
    torch.testing.assert_close(found.vector, truth, atol=1e-5, rtol=0)
    assert found.scores["singular share"].value == pytest.approx(1)
    assert found.scores["pair cosine"].value == pytest.approx(1)
    assert found.sigma == pytest.approx(float(model.latent_covariance[1, 1].sqrt()), rel=1e-4)
    flipped = direction_of_pairs(model, after, before, "Eyeglasses")  # the sign is the pairs'
    torch.testing.assert_close(flipped.vector, -truth, atol=1e-5, rtol=0)


def test_more_noise_less_agreement(model: Linear) -> None:
    found = [
        direction_of_pairs(model, *noisy_pairs(model, 10, noise)[:2], "Eyeglasses").scores
        for noise in (0.1, 0.5, 100.0)
    ]
    for name in ("singular share", "pair cosine"):
        values = [scores[name] for scores in found]
        assert values[0].value > values[1].value > values[2].value
        assert all(e.low <= e.value <= e.high <= 1 for e in values)
    assert found[2]["pair cosine"].low < 0.3  # nothing in common


def test_the_direction_of_pairs_is_that_of_an_uncentred_svd() -> None:
    changes = np.random.default_rng(0).normal(size=(7, 3, 4)) + 0.5
    changes /= np.linalg.norm(changes.reshape(7, -1), axis=1)[:, None, None]
    found = common_direction(changes)
    _, vectors = np.linalg.eigh(changes.reshape(7, -1).T @ changes.reshape(7, -1))
    assert abs(cosine(found, vectors[:, -1])) == pytest.approx(1)
    assert (changes * found).sum() > 0 and np.linalg.norm(found) == pytest.approx(1)


def test_one_pair_has_no_agreement_and_an_empty_one_no_direction(model: Linear) -> None:
    before, after, truth = noisy_pairs(model, 1, 0.0)
    found = direction_of_pairs(model, before, after, "Eyeglasses")
    assert cosine(found.vector, truth) == pytest.approx(1) and not found.scores
    for one, other, match in (
        (before, before, "1 pairs, of which 1 have two equal"),
        (before[:0], after[:0], "0 pairs"),
        (before, after[:, :3], "The pairs have the shapes"),
    ):
        with pytest.raises(DataError, match=match):
            direction_of_pairs(model, one, other, "Eyeglasses")


def test_the_mean_withstands_what_changes_with_every_pair(model: Linear) -> None:
    """Photographs of a pair differ in pose too, now to one side and now to the other."""
    generator = torch.Generator().manual_seed(3)
    truth, pose = torch.eye(D)[1], torch.eye(D)[4]
    before = model.sample_latents(40, generator=generator)
    after = before + truth + 3 * torch.randn(40, 1, generator=generator) * pose
    singular = direction_of_pairs(model, before, after, "Eyeglasses")
    mean = direction_of_pairs(model, before, after, "Eyeglasses", estimate="mean")
    assert cosine(singular.vector, pose) ** 2 > 0.8
    assert cosine(mean.vector, truth) > cosine(singular.vector, truth) + 0.3
    with pytest.raises(DataError, match="cancel out"):
        two = torch.cat([before[:1], before[:1]])
        moved = torch.cat([before[:1] + truth, before[:1] - truth])
        direction_of_pairs(model, two, moved, "Eyeglasses", estimate="mean")


def test_styles_are_orthogonal_to_what_they_share(model: Linear) -> None:
    generator = torch.Generator().manual_seed(2)
    kinds = [
        Direction("Eyeglasses", "pairs", 3 * (torch.eye(D)[0] + 0.3 * noise))
        for noise in torch.randn(4, D, generator=generator)
    ]
    found = with_styles(model, kinds)
    assert found.styles is not None and found.styles.shape == (4, D)
    torch.testing.assert_close(found.styles @ found.vector, torch.zeros(4), atol=1e-6, rtol=0)
    # Each style alone gives its own direction back.
    for k, kind in enumerate(kinds):
        again = found.varied(torch.eye(4)[k])
        assert cosine(again.vector, kind.vector) == pytest.approx(1, abs=1e-5)
    opposite = [*kinds, Direction("Eyeglasses", "pairs", -torch.eye(D)[0])]
    with pytest.raises(DirectionError, match="points away"):
        with_styles(model, opposite)
    with pytest.raises(DirectionError, match="two or more"):
        with_styles(model, kinds[:1])


# --- assessor -------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.05, 1.0])
def test_the_learned_step_of_a_linear_model_is_the_pattern(model: Linear, penalty: float) -> None:
    reader = torch.randn(16, generator=torch.Generator().manual_seed(3))
    gradient = model.weight.detach().T @ reader
    with torch.no_grad():
        found = learn(
            model, lambda images: images.flatten(1) @ reader, penalty=penalty, n_steps=800
        )
    pattern = model.latent_covariance @ gradient
    expected = pattern / (gradient @ pattern + penalty / 3)  # E a^2 = 3^2 / 3
    assert cosine(found, pattern) > 0.999
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.01)


def test_learning_leaves_no_traces_and_follows_the_seed(model: Linear) -> None:
    first, again, other = (
        learn(model, lambda images: images.flatten(1).mean(1), n_steps=5, seed=s) for s in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert model.weight.grad is None and not first.requires_grad


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(HublatentError, match="training mode"):
        learn(Linear().train(), lambda images: images.flatten(1).mean(1), n_steps=1)


# --- components and factorisation -----------------------------------------------------------------


def test_principal_components_come_in_order(model: Linear) -> None:
    rows = principal_components(model)
    spread = rows @ model.latent_covariance.double() @ rows.T
    torch.testing.assert_close(spread, spread.diagonal().diag(), atol=1e-6, rtol=0)
    assert (spread.diagonal().diff() <= 0).all()


def test_factors_amplify_most_what_comes_first(model: Linear) -> None:
    rows = weight_factors(model)
    weights = model.weight.detach().double()
    weights = weights / weights.norm(dim=1, keepdim=True)
    gains = (weights @ rows.T).square().sum(dim=0)
    assert (gains.diff() <= 1e-9).all()
    random = torch.nn.functional.normalize(torch.randn(500, D, dtype=torch.float64), dim=1)
    assert (weights @ random.T).square().sum(dim=0).max() <= gains[0] + 1e-9


def test_a_model_without_named_weights_is_refused() -> None:
    class Nameless(LatentModel):
        architecture = "nameless"

    with pytest.raises(HublatentError, match="first_affine"):
        weight_factors(Nameless(8, 3, (4,)))


class Reader(nn.Module):
    """A classifier that reads two attributes from a linear model's picture, and one at random."""

    attribute_names = ("First", "Second", "Nothing")

    def __init__(self, model: Linear) -> None:
        super().__init__()
        readers = torch.linalg.pinv(model.weight.detach()).T  # (16, D)
        rows = principal_components(model).float()
        self.weight = torch.stack([readers @ rows[0], -(readers @ rows[1]), torch.zeros(16)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight + 1e-3 * images.flatten(1)[:, :3].sin()


def test_components_are_named_by_what_changes_most(
    model: Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlabelled, "PERCENTILE", 50)  # so few dimensions are easily hit at random
    found = discover_unlabelled(model, "components", Reader(model), n_directions=4)  # type: ignore[arg-type]
    assert [d.name for d in found[:2]] == ["First.components-00", "Second.components-01"]
    rows = principal_components(model)
    assert cosine(found[0].vector, rows[0]) == pytest.approx(1, abs=1e-5)
    assert cosine(found[1].vector, -rows[1]) == pytest.approx(1, abs=1e-5)  # to presence
    for direction in found[:2]:
        effect, band = direction.scores["effect"], direction.scores["null band"]
        assert band.value < effect.value and effect.low <= effect.value <= effect.high
        assert effect.value == pytest.approx(1, abs=0.3)  # a sigma is a deviation of the logit
    with pytest.raises(HublatentError, match="method without labels"):
        discover_unlabelled(model, "svm", Reader(model))  # type: ignore[arg-type]


def test_what_changes_nothing_has_no_name(model: Linear) -> None:
    torch.manual_seed(0)
    classifier = AttributeClassifier(16, channels=1, width=8, attributes="Smiling,Male").eval()
    flat = VAE(8, 1, latent_dim=4, width=4, max_width=4, n_stages=1).eval()
    found = discover_unlabelled(flat, "factorisation", classifier, n_directions=3, n_samples=16)
    for i, direction in enumerate(found):
        named = direction.scores["effect"].value > direction.scores["null band"].value
        assert (direction.attribute == f"Component-{i:02d}") is not named


# --- quantities -----------------------------------------------------------------------------------


def test_the_component_of_a_quantity_is_recovered(model: Linear) -> None:
    rng = np.random.default_rng(0)
    truth, y = rng.normal(size=D), rng.uniform(-1, 1, 4000)
    latents = y[:, None] * truth + 0.2 * rng.normal(size=(4000, D))
    plain = LabelledLatents(latents, y[:, None] > 0, ("First",), np.arange(4000))
    data = with_quantities(plain, {"First": y})
    found = discover(data, "First", "supervised-pca", model=model)
    assert cosine(found.vector, truth) > 0.99
    covariance = (y - y.mean()) @ latents / len(y)
    assert cosine(found.vector, covariance) == pytest.approx(1, abs=1e-6)


# --- style channels -------------------------------------------------------------------------------


def test_the_channels_that_change_with_an_attribute_are_the_relevant_ones() -> None:
    rng = np.random.default_rng(0)
    label = rng.random(2000) < 0.5
    scales = rng.uniform(0.1, 10, 30)
    styles = rng.normal(size=(2000, 30)) * scales + 5
    styles[label, 4] += 3 * scales[4]
    styles[label, 17] -= 2 * scales[17]
    assert set(np.argsort(relevance(styles, label))[-2:]) == {4, 17}
    row = channel_direction(styles, label, n_channels=2)
    assert np.flatnonzero(row).tolist() == [4, 17] and row[4] > 0 > row[17]
    constant = np.column_stack([styles, np.ones(2000)])
    assert np.isfinite(relevance(constant, label)).all() and relevance(constant, label)[-1] == 0


# --- through discover() ---------------------------------------------------------------------------


def labelled(model: LatentModel, step: Tensor, n: int = 2000) -> LabelledLatents:
    """Samples of a model, half of them moved by a step, two images of each person."""
    generator = torch.Generator().manual_seed(4)
    latents = model.sample_latents(n, generator=generator)
    label = torch.rand(n, generator=generator) < 0.5
    latents = latents + label.reshape(-1, *[1] * step.ndim) * step
    return LabelledLatents(
        latents.detach().numpy(), label.numpy()[:, None], ("First",), np.arange(n) // 2
    )


@pytest.mark.parametrize("method", ["pairs", "components", "factorisation", "supervised-pca"])
def test_a_method_finds_the_step_between_the_classes(model: Linear, method: str) -> None:
    rows = weight_factors(model) if method == "factorisation" else principal_components(model)
    step = 4 * rows[1].float()
    found = discover(labelled(model, step), "First", method, model=model)
    assert cosine(found.vector, step) > (0.8 if method == "pairs" else 0.99)
    assert found.method == method and found.scores["auroc"].value > 0.8
    assert float(found.vector.norm()) == pytest.approx(1, abs=1e-5)


def test_components_are_candidates_as_they_are(model: Linear) -> None:
    found = discover(labelled(model, torch.randn(D)), "First", "components", model=model)
    cosines = principal_components(model).float() @ found.vector
    assert sorted(cosines.abs().tolist())[-1] == pytest.approx(1, abs=1e-5)


def test_pairs_move_each_layer_their_own_way() -> None:
    model = tiny_stylegan2()
    model.measure_latents(500)
    step = torch.zeros(model.latent_shape)
    step[0], step[1, 3] = 4.0, -3.0
    found = discover(labelled(model, step, 400), "First", "pairs", model=model, layers=[0, 1])
    assert found.layers == (0, 1) and cosine(found.vector, step) > 0.8
    assert abs(cosine(found.vector[0], found.vector[1])) < 0.8


def test_pairs_need_a_person_on_two_kinds_of_images(model: Linear) -> None:
    data = labelled(model, torch.ones(D), 200)
    alone = replace(data, identities=np.arange(200))
    with pytest.raises(DataError, match="there are no pairs"):
        discover(alone, "First", "pairs", model=model)


def test_the_assessor_raises_a_logit(model: Linear) -> None:
    data, reader = labelled(model, torch.ones(D)), Reader(model)
    reader.index = lambda name: 0  # type: ignore[method-assign, assignment]
    found = discover(data, "First", "assessor", model=model, classifier=reader)  # type: ignore[arg-type]
    assert cosine(found.vector, principal_components(model)[0]) > 0.99
    with pytest.raises(HublatentError, match=r"classifier="):
        discover(data, "First", "assessor", model=model)


def test_the_axis_of_a_model_that_has_one(model: Linear) -> None:
    lsavae = LSAVAE(16, 1, style_dim=4, attributes="First,Second", width=4, max_width=4, n_stages=1)
    data = labelled(lsavae.eval(), torch.ones(6), 200)
    found = discover(data, "First", "axis", model=lsavae)
    assert torch.equal(found.vector, torch.eye(6)[4])
    with pytest.raises(HublatentError, match="a Linear has none"):
        discover(labelled(model, torch.ones(D)), "First", "axis", model=model)
    with pytest.raises(HublatentError, match="attribute of this model"):
        discover(replace(data, attributes=("Third",)), "Third", "axis", model=lsavae)


def test_a_quantity_beats_its_label(model: Linear) -> None:
    """From a quantity that the label only cuts in two, the direction is found more exactly."""
    rng = np.random.default_rng(5)
    truth, y = rng.normal(size=D), rng.normal(size=300)
    latents = (y[:, None] * truth + 2 * rng.normal(size=(300, D))).astype(np.float32)
    data = LabelledLatents(latents, y[:, None] > 0, ("First",), np.arange(300))
    with_quantity = replace(data, targets=y[:, None])
    found = [discover(d, "First", "supervised-pca", model=model) for d in (data, with_quantity)]
    difference = discover(data, "First", "mean-difference", model=model)
    assert cosine(found[0].vector, difference.vector) > 0.99  # but for the balance
    assert cosine(found[1].vector, truth) > cosine(found[0].vector, truth)


def test_style_channels_through_discover() -> None:
    model = tiny_stylegan2()
    model.measure_latents(500)
    space = StyleSpace(model)
    step = torch.zeros(space.latent_shape)
    step[7] = 6 * float(space.latent_covariance[7, 7].sqrt())
    data = labelled(space, step, 400)
    found = discover(data, "First", "stylespace", model=space)
    assert int(found.vector.abs().argmax()) == 7 and (found.vector != 0).sum() == 10
    assert DirectionSet.of(space, [found]).space == "s"
    with pytest.raises(HublatentError, match="StyleSpace"):
        discover(
            labelled(model, torch.zeros(model.latent_shape), 400),
            "First",
            "stylespace",
            model=model,
        )


def test_a_file_of_style_directions_edits_a_picture(tmp_path: Path) -> None:
    model = tiny_stylegan2(16)
    model.measure_latents(100)
    model.add_encoder(4, model.fingerprint())
    space = StyleSpace(model.eval())
    channel = Direction("Bright", "stylespace", torch.eye(space.latent_shape[0])[7])
    file, picture = tmp_path / "styles.safetensors", tmp_path / "face.png"
    DirectionSet.of(space, [channel.with_sigma(space)]).save(file)
    Image.new("RGB", (16, 16), "teal").save(picture)
    folder, out = save_model(model, tmp_path / "model"), tmp_path / "edited.png"
    words = ["--direction", "bright=9", "--directions", str(file), "--out", str(out)]
    main(["edit", str(folder), str(picture), *words])
    with torch.inference_mode():
        styles = space.to_styles(model.encode(to_tensor([open_image(picture)], 16)))
        moved = space.decode(edit(styles, channel.with_sigma(space), 9.0))
    assert Image.open(out).tobytes() == to_pil(moved)[0].tobytes()


# --- measured quantities --------------------------------------------------------------------------


def test_quantities_take_the_place_of_labels(model: Linear) -> None:
    data = labelled(model, torch.ones(D), 400)
    brightness = np.random.default_rng(0).gamma(2.0, size=400)
    found = with_quantities(data, {"Brightness": brightness})
    assert found.attributes == ("Brightness",) and found.labels.sum() == 200
    assert found.targets is not None and (found.targets[:, 0] == brightness).all()
    for wrong in (np.ones(400), np.full(400, np.nan), np.arange(3.0)):
        with pytest.raises(DataError, match="Brightness"):
            with_quantities(data, {"Brightness": wrong})
    with pytest.raises(DataError, match="No quantities"):
        with_quantities(data, {})


def test_a_table_of_quantities(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("name,Pose,Light\nb.png,1.5,2\na.png,-1,3\nc.png,0,0\n")
    found = read_quantities(path, ["a.png", "b.png"])
    assert {name: list(values) for name, values in found.items()} == {
        "Pose": [-1, 1.5],
        "Light": [3, 2],
    }
    with pytest.raises(DataError, match=r"no line for 1 of the pictures.* d\.png"):
        read_quantities(path, ["a.png", "d.png"])
    path.write_text("name,Pose\na.png,left\n")
    with pytest.raises(DataError, match="a field of the column Pose is no number"):
        read_quantities(path, ["a.png"])


def test_celebas_landmarks_and_boxes_are_quantities(tmp_path: Path) -> None:
    points = ["lefteye", "righteye", "nose", "leftmouth", "rightmouth"]
    header = " ".join(f"{point}_{axis}" for point in points for axis in "xy")
    landmarks = tmp_path / "list_landmarks_align_celeba.txt"
    landmarks.write_text(f"1\n{header} \n000001.jpg 30 50  70 50  55 75  38 95  66  95\n")
    found = read_quantities(landmarks, ["000001.png"])
    assert found["Yaw"] == pytest.approx([0.125]) and len(found) == 3
    boxes = tmp_path / "list_bbox_celeba.txt"
    boxes.write_text("1\nimage_id x_1 y_1 width height\n000001.jpg    95  71 226 313\n")
    assert read_quantities(boxes, ["000001.jpg"])["height"] == [313]


def test_face_quantities_do_not_depend_on_size_place_and_tilt() -> None:
    face = np.array([[[30, 50], [70, 50], [55, 75], [38, 95], [66, 95]]], float)
    found = face_quantities(face)
    assert found["Yaw"] == pytest.approx([0.125])
    assert found["Face_Length"] == pytest.approx([45 / 40])
    assert found["Mouth_Width"] == pytest.approx([28 / 40])
    turn = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    for name, values in face_quantities(2 * face @ turn + 7).items():
        assert values == pytest.approx(found[name]), name


def test_changes_of_brightness_come_out_as_requested(tmp_path: Path) -> None:
    """On a model whose first coordinate is brightness a change is exact, and an unknown refused."""
    faces = load_dataset(write_known_faces(tmp_path / "data"), SIZE, cache=tmp_path / "cache")
    detector, space = FaceDetector().eval(), linear_model()
    (found,) = find_measured(space, faces, detector, ["Brightness"])
    assert cosine(found.vector, torch.eye(4)[0]) > 0.95
    assert found.scores["R2 of changes"].value > 0.99
    # The model's brightness moves by sigma / sqrt(pixels) / 2 along the first component.
    deviation = np.std([faces.batch([i]).mean() / 2 for i in faces.indices("train", "validation")])
    expected = found.sigma * float(found.vector[0]) / N_PIXELS**0.5 / 2 / deviation
    assert found.scores["effect"].value == pytest.approx(expected, rel=1e-3)
    with pytest.raises(HublatentError, match="Unknown measured quantity"):
        list(find_measured(space, faces, detector, ["Beauty"]))


def test_a_card_tells_the_scores_of_measured_quantities_once(model: Linear) -> None:
    scores = {name: Estimate(0.5, 0.4, 0.6) for name in ("effect", "R2 of changes")}
    direction = Direction("Yaw", "supervised-pca", torch.ones(D), scores=scores)
    card = "# It's x\n\n## Directions\n\nSome.\n\n## Training\n\nLong.\n"
    told = with_measured(card, DirectionSet.of(model, [direction]))
    assert "| Yaw | 0.500 (0.400-0.600) |" in told.split("## Training")[0]
    assert with_measured(told, DirectionSet.of(model, [direction])) == told
    plain = Direction("Yaw", "svm", torch.ones(D))
    assert with_measured(told, DirectionSet.of(model, [plain])) == card


def test_joined_styles_are_drawn_by_edit(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = linear_model()
    model.set_latent_statistics(model.sample_latents(50))
    model.save_pretrained(tmp_path / "model")
    for i, kind in enumerate(("round", "dark")):
        vector = torch.eye(4)[0] + 0.5 * torch.eye(4)[1 + i]
        found = DirectionSet.of(model, [Direction(kind, "mean-difference", vector)])
        found.save(tmp_path / f"{kind}.safetensors")
    files = [str(tmp_path / f"{kind}.safetensors") for kind in ("round", "dark")]
    out = str(tmp_path / "glasses.safetensors")
    main(["join-styles", *files, "--for", str(tmp_path / "model"), "--out", out,
          "--attribute", "Eyeglasses"])  # fmt: skip
    assert "Eyeglasses.mean-difference with 2 styles" in capsys.readouterr().out
    (joined,) = DirectionSet.load(out, model)
    assert cosine(joined.varied([1, 0]).vector, torch.tensor([1, 0.5, 0, 0])) > 0.9999
    picture = tmp_path / "face.png"
    to_pil(model.decode(model.sample_latents(1)))[0].save(picture)
    for seed in (1, 2):
        style = ["--direction", "glasses=3", "--style", str(seed), "--directions", out]
        target = str(tmp_path / f"{seed}.png")
        main(["edit", str(tmp_path / "model"), str(picture), *style, "--out", target])
    one, other = (open_image(tmp_path / f"{seed}.png").tobytes() for seed in (1, 2))
    assert one != other
