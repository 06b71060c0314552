"""The arguments that several commands share, and what they print of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from hublatent.data import DataSource

if TYPE_CHECKING:
    from hublatent.hub import HubModel

Model = Positional[Annotated[str, arg(metavar="MODEL")]]
ModelOption = Annotated[str | None, arg(metavar="MODEL")]
ForModel = Annotated[str | None, arg(name="for", metavar="MODEL")]
Classifier = Annotated[str, arg(metavar="MODEL")]
Folder = Positional[Annotated[Path, arg(metavar="FOLDER")]]
FolderOption = Annotated[Path, arg(metavar="FOLDER")]
File = Positional[Annotated[Path, arg(metavar="FILE")]]
FileOption = Annotated[Path, arg(metavar="FILE")]
Repo = Positional[Annotated[str, arg(metavar="REPO")]]
Text = Annotated[str | None, arg(metavar="TEXT")]
Number = Annotated[float | None, arg(metavar="NUMBER")]
Data = Annotated[DataSource, arg(name="", help="")]  # its options stand among the command's own
Revision = Annotated[str | None, arg(metavar="REVISION")]

DEFAULT_CLASSIFIER = "model_cards/attributes-celeba"


def describe(model: HubModel) -> None:
    """Print a model's config, commit and fingerprint; a classifier's names are left to `info`."""
    for name, value in model.config.items():
        if name != "attributes":  # of a classifier: a text of all its names
            print(f"{name}: {value}")
    if model.commit is not None:
        print(f"commit: {model.commit}")
    fingerprint = getattr(model, "fingerprint", None)
    if fingerprint is not None:
        print(f"fingerprint: {fingerprint()}")
