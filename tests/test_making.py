"""Directions that visitors make: of two heaps, in every model; saved, opened again, and used."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hublatent.demo.faces import Face, drawn_face
from hublatent.demo.making import (
    Made,
    gather,
    make_directions,
    name_part,
    open_directions,
    part_strips,
    save_directions,
    unzip_heaps,
    use_directions,
)
from hublatent.demo.session import Edit, EditRequest, Refusal, compare_edits
from hublatent.demo.shelf import LOCAL, ModelShelf, find_models
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.errors import HublatentError
from hublatent.images import to_pil
from hublatent.mapping import fit_maps

MODELS = ("vae-tiny", "eigenfaces-tiny", "stylegan2-tiny")


@pytest.fixture
def shelf(model_cards: Path) -> ModelShelf:
    return ModelShelf(find_models(model_cards), device="cpu")


def heaps(shelf: ModelShelf) -> list[list[Face]]:
    """Faces that eigenfaces draw, of one component high or low."""
    opened = shelf.open("eigenfaces-tiny")
    latents = opened.model.sample_latents(16, generator=torch.Generator().manual_seed(0))
    latents[:8, 1], latents[8:, 1] = 12.0, -12.0
    pictures = to_pil(opened.model.decode(latents))
    faces = [Face(f"upload-{i}", picture) for i, picture in enumerate(pictures)]
    return [faces[:8], faces[8:]]


def test_what_tells_the_heaps_apart_is_found_saved_and_used(
    shelf: ModelShelf, model_cards: Path, tmp_path: Path
) -> None:
    with_it, without_it = heaps(shelf)
    made = make_directions(shelf, "High <b>wave", with_it, without_it, MODELS)
    assert [answer.model for answer in made] == list(MODELS)
    waves, refusal = made[1:]
    assert isinstance(refusal, Refusal) and "has yet to find" in refusal.problem, "no encoder"
    assert isinstance(waves, Made) and waves.accuracy is not None and waves.accuracy.value == 1.0
    vector = waves.direction.vector
    assert vector[1] == vector.abs().max() and len(waves.after) == 8
    pairs = [(m.model, m.direction) for m in made if isinstance(m, Made)]
    files = save_directions(shelf, pairs, tmp_path)
    assert [file.name for file in files] == [
        "High__b_wave-vae-tiny.safetensors", "High__b_wave-eigenfaces-tiny.safetensors",
    ]  # fmt: skip
    (saved,) = DirectionSet.load(files[1], shelf.open("eigenfaces-tiny").model)
    assert torch.equal(saved.vector, vector)

    other = ModelShelf(find_models(model_cards), device="cpu")
    ((model, opened),) = open_directions(other, files[1], MODELS)
    assert (model, opened.attribute) == ("eigenfaces-tiny", "High <b>wave")
    face = drawn_face(other.open("eigenfaces-tiny"), 0)
    request = EditRequest(MODELS, "High <b>wave", "joint", strength=2.0)
    refused, edited, _ = compare_edits(other, face, request)
    assert isinstance(edited, Edit) and isinstance(refused, Refusal)
    assert "Unknown attribute" in refused.problem
    with pytest.raises(HublatentError):
        open_directions(other, files[1], ("vae-tiny",))


def test_a_direction_is_carried_to_models_that_a_map_leads_to(
    shelf: ModelShelf, tmp_path: Path
) -> None:
    source, target = (shelf.open(name).model for name in ("vae-tiny", "eigenfaces-tiny"))
    fitted = fit_maps({"a": source, "b": target}, 60, tmp_path / "maps")
    shelf.maps = tuple(found for _, found in fitted)
    vector = torch.zeros(source.latent_shape).index_fill(0, torch.tensor(2), 1.0)
    made = Direction("Waves", "svm", vector).with_sigma(source)
    DirectionSet.of(source, [made]).save(tmp_path / "waves.safetensors")
    open_directions(shelf, tmp_path / "waves.safetensors", MODELS)
    carried = shelf.open("eigenfaces-tiny").find("Waves", "svm")
    assert torch.allclose(carried.vector, shelf.maps[0].carry(made).vector)
    with pytest.raises(HublatentError, match="Unknown attribute"):
        shelf.open("stylegan2-tiny").find("Waves", "svm")


def test_too_few_faces_and_no_name_are_told(shelf: ModelShelf) -> None:
    with_it, without_it = heaps(shelf)
    with pytest.raises(HublatentError, match="4 faces without"):
        make_directions(shelf, "Wave", with_it, without_it[:4], MODELS)
    with pytest.raises(HublatentError, match="name"):
        make_directions(shelf, " ", with_it, without_it, MODELS)


def zipped(folders: dict[str, int], picture: bytes = b"picture") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, n in folders.items():
            for i in range(n):
                archive.writestr(f"{folder}/{i}.png", picture + folder.encode())
        archive.writestr("__MACOSX/with/._0.png", b"")
    return buffer.getvalue()


def test_two_folders_of_a_zip_file_are_the_heaps() -> None:
    for first, second in (("with", "without"), ("x/after", "x/before"), ("dimples", "none")):
        with_it, without_it = unzip_heaps(zipped({second: 6, first: 5}), LOCAL)
        assert with_it == [b"picture" + first.encode()] * 5
        assert without_it == [b"picture" + second.encode()] * 6
    small = replace(LOCAL, upload_bytes=100)
    for content, word in (
        (b"PK nonsense", "no zip file"), (zipped({"a": 1}), "1 folders"),
        (zipped({"a": 90, "b": 90}), "180 files"), (zipped({"a": 1, "b": 1}, bytes(10**6)), "much"),
    ):  # fmt: skip
        with pytest.raises(HublatentError, match=word):
            unzip_heaps(content, small)


def test_a_component_gets_a_name_and_is_carried_across(shelf: ModelShelf, tmp_path: Path) -> None:
    source, target = (shelf.open(name).model for name in ("vae-tiny", "eigenfaces-tiny"))
    shelf.maps = tuple(
        found for _, found in fit_maps({"a": source, "b": target}, 60, tmp_path / "maps")
    )
    opened = shelf.open("vae-tiny")
    strips = part_strips(opened, "components")
    assert len(strips) >= 4 and all(len(strip) == 5 for strip in strips)
    made = name_part(shelf, "Haze", "components", 1, "vae-tiny", MODELS)
    own, carried, without = (next(m for m in made if m.model == name) for name in MODELS)
    assert isinstance(own, Made) and own.direction.method == "components-01"
    variance = torch.linalg.eigvalsh(source.latent_covariance.double()).flip(0)
    vector = own.direction.vector.double()
    along = float(vector @ source.latent_covariance.double() @ vector / (vector @ vector))
    assert along == pytest.approx(float(variance[1]), rel=1e-4), "the second largest"
    assert isinstance(carried, Made) and carried.carried_from == "vae-tiny"
    assert torch.allclose(
        carried.direction.vector, shelf.maps[0].carry(own.direction, "pattern").vector
    )
    assert isinstance(without, Refusal) and "no map" in without.problem
    with pytest.raises(HublatentError, match="name"):
        name_part(shelf, "", "components", 1, "vae-tiny", MODELS)


def test_another_style_of_a_direction_takes_its_place(shelf: ModelShelf) -> None:
    opened = shelf.open("vae-tiny")
    assert opened.directions is not None
    plain = opened.directions["Smiling", "joint"]
    styled = replace(plain, styles=torch.ones(1, *plain.vector.shape))
    assert use_directions(shelf, [("vae-tiny", styled)]) == "Smiling"
    vectors = []
    for style in (0, 1, 0):
        use_directions(shelf, [("vae-tiny", styled)], style)
        used = shelf.open("vae-tiny").directions["Smiling", "joint"]  # type: ignore[index]
        assert used.sigma is not None
        vectors.append(used.vector)
    assert torch.equal(vectors[0], vectors[2]) and not torch.equal(vectors[0], vectors[1])
    with pytest.raises(HublatentError, match="no styles"):
        use_directions(shelf, [("vae-tiny", plain)], 0)


def test_what_is_uploaded_is_told_by_its_own_name(
    shelf: ModelShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hublatent.demo import wiring

    told: list[str] = []
    monkeypatch.setattr(wiring, "get_upload_folder", lambda: str(tmp_path))
    monkeypatch.setattr(wiring.gr, "Warning", told.append)
    (tmp_path / "0a1b").mkdir()
    for name in ("my smile.safetensors", "my photo.jpg"):
        file = tmp_path / "0a1b" / name
        file.write_text("nothing of the kind")
        with pytest.raises(HublatentError) as caught:
            if file.suffix == ".jpg":
                gather(shelf, "vae-tiny", (), [str(file)])
            else:
                open_directions(shelf, str(file), MODELS)
        wiring.warn(shelf, caught.value)
        assert name in told[-1] and str(tmp_path) not in told[-1], told
