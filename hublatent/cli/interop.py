"""hublatent convert and hublatent import-directions: what other projects wrote, read safely."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from hublatent.cli.options import File, FileOption, Folder, ForModel, Text, describe


def convert(file: File, out: Folder) -> None:
    """Convert NVIDIA's StyleGAN2 pickle into a model folder, executing nothing in it.

    Args:
        file: a .pkl of stylegan2-ada-pytorch or of stylegan3's StyleGAN2.
        out: the folder to write.
    """
    from hublatent.interop import nvidia

    describe(nvidia.convert(file, out))
    print(f"written: {out}")


def import_directions(
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...")],
    attribute: str,
    out: FileOption,
    model: ForModel = None,
    layers: tuple[int, ...] | None = None,
    space: Literal["z", "w", "w+"] | None = None,
    licence: Text = None,
) -> None:
    """Bring directions of other projects into one direction file, executing nothing in them.

    Args:
        files: one or more files of any known format.
        attribute: what they change.
        out: the direction file to write.
        model: the model they are for, a folder or a Hub id; without it they belong to no model.
        layers: the layers to put a single vector on.
        space: the latent space they are in, where the file does not say.
        licence: the terms their author gave, in a sentence; kept in the file, and on its card.
    """
    from hublatent.interop import directions
    from hublatent.models import load

    loaded = None if model is None else load(model)
    imported = directions.import_directions(
        files, attribute, loaded, layers=layers, space=space, licence=licence
    )
    imported.directions.save(out)
    print("\n".join(imported.report))
    print(f"{out}: {len(imported.directions)} directions")
