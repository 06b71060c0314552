"""The arguments that several commands share, and what they print of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

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
Revision = Annotated[str | None, arg(metavar="REVISION")]

DEFAULT_CLASSIFIER = "model_cards/attributes-celeba"


def describe(model: HubModel) -> None:
    """Print a model's config, commit and fingerprint."""
    for name, value in model.config.items():
        print(f"{name}: {value}")
    if model.commit is not None:
        print(f"commit: {model.commit}")
    fingerprint = getattr(model, "fingerprint", None)
    if fingerprint is not None:
        print(f"fingerprint: {fingerprint()}")
