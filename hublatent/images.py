"""The only boundary between pictures (PIL, uint8) and float tensors.

Images here are float32 in [-1, 1], (B, C, H, W); pictures are 8-bit RGB. Whatever arrives (grey,
palette, transparent, CMYK, 16-bit, rotated by EXIF, animated) leaves `open_image` as plain RGB.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from hublatent.errors import ImageError
from hublatent.storage import atomic_path

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
MAX_SIDE = 65_535  # a JPEG's; what is longer and one pixel wide costs Pillow gigabytes
# These formats' decoders take 12 bytes a pixel, and give no smaller picture.
MAX_PIXELS_OF = {"WEBP": 25_000_000, "AVIF": 25_000_000}
# What takes long in a picture of any size: each piece of a header (a GIF's comment is joined of
# thousands), each strip of a TIFF, each scan of a progressive JPEG, which decodes all pixels anew,
# and each run of a compressed BMP, whose decoder is Python.
MAX_HEADER_READS = 5_000
MAX_STRIPS = 70_000
MAX_SCANNED_PIXELS = 1_000_000_000
MAX_RUN_BYTES = 2 << 20
KEPT_PIXELS = 4096 * 4096  # of a larger picture, the means of whole squares are kept

# CelebA's aligned pictures are 178 wide and 218 high; the usual crop is their central 148x148.
CELEBA_WIDTH, CELEBA_HEIGHT, CELEBA_CROP = 178, 218, 148
ASPECT_TOLERANCE = 0.01

# Raster formats only: Pillow would hand EPS to Ghostscript and so run a stranger's program.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
# Pillow reads other headers of PPM, and pixels in decimal digits, one byte at a time.
_PPM_HEADER = re.compile(rb"P[56]\s+(#[^\n]{0,200}\n\s*)?\d{1,5}\s+\d{1,5}\s+\d{1,5}\s")
_TIFF_PIECES = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by the number of channels
_CHANNELS = "images of {} channels; expected 1 (grey), 3 (RGB) or 4 (RGBA)."
_REDUCIBLE = ("L", "RGB", "RGBA", "LA", "La", "RGBa", "CMYK", "YCbCr")
_SAVED_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
# What Pillow's decoders raise on damaged files, beside OSError.
_DAMAGE = (
    OSError, RuntimeError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
    OverflowError, struct.error, zlib.error,
)  # fmt: skip


def open_image(
    source: str | Path | bytes | Image.Image, *, max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:  # fmt: skip
    """Open any ordinary picture as 8-bit RGB.

    Transparent pixels are laid on white, 16-bit greys are scaled (not clipped) to 8 bits, EXIF
    rotation is applied, and of an animation the first frame is taken. A picture of more than
    16 million pixels is reduced by a whole factor: no model sees more than 1024 x 1024.

    Args:
        source: a path, the bytes of a file, or a picture that Pillow has opened.
        max_bytes: largest file accepted.
        max_pixels: largest width x height accepted, before any decoding; 25 million of WebP, AVIF.

    Raises:
        ImageError: the file is missing, empty, too large, damaged or no picture.
    """
    if isinstance(source, Image.Image):
        name, opened = getattr(source, "filename", "") or "the given picture", source
    else:
        name, content = _read(source, max_bytes)
        opened = _opened(name, content)
    width, height = opened.size
    limit = min(max_pixels, MAX_PIXELS_OF.get(opened.format or "", max_pixels))
    if width * height > limit or max(width, height) > MAX_SIDE:
        limits = f"{limit:,} in all{f' of {opened.format}' if limit < max_pixels else ''}"
        raise ImageError(
            f"{name} has {width} x {height} pixels; at most {limits}, and {MAX_SIDE:,} a side, are "
            "accepted. Make it smaller, or save it as JPEG."
        )
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height}).")
    if opened.mode == "F":
        raise ImageError(f"{name} has floating-point pixels; expected 8 or 16 bits per channel.")
    try:
        is_ours = opened is not source
        if is_ours:  # a JPEG is decoded at a fraction of its size
            opened.draft("RGB", (2048, 2048))
            opened.load()
        return _to_rgb(_reduced(_upright(opened, is_ours)))
    except _DAMAGE as error:
        raise ImageError(
            f"{name} cannot be decoded; it may be damaged or cut short ({error})."
        ) from error


def face_crop(image: Image.Image, crop: int = CELEBA_CROP) -> Image.Image:
    """Cut the square that the models see.

    Of CelebA's aligned shape, 178x218 or any size of that aspect within 1%, that is the central
    square of side width * crop / 178, as is usual; of any other shape the largest centred square.
    """
    width, height = image.size
    aspect = (width / height) / (CELEBA_WIDTH / CELEBA_HEIGHT)
    is_celeba = abs(aspect - 1) <= ASPECT_TOLERANCE
    side = round(width * crop / CELEBA_WIDTH) if is_celeba else min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def prepare(
    image: Image.Image, size: int, channels: int = 3, crop: int = CELEBA_CROP
) -> np.ndarray:
    """Crop and resize a picture, with Pillow's LANCZOS: uint8 (size, size, channels).

    Channels are 1 for grey, 3 for RGB, 4 for RGB and an opaque alpha. A picture that is not RGB is
    converted as `open_image` does.
    """
    if size < 1:
        raise ImageError(f"image size {size}; expected at least 1.")
    if channels not in _MODES:
        raise ImageError(_CHANNELS.format(channels))
    rgb = image if image.mode == "RGB" else open_image(image)
    resized = face_crop(rgb, crop).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(resized.convert(_MODES[channels])).reshape(size, size, channels)


def to_float(pictures: Tensor) -> Tensor:
    """Turn 8-bit pictures (B, H, W, C) into images x / 127.5 - 1, float32 (B, C, H, W).

    They are channels_last in memory: no transposing copy is made.
    """
    if pictures.dtype != torch.uint8 or pictures.ndim != 4:
        raise ImageError(
            f"pictures are {pictures.dtype} of shape {tuple(pictures.shape)}; "
            "expected torch.uint8 of shape (B, H, W, C)."
        )
    images = pictures.permute(0, 3, 1, 2)  # (B, C, H, W)
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Turn images (B, C, H, W), clamped to [-1, 1], into 8-bit pictures (B, H, W, C)."""
    if images.ndim != 4 or not images.is_floating_point():
        found = f"{images.dtype} of shape {tuple(images.shape)}"
        raise ImageError(f"images are {found}; expected floating point of shape (B, C, H, W).")
    if torch.isnan(images).any():
        raise ImageError("images hold NaN; the model or the latents that made them are broken.")
    scaled = images.detach().to(torch.float32).clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1)  # (B, H, W, C)


