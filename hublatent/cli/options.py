"""The arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from hublatent.data import DataSource

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
