"""Directions are values: their tests are identities."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hublatent import VAE
from hublatent.direction import Direction, Origin
from hublatent.direction_set import DirectionSet
from hublatent.editing import edit, probability, to_raw, to_sigma, traverse
from hublatent.errors import DirectionError, find_name, unknown_name
from hublatent.model import weights_digest
from hublatent.perception.classifier import CELEBA_ATTRIBUTES
from hublatent.stats import Estimate
from tests.tiny_models import tiny_stylegan2


def make(vector: torch.Tensor, attribute: str = "Eyeglasses", **values: object) -> Direction:
    return Direction(attribute, "svm", vector, **values)  # type: ignore[arg-type]


@pytest.fixture()
def latents() -> torch.Tensor:
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture()
def direction() -> Direction:
    vector = torch.randn(6, generator=torch.Generator().manual_seed(1))
    return make(vector, sigma=0.7, threshold=0.3, gain=2.5)


@pytest.fixture(scope="module")
def model() -> VAE:
    torch.manual_seed(0)
    model = VAE(image_size=16, latent_dim=6, width=4, max_width=4, n_stages=2)
    model.set_latent_statistics(torch.randn(200, 6) @ torch.randn(6, 6) + 1)
    return model.eval()


def test_an_edit_raises_the_coordinate_by_strength_times_sigma(latents, direction):
    for strength in (-2.0, 0.0, 3.5):
        rise = direction.coordinate(edit(latents, direction, strength)) - direction.coordinate(
            latents
        )
        torch.testing.assert_close(rise, torch.full((7,), strength * 0.7))


def test_a_strength_may_differ_per_latent(latents, direction):
    strengths = torch.linspace(-1, 1, 7)
    moved = edit(latents, direction, strengths)
    for i in range(7):
        one = edit(latents[i : i + 1], direction, float(strengths[i]))
        torch.testing.assert_close(moved[i : i + 1], one)


def test_zero_and_opposite_edits_are_identities(latents, direction):
    assert torch.equal(edit(latents, direction, 0.0), latents)
    torch.testing.assert_close(edit(edit(latents, direction, 2.0), direction, -2.0), latents)
    torch.testing.assert_close(
        edit(latents, direction, 1.0, "raw"), edit(latents, -direction, -1.0, "raw")
    )
    torch.testing.assert_close(
        edit(latents, 2 * direction, 1.0, "raw"), edit(latents, direction + direction, 1.0, "raw")
    )


def test_units_convert_exactly(latents, direction):
    raw = to_raw(latents, direction, 1.7, "sigma")
    torch.testing.assert_close(raw, torch.full((7,), 1.7 * 0.7))
    torch.testing.assert_close(to_sigma(latents, direction, raw, "raw"), torch.full((7,), 1.7))
    for p in (0.05, 0.5, 0.9):
        moved = edit(latents, direction, p, "probability")
        torch.testing.assert_close(probability(moved, direction), torch.full((7,), p))
        # The closed form of DESIGN: strength = (threshold + logit(p) / gain - c(z)) / sigma.
        c = direction.coordinate(latents)
        strength = (0.3 + math.log(p / (1 - p)) / 2.5 - c) / 0.7
        torch.testing.assert_close(edit(latents, direction, strength), moved)


def test_edits_follow_the_latents_dtype(latents, direction):
    assert edit(latents.double(), direction, 1.0).dtype == torch.float64
    assert edit(latents.bfloat16(), direction, 1.0).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_in_any_precision_are_edited(dtype):
    torch.manual_seed(0)
    model = VAE(image_size=16, latent_dim=4, width=4, max_width=4, n_stages=2).eval().to(dtype)
    vector = torch.tensor([3e5, 0.0, 0.0, 0.0])  # beyond float16, and so would its coordinate be
    direction = Direction("A", "svm", vector, threshold=0.0, gain=1e6).with_sigma(model)
    latents = torch.zeros(2, 4, dtype=dtype)
    for strength, unit in ((2.0, "sigma"), (0.75, "probability")):
        edited = edit(latents, direction, strength, unit)
        assert edited.dtype == dtype and torch.isfinite(edited).all()
    assert float(edited[0, 0]) == pytest.approx(3e5 * math.log(3) / 1e6, rel=0.01)
    assert torch.isfinite(model.decode(edited)).all()


def test_traverse_is_edit_at_each_strength(latents, direction):
    strip = traverse(latents, direction, torch.tensor([-1.0, 0.0, 2.0]))
    assert strip.shape == (7, 3, 6)
    assert torch.equal(strip[:, 2], edit(latents, direction, 2.0))


def test_sigma_is_the_spread_of_the_coordinate(model, direction):
    latents = model.sample_latents(200_000, generator=torch.Generator().manual_seed(0))
    measured = direction.with_sigma(model)
    assert measured.sigma == pytest.approx(float(direction.coordinate(latents).std()), rel=0.01)


def test_sigma_of_a_layered_direction_is_the_spread_for_shared_codes(model):
    class Layered:
        latent_shape = (3, 6)
        latent_covariance = model.latent_covariance

    vector = torch.zeros(3, 6)
    vector[:2] = torch.randn(2, 6, generator=torch.Generator().manual_seed(4))
    direction = make(vector)
    codes = model.sample_latents(100_000, generator=torch.Generator().manual_seed(5))
    shared = codes[:, None].expand(-1, 3, -1)
    sigma = direction.with_sigma(Layered()).sigma  # type: ignore[arg-type]
    assert direction.layers == (0, 1)
    assert sigma == pytest.approx(float(direction.coordinate(shared).std()), rel=0.01)


def test_the_former_name_of_with_sigma_still_works(model, direction):
    with pytest.warns(DeprecationWarning, match="with_sigma"):
        assert direction.measured_on(model).sigma == direction.with_sigma(model).sigma


def test_what_was_measured_does_not_outlive_a_change_of_the_vector(direction):
    for changed in (direction + direction, 2 * direction, -direction, direction.unit()):
        assert changed.sigma is changed.threshold is changed.gain is None


def test_holding_keeps_the_held_readings_still(latents):
    g = torch.Generator().manual_seed(2)
    v, a, b = (make(torch.randn(6, generator=g), name) for name in ("V", "A", "B"))
    held = v.orthogonal_to(a, b)
    moved = edit(latents, held, 3.0, "raw")
    for other in (a, b):
        torch.testing.assert_close(
            other.coordinate(moved), other.coordinate(latents), atol=1e-5, rtol=0
        )
    rest = (held.vector.norm() / v.vector.norm()).item()
    assert held.surviving_norm == pytest.approx(rest, rel=1e-5)
    assert held.conditioned_on == ("A.svm", "B.svm")


def test_holding_stays_on_the_layers_that_the_direction_touches():
    g = torch.Generator().manual_seed(3)
    vector = torch.randn(4, 5, generator=g)
    vector[2:] = 0
    other = make(torch.randn(4, 5, generator=g), "Other")
    held = make(vector).orthogonal_to(other)
    assert held.layers == (0, 1)
    assert float((held.vector * other.vector).sum()) == pytest.approx(0, abs=1e-5)


def test_holding_refuses_what_cannot_be_held(direction):
    nearly = make(direction.vector + 1e-3 * torch.eye(6)[0], "Same")
    with pytest.raises(DirectionError, match="would be left after holding Same"):
        direction.orthogonal_to(nearly)
    g = torch.Generator().manual_seed(5)
    a = torch.randn(6, generator=g)
    twins = make(a, "A"), make(a * 2 + 1e-5, "B")
    with pytest.raises(DirectionError, match="nearly the same one"):
        direction.orthogonal_to(*twins)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (torch.zeros(4), "points nowhere"),
        (torch.tensor([1.0, math.nan]), "NaN"),
        (torch.ones(2, 2, 2), "shape"),
        (torch.ones(0), "shape"),
        (torch.full((4,), 1e38), "norm is 2e"),
        (torch.full((4,), 1e-30), "norm is 2e"),
    ],
)
def test_a_vector_that_is_no_direction_is_refused(vector, message):
    with pytest.raises(DirectionError, match=message):
        make(vector)


@pytest.mark.parametrize("name", ["", "../x", "a.b", "a\\b", "a\x00", "x" * 201, "a\nb"])
def test_a_name_that_could_be_a_path_is_refused(name):
    with pytest.raises(DirectionError, match="attribute or method name"):
        make(torch.ones(3), name)


def test_shapes_must_agree(latents, direction):
    with pytest.raises(DirectionError, match=r"\(B, 6\)"):
        direction.coordinate(latents[:, :5])
    with pytest.raises(DirectionError, match="different shapes"):
        direction + make(torch.ones(5))
    with pytest.raises(DirectionError, match="one per latent"):
        edit(latents, direction, torch.ones(3))


def test_what_is_unknown_is_never_guessed(latents):
    bare = make(torch.ones(6))
    with pytest.raises(DirectionError, match="has no sigma"):
        edit(latents, bare, 1.0)
    with pytest.raises(DirectionError, match="only relative edits"):
        edit(latents, bare, 0.5, "probability")
    with pytest.raises(DirectionError, match="Did you mean sigma"):
        edit(latents, bare, 1.0, "sigmas")  # type: ignore[arg-type]
    with pytest.raises(DirectionError, match="between 0 and 1"):
        edit(latents, make(torch.ones(6), threshold=0.0, gain=1.0), 1.0, "probability")


def saved(model: VAE, path: Path) -> DirectionSet:
    g = torch.Generator().manual_seed(7)
    first = make(
        torch.randn(6, generator=g),
        sigma=0.5,
        threshold=0.1,
        gain=3.0,
        n_positive=20,
        n_negative=20,
        origin=Origin("encoded", "faces", "12" * 32, 40),
        scores={"accuracy": Estimate(0.8, 0.7, 0.9)},
        conditioned_on=("Male.svm",),
        surviving_norm=0.9,
    )
    second = make(torch.randn(6, generator=g), "Smiling")
    directions = DirectionSet.of(model, [first, second])
    directions.save(path)
    return directions


def test_a_set_survives_its_file(model, tmp_path):
    path = tmp_path / "directions.safetensors"
    before, after = saved(model, path), DirectionSet.load(path)
    assert len(after) == 2
    assert after.attributes == ("Eyeglasses", "Smiling")
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old.vector, new.vector)
        for field in dataclasses.fields(Direction):
            if field.name != "vector":
                assert getattr(old, field.name) == getattr(new, field.name), field.name
    assert ("Smiling", "svm") in after
    with pytest.raises(DirectionError, match="Did you mean Smiling"):
        after["Smile", "svm"]
    smiling = after["Smiling", "svm"]
    assert smiling.sigma is None  # until a model gives it
    filled = DirectionSet.load(path, model)
    assert filled["Smiling", "svm"].sigma == smiling.with_sigma(model).sigma
    assert filled["Eyeglasses", "svm"].sigma == 0.5
    with pytest.raises(DirectionError, match="Available: svm"):
        after["Smiling", "joint"]


def of_origins(model: VAE) -> DirectionSet:
    """Samples and projected images of one attribute, projected images alone of another."""
    sampled, projected = Origin("sampled", "judge", n=20), Origin("projected", "faces", n=10)
    vectors = torch.randn(3, 6, generator=torch.Generator().manual_seed(8))
    return DirectionSet.of(
        model,
        [
            make(vectors[0], origin=sampled),
            make(vectors[1], origin=projected),
            make(vectors[2], "Wearing_Hat", origin=projected),
        ],
    )


def test_the_default_origin_is_meant_where_none_is_named(model, tmp_path):
    of_origins(model).save(tmp_path / "d.safetensors")
    found = DirectionSet.load(tmp_path / "d.safetensors", model)
    assert found.default_origin == "sampled"
    assert found.methods == ("svm", "svm-projected")
    assert found["Eyeglasses", "svm"].origin == Origin("sampled", "judge", n=20)
    projected = found.get("Eyeglasses", "svm", origin="projected")
    assert projected is found["Eyeglasses", "svm-projected"]
    assert projected.name == "Eyeglasses.svm"
    with pytest.raises(DirectionError, match="Available: svm-projected"):
        found["Wearing_Hat", "svm"]
    with pytest.raises(DirectionError, match="each direction once"):
        DirectionSet.of(model, [found["Eyeglasses", "svm"], found["Eyeglasses", "svm"]])


def test_attributes_are_understood_as_people_type_them(model):
    found = of_origins(model)
    for typed in ("Eyeglasses", "eyeglasses", "EYEGLASSES", "glasses"):
        assert found[typed, "svm"].attribute == "Eyeglasses"
    for typed in ("wearing hat", "wearing-hat", "hat", "Wearing_Hat"):
        assert found[typed, "svm-projected"].attribute == "Wearing_Hat"


def test_an_ending_that_several_names_share_or_that_means_the_opposite_is_not_guessed():
    assert find_name("beard", CELEBA_ATTRIBUTES.split(",")) is None
    assert find_name("hair", CELEBA_ATTRIBUTES.split(",")) is None
    assert find_name("", CELEBA_ATTRIBUTES.split(",")) is None
    message = unknown_name("attribute", "beard", CELEBA_ATTRIBUTES.split(","))
    assert "No_Beard" in message and message.count(",") == 4


def test_a_set_is_shown_in_three_lines(model):
    found = of_origins(model)
    lines = repr(found).splitlines()
    assert len(lines) == 3 and "3 directions" in lines[0] and "svm-projected" in lines[1]
    scores = {"accuracy": Estimate(0.8125, 0.7, 0.9)}
    hostile = make(torch.ones(6), "<script>", scores=scores)
    shown = DirectionSet.of(model, [hostile])._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "0.812" in shown
    assert "<script>" not in hostile._repr_html_()
    assert len(repr(hostile).splitlines()) == 1 and "accuracy 0.812" in repr(hostile)


@pytest.mark.parametrize(
    ("sentence", "origin"),
    [
        (f"celeba {'3f' * 32}", Origin("encoded", "celeba", "3f" * 32)),
        ("1000 projected images of celeba 3f3f", Origin("projected", "celeba", "3f3f", 1000)),
        (
            "20 samples of the model (seed 0), labelled by attributes-celeba 3b1e",
            Origin("sampled", "attributes-celeba", "3b1e", 20),
        ),
        ("somewhere", Origin("encoded", "somewhere")),
        (None, None),
    ],
)
def test_files_of_version_1_are_read(model, tmp_path, sentence, origin):
    path = tmp_path / "directions.safetensors"
    direction = make(torch.ones(6), "Hat", sigma=1.0)
    DirectionSet.of(model, [direction]).save(path)
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["hublatent-directions"])
    (entry,) = document["directions"]
    del entry["origin"]
    suffix = "-projected" if origin and origin.kind == "projected" else ""
    old = {**entry, "method": f"svm{suffix}", "dataset": sentence}
    document |= {"version": 1, "directions": [old], "fingerprint": weights_digest(model)}
    tensors = {"Hat.svm.vector": direction.vector}
    save_file(tensors, path, metadata={"hublatent-directions": json.dumps(document)})
    found = DirectionSet.load(path, model)
    assert found["Hat", "svm"].origin == origin
    assert found["Hat", f"svm{suffix}"] is found["Hat", "svm"]
    assert found.fingerprint == model.fingerprint()


def test_a_set_is_refused_by_another_model(model, tmp_path):
    path = tmp_path / "directions.safetensors"
    saved(model, path)
    torch.manual_seed(1)
    same_shape = VAE(image_size=16, latent_dim=6, width=4, max_width=4, n_stages=2)
    with pytest.raises(DirectionError, match="fingerprint"):
        DirectionSet.load(path, same_shape)
    insisted = DirectionSet.load(path, same_shape, override=True)
    assert insisted.override == same_shape.fingerprint()
    insisted.save(path)
    assert DirectionSet.load(path, same_shape).override == same_shape.fingerprint()
    other_shape = VAE(image_size=16, latent_dim=5, width=4, max_width=4, n_stages=2)
    with pytest.raises(DirectionError, match=r"shape \(6\).*have \(5\)"):
        DirectionSet.load(path, other_shape, override=True)


def change(path: Path, **changes: object) -> None:
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["hublatent-directions"])
    tensors = load_file(path)
    for key, value in changes.items():
        if key in document["directions"][0]:
            document["directions"][0][key] = value
        else:
            document[key] = value
    save_file(tensors, path, metadata={"hublatent-directions": json.dumps(document)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "pip install --upgrade"),
        ({"format": "other"}, "not a hublatent-directions"),
        ({"directions": 3}, "'directions' is 3; expected a valid array"),
        ({"directions": []}, "disagree"),
        ({"attribute": "Hat"}, "disagree"),
        ({"sigma": "big"}, "sigma' is 'big'; expected a valid number"),
        ({"sigma": math.nan}, "sigma' is nan; expected a finite number"),
        ({"layers": [0]}, "other layers"),
        ({"scores": {"accuracy": [1]}}, "it lacks 'directions.0.scores.accuracy.1'"),
        ({"fingerprint": None}, "fingerprint' is None; expected a valid string"),
        ({"space": "\ud800"}, ": it cannot be read: Invalid JSON"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(model, tmp_path, changes, message):
    path = tmp_path / "directions.safetensors"
    saved(model, path)
    change(path, **changes)
    with pytest.raises(DirectionError, match=message):
        DirectionSet.load(path)


def test_what_is_no_direction_file_is_refused(tmp_path):
    path = tmp_path / "d.safetensors"
    with pytest.raises(DirectionError, match="does not exist"):
        DirectionSet.load(path)
    path.write_bytes(b"\x80\x04 not safetensors")
    with pytest.raises(DirectionError, match="not a readable"):
        DirectionSet.load(path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(DirectionError, match="import-directions"):
        DirectionSet.load(path)


# --- styles of an attribute -----------------------------------------------------------------------


def test_a_style_is_another_direction_of_the_same_length(tmp_path: Path) -> None:
    vector, styles = torch.tensor([2.0, 0.0, 0.0]), torch.eye(3)[1:]
    glasses = Direction("Eyeglasses", "pairs", vector, sigma=1.0, styles=styles)
    round_ones = glasses.varied([0.3, 0.0])
    expected = torch.tensor([1.0, 0.3, 0.0])
    torch.testing.assert_close(round_ones.vector, 2 * expected / expected.norm())
    assert round_ones.sigma is None and round_ones.styles is None
    assert torch.equal(glasses.varied([0.0, 0.0]).vector, vector)
    for wrong in ([0.1], [0.1, 0.2, 0.3]):
        with pytest.raises(DirectionError, match="has 2 styles"):
            glasses.varied(wrong)
    with pytest.raises(DirectionError, match="has 0 styles"):
        round_ones.varied([0.1])
    drawn, again, other = (glasses.sampled_style(seed).vector for seed in (1, 1, 2))
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)
    assert (drawn[1:].abs() <= 0.35 * drawn[0]).all()
    with pytest.raises(DirectionError, match="no styles to draw"):
        round_ones.sampled_style(1)


@pytest.mark.parametrize(
    "styles",
    [torch.zeros(0, 3), torch.zeros(2, 4), torch.tensor(1.0), torch.full((1, 3), torch.nan)],
)
def test_styles_that_do_not_fit_are_refused(styles: torch.Tensor) -> None:
    with pytest.raises(DirectionError, match="its styles"):
        Direction("Eyeglasses", "pairs", torch.ones(3), styles=styles)


def test_a_file_keeps_the_styles(tmp_path: Path) -> None:
    plain = Direction("Smiling", "pairs", torch.ones(3))
    styled = Direction("Eyeglasses", "pairs", torch.ones(3), styles=torch.eye(3))
    path = tmp_path / "directions.safetensors"
    DirectionSet((plain, styled), "vae", "z", "0" * 64).save(path)
    loaded = DirectionSet.load(path)
    assert loaded["Smiling", "pairs"].styles is None
    assert torch.equal(loaded["Eyeglasses", "pairs"].styles, torch.eye(3))


def test_defaults_keep_their_meaning_when_directions_of_another_origin_join() -> None:
    def direction(method: str, kind: str) -> Direction:
        return Direction("Hat", method, torch.ones(3), origin=Origin(kind, "", "0" * 64))

    svm, joint = direction("svm", "sampled"), direction("joint", "projected")
    plain = DirectionSet((svm, joint), "vae", "z", "0" * 64)
    of_samples, of_projected = (
        dataclasses.replace(plain, defaults={"Hat": (method, "")})
        for method in ("svm", "joint-projected")
    )
    carried = direction("svm", "encoded")
    together = of_samples.with_directions((svm, joint, carried))
    assert together.defaults == {"Hat": ("svm-sampled", "")}
    assert together.default("Hat") is svm
    alone = of_projected.with_directions((joint,))
    assert alone.defaults == {"Hat": ("joint", "")} and alone.default("Hat") is joint
    assert of_samples.with_directions((joint,)).defaults == {}


def test_the_default_of_an_attribute_is_what_the_file_says_else_joint(tmp_path: Path) -> None:
    model = tiny_stylegan2()
    vector = torch.ones(model.latent_shape)
    found = [Direction("Hat", method, vector) for method in ("svm", "joint", "pattern")]
    plain = DirectionSet.of(model, [*found, Direction("Bald", "svm", vector)])
    assert plain.default("hat").method == "joint" and plain.default("Bald").method == "svm"
    told = dataclasses.replace(plain, defaults={"Hat": ("svm", "1-2"), "Bald": ("svm", "")})
    told.save(tmp_path / "directions.safetensors")
    loaded = DirectionSet.load(tmp_path / "directions.safetensors", model)
    assert loaded.defaults == told.defaults
    assert loaded.default("Hat").name == "Hat.svm" and loaded.default("Hat").layers == (1, 2)
    assert loaded.default("Bald").layers == plain["Bald", "svm"].layers
    with pytest.raises(DirectionError, match="default of 'Hat' is not in the set"):
        dataclasses.replace(plain, defaults={"Hat": ("logistic", "")})
    with pytest.raises(DirectionError, match="layers are 'all'"):
        dataclasses.replace(plain, defaults={"Hat": ("svm", "all")})
    with pytest.raises(DirectionError, match="Unknown attribute"):
        plain.default("Beard")
    with pytest.raises(DirectionError, match="joint"):
        dataclasses.replace(plain, directions=(found[0], found[2])).default("Hat")
