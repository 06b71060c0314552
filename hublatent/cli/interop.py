"""hublatent convert and hublatent import-directions: what other projects wrote, read safely."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from hublatent.cli.options import File, FileOption, Folder, ForModel, Text, describe


def convert(
    file: File,
    out: Folder,
    class_index: Annotated[int | None, arg(name="class", metavar="N")] = None,
) -> None:
    """Convert another program's generator into a model folder, executing nothing in it.

    Args:
        file: a checkpoint of NVIDIA's StyleGAN2 or StyleGAN3 (pickle, torch.save, state dict), of
            their TensorFlow StyleGAN, StyleGAN2 or ProGAN, of stylegan2-pytorch, or of genforce.
        out: the folder to write.
        class_index: the class that a class-conditional generator is to draw.
    """
    from hublatent.interop.convert import convert

    describe(convert(file, out, class_index=class_index))
    print(f"written: {out}")


def import_directions(
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...")],
    out: FileOption,
    attribute: Text = None,
    model: ForModel = None,
    layers: tuple[int, ...] | None = None,
    space: Literal["z", "w", "w+"] | None = None,
    licence: Text = None,
) -> None:
    """Bring directions of other projects into one direction file, executing nothing in them.

    Args:
        files: one or more files of any known format.
        out: the direction file to write.
        attribute: what they change; by default each is called after its file, or as the file says.
        model: the model they are for, a folder or a Hub id; without it they belong to no model.
        layers: the layers to put a single vector on.
        space: the latent space they are in, where neither the file nor its format says.
        licence: the terms their author gave, in a sentence; kept in the file, and on its card.
    """
    from hublatent.direction import check_name
    from hublatent.interop import directions
    from hublatent.models import load

    if attribute is not None:
        check_name(attribute)
    loaded = None if model is None else load(model)
    imported = directions.import_directions(
        files, attribute, loaded, layers=layers, space=space, licence=licence
    )
    imported.directions.save(out)
    print("\n".join(imported.report))
    print(f"{out}: {len(imported.directions)} directions")
