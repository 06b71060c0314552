"""Others' directions: read as published, fitted to the user's model, nothing in them run."""

from __future__ import annotations

import json
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hublatent import VAE
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.errors import DirectionError, HublatentError
from hublatent.interop.convert import convert
from hublatent.interop.directions import import_directions, to_direction
from hublatent.interop.formats import read_foreign, read_latents
from hublatent.model import LatentModel
from hublatent.models.stylegan2 import StyleGAN2
from tests.foreign_writers import (
    Call,
    nvidia_generator,
    nvidia_weights,
    torch_legacy,
    write_ganspace,
    write_higan,
    write_nvidia,
    write_torch,
)

pytestmark = pytest.mark.usefixtures("fast_reader")
WIDTH, LAYERS = 8, 6


@pytest.fixture(scope="module")
def gan() -> StyleGAN2:
    torch.manual_seed(0)
    model = StyleGAN2(
        image_size=16, latent_dim=WIDTH, z_dim=8, channel_base=64, channel_max=8, channel_min=4
    )
    model.set_latent_statistics(torch.randn(100, WIDTH) @ torch.randn(WIDTH, WIDTH))
    return model.eval()


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(image_size=16, latent_dim=WIDTH, width=4, max_width=4, n_stages=2).eval()


@pytest.fixture()
def row() -> np.ndarray:
    """A unit vector (1, D)."""
    vector = np.random.default_rng(0).standard_normal((1, WIDTH))
    return vector / np.linalg.norm(vector)


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=False)
    return path


# Reading: what each format means.


def test_interfacegan_tells_its_space_and_condition_by_its_name(tmp_path, row):
    (z,) = read_foreign(save(tmp_path / "stylegan_ffhq_age_c_eyeglasses_boundary.npy", row))
    assert (z.source_format, z.space) == ("interfacegan", "z")
    assert z.conditioned_on == ("eyeglasses",)
    assert z.vector.dtype == np.float32 and np.array_equal(z.vector, row.astype(np.float32))
    assert {"threshold", "gain", "sigma", "mean"} <= set(z.missing)
    (w,) = read_foreign(save(tmp_path / "stylegan_ffhq_age_w_boundary.npy", row))
    assert (w.space, w.conditioned_on, w.layers) == ("w", (), None)
    assert "layers" in w.missing


def test_higan_layers_include_both_ends(tmp_path, row):
    name = "stylegan2_church_clouds_boundary.npy"
    (plain,) = read_foreign(save(tmp_path / name, row.astype(np.float32)))
    assert (plain.source_format, plain.space, plain.layers) == ("higan", "w", None)
    (noted,) = read_foreign(write_higan(tmp_path / "wood.npy", row, "6-11"))
    assert (noted.source_format, noted.layers) == ("higan", tuple(range(6, 12)))
    (listed,) = read_foreign(write_higan(tmp_path / "wood.npy", row, "1, 3-4"))
    assert listed.layers == (1, 3, 4)
    with pytest.raises(DirectionError, match="layers 'a-b'"):
        read_foreign(write_higan(tmp_path / "wood.npy", row, "a-b"))


