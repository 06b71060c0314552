"""Pictures in, float tensors out, and back: against plain Pillow and arithmetic."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hublatent.errors import ImageError
from hublatent.images import (
    as_rgb,
    face_crop,
    open_image,
    prepare,
    save_png,
    to_float,
    to_pil,
    to_tensor,
    to_uint8,
)


def drawing(width: int = 24, height: int = 16) -> Image.Image:
    """A red left half and a blue right half, the top row green."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    pixels[0] = (0, 255, 0)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def header_only_webp(width: int, height: int) -> bytes:
    """A lossless WebP that announces a size and holds next to nothing."""
    bits = (width - 1) | (height - 1) << 14  # then: no alpha, version 0
    body = b"VP8L" + struct.pack("<I", 16) + b"\x2f" + struct.pack("<I", bits) + bytes(11)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def pixels_of(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


# --- open_image: every kind of picture ------------------------------------------------------------


def test_path_text_bytes_and_picture_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    drawing().save(path)
    for source in (path, str(path), path.read_bytes(), Image.open(path), drawing()):
        assert np.array_equal(pixels_of(open_image(source)), np.asarray(drawing()))


def test_the_given_picture_is_left_alone() -> None:
    given = drawing()
    open_image(given).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(given), np.asarray(drawing()))


def test_grey_becomes_equal_channels() -> None:
    grey = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12))
    opened = pixels_of(open_image(encoded(grey, "PNG")))
    assert np.array_equal(opened, np.stack([np.asarray(grey)] * 3, axis=-1))


def test_one_bit_pictures_are_black_and_white() -> None:
    opened = pixels_of(open_image(encoded(drawing().convert("1", dither=0), "PNG")))
    assert set(np.unique(opened)) <= {0, 255}


def test_palette_is_looked_up() -> None:
    palette = drawing().quantize(3)
    assert palette.mode == "P"
    assert np.array_equal(
        pixels_of(open_image(encoded(palette, "PNG"))), np.asarray(palette.convert("RGB"))
    )


