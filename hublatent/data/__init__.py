"""Labelled pictures from folders and from the Hub.

source.py        DataSource: which pictures a command reads
dataset.py       FaceDataset: pictures decoded once, and what is known about each
layouts.py       which layout a folder has, such as CelebA's or a table beside pictures
listing.py       tables beside pictures, and what is known about these before any is opened
hub_datasets.py  datasets of the Hub
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hublatent.data.source import DataSource

if TYPE_CHECKING:
    from hublatent.data.dataset import FaceDataset, load_dataset

__all__ = ["DataSource", "FaceDataset", "load_dataset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("hublatent.data.dataset"), name)  # and with it torch
