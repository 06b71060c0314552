"""Labelled pictures from folders and from the Hub.

dataset.py       FaceDataset: pictures decoded once, and what is known about each
layouts.py       which layout a folder has, such as CelebA's or a table beside pictures
tables.py        lists and tables, read and checked
listing.py       what is known about pictures before any is opened
hub_datasets.py  datasets of the Hub
"""

from hublatent.data.dataset import FaceDataset, load_dataset

__all__ = ["FaceDataset", "load_dataset"]