def to_tensor(images: Iterable[Image.Image], size: int, channels: int = 3) -> Tensor:
    """Crop, resize and stack pictures: float32 (B, channels, size, size) in [-1, 1]."""
    prepared = [prepare(image, size, channels) for image in images]
    if not prepared:
        raise ImageError("no pictures were given; expected at least one.")
    return to_float(torch.from_numpy(np.stack(prepared)))


def to_pil(images: Tensor, scale: int = 1) -> list[Image.Image]:
    """Turn images (B, C, H, W) in [-1, 1] into pictures; RGBA is laid on white.

    `scale` is a whole factor by which they are enlarged, with LANCZOS.
    """
    if scale < 1:
        raise ImageError(f"scale {scale}; expected a whole number from 1.")
    flat = images if images.ndim != 4 or images.shape[1] == 1 else as_rgb(images)
    pictures = to_uint8(flat).cpu().numpy()  # (B, H, W, C)
    _, height, width, channels = pictures.shape
    shown = [Image.fromarray(p[..., 0] if channels == 1 else p) for p in pictures]
    if scale == 1:
        return shown
    size = (width * scale, height * scale)
    return [image.resize(size, Image.Resampling.LANCZOS) for image in shown]


def as_rgb(images: Tensor) -> Tensor:
    """Grey, RGB or RGBA images as RGB (B, 3, H, W): alpha is laid on white; differentiable."""
    channels = images.shape[1]
    if channels == 1:
        return images.expand(-1, 3, -1, -1)
    if channels == 4:
        alpha = (images[:, 3:] + 1) / 2  # (B, 1, H, W)
        return images[:, :3] * alpha + (1 - alpha)
    if channels not in _MODES:
        raise ImageError(_CHANNELS.format(channels))
    return images


def picture_format(path: str | Path) -> str:
    """What Pillow calls the format of a picture that is to be written, by its name's ending."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SAVED_FORMATS:
        endings = ", ".join(_SAVED_FORMATS)
        raise ImageError(f"{path} is to be a picture; expected a name in {endings}.")
    return _SAVED_FORMATS[suffix]


def save_image(image: Image.Image, path: str | Path) -> None:
    """Write a picture as PNG, JPEG or WebP by its name's ending, atomically."""
    kind = picture_format(path)
    options = {} if kind == "PNG" else {"quality": 95}
    with atomic_path(path) as temporary:
        image.save(temporary, format=kind, **options)