@pytest.mark.parametrize("alpha", [0, 51, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str, alpha: int) -> None:
    colour = (200, 100, 0) if mode == "RGBA" else (100,)
    image = Image.new(mode, (3, 2), (*colour, alpha))
    opened = pixels_of(open_image(encoded(image, "PNG")))
    share = alpha / 255
    expected = np.round(np.array(colour) * share + 255 * (1 - share))
    assert np.abs(opened.astype(int) - expected).max() <= 1


def test_a_transparent_palette_entry_is_laid_on_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    opened = pixels_of(open_image(encoded(palette, "PNG", transparency=0)))
    assert opened.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_cmyk_is_converted() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    opened = pixels_of(open_image(encoded(red, "JPEG", quality=100)))
    assert np.abs(opened.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    opened = pixels_of(open_image(encoded(Image.fromarray(deep), kind)))
    assert opened[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 257, 32896, 65535], [0, 1, 128, 255]), ([0, 2**30, 2**31 - 1], [0, 128, 255])],
)
def test_32_bit_integers_are_scaled_not_clipped(values: list[int], expected: list[int]) -> None:
    deep = Image.fromarray(np.array([values], dtype=np.int32))
    assert deep.mode == "I"
    assert pixels_of(open_image(deep))[0, :, 1].tolist() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_rotation_is_applied(kind: str, orientation: int) -> None:
    # What a camera stores so that undoing each orientation gives the upright picture (EXIF 2.3).
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    upright = np.kron(np.arange(6).reshape(2, 3) * 40, np.ones((8, 8))).astype(np.uint8)
    upright = np.stack([upright] * 3, axis=-1)
    camera = stored[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(camera))
    opened = pixels_of(open_image(encoded(image, kind, exif=exif)))
    assert np.abs(opened.astype(int) - upright).max() <= (0 if kind == "PNG" else 4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_spoil_a_sound_picture() -> None:
    content = encoded(drawing(), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert open_image(content).size == drawing().size


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (pixels_of(open_image(content)) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_single_pixel_works(kind: str) -> None:
    opened = open_image(encoded(Image.new("RGB", (1, 1), "white"), kind))
    assert opened.size == (1, 1)
    assert (prepare(opened, 8) == 255).all()


# --- open_image: what it refuses ------------------------------------------------------------------


def refused(source: Any, *words: str, **limits: int) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(source, **limits)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    refused(tmp_path / "absent.jpg", "absent.jpg", "does not exist")
    (tmp_path / "empty.jpg").write_bytes(b"")
    refused(tmp_path / "empty.jpg", "empty.jpg", "0 bytes")
    (tmp_path / "text.jpg").write_text("this is no picture\n" * 50)
    refused(str(tmp_path / "text.jpg"), "text.jpg", "not a picture")
    refused(tmp_path, str(tmp_path), "cannot be read")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.img"
    path.write_bytes(content[: len(content) // 2])
    refused(path, "cut.img")


def test_huge_pictures_are_refused_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(header_only_png(20_000, 20_000))
    # Decoding would need 1.2 GB and would fail on the missing pixels with another message.
    refused(path, "huge.png", "pixels")
    refused(header_only_png(8_001, 8_000), "8001 x 8000", "64,000,000")
    refused(header_only_png(1, 60_000_000), "1 x 60000000", "65,535 a side")
    refused(header_only_webp(8000, 8000), "8000 x 8000", "25,000,000 in all of WEBP")
    refused(drawing(), "24 x 16", max_pixels=24 * 16 - 1)
    assert open_image(drawing(), max_pixels=24 * 16).size == (24, 16)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_pillows_own_limit_becomes_an_image_error() -> None:
    refused(header_only_png(10_000, 10_000), "pixels", max_pixels=10**9)


def test_large_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    drawing().save(path)
    size = path.stat().st_size
    refused(path, "a.png", f"{size:,}", max_bytes=size - 1)
    refused(path.read_bytes(), f"{size:,}", max_bytes=size - 1)
    assert open_image(path, max_bytes=size).mode == "RGB"


def test_pictures_without_8_bit_meaning_are_refused() -> None:
    refused(Image.new("F", (2, 2)), "floating-point")
    refused(Image.new("RGB", (0, 3)), "no pixels")


def test_postscript_is_not_run() -> None:
    refused(encoded(drawing(), "EPS"), "not a picture")


# --- crop and resize ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((178, 218), (15, 35, 163, 183)),
        ((89, 109), (7, 17, 81, 91)),
        ((356, 436), (30, 70, 326, 366)),
        ((100, 100), (0, 0, 100, 100)),
        ((101, 60), (20, 0, 80, 60)),
        ((60, 101), (0, 20, 60, 80)),
        ((178, 222), (0, 22, 178, 200)),
        ((1, 9), (0, 4, 1, 5)),
    ],
)
def test_face_crop_boxes(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    width, height = size
    places = np.arange(width * height, dtype=np.uint32).reshape(height, width)
    pixels = places.view(np.uint8).reshape(height, width, 4)[..., :3]
    left, top, right, bottom = box
    cropped = np.asarray(face_crop(Image.fromarray(np.ascontiguousarray(pixels))))
    assert np.array_equal(cropped, pixels[top:bottom, left:right])


def test_prepare_is_crop_then_lanczos() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    expected = image.crop((15, 35, 163, 183)).resize((64, 64), Image.Resampling.LANCZOS)
    prepared = prepare(image, 64)
    assert prepared.dtype == np.uint8
    assert np.array_equal(prepared, np.asarray(expected))


def test_prepare_converts_other_modes_and_checks_the_size() -> None:
    assert prepare(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 4).tolist() == [[[255] * 3] * 4] * 4
    with pytest.raises(ImageError, match="image size 0"):
        prepare(drawing(), 0)


# --- uint8 <-> float ------------------------------------------------------------------------------


def test_all_256_values_survive_the_round_trip() -> None:
    pictures = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(2, 1, 1, 3)
    images = to_float(pictures)
    assert images.shape == (2, 3, 16, 16)
    assert images.min() == -1
    assert images.max() == 1
    plain = np.arange(256) / 127.5 - 1
    assert np.allclose(images[0, 0].flatten().numpy(), plain, atol=1e-6)
    assert torch.equal(to_uint8(images), pictures)


def test_to_float_is_channels_last_and_leaves_its_input() -> None:
    pictures = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    before = pictures.clone()
    images = to_float(pictures)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pictures, before)
    assert images[1, 2, 3, 4] == pytest.approx(pictures[1, 3, 4, 2].item() / 127.5 - 1, abs=1e-6)


def test_to_uint8_clamps_and_rounds() -> None:
    values = torch.tensor([-9.0, -1.0, 0.0, 0.9999, 1.0, 9.0]).reshape(1, 1, 1, 6)
    assert to_uint8(values).flatten().tolist() == [0, 0, 128, 255, 255, 255]
    assert to_uint8(values.to(torch.bfloat16).requires_grad_()).flatten()[0] == 0


def test_wrong_tensors_are_refused() -> None:
    with pytest.raises(ImageError, match=r"torch.float32.*expected torch.uint8"):
        to_float(torch.zeros(1, 2, 2, 3))
    with pytest.raises(ImageError, match=r"\(2, 2, 3\)"):
        to_float(torch.zeros(2, 2, 3, dtype=torch.uint8))
    with pytest.raises(ImageError, match=r"expected floating point"):
        to_uint8(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ImageError, match="NaN"):
        to_uint8(torch.full((1, 3, 2, 2), float("nan")))


def test_to_tensor_stacks_what_prepare_makes() -> None:
    pictures = [drawing(), drawing(178, 218), Image.new("L", (5, 9), 7)]
    images = to_tensor(iter(pictures), 16)
    assert images.shape == (3, 3, 16, 16)
    for image, picture in zip(to_uint8(images), pictures, strict=True):
        assert np.array_equal(image.numpy(), prepare(picture, 16))
    with pytest.raises(ImageError, match="no pictures"):
        to_tensor([], 16)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "I;16"])
def test_a_picture_of_many_pixels_is_reduced(mode: str) -> None:
    left = Image.new(mode, (4000, 5000), 0)
    white = {"RGB": (255,) * 3, "RGBA": (255,) * 4, "I;16": 65535}.get(mode, 255)
    left.paste(white, (2000, 0, 4000, 5000))
    start = time.process_time()
    opened = open_image(encoded(left, "PNG"))
    assert time.process_time() - start < 5
    assert (opened.size, opened.mode) == ((2000, 2500), "RGB")
    columns = np.asarray(opened)[1000, :, 0]
    if mode == "RGBA":  # black without opacity lies on white
        assert (columns == 255).all()
    elif mode != "P":
        assert (columns[:999] == 0).all() and (columns[1001:] == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_thousands_of_frames_only_the_first_is_decoded(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), (i % 256, i // 256, 90)) for i in range(2000)]
    n = {"GIF": 2000, "PNG": 1000, "WEBP": 300}[kind]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:n])
    start = time.process_time()
    assert open_image(data).getpixel((5, 5))[2] in range(85, 95)
    assert time.process_time() - start < 1


def test_a_tiff_of_many_strips_is_read_at_once() -> None:
    data = encoded(Image.new("L", (16, 60_000), 200), "TIFF", tiffinfo={278: 1})  # rows per strip
    start = time.process_time()
    assert open_image(data).size == (16, 60_000)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(("channels", "expected"), [(1, [105]), (3, [200, 60, 90]),
                                                    (4, [200, 60, 90, 255])])  # fmt: skip
def test_grey_and_rgba_models_see_pictures_their_way(channels: int, expected: list[int]) -> None:
    picture = Image.new("RGB", (20, 20), (200, 60, 90))
    images = to_tensor([picture, picture], 8, channels)
    assert images.shape == (2, channels, 8, 8)
    assert (to_uint8(images) == torch.tensor(expected)).all()
    with pytest.raises(ImageError, match="2 channels"):
        to_tensor([picture], 8, 2)


def test_as_rgb_repeats_grey_and_lays_rgba_on_white() -> None:
    grey = torch.rand(2, 1, 3, 3) * 2 - 1
    assert torch.equal(as_rgb(grey), grey.repeat(1, 3, 1, 1))
    rgba = torch.tensor([-1.0, 0.0, 0.5, 0.0]).reshape(1, 4, 1, 1)  # half opaque
    assert torch.allclose(as_rgb(rgba).flatten(), torch.tensor([0.0, 0.5, 0.75]))
    assert to_pil(rgba)[0].getpixel((0, 0)) == (128, 191, 223)
    with pytest.raises(ImageError, match="2 channels"):
        as_rgb(torch.zeros(1, 2, 3, 3))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_to_pil_shows_grey_and_rgb(channels: int, mode: str) -> None:
    images = torch.rand(2, channels, 4, 6) * 2 - 1
    shown = to_pil(images)
    assert [(p.mode, p.size) for p in shown] == [(mode, (6, 4))] * 2
    first = np.asarray(shown[0]).reshape(4, 6, channels)
    assert np.array_equal(first, to_uint8(images)[0].numpy())
    enlarged = to_pil(images, scale=3)[1]
    assert enlarged.size == (18, 12)
    assert np.array_equal(enlarged, shown[1].resize((18, 12), Image.Resampling.LANCZOS))


def test_to_pil_refuses_other_channels_and_scales() -> None:
    with pytest.raises(ImageError, match="2 channels"):
        to_pil(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ImageError, match="scale 0"):
        to_pil(torch.zeros(1, 3, 4, 4), scale=0)


# --- save_png -------------------------------------------------------------------------------------


def test_save_png_round_trip_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    save_png(drawing(), path)
    assert np.array_equal(pixels_of(open_image(path)), np.asarray(drawing()))
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(image: Image.Image, file: Path, format: str) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(drawing(), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "content",
    [
        b"P6\n" + b"#" * (8 << 20),
        b"P6\n" + b"#a\n" * (3 << 20),
        b"P3 9 9 255\n" + b"1 " * (4 << 20),
    ],
)
def test_ppm_that_is_read_a_byte_at_a_time_is_refused_at_once(content: bytes) -> None:
    start = time.process_time()
    with pytest.raises(ImageError, match="not a picture that can be read"):
        open_image(content)
    assert time.process_time() - start < 1
    assert open_image(b"P5 # grey\n1 1 255\n\x07").getpixel((0, 0)) == (7, 7, 7)


def endless_gif() -> bytes:
    comment = b"!\xfe" + (b"\xff" + b"a" * 255) * 20_000 + b"\0"
    return b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + comment + b";"


def endless_tiff() -> bytes:
    """100 x 100 grey pixels in a million strips."""
    places = {256: 100, 257: 100, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in places.items()]
    entries += [struct.pack("<HHII", tag, 4, 1_000_000, 200) for tag in (273, 279)]
    entries.sort(key=lambda entry: entry[:2][::-1])
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return head + bytes(4_000_300)


def endless_jpeg() -> bytes:
    """64 million pixels, refined by 2,000 scans."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", progressive=True)
    size, scan = data.find(b"\xff\xc2") + 5, data.rfind(b"\xff\xda")
    large = data[:size] + struct.pack(">HH", 8000, 8000) + data[size + 4 : scan]
    return large + data[scan : scan + 14] * 2000 + b"\xff\xd9"


def endless_bmp() -> bytes:
    """8 x 8 pixels, run-length encoded in 16 million steps that lead nowhere."""
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 70, 0, 0, 54 + 1024) + head + bytes(1024) + b"\0\2" * 10**7


@pytest.mark.parametrize("make", [endless_gif, endless_tiff, endless_jpeg, endless_bmp])
def test_what_would_be_read_without_end_is_refused_at_once(make: Callable[[], bytes]) -> None:
    content, start = make(), time.process_time()
    with pytest.raises(ImageError, match=r"pieces|strips|scans|run-length"):
        open_image(content)
    assert time.process_time() - start < 2
