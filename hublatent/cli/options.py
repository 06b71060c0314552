"""The arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from hublatent.data import DataSource

Model = Positional[Annotated[str, arg(metavar="MODEL")]]
ForModel = Annotated[str | None, arg(name="for", metavar="MODEL")]
Classifier = Annotated[str, arg(metavar="MODEL")]
FolderOption = Annotated[Path, arg(metavar="FOLDER")]
FileOption = Annotated[Path, arg(metavar="FILE")]
Text = Annotated[str | None, arg(metavar="TEXT")]
Data = Annotated[DataSource, arg(name="", help="")]  # its options stand among the command's own
Revision = Annotated[str | None, arg(metavar="REVISION")]

DEFAULT_CLASSIFIER = "model_cards/attributes-celeba"