def test_rows_per_layer_keep_their_norm(tmp_path, row):
    rows = 0.4 * np.repeat(row, LAYERS, axis=0)
    (encoder,) = read_foreign(save(tmp_path / "smile.npy", rows))
    assert (encoder.source_format, encoder.vector.shape) == ("stylegan-encoder", (LAYERS, WIDTH))
    assert np.linalg.norm(encoder.vector, axis=1) == pytest.approx(0.4)
    average = np.random.default_rng(1).standard_normal((1, LAYERS, WIDTH)).astype(np.float32)
    (shots,) = read_foreign(save(tmp_path / "average.npy", average))
    assert shots.source_format == "few-shot" and np.array_equal(shots.vector, average[0])


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_torch_files_of_any_device_and_type_are_read(tmp_path, row, device, dtype):
    tensor = torch.from_numpy(row).to(dtype)
    (one,) = read_foreign(write_torch(tmp_path / "age.pt", tensor, device))
    assert (one.source_format, one.space) == ("e4e", None) and "space" in one.missing
    assert np.array_equal(one.vector, tensor.float().numpy())
    torch.save(tensor, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (old,) = read_foreign(tmp_path / "old.pt")
    assert np.array_equal(old.vector, one.vector)
    (rows,) = read_foreign(write_torch(tmp_path / "pose.pt", tensor.repeat(1, LAYERS, 1), device))
    assert (rows.space, rows.vector.shape) == ("w+", (LAYERS, WIDTH))


def test_a_pca_gives_one_direction_per_component_with_its_deviation(tmp_path):
    components = torch.randn(5, 1, WIDTH, generator=torch.Generator().manual_seed(0))
    # encoder4editing's tensor lies transposed in memory.
    strided = torch.empty(WIDTH, 1, 5).permute(2, 1, 0).copy_(components)
    content = {"mean": torch.zeros(1, WIDTH), "comp": strided, "std": torch.arange(1.0, 6.0)}
    found = read_foreign(write_torch(tmp_path / "pca.pt", content, "cuda:0"))
    assert [one.shift_scale for one in found] == [1, 2, 3, 4, 5]
    for one, component in zip(found, components, strict=True):
        assert np.array_equal(one.vector, component.numpy())
    assert "sigma" not in found[0].missing and "mean" not in found[0].missing


def test_ganspace_layers_exclude_the_end(tmp_path, row):
    path = write_ganspace(tmp_path / "light.pkl", row.astype(np.float32), 2, 5, 1.5)
    (one,) = read_foreign(path)
    assert (one.name, one.space, one.layers) == ("Light direction", "w", (2, 3, 4))
    assert one.shift_scale == 1.5


def test_big_endian_and_fortran_arrays_are_read(tmp_path, row):
    rows = np.random.default_rng(0).standard_normal((LAYERS, WIDTH))
    (one,) = read_foreign(save(tmp_path / "a.npy", np.asfortranarray(rows.astype(">f8"))))
    assert np.array_equal(one.vector, rows.astype(np.float32))


# Formats in which a wrong guess would be silent.


def test_layers_may_be_a_list(tmp_path, gan):
    boundary = np.random.default_rng(0).standard_normal((1, LAYERS, WIDTH)).astype(np.float32)
    (one,) = read_foreign(write_higan(tmp_path / "pose.npy", boundary, [0, 1, 3]))
    assert (one.space, one.layers) == ("w+", (0, 1, 3))
    direction = to_direction(one, "Pose", gan)
    assert direction.layers == (0, 1, 3)
    assert np.array_equal(direction.vector[3].numpy(), boundary[0, 3])
    with pytest.raises(DirectionError, match="no layers"):
        read_foreign(write_higan(tmp_path / "pose.npy", boundary, []))


def test_ganspaces_cache_gives_its_components(tmp_path, gan):
    components = np.random.default_rng(0).standard_normal((4, 1, WIDTH)).astype(np.float32)
    content = {
        "act_comp": components, "act_mean": components[0], "act_stdev": np.ones(4, np.float32),
        "lat_comp": components, "lat_mean": components[0],
        "lat_stdev": np.arange(1, 5, dtype=np.float32), "var_ratio": np.ones(4, np.float32),
    }  # fmt: skip
    for name, space in (("stylegan2-ffhq_style_ipca_c4_n10_w", "w"), ("pgan_conv_ipca_c4", None)):
        np.savez_compressed(tmp_path / f"{name}.npz", **content)
        found = read_foreign(tmp_path / f"{name}.npz")
        assert [one.shift_scale for one in found] == [1, 2, 3, 4]
        assert {one.space for one in found} == {space}
        assert np.array_equal(np.stack([one.vector for one in found]), components)
    imported = import_directions([tmp_path / "stylegan2-ffhq_style_ipca_c4_n10_w.npz"], None, gan)
    assert [d.method for d in imported.directions] == [f"ganspace-{i}" for i in range(4)]


def test_sefas_factors_are_the_columns(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((WIDTH, WIDTH))
    vectors = np.linalg.eigh(matrix @ matrix.T)[1].astype(np.float32)
    content = {"ckpt": "550000.pt", "eigvec": torch.from_numpy(vectors)}
    found = read_foreign(write_torch(tmp_path / "factor.pt", content))
    assert [one.space for one in found] == ["w"] * WIDTH
    assert np.array_equal(np.concatenate([one.vector for one in found]), vectors.T)
    write_torch(tmp_path / "factor.pt", {"eigvec": torch.from_numpy(matrix)})
    with pytest.raises(DirectionError, match="no unit vectors"):
        read_foreign(tmp_path / "factor.pt")


@pytest.mark.parametrize("form", ["pt", "safetensors", "npz"])
def test_named_tensors_are_directions_of_these_names(tmp_path, gan, row, form):
    path = tmp_path / f"edits.{form}"
    content = {"smile": torch.from_numpy(row).float(), "pose.left": torch.ones(LAYERS, WIDTH)}
    if form == "pt":
        torch.save(content, path)
    elif form == "npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in content.items()})
    else:
        save_file(content, path)
    with pytest.raises(DirectionError, match="--space"):
        import_directions([path], None, gan)
    found = import_directions([path], None, gan, space="w").directions
    assert {d.attribute for d in found} == {"smile", "pose-left"}
    by_name = {d.attribute: d.vector for d in found}
    assert np.allclose(by_name["smile"].numpy(), row.astype(np.float32))
    assert bool((by_name["pose-left"] == 1).all())


def test_a_safetensors_file_of_one_tensor_is_called_after_its_file(tmp_path, gan, row):
    save_file({"direction": torch.from_numpy(row[0]).float()}, tmp_path / "smile.safetensors")
    found = import_directions([tmp_path / "smile.safetensors"], None, gan, space="w").directions
    assert [d.attribute for d in found] == ["smile"]


def test_a_row_of_all_layers_is_reshaped_with_a_word(tmp_path, gan):
    rows = np.random.default_rng(0).standard_normal((LAYERS, WIDTH)).astype(np.float32)
    path = save(tmp_path / "smile.npy", rows.reshape(1, -1))
    imported = import_directions([path], "Smiling", gan)
    (direction,) = imported.directions
    assert np.array_equal(direction.vector.numpy(), rows)
    assert f"1x{LAYERS * WIDTH}, read as {LAYERS}x{WIDTH}" in imported.report[0]
    assert "layers" not in imported.report[0]


def test_files_without_a_hint_need_their_space(tmp_path, gan, vae, row):
    paths = [
        save(tmp_path / "smile.npy", row),
        save(tmp_path / "w_boundary_named_without_w.npy", row),
        save(tmp_path / "single.npy", row.astype(np.float32)),
        write_torch(tmp_path / "z_boundary.pt", torch.from_numpy(row).float()),
    ]
    for path in paths:
        assert read_foreign(path)[0].space is None
        for model in (gan, vae):
            with pytest.raises(DirectionError, match="--space"):
                import_direction(path, model, "Age")
        assert import_direction(path, gan, "Age", space="w").layers == tuple(range(LAYERS))
        assert import_direction(path, vae, "Age", space="z").layers is None
    found = import_directions(paths, None, gan, space="w").directions
    assert [d.attribute for d in found] == [path.stem for path in paths]


def test_latents_are_no_directions_but_edit_takes_them(tmp_path, gan):
    codes = 5 * np.random.default_rng(0).standard_normal((1, LAYERS, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "projected_w.npz", w=codes)
    long = save(tmp_path / "code.npy", codes)
    for path in (tmp_path / "projected_w.npz", long):
        with pytest.raises(DirectionError, match="holds latents"):
            import_direction(path, gan, "Age")
        assert np.array_equal(read_latents(path, gan.latent_shape), codes)
    several = save(tmp_path / "several.npy", codes[0])
    assert np.array_equal(read_latents(several, (WIDTH,)), codes[0])
    spread = read_latents(save(tmp_path / "w.npy", codes[0, :2]), (LAYERS, WIDTH))
    assert spread.shape == (2, LAYERS, WIDTH) and np.array_equal(spread[1, 5], codes[0, 1])
    with pytest.raises(DirectionError, match=r"\(1, 6, 8\); the model's latents have \(7,\)"):
        read_latents(long, (7,))


def test_files_of_the_wild_are_what_they_are(shared):
    wild = shared / "wild"
    (listed,) = read_foreign(wild / "idinvert_like_layers_list.npy")
    assert listed.layers == (0, 1, 2, 3, 4, 5)
    assert len(read_foreign(wild / "stylegan2-ffhq_style_ipca_c4_n1000_w.npz")) == 4
    for name in ("w_boundary_named_without_w.npy", "z_boundary_cast.pt"):
        assert read_foreign(wild / name)[0].space is None
    assert "holds latents" in refusal(wild / "projected_w.npz")
    assert read_latents(wild / "projected_w.npz", (18, 512)).shape == (1, 18, 512)
    for name in ("google_drive_quota.pkl", "lfs_pointer.pkl", "rosinality.pt", "e4e_encoder.pt"):
        refusal(wild / name)


# Fitting to a model.


def test_a_w_direction_goes_onto_the_chosen_layers(tmp_path, gan, row):
    path = save(tmp_path / "age_w_boundary.npy", row)
    everywhere = import_direction(path, gan, "Age")
    assert everywhere.name == "Age.interfacegan"
    assert everywhere.vector.shape == (LAYERS, WIDTH) and everywhere.layers == tuple(range(LAYERS))
    some = import_direction(path, gan, "Age", layers=(1, 4))
    assert some.layers == (1, 4)
    for layer in (1, 4):
        assert np.array_equal(some.vector[layer].numpy(), row[0].astype(np.float32))
    assert some.threshold is None and some.gain is None
    # sigma = sqrt(u' Cov u) / <v, v> with u = 2 * row and <v, v> = 2.
    unit = torch.from_numpy(row[0])
    expected = (unit @ gan.latent_covariance.double() @ unit).sqrt()
    assert some.sigma == pytest.approx(float(expected), rel=1e-5)


def test_the_authors_layers_are_kept_unless_others_are_asked_for(tmp_path, gan, row):
    path = write_higan(tmp_path / "wood.npy", row, "2-4")
    assert import_direction(path, gan, "Wood").layers == (2, 3, 4)
    assert import_direction(path, gan, "Wood", layers=[0]).layers == (0,)
    light = write_ganspace(tmp_path / "light.pkl", row.astype(np.float32), 3, 5, 1.0)
    assert import_direction(light, gan, "Light").layers == (3, 4)


def test_rows_stay_where_they_are_and_zero_rows_untouched(tmp_path, gan):
    rows = np.random.default_rng(0).standard_normal((LAYERS, WIDTH))
    rows[3:] = 0
    direction = import_direction(save(tmp_path / "smile.npy", rows), gan, "Smiling")
    assert direction.layers == (0, 1, 2)
    assert np.array_equal(direction.vector.numpy(), rows.astype(np.float32))
    assert import_direction(tmp_path / "smile.npy", gan, "Smiling", layers=[1]).layers == (1,)


def test_misfits_are_refused_with_both_shapes(tmp_path, gan, vae, row):
    wide = save(tmp_path / "age_w_boundary.npy", np.ones((1, 12)) / np.sqrt(12))
    with pytest.raises(DirectionError, match=r"\(1, 12\).*\(6, 8\)"):
        import_direction(wide, gan, "Age")
    tall = save(tmp_path / "smile.npy", np.ones((18, WIDTH)))
    with pytest.raises(DirectionError, match=r"\(18, 8\).*\(6, 8\)"):
        import_direction(tall, gan, "Smiling")
    layered = write_higan(tmp_path / "wood.npy", row, "6-11")
    with pytest.raises(DirectionError, match=r"6, 7, .*0 to 5"):
        import_direction(layered, gan, "Wood")
    wide_z = save(tmp_path / "age_boundary.npy", np.ones((1, 12)) / np.sqrt(12))
    with pytest.raises(DirectionError, match=r"\(1, 12\).*\(8,\)"):
        import_direction(wide_z, vae, "Age")


def test_a_direction_of_another_space_is_refused_by_name(tmp_path, gan, vae, row):
    z = save(tmp_path / "stylegan_ffhq_age_boundary.npy", row)
    with pytest.raises(DirectionError, match=r"stylegan_ffhq_age_boundary .* in Z.* W\+"):
        import_direction(z, gan, "Age")
    w = save(tmp_path / "age_w_boundary.npy", row)
    with pytest.raises(DirectionError, match=r"in W; .*VAE"):
        import_direction(w, vae, "Age")
    assert import_direction(z, vae, "Age").vector.shape == (WIDTH,)
    assert import_direction(z, gan, "Age", space="w").layers == tuple(range(LAYERS))
    with pytest.raises(DirectionError, match="Unknown space"):
        import_direction(z, gan, "Age", space="x")


def test_a_z_file_is_converted_without_a_model(tmp_path, row):
    path = save(tmp_path / "age_c_eyeglasses_boundary.npy", row)
    imported = import_directions([path], "Age")
    (direction,) = imported.directions
    assert direction.vector.shape == (WIDTH,) and direction.sigma is None
    assert direction.conditioned_on == ("eyeglasses",)
    assert imported.directions.space == "z"
    np.testing.assert_allclose(direction.vector.numpy(), row[0], atol=1e-7)


def test_a_set_of_many_files_is_saved_loaded_and_reported(tmp_path, gan, row):
    paths = [
        save(tmp_path / "age_w_boundary.npy", row),
        save(tmp_path / "age_c_gender_w_boundary.npy", -row),
        write_torch(tmp_path / "age.pt", torch.from_numpy(row).float()),
    ]
    imported = import_directions(paths, "Age", gan, space="w")
    assert [d.method for d in imported.directions] == ["interfacegan", "interfacegan-2", "e4e"]
    assert len(imported.report) == 3
    assert imported.report[0].startswith("age_w_boundary.npy") and "threshold" in imported.report[0]
    imported.directions.save(tmp_path / "directions.safetensors")
    loaded = DirectionSet.load(tmp_path / "directions.safetensors", gan)
    assert torch.equal(loaded["Age", "e4e"].vector, imported.directions["Age", "e4e"].vector)

    broken = tmp_path / "broken.npy"
    broken.write_bytes(b"\x93NUMPY")
    with pytest.raises(DirectionError, match=r"broken\.npy"):
        import_directions([*paths, broken], "Age", gan, space="w")
    with pytest.raises(DirectionError, match="No file"):
        import_directions([], "Age", gan)
    with pytest.raises(DirectionError, match="different spaces"):
        import_directions([paths[0], save(tmp_path / "age_boundary.npy", row)], "Age")


# StyleSpace.


@pytest.mark.parametrize("text", ["4_2\n0_1\n", "[[4, 2], [0, 1]]", "(4, 2)\n(0, 1)"])
def test_stylespace_channels_move_alone(tmp_path, gan, text):
    path = tmp_path / "glasses.txt"
    path.write_text(text)
    imported = import_directions([path], "Eyeglasses", gan)
    assert [d.method for d in imported.directions] == ["stylespace-4_2", "stylespace-0_1"]
    # Layers with ToRGB: 4/conv1, 4/rgb, 8/conv0, 8/conv1, 8/rgb, ...; 4 is the ToRGB at 8 pixels.
    rgb, first = gan.blocks["8"].to_rgb.affine, gan.blocks["4"].conv1.affine
    w = gan.sample_latents(3)
    with torch.no_grad():
        for direction, affine, layer, channel in zip(
            imported.directions, (rgb, first), (3, 0), (2, 1), strict=True
        ):
            assert direction.layers == (layer,)
            moved = w + direction.vector
            change = affine(moved[:, layer]) - affine(w[:, layer])
            wanted = torch.zeros_like(change)
            wanted[:, channel] = 1
            torch.testing.assert_close(change, wanted, atol=1e-4, rtol=0)


def test_stylespace_needs_a_model_that_has_the_channel(tmp_path, gan, vae):
    path = tmp_path / "glasses.json"
    path.write_text(json.dumps([[9, 409]]))
    with pytest.raises(DirectionError, match="no StyleSpace channel 9_409"):
        import_directions([path], "Eyeglasses", gan)
    for model in (None, vae):
        with pytest.raises(DirectionError, match="only a StyleGAN2"):
            import_directions([path], "Eyeglasses", model)


# The published files.


def test_every_published_file_is_read_with_its_own_numbers(shared):
    paths = [p for p in sorted((shared / "foreign").glob("*/*")) if p.is_file()]
    assert paths
    folders = {"generators-with-stylegan2": "stylegan-encoder", "flame": "few-shot"}
    for path in paths:
        found = read_foreign(path)
        expected = folders.get(path.parent.name, path.parent.name)
        assert found[0].source_format.removesuffix("-pca") == expected
        assert found[0].vector.shape[1] == 512 and found[0].missing
        if path.suffix == ".pt":
            raw = torch.load(path, map_location="cpu", weights_only=True)
            raw = raw["comp"] if isinstance(raw, dict) else raw
            ours = np.stack([one.vector for one in found])
            assert np.array_equal(ours.reshape(raw.shape), raw.numpy())
        elif path.suffix == ".npy" and b"'|O'" not in path.read_bytes()[:200]:
            raw = np.load(path, allow_pickle=False).astype(np.float32)
            assert np.array_equal(found[0].vector, raw.reshape(-1, 512))
        else:  # a dictionary: HiGAN's, GANSpace's
            assert np.linalg.norm(found[0].vector) == pytest.approx(1, abs=1e-5)
            assert found[0].layers in (tuple(range(6, 12)), (8,))


@pytest.mark.parametrize(("attribute", "held"), [("age", "eyeglasses"), ("eyeglasses", "age")])
def test_conditioning_reproduces_interfacegans_published_boundaries(shared, attribute, held):
    folder = shared / "foreign" / "interfacegan"

    def load(name: str) -> Direction:
        path = folder / f"stylegan_ffhq_{name}_boundary.npy"
        return import_direction(path, None, name.split("_")[0])

    ours = load(attribute).orthogonal_to(load(held)).unit()
    published = load(f"{attribute}_c_{held}")
    torch.testing.assert_close(ours.vector, published.vector, atol=1e-6, rtol=0)


def test_published_w_files_go_into_a_converted_generator_of_their_size(shared, tmp_path):
    weights = nvidia_weights(1024, width=512, channel_max=4)
    path = write_nvidia(tmp_path / "net.pkl", nvidia_generator(weights))
    model = convert(path, tmp_path / "out", n_samples=600)
    assert model.latent_shape == (18, 512)
    fitting, refused = [], []
    for file in sorted((shared / "foreign").glob("*/*")):
        (refused if read_foreign(file)[0].space == "z" else fitting).append(file)
    imported = import_directions(fitting, "Any", model, space="w")
    assert len(imported.report) == len(fitting)
    for direction in imported.directions:
        assert direction.vector.shape == (18, 512) and direction.sigma > 0
    assert refused
    for file in refused:
        with pytest.raises(DirectionError, match=f"{file.stem} is a direction in Z"):
            import_direction(file, model, "Any")
    (foreign,) = read_foreign(shared / "foreign" / "e4e" / "age.pt")
    assert to_direction(foreign, "Age", model, layers=range(4, 8), space="w").layers == (4, 5, 6, 7)


# Hostile and damaged files.


def object_npy(payload: bytes, shape: str = "()") -> bytes:
    header = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload


def torch_zip(path: Path, payload: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
    return path


def import_direction(
    path: Path, model: LatentModel | None, attribute: str, **options: Any
) -> Direction:
    """The one direction of a file."""
    (direction,) = import_directions([path], attribute, model, **options).directions
    return direction


def refusal(path: Path) -> str:
    with pytest.raises(DirectionError) as caught:
        read_foreign(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message
    return message


@pytest.mark.parametrize("form", ["npy", "pickle", "zip", "legacy", "in a storage"])
def test_nothing_in_a_file_is_run(form, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "file"
    payload = Call("os", "system", f"touch {mark}").dumps()
    if form == "zip":
        torch_zip(path, payload)
    else:
        storage = Call("torch.storage", "_load_from_bytes", torch_legacy(payload)).dumps()
        forms = {"npy": object_npy(payload), "pickle": payload, "in a storage": storage}
        path.write_bytes(forms.get(form) or torch_legacy(payload))
    assert "os.system" in refusal(path)
    assert not mark.exists()


def test_claims_beyond_the_file_are_refused(tmp_path, row):
    path = tmp_path / "file"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 512), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64)
    assert "damaged NumPy file" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    assert "unfolds to 10,000,000" in refusal(path)
    torch_zip(path, b"\x80\x02})" + b"\x85" * 500_000 + b"K\x01s.")
    assert "ended the process" in refusal(path)
    with path.open("wb") as file:
        file.truncate(200 << 20)
    assert "at most" in refusal(path)


def test_directions_without_end_are_refused(tmp_path, gan):
    np.savez(tmp_path / "a.npz", **{str(i): np.ones(4) for i in range(4200)})
    assert "at most 4,096" in refusal(tmp_path / "a.npz")
    (tmp_path / "a.txt").write_text("0_1 " * 10_000)
    with pytest.raises(DirectionError, match="10,000 channels; at most 256"):
        import_directions([tmp_path / "a.txt"], "Age", gan)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is empty"),
        (b"hello", "no known format; known: InterFaceGAN"),
        (b"GGUF\x03\0\0\0", "gguf"),
        (b"<!DOCTYPE html>", "HTML page"),
        (pickle.dumps({"a": 1}), "holding a; known: InterFaceGAN"),
        (b"\x89PNG", "is a picture (PNG); known: InterFaceGAN"),
        (pickle.dumps(3), "holds one int"),
        (object_npy(pickle.dumps([1], protocol=2), "(1,)"), "Python objects"),
        (b"\x93NUMPY\x01\x00\x02\x00((", "damaged NumPy file"),
    ],
)
def test_other_content_is_refused_by_what_it_is(tmp_path, content, word):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert word in refusal(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, WIDTH)),
        np.full((1, WIDTH), np.nan),
        np.full((1, WIDTH), 1e300),
        np.ones((1, WIDTH), dtype=np.int64),
        np.ones((1, WIDTH), dtype=complex),
        np.ones((2, 3, WIDTH)),
        np.ones(()),
        np.ones((100, WIDTH)),
        np.zeros(WIDTH, dtype=[("a", "f8")]),
        np.array(["age"]),
    ],
    ids=str,
)
def test_arrays_that_are_no_direction_are_refused(tmp_path, array):
    refusal(save(tmp_path / "a.npy", array))


def test_damaged_files_never_crash(tmp_path, row):
    rng = random.Random(0)
    content = {"mean": torch.zeros(1, 8), "comp": torch.ones(2, 1, 8), "std": torch.ones(2)}
    np.savez(tmp_path / "a.npz", vector=np.ones(8, np.float32))
    torch.save(torch.ones(1, 8), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    originals = [
        save(tmp_path / "a.npy", row),
        write_higan(tmp_path / "b.npy", row, "2-4"),
        write_ganspace(tmp_path / "c.pkl", row.astype(np.float32), 1, 3, 1.0),
        write_torch(tmp_path / "d.pt", content),
        tmp_path / "old.pt",
        tmp_path / "a.npz",
    ]
    path = tmp_path / "damaged"
    for original in originals:
        data = original.read_bytes()
        for trial in range(150):
            damaged = bytearray(data)
            if trial % 3 == 0:
                del damaged[rng.randrange(len(data)) :]
            for _ in range(rng.randrange(1, 8) if trial % 3 else 0):
                damaged[rng.randrange(len(data))] = rng.randrange(256)
            path.write_bytes(damaged)
            try:
                for one in read_foreign(path):
                    assert np.isfinite(one.vector).all()
            except HublatentError as error:
                assert "\n" not in str(error)