def save_png(image: Image.Image, path: str | Path) -> None:
    """Write a picture as PNG, atomically, whatever its name; its folder is made if missing."""
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _read(source: str | Path | bytes, max_bytes: int) -> tuple[str, bytes]:
    """A picture's name for messages, and its file's content."""
    name = "the given picture" if isinstance(source, bytes) else str(source)
    try:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        if size == 0:
            raise ImageError(f"{name} is empty (0 bytes); expected a picture.")
        if size > max_bytes:
            raise ImageError(f"{name} has {size:,} bytes; at most {max_bytes:,} are accepted.")
        return name, source if isinstance(source, bytes) else Path(source).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist; expected a picture file.") from error
    except OSError as error:
        raise ImageError(f"{name} cannot be read: {error.strerror or error}.") from error


def _opened(name: str, content: bytes) -> Image.Image:
    """A picture of which only the header has been read."""
    Image.init()
    is_ppm = bool(_PPM_HEADER.match(content[:512]))
    known = [kind for kind in _FORMATS if kind in Image.OPEN and (is_ppm or kind != "PPM")]
    file = _Counted(content)
    try:
        _check_strips(content)
        opened = Image.open(file, formats=known)
        file.n_left = math.inf
        _check_effort(opened, content)
        return opened
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has too many pixels to be opened ({error}).") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not a picture that can be read (JPEG, PNG, WebP, GIF, BMP, TIFF)."
        ) from error
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged or cut short ({error}).") from error


class _Counted(io.BytesIO):
    """A file whose header may take so many reads."""

    n_left: float = MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.n_left -= 1
        if self.n_left < 0:
            raise OSError("its header is in too many pieces")
        return super().read(size)


def _check_strips(content: bytes) -> None:
    if content[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return
    is_big = b"+" in content[:4]
    tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if is_big else 8])
    file = io.BytesIO(content)
    file.seek(tags.next)
    tags.load(file)
    n_strips = max(len(tags.get(tag, ())) for tag in _TIFF_PIECES)
    if n_strips > MAX_STRIPS:
        raise OSError(f"it is in {n_strips:,} strips; at most {MAX_STRIPS:,} are read")


def _check_effort(image: Image.Image, content: bytes) -> None:
    n_scans = content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
    if n_scans * image.width * image.height > MAX_SCANNED_PIXELS:
        raise OSError(f"it is a JPEG of {n_scans:,} scans")
    pieces = getattr(image, "tile", ())
    if len(content) > MAX_RUN_BYTES and pieces and pieces[0][0] == "bmp_rle":
        raise OSError(f"it is a run-length encoded BMP of more than {MAX_RUN_BYTES:,} bytes")


def _upright(image: Image.Image, in_place: bool) -> Image.Image:
    """Apply the EXIF rotation; a picture of our own is changed in place."""
    # Cameras and editors write broken EXIF blocks around sound pictures: no rotation is known.
    with suppress(*_DAMAGE):
        if not in_place:
            return ImageOps.exif_transpose(image)
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_deep_grey(image).convert("RGB")
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if "A" in image.getbands() or "transparency" in image.info:
        overlay = image.convert("RGBA")
        white = Image.new("RGBA", overlay.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, overlay).convert("RGB")
    # A copy even of RGB: the caller's picture and its open file are not held on to.
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Scale 16-bit (or 32-bit integer) greys to 8 bits; Pillow's own conversion would clip."""
    grey = np.asarray(image)  # (H, W)
    lowest = min(float(grey.min()), 0.0)
    highest = 65535.0 if grey.max() <= 65535 else float(2**31 - 1)
    scaled = (grey - lowest) / (highest - lowest) * 255
    return Image.fromarray(scaled.round().astype(np.uint8))


def _reduced(image: Image.Image) -> Image.Image:
    """A picture of at most KEPT_PIXELS."""
    factor = math.ceil(math.sqrt(image.width * image.height / KEPT_PIXELS))
    if factor == 1:
        return image
    if image.mode in _REDUCIBLE:
        return image.reduce(factor)
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow has no means of these: every factor-th pixel is taken.
        return Image.fromarray(np.ascontiguousarray(np.asarray(image)[::factor, ::factor]))
    has_alpha = "transparency" in image.info
    return image.convert("RGBA" if has_alpha else "RGB").reduce(factor)
