"""Labelled pictures in every layout, good and bad; pixels against plain Pillow."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hublatent.data import FaceDataset, load_dataset
from hublatent.data import dataset as dataset_module
from hublatent.errors import DataError

Capture = pytest.CaptureFixture[str]

ATTRIBUTES = ("Eyeglasses", "Smiling")
# Six pictures of four people; person 7 is on three of them.
NAMES = tuple(f"{i:06d}.png" for i in range(1, 7))
LABELS = np.array([[1, 0], [0, 0], [1, 1], [0, 1], [0, 0], [1, 0]], dtype=bool)
IDENTITIES = (7, 7, 7, 8, 9, 11)
PARTITION = (0, 0, 0, 0, 1, 2)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def draw(index: int, size: tuple[int, int] = (178, 218)) -> Image.Image:
    """A picture whose pixels tell which it is."""
    generator = np.random.default_rng(index)
    return Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def draw_all(folder: Path, names: Iterable[str] = NAMES, size: tuple[int, int] = (40, 30)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        draw(i, size).save(folder / name)


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def attribute_lines(names: Sequence[str] = NAMES, labels: np.ndarray = LABELS) -> list[str]:
    rows = [
        f"{name}  " + "  ".join("1" if present else "-1" for present in row)
        for name, row in zip(names, labels, strict=True)
    ]
    return [str(len(names)), " ".join(ATTRIBUTES), *rows]


def pairs(values: Iterable[int], names: Sequence[str] = NAMES) -> list[str]:
    return [f"{name} {value}" for name, value in zip(names, values, strict=True)]


def make_celeba(folder: Path, anno: str = "", evaluation: str = "", pictures: str = "") -> Path:
    write(folder / anno / "list_attr_celeba.txt", attribute_lines())
    write(folder / anno / "identity_CelebA.txt", pairs(IDENTITIES))
    write(folder / evaluation / "list_eval_partition.txt", pairs(PARTITION))
    draw_all(folder / pictures / "img_align_celeba", size=(178, 218))
    return folder


def plain_pixels(image: Image.Image, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.LANCZOS))


def check(data: FaceDataset, identities: Sequence[int] = IDENTITIES) -> None:
    """The drawn set came through."""
    assert data.attributes == ATTRIBUTES
    assert np.array_equal(data.labels, LABELS)
    assert data.labels.dtype == bool
    assert data.identities.tolist() == list(identities)
    assert data.identities.dtype == np.int64
    assert data.partition.tolist() == list(PARTITION)
    assert data.partition.dtype == np.uint8
    assert data.skipped == ()


# --- the data set itself --------------------------------------------------------------------------


def test_celeba_pixels_are_plain_pillow(tmp_path: Path, cache: Path) -> None:
    data = load_dataset(make_celeba(tmp_path / "d"), 32, cache=cache, progress=False)
    check(data)
    assert data.names == NAMES
    assert data.images.shape == (6, 32, 32, 3)
    for i in range(6):
        assert np.array_equal(data.images[i], plain_pixels(draw(i), (15, 35, 163, 183), 32))
    assert data.preprocessing == "central 148x148 (74x74 at half size), LANCZOS to 32"


def test_another_crop_of_celeba_is_another_cache(tmp_path: Path, cache: Path) -> None:
    folder = make_celeba(tmp_path / "d")
    usual = load_dataset(folder, 32, cache=cache, progress=False)
    wide = load_dataset(folder, 32, cache=cache, crop=178, progress=False)
    assert np.array_equal(wide.images[2], plain_pixels(draw(2), (0, 20, 178, 198), 32))
    assert wide.preprocessing == "central 178x178 of 178x218, LANCZOS to 32"
    assert wide.digest != usual.digest
    with pytest.raises(DataError, match="crop 179 of celeba; expected 1 to 178"):
        load_dataset(folder, 32, cache=cache, crop=179, progress=False)


def test_indices_labels_and_batches(tmp_path: Path, cache: Path) -> None:
    data = load_dataset(make_celeba(tmp_path / "d"), 16, cache=cache, progress=False)
    assert data.indices("train").tolist() == [0, 1, 2, 3]
    assert data.indices("test", "validation").tolist() == [4, 5]
    assert data.indices().tolist() == list(range(6))
    assert data.label("Smiling").tolist() == LABELS[:, 1].tolist()
    batch = data.batch(torch.tensor([5, 0]))
    assert batch.dtype == torch.float32
    assert batch.shape == (2, 3, 16, 16)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    expected = data.images[[5, 0]].transpose(0, 3, 1, 2) / 127.5 - 1
    assert np.allclose(batch.numpy(), expected, atol=1e-6)
    with pytest.raises(DataError, match="Did you mean Eyeglasses"):
        data.label("eyeglases")
    with pytest.raises(DataError, match="Unknown partition 'valid'"):
        data.indices("valid")


def test_nothing_can_be_written_to(tmp_path: Path, cache: Path) -> None:
    data = load_dataset(make_celeba(tmp_path / "d"), 16, cache=cache, progress=False)
    assert isinstance(data.images, np.memmap)
    for array in (data.images, data.labels, data.identities, data.partition):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_digest_follows_content_and_nothing_else(tmp_path: Path, cache: Path) -> None:
    def digest(folder: Path, where: Path = cache) -> str:
        return load_dataset(folder, 16, cache=where, progress=False).digest

    first = make_celeba(tmp_path / "a")
    original = digest(first)
    assert len(original) == 64
    # Another place, layout and cache.
    assert digest(make_celeba(tmp_path / "b", "Anno", "Eval", "Img"), tmp_path / "c2") == original
    for path, lines in (
        ("list_attr_celeba.txt", attribute_lines(labels=~LABELS)),
        ("identity_CelebA.txt", pairs((7, 7, 7, 8, 9, 12))),
        ("list_eval_partition.txt", pairs((0, 0, 0, 1, 1, 2))),
    ):
        text = (first / path).read_text()
        write(first / path, lines)
        assert digest(first) != original
        (first / path).write_text(text)
    assert digest(first) == original
    draw(99).save(first / "img_align_celeba" / NAMES[2])
    assert digest(first) != original


# --- layouts --------------------------------------------------------------------------------------


def test_celeba_with_subfolders(tmp_path: Path, cache: Path) -> None:
    folder = make_celeba(tmp_path / "d", "Anno", "Eval", "Img")
    check(load_dataset(folder, 16, cache=cache, progress=False))


def test_celeba_as_csv_in_a_nested_folder(tmp_path: Path, cache: Path, capsys: Capture) -> None:
    folder = tmp_path / "d"
    rows = [",".join(line.split()) for line in attribute_lines()[2:]]
    write(folder / "list_attr_celeba.csv", ["image_id," + ",".join(ATTRIBUTES), *rows])
    lines = [line.replace(" ", ",") for line in pairs(PARTITION)]
    write(folder / "list_eval_partition.csv", ["image_id,partition", *lines])
    draw_all(folder / "img_align_celeba" / "img_align_celeba")
    check(load_dataset(folder, 16, cache=cache, progress=False), range(6))
    assert "no identities" in capsys.readouterr().out


def make_celeba_hq(folder: Path, names: Sequence[str]) -> Path:
    write(folder / "CelebAMask-HQ-attribute-anno.txt", attribute_lines(names))
    draw_all(folder / "CelebA-HQ-img", names, (32, 32))
    return folder


HQ_NAMES = tuple(f"{i}.jpg" for i in range(6))


def test_celeba_hq_finds_people_through_the_mapping(tmp_path: Path, cache: Path) -> None:
    folder = make_celeba_hq(tmp_path / "d", HQ_NAMES)
    originals = [f"{119613 + 7 * i}.jpg" for i in range(6)]
    mapping = [f"{i}\t\t{119612 + 7 * i}  {name}" for i, name in enumerate(originals)]
    write(folder / "CelebA-HQ-to-CelebA-mapping.txt", ["idx   orig_idx  orig_file", *mapping])
    # CelebA's files speak of more pictures than CelebA-HQ has, in another order.
    listed = ["000001.jpg", *reversed(originals)]
    write(folder / "identity_CelebA.txt", pairs((3, *reversed(IDENTITIES)), listed))
    write(folder / "list_eval_partition.txt", pairs((0, *reversed(PARTITION)), listed))
    write(folder / "list_attr_celeba.txt", attribute_lines())
    data = load_dataset(folder, 32, cache=cache, progress=False)
    check(data)
    assert data.names == HQ_NAMES
    plain = np.asarray(Image.open(folder / "CelebA-HQ-img" / "3.jpg"))
    assert np.array_equal(data.images[3], plain)
    write(folder / "CelebA-HQ-to-CelebA-mapping.txt", ["idx   orig_idx  orig_file", *mapping[:-1]])
    with pytest.raises(DataError, match=r"no line for 1 of the pictures, the first of them 5"):
        load_dataset(folder, 32, cache=cache, progress=False)


def test_celeba_hq_alone_says_that_people_are_unknown(
    tmp_path: Path, cache: Path, capsys: Capture
) -> None:
    folder = make_celeba_hq(tmp_path / "d", HQ_NAMES)
    data = load_dataset(folder, 16, cache=cache, progress=False)
    printed = capsys.readouterr().out
    assert "lacks CelebA-HQ-to-CelebA-mapping.txt" in printed
    assert "every picture counts as a person of its own" in printed
    assert "80/10/10" in printed
    assert len(set(data.identities.tolist())) == 6


@pytest.mark.parametrize(("absent", "present"), [("0", "1"), ("-1", "1"), ("False", "true")])
@pytest.mark.parametrize("file", ["attributes.csv", "labels.csv"])
def test_csv_folder(tmp_path: Path, cache: Path, file: str, absent: str, present: str) -> None:
    folder = tmp_path / "d"
    draw_all(folder / "faces", size=(40, 30))
    words = ("train", "validation", "test")
    rows = [
        f"faces/{name},person {identity},{words[part]},"
        + ",".join(present if value else absent for value in row)
        for name, identity, part, row in zip(NAMES, IDENTITIES, PARTITION, LABELS, strict=True)
    ]
    write(folder / file, ["\ufefffile,identity,partition," + ",".join(ATTRIBUTES), *rows])
    data = load_dataset(folder, 30, cache=cache, progress=False)
    # Names of people become ranks in alphabetical order: 11, 7, 8, 9.
    check(data, (1, 1, 1, 2, 3, 0))
    assert data.names == tuple(f"faces/{name}" for name in NAMES)
    assert np.array_equal(data.images[2], plain_pixels(draw(2, (40, 30)), (5, 0, 35, 30), 30))


def test_a_missing_partition_is_drawn_by_identity(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "d"
    names = [f"{i}.png" for i in range(300)]
    folder.mkdir()
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)
    rows = [f"{name},{i // 3},{i % 2}" for i, name in enumerate(names)]
    write(folder / "attributes.csv", ["file,identity,Smiling", *rows])
    data = load_dataset(folder, 4, cache=cache, progress=False)
    for i in range(100):
        # An independent statement of the rule: the first 64 bits of the sha256, as a fraction.
        fraction = int(hashlib.sha256(str(i).encode()).hexdigest()[:16], 16) / 2**64
        expected = 0 if fraction < 0.8 else 1 if fraction < 0.9 else 2
        assert data.partition[3 * i : 3 * i + 3].tolist() == [expected] * 3
    assert len(data.indices("train")) == pytest.approx(240, abs=30)
    write(folder / "attributes.csv", ["file,identity,Smiling", *rows[:150]])
    fewer = load_dataset(folder, 4, cache=cache, progress=False)
    assert np.array_equal(fewer.partition, data.partition[:150])


def test_csv_without_identities(tmp_path: Path, cache: Path, capsys: Capture) -> None:
    folder = tmp_path / "d"
    draw_all(folder)
    write(folder / "any.csv", ["file,Smiling", *(f"{name},1" for name in NAMES)])
    data = load_dataset(folder, 8, cache=cache, progress=False)
    assert data.identities.tolist() == list(range(6))
    assert "no identities" in capsys.readouterr().out


# --- as it lies on people's disks -----------------------------------------------------------------


def renamed(
    lines: Iterable[str], change: Callable[[str], str], names: Sequence[str] = NAMES
) -> list[str]:
    """Lines about the pictures, with their names changed."""
    changes = {name: change(name) for name in names}
    return [" ".join(changes.get(word, word) for word in line.split()) for line in lines]


@pytest.mark.parametrize("where", ["", "Img"])
def test_the_official_png_set(tmp_path: Path, cache: Path, where: str) -> None:
    """Its lists name .jpg."""
    folder = make_celeba(tmp_path / "d", pictures=where)
    (folder / where / "img_align_celeba").rename(folder / where / "img_align_celeba_png")
    for file in ("list_attr_celeba", "identity_CelebA", "list_eval_partition"):
        path = folder / f"{file}.txt"
        write(path, renamed(path.read_text().splitlines(), lambda name: f"{name[:-4]}.jpg"))
    data = load_dataset(folder, 16, cache=cache, progress=False)
    check(data)
    assert data.names[0] == "000001.jpg" and data.name == "celeba"
    assert np.array_equal(data.images[3], plain_pixels(draw(3), (15, 35, 163, 183), 16))


@pytest.mark.parametrize("ending", [".jpg", ".png", ""])
def test_lists_that_spell_names_differently(tmp_path: Path, cache: Path, ending: str) -> None:
    folder = make_celeba(tmp_path / "d")
    path = folder / "list_attr_celeba.txt"
    lines = renamed(attribute_lines(), lambda name: f"{int(name[:-4])}{ending}")
    write(path, lines)
    check(load_dataset(folder, 16, cache=cache, progress=False))


def test_celeba_hq_with_zero_padded_png(tmp_path: Path, cache: Path) -> None:
    folder = make_celeba_hq(tmp_path / "d", HQ_NAMES)
    for i, name in enumerate(HQ_NAMES):
        (folder / "CelebA-HQ-img" / name).unlink()
        draw(i, (32, 32)).save(folder / "CelebA-HQ-img" / f"{i:05d}.png")
    data = load_dataset(folder, 32, cache=cache, progress=False)
    assert data.names == HQ_NAMES and np.array_equal(data.images[5], np.asarray(draw(5, (32, 32))))


def test_torchvisions_root(tmp_path: Path, cache: Path) -> None:
    make_celeba(tmp_path / "d" / "celeba")
    (tmp_path / "d" / "lfw").mkdir()
    data = load_dataset(tmp_path / "d", 16, cache=cache, progress=False)
    check(data)
    assert data.name == "celeba"
    make_celeba(tmp_path / "d" / "copy")
    draw_all(tmp_path / "d" / "copy", ["a.png"])
    unlabelled = load_dataset(tmp_path / "d", 16, cache=cache, progress=False)
    assert unlabelled.attributes == () and len(unlabelled) == 13


@pytest.mark.parametrize("spelling", ["comma", "comma and count", "0/1", "pandas", "semicolon"])
def test_spellings_of_the_attribute_list(
    tmp_path: Path, cache: Path, capsys: Capture, spelling: str
) -> None:
    folder = make_celeba(tmp_path / "d")
    count, header, *rows = attribute_lines()
    path = folder / "list_attr_celeba.txt"
    commas = [", ".join(row.split()) for row in rows]
    if spelling == "comma and count":
        write(path, [count, ",".join(header.split()), *commas])
    elif spelling == "pandas":
        numbered = [f"{i},{row}" for i, row in enumerate(commas)]
        path.unlink()
        write(path.with_suffix(".csv"), [",image_id," + header.replace(" ", ","), *numbered])
    elif spelling == "0/1":
        write(path, [count, header, *(row.replace("-1", "0") for row in rows)])
    else:
        mark = "," if spelling == "comma" else ";"
        lines = ["image_id, " + ", ".join(header.split()), *commas]
        write(path, [line.replace(",", mark) for line in lines])
    check(load_dataset(folder, 16, cache=cache, progress=False))
    said = "0 and 1 are read as absent and present" in capsys.readouterr().out
    assert said == (spelling == "0/1")


def test_landmarks_and_boxes_beside_the_labels(tmp_path: Path, cache: Path) -> None:
    folder = make_celeba(tmp_path / "d", "Anno", "Eval", "Img")
    header = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y"
    write(folder / "Anno" / "list_landmarks_align_celeba.txt", ["0", header])
    write(folder / "Anno" / "list_bbox_celeba.txt", ["0", "image_id x_1 y_1 width height"])
    write(folder / "list_landmarks_align_celeba.csv", ["image_id," + header.replace(" ", ",")])
    check(load_dataset(folder, 16, cache=cache, progress=False))


@pytest.mark.parametrize("column", ["celeb_id", "identity", "person_id", "who"])
def test_the_identity_columns_name(
    tmp_path: Path, cache: Path, capsys: Capture, column: str
) -> None:
    folder = tmp_path / "d"
    draw_all(folder)
    rows = [
        f"{name},{who},a face,{split}," + ",".join(str(int(x)) for x in row)
        for name, who, split, row in zip(NAMES, IDENTITIES, PARTITION, LABELS, strict=True)
    ]
    write(folder / "faces.csv", [f"file,{column},caption,split," + ",".join(ATTRIBUTES), *rows])
    given = column if column == "who" else None
    check(load_dataset(folder, 8, cache=cache, identity_column=given, progress=False))
    printed = capsys.readouterr().out
    assert "The column caption is no attribute: Line 2 of" in printed
    assert ("is read from the column" in printed) == (column != "identity")
    with pytest.raises(DataError, match=r"Unknown column of .*Did you mean"):
        load_dataset(folder, 8, cache=cache, identity_column=column + "s", progress=False)


def test_unlabelled_pictures(tmp_path: Path, cache: Path, capsys: Capture) -> None:
    folder = tmp_path / "d"
    draw_all(folder, NAMES[:3])
    draw_all(folder / "more" / "deeper", ["a.JPG", "b.webp"])
    write(folder / "notes.txt", ["mine"])
    data = load_dataset(folder, 8, cache=cache, progress=False)
    assert data.names == (*NAMES[:3], "more/deeper/a.JPG", "more/deeper/b.webp")
    assert data.attributes == () and data.labels.shape == (5, 0)
    assert "no labels" in capsys.readouterr().out
    with pytest.raises(DataError, match="Unknown attribute 'Smiling'"):
        data.label("Smiling")
    write(folder / "files.csv", ["file", NAMES[1], "absent.png"])
    assert load_dataset(folder, 8, cache=cache, progress=False).names == (NAMES[1],)
    write(folder / "files.csv", ["file,Smiling", f"{NAMES[1]},perhaps"])
    capsys.readouterr()
    assert load_dataset(folder, 8, cache=cache, progress=False).attributes == ()
    assert "Smiling is no attribute: Line 2 of" in capsys.readouterr().out


def test_what_is_still_zipped_is_named(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "d" / "list_attr_celeba.txt", attribute_lines())
    write(tmp_path / "d" / "img_align_celeba.zip", ["PK"])
    with pytest.raises(DataError, match=r"unpack .*img_align_celeba.zip"):
        load_dataset(tmp_path / "d", 8, cache=cache, progress=False)


# --- the datasets library -------------------------------------------------------------------------


def hub_columns(names: bool = True) -> dict[str, list[object]]:
    people = [f"p{identity:02d}" for identity in IDENTITIES]
    return {
        "photo": [draw(i, (24, 24)) for i in range(6)],
        "Eyeglasses": LABELS[:, 0].tolist(),
        "Smiling": [1 if present else -1 for present in LABELS[:, 1]],
        "age": list(range(20, 26)),
        "caption": ["x"] * 6,
        "identity": list(people) if names else list(IDENTITIES),
        "partition": ["train"] * 4 + ["validation", "test"],
    }


@pytest.fixture
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("hub_home")
@pytest.mark.parametrize("kind", ["save_to_disk", "parquet"])
def test_saved_dataset(tmp_path: Path, cache: Path, capsys: Capture, kind: str) -> None:
    import datasets

    folder = tmp_path / "d"
    features = datasets.Dataset.from_dict(hub_columns()).features
    features["photo"] = datasets.Image()
    saved = datasets.Dataset.from_dict(hub_columns(), features=features)
    if kind == "parquet":
        folder.mkdir()
        saved.to_parquet(folder / "data.parquet")
    else:
        saved.save_to_disk(folder)
    data = load_dataset(folder, 24, cache=cache, progress=False)
    check(data, (0, 0, 0, 1, 2, 3))
    assert "The column age is no attribute" in capsys.readouterr().out
    for i in range(6):
        assert np.array_equal(data.images[i], np.asarray(draw(i, (24, 24))))


@pytest.mark.usefixtures("hub_home")
def test_a_hub_dataset_with_usual_names(tmp_path: Path, cache: Path) -> None:
    """As flwrlabs/celeba has it: celeb_id says who is on each picture."""
    import datasets

    columns = hub_columns(names=False)
    columns["celeb_id"] = columns.pop("identity")
    columns["split"] = columns.pop("partition")
    rows = datasets.Dataset.from_dict(columns).cast_column("photo", datasets.Image())
    rows.save_to_disk(tmp_path / "labelled")
    check(load_dataset(tmp_path / "labelled", 8, cache=cache, progress=False))
    rows.select_columns(["photo", "caption"]).save_to_disk(tmp_path / "unlabelled")
    data = load_dataset(tmp_path / "unlabelled", 8, cache=cache, progress=False)
    assert data.labels.shape == (6, 0)


@pytest.mark.usefixtures("hub_home")
def test_splits_are_partitions_or_are_chosen(tmp_path: Path, cache: Path) -> None:
    import datasets

    columns = {k: v for k, v in hub_columns(names=False).items() if k != "partition"}
    rows = datasets.Dataset.from_dict(columns).cast_column("photo", datasets.Image())
    splits = {"train": range(4), "validation": [4], "test": [5]}
    folder = tmp_path / "d"
    datasets.DatasetDict({k: rows.select(v) for k, v in splits.items()}).save_to_disk(folder)
    data = load_dataset(folder, 8, cache=cache, progress=False)
    check(data)
    assert data.names[4:] == ("validation/000000", "test/000000")
    only = load_dataset(folder, 8, cache=cache, split="train", progress=False)
    assert only.identities.tolist() == [7, 7, 7, 8]
    with pytest.raises(DataError, match="Did you mean train"):
        load_dataset(folder, 8, cache=cache, split="trian", progress=False)


@pytest.mark.usefixtures("hub_home")
def test_bad_saved_datasets(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(match: str, **changes: list[object] | None) -> None:
        columns = {k: v for k, v in {**hub_columns(), **changes}.items() if v is not None}
        folder = tmp_path / f"d{len(list(tmp_path.iterdir()))}"
        rows = datasets.Dataset.from_dict(columns)
        if "photo" in columns:
            rows = rows.cast_column("photo", datasets.Image())
        rows.save_to_disk(folder)
        with pytest.raises(DataError, match=match):
            load_dataset(folder, 8, cache=cache, progress=False)

    refuse("0 picture columns", photo=None)
    refuse("Row train/000001 of .* has no identity", identity=["a", None, *"cdef"])
    refuse("Row train/000005 of .* 'maybe'; expected train", partition=["train"] * 5 + ["maybe"])
    refuse("None of the 6 listed pictures", photo=[None] * 6)

    def absent(name: str) -> None:
        raise datasets.exceptions.DatasetNotFoundError(f"{name} is not on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", absent)
    with pytest.raises(DataError, match="The dataset some/faces cannot be loaded"):
        load_dataset("some/faces", 8, cache=cache, progress=False)


# --- bad input ------------------------------------------------------------------------------------


def test_bad_sources(tmp_path: Path, cache: Path) -> None:
    def refuse(source: str | Path, match: str) -> None:
        with pytest.raises(DataError, match=match):
            load_dataset(source, 8, cache=cache, progress=False)

    refuse(tmp_path / "absent", "There is no folder")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "empty folder")
    write(tmp_path / "x" / "notes.txt", ["hello"])
    refuse(tmp_path / "x" / "notes.txt", "is a file")
    refuse(tmp_path / "x", r"no data in a known layout. Known: pictures alone; CelebAMask-HQ")
    write(tmp_path / "y" / "list_attr_celeba.txt", attribute_lines())
    refuse(tmp_path / "y", "no folder img_align_celeba")
    write(tmp_path / "z" / "CelebAMask-HQ-attribute-anno.txt", attribute_lines())
    refuse(tmp_path / "z", "no folder CelebA-HQ-img")
    folder = make_celeba(tmp_path / "d")
    with pytest.raises(DataError, match="has no splits"):
        load_dataset(folder, 8, cache=cache, split="train", progress=False)
    with pytest.raises(DataError, match="image size 0"):
        load_dataset(folder, 0, cache=cache, progress=False)


Change = Callable[[list[str]], list[str]]
BAD_ATTRIBUTE_FILES: list[tuple[Change, str]] = [
    (lambda s: s[:1], "1 lines; expected a header"),
    (lambda s: s[:2], "no table: No columns to parse"),
    (lambda s: ["many", *s[1:]], "no table: Expected 2 fields in line 3, saw 3"),
    (lambda s: ["7", *s[1:]], "announces 7 rows; 6 follow"),
    (lambda s: s[:-1], "announces 6 rows; 5 follow"),
    (lambda s: [s[0], "Eyeglasses", *s[2:]], "Line 3 of .* has 3 fields; expected 1, as in"),
    (lambda s: [s[0], "Smiling Smiling", *s[2:]], "has the column 'Smiling' twice"),
    (lambda s: [*s[:4], s[4][:10], *s[5:]], "Line 5 of .* gives Eyeglasses the value ''"),
    (lambda s: [*s[:4], s[4] + " 1", *s[5:]], "Expected 3 fields in line 5, saw 4"),
    (lambda s: [*s[:5], NAMES[3] + " 1 0", *s[6:]], "Line 6 of .* gives Smiling the value '0'"),
    (lambda s: [*s[:7], s[3]], "Line 8 of .* repeats 000002.png from line 4"),
]


@pytest.mark.parametrize(("change", "match"), BAD_ATTRIBUTE_FILES)
def test_bad_attribute_files(tmp_path: Path, cache: Path, change: Change, match: str) -> None:
    folder = make_celeba(tmp_path / "d")
    write(folder / "list_attr_celeba.txt", change(attribute_lines()))
    with pytest.raises(DataError, match=match):
        load_dataset(folder, 8, cache=cache, progress=False)


BAD_NUMBERS: list[tuple[str, Change, str]] = [
    ("identity_CelebA.txt", lambda s: s[2:], "no line for 2 of the pictures, .* 000001.png"),
    ("identity_CelebA.txt", lambda s: [*s, s[0]], "Line 7 of .* repeats 000001.png from line 1"),
    ("identity_CelebA.txt", lambda s: ["000001.png", *s[1:]], "Line 2 of .* has 2 fields; exp"),
    ("identity_CelebA.txt", lambda s: [*s[:5], "000006.png"], "Line 6 of .* has no ident"),
    ("list_eval_partition.txt", lambda s: s[:-1], "no line for 1 of the pictures, .* 000006.png"),
    ("list_eval_partition.txt", lambda s: ["000001.png 3", *s[1:]], "Line 1 .* partition '3'; exp"),
]


@pytest.mark.parametrize(("file", "change", "match"), BAD_NUMBERS)
def test_bad_identity_and_partition_files(
    tmp_path: Path, cache: Path, file: str, change: Change, match: str
) -> None:
    folder = make_celeba(tmp_path / "d")
    write(folder / file, change((folder / file).read_text().splitlines()))
    with pytest.raises(DataError, match=match):
        load_dataset(folder, 8, cache=cache, progress=False)


BAD_CSV: list[tuple[str, str]] = [
    ("file,Smiling", "1 lines; expected a header, then rows"),
    ("file,Smiling\na.png,1\nb.png", "Line 3 of .* gives Smiling the value ''"),
    ("file,Smiling,Smiling\na.png,1,1", "has the column 'Smiling' twice"),
    ("file,Smiling,\na.png,1,1", "column 3 has no name"),
    ("file,Smiling\na.png,1,0", "Line 2 of .* has 3 fields; expected 2"),
    ("file,Smiling\na.png,1\nb.png,1,0", "Expected 2 fields in line 3, saw 3"),
    ("file,Smiling\na.png,1\n,1", "Line 3 of .* has no file name"),
    ("file,Smiling\na.png,1\n\na.png,0", "Line 4 of .* repeats a.png from line 2"),
    ("file,Smiling\na.png,1\nb.png,2", "Line 3 of .* gives Smiling the value '2'"),
    ("file,Smiling\na.png,1\nb.png,-1\nc.png,0", "Line 4 of .* gives Smiling the value '0'"),
    ("file,Smiling,identity\na.png,1,4\nb.png,1,", "Line 3 of .* has no identity"),
    ("file,Smiling,identity\na.png,1,4\nb.png,1,nan", "Line 3 of .* has no identity"),
    ("file,Smiling\na.png,1\nb\0.png,1", "holds NUL characters"),
    ("file,Smiling,partition\na.png,1,train\nb.png,1,later", "Line 3 .* partition 'later'"),
]


@pytest.mark.parametrize(("text", "match"), BAD_CSV)
def test_bad_csv(tmp_path: Path, cache: Path, text: str, match: str) -> None:
    folder = tmp_path / "d"
    draw_all(folder, ["a.png", "b.png", "c.png"])
    write(folder / "attributes.csv", [text])
    with pytest.raises(DataError, match=match):
        load_dataset(folder, 8, cache=cache, progress=False)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file,Identity,Split,Smiling", "{file},{who},{part},{label}"),  # capitals
        ("file,Celeb ID,partition,Smiling", "{file},{who}.0,{part},{label}"),  # pandas' numbers
        ("file,person,split,Smiling", "{file},{who},{part},{word}"),  # yes and no
        ("file,identity,split,Smiling", "faces\\{file},{who},{part},{label}"),  # Windows
        ("file,identity,split,Smiling,a/b,x\x1b[1m", "{file},{who},{part},{label},1,0"),
    ],
)
def test_tables_as_people_write_them(tmp_path: Path, cache: Path, header: str, row: str) -> None:
    folder = tmp_path / "d"
    draw_all(folder / "faces" if "\\" in row else folder)
    (folder / "._000001.png").write_bytes(b"what a Mac leaves beside a file")
    parts = ("Train", "train", "val", "valid", "test", "Test")
    rows = [
        row.format(file=name, who=who, part=part, label=i % 2, word=("No", "yes")[i % 2])
        for i, (name, who, part) in enumerate(zip(NAMES, IDENTITIES, parts, strict=True))
    ]
    write(folder / "a.csv", [header, *rows])
    data = load_dataset(folder, 8, cache=cache, progress=False)
    assert data.attributes == ("Smiling",) and data.labels[:, 0].tolist() == [False, True] * 3
    assert data.partition.tolist() == [0, 0, 1, 1, 2, 2] and not data.skipped
    same = np.equal.outer(IDENTITIES, IDENTITIES)
    assert np.array_equal(np.equal.outer(data.identities, data.identities), same)


def test_csv_that_is_no_text_or_not_alone(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "d"
    draw_all(folder)
    (folder / "a.csv").write_bytes(b"file,Smiling\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="not a text file in UTF-8"):
        load_dataset(folder, 8, cache=cache, progress=False)
    write(folder / "b.csv", ["file,Smiling", "000001.png,1"])
    with pytest.raises(DataError, match=r"several .csv files \(a.csv, b.csv\)"):
        load_dataset(folder, 8, cache=cache, progress=False)


def test_unreadable_pictures_are_skipped_and_counted(
    tmp_path: Path, cache: Path, capsys: Capture
) -> None:
    folder = make_celeba(tmp_path / "d")
    (folder / "img_align_celeba" / NAMES[1]).unlink()
    (folder / "img_align_celeba" / NAMES[4]).write_bytes(b"not a picture")
    for _ in range(2):  # decoded, then from the cache
        data = load_dataset(folder, 16, cache=cache, progress=False)
        assert [name for name, _ in data.skipped] == [NAMES[1], NAMES[4]]
        assert "does not exist" in data.skipped[0][1]
        assert data.names == tuple(NAMES[i] for i in (0, 2, 3, 5))
        assert data.identities.tolist() == [7, 7, 8, 11]
        assert np.array_equal(data.labels, LABELS[[0, 2, 3, 5]])
        assert np.array_equal(data.images[2], plain_pixels(draw(3), (15, 35, 163, 183), 16))
        lines = [s for s in capsys.readouterr().out.splitlines() if "skipped" in s]
        assert len(lines) == 1
        assert lines[0].startswith("2 of 6 pictures are skipped")
    draw(1).save(folder / "img_align_celeba" / NAMES[1])
    assert len(load_dataset(folder, 16, cache=cache, progress=False)) == 5


def test_no_readable_picture_is_an_error(tmp_path: Path, cache: Path) -> None:
    folder = make_celeba(tmp_path / "d")
    for name in NAMES:
        (folder / "img_align_celeba" / name).unlink()
    with pytest.raises(DataError, match=r"None of the 6 listed pictures .*000001.png does not"):
        load_dataset(folder, 16, cache=cache, progress=False)


def test_partitions_that_share_people_or_are_empty_are_warned_of(
    tmp_path: Path, cache: Path, capsys: Capture
) -> None:
    folder = make_celeba(tmp_path / "d")
    load_dataset(folder, 8, cache=cache, progress=False)
    assert "Warning" not in capsys.readouterr().out
    write(folder / "list_eval_partition.txt", pairs((0, 1, 1, 1, 0, 0)))
    load_dataset(folder, 8, cache=cache, progress=False)
    printed = capsys.readouterr().out
    assert "Warning: 1 identities occur in more than one partition" in printed
    assert "Warning: no picture is in the partition test" in printed


def test_copies_under_another_name_are_warned_of(
    tmp_path: Path, cache: Path, capsys: Capture
) -> None:
    folder = make_celeba(tmp_path / "d")
    pictures = folder / "img_align_celeba"
    shutil.copy(pictures / NAMES[0], pictures / NAMES[1])  # of the same person
    load_dataset(folder, 8, cache=cache, progress=False)
    assert "Warning" not in capsys.readouterr().out
    shutil.copy(pictures / NAMES[0], pictures / NAMES[4])
    for _ in range(2):  # decoded, and from the cache
        load_dataset(folder, 8, cache=cache, progress=False)
        warning = f"1 pictures are copies of another person's, such as {NAMES[4]} of {NAMES[0]}"
        assert warning in capsys.readouterr().out


# --- the cache ------------------------------------------------------------------------------------


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    original = dataset_module._decode

    def decode(listing: object, index: int, size: int) -> np.ndarray | str:
        counted.append(index)
        return original(listing, index, size)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset_module, "_decode", decode)
    return counted


def test_pictures_are_decoded_once_until_they_change(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_celeba(tmp_path / "d")
    before = sorted(folder.rglob("*"))
    counted = count_decodes(monkeypatch)

    def decodes(size: int) -> int:
        counted.clear()
        load_dataset(folder, size, cache=cache, progress=False)
        return len(counted)

    assert [decodes(16), decodes(16), decodes(8), decodes(16)] == [6, 0, 6, 0]
    # New labels need no decoding; a touched picture does.
    write(folder / "list_attr_celeba.txt", attribute_lines(labels=~LABELS))
    assert decodes(16) == 0
    picture = folder / "img_align_celeba" / NAMES[0]
    os.utime(picture, ns=(0, picture.stat().st_mtime_ns + 1))
    assert decodes(16) == 6
    assert sorted(folder.rglob("*")) == before


def test_many_pictures_keep_their_order(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "LOOK_AHEAD", 1)
    names = [f"{i}.png" for i in range(40)]
    folder = tmp_path / "d"
    folder.mkdir()
    for i, name in enumerate(names):
        Image.new("RGB", (4, 4), (i, 2 * i, 0)).save(folder / name)
    write(folder / "a.csv", ["file,Smiling", *(f"{name},1" for name in names)])
    data = load_dataset(folder, 4, cache=cache, progress=True)
    assert data.images[:, 0, 0, 1].tolist() == [2 * i for i in range(40)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_decode_leaves_nothing_finished(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    folder = make_celeba(tmp_path / "d")
    with monkeypatch.context() as patch:

        def decode(listing: object, index: int, size: int) -> np.ndarray:
            if index == 4:
                raise error
            return np.zeros((size, size, 3), np.uint8)

        patch.setattr(dataset_module, "_decode", decode)
        with pytest.raises(error):
            load_dataset(folder, 16, cache=cache, progress=False)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    check(load_dataset(folder, 16, cache=cache, progress=False))


def test_leftovers_of_a_kill_are_not_used(tmp_path: Path, cache: Path) -> None:
    folder = make_celeba(tmp_path / "d")
    expected = load_dataset(folder, 16, cache=cache, progress=False).digest
    (finished,) = (path for path in cache.iterdir() if path.is_dir())
    finished.rename(cache / f".{finished.name}.tmp")
    pixels = cache / f".{finished.name}.tmp" / dataset_module.PIXELS_NAME
    pixels.write_bytes(pixels.read_bytes()[:100])
    data = load_dataset(folder, 16, cache=cache, progress=False)
    assert data.digest == expected
    assert np.array_equal(data.images[0], plain_pixels(draw(0), (15, 35, 163, 183), 16))


def test_a_damaged_cache_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = make_celeba(tmp_path / "d")
    load_dataset(folder, 16, cache=cache, progress=False)
    (pixels,) = cache.rglob(dataset_module.PIXELS_NAME)
    pixels.write_bytes(pixels.read_bytes()[:100])
    with pytest.raises(DataError, match=r"has 100 bytes; expected 4,608. Delete"):
        load_dataset(folder, 16, cache=cache, progress=False)


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_celeba(tmp_path / "d")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HUBLATENT_CACHE", raising=False)
    load_dataset(folder, 8, progress=False)
    assert list((tmp_path / "home/.cache/hublatent/datasets").glob("*/pixels.u8"))
    monkeypatch.setenv("HUBLATENT_CACHE", str(tmp_path / "elsewhere"))
    load_dataset(folder, 8, progress=False)
    assert list((tmp_path / "elsewhere").glob("*/pixels.u8"))
    with pytest.raises(DataError, match="inside the data"):
        load_dataset(folder, 8, cache=folder / "cache", progress=False)
    assert not (folder / "cache").exists()


# --- real CelebA ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(celeba: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    return load_dataset(celeba, 64, cache=tmp_path_factory.mktemp("cache"), progress=False)


def test_the_sample_of_celeba(real: FaceDataset) -> None:
    assert real.images.shape == (8982, 64, 64, 3)
    assert len(real.attributes) == 40
    assert real.skipped == ()
    parts = [real.indices(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [7187, 798, 997]
    assert [int(real.label("Eyeglasses")[part].sum()) for part in parts] == [472, 59, 59]
    people = [set(real.identities[part].tolist()) for part in parts]
    assert sum(len(group) for group in people) == len(set.union(*people))


def test_a_pixel_crop_of_celeba(real: FaceDataset, celeba: Path) -> None:
    index = real.names.index("000003.jpg")
    image = Image.open(celeba / "img_align_celeba" / "000003.jpg").convert("RGB")
    assert image.size == (89, 109)
    # (89 - 74) // 2 = 7 and (109 - 74) // 2 = 17.
    assert np.array_equal(real.images[index], plain_pixels(image, (7, 17, 81, 91), 64))
