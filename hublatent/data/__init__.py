"""Labelled pictures from folders and from the Hub.

dataset.py       FaceDataset: pictures decoded once, and what is known about each
layouts.py       which layout a folder has: CelebA's, CelebAMask-HQ's, or a table beside pictures
listing.py       reading and checking lists and tables
hub_datasets.py  datasets of the Hub
"""

from hublatent.data.dataset import FaceDataset, load_dataset

__all__ = ["FaceDataset", "load_dataset"]
