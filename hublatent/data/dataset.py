"""Labelled pictures for training: decoded once, then read from a memory map.

`load_dataset` takes CelebA, CelebAMask-HQ, pictures with or without a CSV, or a Hub dataset.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from hublatent.data.layouts import read_listing
from hublatent.data.listing import CELEBA_CROP, PARTITIONS, Listing
from hublatent.errors import DataError, ImageError, unknown_name
from hublatent.images import CELEBA_CROP as CELEBA_SIDE
from hublatent.images import CELEBA_WIDTH, open_image, prepare, to_float

PIXELS_NAME = "pixels.u8"
SUMMARY_NAME = "summary.json"
# Raised when decoding changes, so that older caches are not used.
CACHE_VERSION = 1
LOOK_AHEAD = 16  # pictures for each processor


@dataclass(frozen=True, eq=False)
class FaceDataset:
    """Labelled pictures of N faces.

    The digest, "data hash" of the cards, is a sha256 over names, attributes, labels, identities,
    partition and pixels.
    """

    images: np.ndarray  # (N, H, W, 3) uint8, a read-only memory map
    labels: np.ndarray  # (N, K) bool, presence of each attribute
    attributes: tuple[str, ...]  # K names
    identities: np.ndarray  # (N,) int64, who is on each picture
    partition: np.ndarray  # (N,) uint8; 0 train, 1 validation, 2 test
    names: tuple[str, ...]  # N file names
    skipped: tuple[tuple[str, str], ...]  # listed files that could not be read, and the reasons
    digest: str
    preprocessing: str  # how pictures became pixels, in one line
    name: str = "unknown"  # what the data set is called, such as "celeba" or "user/name"

    def __len__(self) -> int:
        return len(self.names)

    def indices(self, *partitions: str) -> np.ndarray:
        """Positions (n,) of the pictures of the named PARTITIONS, or of all."""
        for name in partitions:
            if name not in PARTITIONS:
                raise DataError(unknown_name("partition", name, PARTITIONS))
        wanted = [PARTITIONS.index(name) for name in partitions or PARTITIONS]
        return np.flatnonzero(np.isin(self.partition, wanted))

    def batch(self, indices: np.ndarray | Tensor | list[int]) -> Tensor:
        """Some pictures, by position, as images: float32 (B, 3, H, W) in [-1, 1], channels_last."""
        # Indexing with an array copies those pictures, and only those, out of the memory map.
        return to_float(torch.from_numpy(self.images[np.asarray(indices, dtype=np.int64)]))

    def label(self, attribute: str) -> np.ndarray:
        """Which pictures show an attribute: (N,) bool."""
        if attribute not in self.attributes:
            raise DataError(unknown_name("attribute", attribute, self.attributes))
        return self.labels[:, self.attributes.index(attribute)]


def load_dataset(
    source: str | Path, image_size: int = 64, *, cache: str | Path | None = None,
    split: str | None = None, identity_column: str | None = None, crop: int = CELEBA_SIDE,
    progress: bool = True,
) -> FaceDataset:  # fmt: skip
    """Load labelled pictures; the first time they are decoded into a memory map in the cache.

    Args:
        source: a folder of CelebA, CelebAMask-HQ or pictures with or without a CSV, a dataset that
            the `datasets` library saved, or the name of a Hub dataset ("user/name").
        image_size: side of the pictures, in pixels.
        cache: of the decoded pictures; by default $HUBLATENT_CACHE, or ~/.cache/hublatent/datasets.
        split: of a Hub dataset, the one split to take; None takes all.
        identity_column: says who is on each picture; None takes identity, celeb_id and the like.
        crop: of CelebA, the side of the central square that is seen, of 178 x 218.

    Returns:
        The pictures that could be read; one printed line tells how many could not.

    Raises:
        DataError: nothing to load, or the files contradict each other.
    """
    if image_size < 1:
        raise DataError(f"image size {image_size}; expected at least 1.")
    listing = read_listing(source, split, identity_column)
    if crop != CELEBA_SIDE:
        if listing.crop != CELEBA_CROP or not 1 <= crop <= CELEBA_WIDTH:
            raise DataError(
                f"crop {crop} of {listing.name}; expected 1 to {CELEBA_WIDTH}, and CelebA's "
                "aligned pictures."
            )
        words = f"central {crop}x{crop} of 178x218"
        listing = replace(listing, crop=words, crop_side=crop)
    preprocessing = f"{listing.crop}, LANCZOS to {image_size}"
    folder = _cache_folder(source, cache)
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(
        json.dumps([CACHE_VERSION, listing.stamp, listing.names, preprocessing]).encode()
    ).hexdigest()[:32]
    # Several processes may start together: one decodes, the others wait, and a kill unlocks.
    with FileLock(folder / f"{key}.lock"):
        if not (folder / key).is_dir():
            _decode_into(folder / key, listing, image_size, progress)
    return _assemble(folder / key, listing, image_size, preprocessing)


def _cache_folder(source: str | Path, cache: str | Path | None) -> Path:
    chosen = cache or os.environ.get("HUBLATENT_CACHE") or "~/.cache/hublatent/datasets"
    folder = Path(chosen).expanduser().absolute()
    data = Path(source).expanduser()
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise DataError(f"The cache {folder} lies inside the data; choose a folder outside {data}.")
    return folder


def _decode_into(folder: Path, listing: Listing, image_size: int, progress: bool) -> None:
    """Decode all pictures; `folder` appears only when it is complete."""
    # Only the holder of the lock comes here, so what lies there is left over from a kill.
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    skipped: list[tuple[int, str]] = []
    copies: list[tuple[int, int]] = []
    digest, seen = hashlib.sha256(), dict[bytes, int]()
    try:
        # Plain writes, not a writable map: a full disk is then an error and not a crash.
        with (
            (temporary / PIXELS_NAME).open("wb") as file,
            closing(_decoded(listing, image_size, progress)) as pictures,
        ):
            for index, picture in pictures:
                if isinstance(picture, str):
                    skipped.append((index, picture))
                    continue
                content = picture.tobytes()
                file.write(content)
                digest.update(content)
                first = seen.setdefault(hashlib.blake2b(content, digest_size=16).digest(), index)
                if first != index:
                    copies.append((first, index))
        if len(skipped) == len(listing.names):
            raise DataError(
                f"None of the {len(skipped)} listed pictures can be read; the first: "
                f"{skipped[0][1]}"
            )
        summary = {"skipped": skipped, "sha256": digest.hexdigest(), "copies": copies}
        (temporary / SUMMARY_NAME).write_text(json.dumps(summary), encoding="utf-8")
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _decoded(
    listing: Listing, image_size: int, progress: bool
) -> Generator[tuple[int, np.ndarray | str], None, None]:
    """Each picture in order, uint8 (H, W, 3), or the reason why it cannot be read."""
    n, n_workers = len(listing.names), os.cpu_count() or 1
    # Pillow releases the interpreter's lock while it decodes, so threads suffice.
    pool = ThreadPoolExecutor(n_workers)
    futures = (pool.submit(_decode, listing, i, image_size) for i in range(n))
    try:
        # Bounded look-ahead: memory holds a few pictures, however large the set.
        pending = deque(islice(futures, LOOK_AHEAD * n_workers))
        for index in tqdm(range(n), "decoding", unit="image", disable=not progress):
            yield index, pending.popleft().result()
            pending.extend(islice(futures, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(listing: Listing, index: int, image_size: int) -> np.ndarray | str:
    try:
        return prepare(open_image(listing.open(index)), image_size, crop=listing.crop_side)
    except ImageError as error:
        return str(error)


def _assemble(folder: Path, listing: Listing, image_size: int, preprocessing: str) -> FaceDataset:
    """Join the decoded pictures with their labels, without those that could not be read."""
    summary = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))
    skipped = tuple((listing.names[i], reason) for i, reason in summary["skipped"])
    kept = np.setdiff1d(np.arange(len(listing.names)), [i for i, _ in summary["skipped"]])
    if skipped:
        print(
            f"{len(skipped)} of {len(listing.names)} pictures are skipped; the first: "
            f"{skipped[0][1]} (To try them again, delete {folder}.)"
        )
    labels, identities, partition = arrays = [
        listing.labels[kept], listing.identities[kept], listing.partition[kept]
    ]  # fmt: skip
    _warn_of_leaks(listing, identities, partition, summary.get("copies", ()))
    names = tuple(listing.names[i] for i in kept)
    digest = hashlib.sha256(json.dumps([names, listing.attributes, summary["sha256"]]).encode())
    for array in arrays:
        array.flags.writeable = False
        # Little-endian, so that every machine has the same bytes.
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    path, shape = folder / PIXELS_NAME, (len(kept), image_size, image_size, 3)
    expected, found = math.prod(shape), path.stat().st_size
    if found != expected:
        raise DataError(
            f"{path} has {found:,} bytes; expected {expected:,}. Delete {folder}, and the "
            "pictures will be decoded again."
        )
    images = np.memmap(path, dtype=np.uint8, mode="r", shape=shape)
    return FaceDataset(
        images, labels, listing.attributes, identities, partition, names, skipped,
        digest.hexdigest(), preprocessing, listing.name,
    )  # fmt: skip


def _warn_of_leaks(
    listing: Listing, identities: np.ndarray, partition: np.ndarray,
    copies: Sequence[tuple[int, int]],
) -> None:  # fmt: skip
    """Say what makes held-out scores too good, or leaves them without pictures."""
    present = [set(identities[partition == i].tolist()) for i in range(len(PARTITIONS))]
    empty = [name for name, people in zip(PARTITIONS, present, strict=True) if not people]
    if empty:
        print(f"Warning: no picture is in the partition {' or '.join(empty)}.")
    shared = set.union(*(a & b for a, b in combinations(present, 2)))
    if shared:
        print(
            f"Warning: {len(shared)} identities occur in more than one partition; "
            "held-out scores will be too good."
        )
    people = listing.identities
    apart = [(i, j) for i, j in copies if people[i] != people[j]]
    if apart:
        first, second = (listing.names[i] for i in apart[0])
        print(
            f"Warning: {len(apart)} pictures are copies of another person's, such as {second} of "
            f"{first}; held-out scores will be too good."
        )
