"""hublatent info, convert, import-directions, push, push-directions and pull: models' files.

What other projects wrote is read with nothing in it executed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

import hublatent
from hublatent.cli.options import FileOption, FolderOption, ForModel, Model, Revision, Text

if TYPE_CHECKING:
    from hublatent.hub import HubModel

File = Positional[Annotated[Path, arg(metavar="FILE")]]
Folder = Positional[Annotated[Path, arg(metavar="FOLDER")]]
Repo = Positional[Annotated[str, arg(metavar="REPO")]]


def info(model: Model, revision: Revision = None, all: bool = False) -> None:
    """Show what a model is, its fingerprint, and which directions it has.

    Args:
        model: a folder or a Hub id, of a generative model or of a classifier.
        revision: branch, tag or commit on the Hub.
        all: show every direction with its scores, or every attribute of a classifier.
    """
    from hublatent.checkpoint import read_config
    from hublatent.hub import DIRECTIONS_NAME, MODEL_FILES, snapshot

    where = snapshot(model, revision=revision, files=MODEL_FILES, optional=(DIRECTIONS_NAME,))
    if read_config(where.folder)["architecture"] == hublatent.AttributeClassifier.architecture:
        classifier = hublatent.AttributeClassifier.from_snapshot(where)
        names = classifier.attribute_names
        print(f"{model} reads {len(names)} attributes in pictures; it draws none.")
        describe(classifier)
        print("\n  ".join(("attributes:", *names)) if all else f"attributes: {_some(names)}")
        return
    loaded = hublatent.load(model, revision=where.commit)
    describe(loaded)
    path = where.folder / DIRECTIONS_NAME
    if not path.is_file():
        print("directions: none")
        return
    directions = hublatent.DirectionSet.load(path, loaded)
    print(f"directions: {len(directions)}")
    if all:
        for direction in directions:
            print(f"  {_line(direction)}")
    else:
        print(f"attributes: {_some(directions.attributes)}")
        print(f"methods: {', '.join(directions.methods)}\nEvery direction and its scores: --all")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more (--all)" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _line(direction: hublatent.Direction) -> str:
    """A direction's name, its sigma and its scores."""
    parts = [direction.name]
    if direction.sigma is not None:
        parts.append(f"sigma {direction.sigma:.3g}")
    if direction.layers is not None:
        parts.append(f"layers {', '.join(map(str, direction.layers))}")
    parts += [f"{k} {s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for k, s in direction.scores.items()]
    return "; ".join(parts)


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

    if attribute is not None:
        check_name(attribute)
    loaded = None if model is None else hublatent.load(model)
    imported = directions.import_directions(
        files, attribute, loaded, layers=layers, space=space, licence=licence
    )
    imported.directions.save(out)
    print("\n".join(imported.report))
    print(f"{out}: {len(imported.directions)} directions")


def push(
    folder: Folder, repo: Repo, private: bool = False, revision: Revision = None, pr: bool = False
) -> None:
    """Check a model folder, then publish it in one commit.

    Args:
        folder: config.json, model.safetensors, README.md, and directions and samples where there
            are any; nothing else in it is sent.
        repo: the Hub id; made where it does not exist.
        private: make the repository private.
        revision: the branch to commit to.
        pr: open a pull request instead of committing.
    """
    from hublatent.publish import check_folder, publish

    describe(check_folder(folder))
    print(publish(folder, repo, private=private, revision=revision, create_pr=pr))


def push_directions(
    file: File,
    repo: Repo,
    private: bool = False,
    model: ForModel = None,
    base_model: Text = None,
    revision: Revision = None,
    pr: bool = False,
) -> None:
    """Publish a direction file without its model, under a card that is made for it.

    Args:
        file: a direction file.
        repo: the Hub id; made where it does not exist. Where it holds a model, its card stays.
        model: the model they belong to, a folder or a Hub id; draws the card's picture.
        base_model: the model's Hub id, for the card; by default what --for says, if it is one.
        private: make the repository private.
        revision: the branch to commit to.
        pr: open a pull request instead of committing.
    """
    directions = hublatent.DirectionSet.load(file)
    loaded = None if model is None else hublatent.load(model)
    if model is not None and base_model is None and not Path(model).expanduser().is_dir():
        base_model = model
    where = {"private": private, "revision": revision, "create_pr": pr}
    print(directions.push_to_hub(repo, model=loaded, base_model=base_model, **where))


def pull(
    repo: Repo,
    revision: Revision = None,
    out: FolderOption | None = None,
    only_directions: bool = False,
) -> None:
    """Download a model of the Hub, check it, and say where it lies and of which commit it is.

    Args:
        repo: the Hub id.
        revision: branch, tag or commit.
        out: a folder to copy the files to; by default they stay in the cache.
        only_directions: take the direction file alone; for repositories without a model too.
    """
    from hublatent.hub import DIRECTIONS_NAME, MODEL_FILES, PUBLISHED_FILES, snapshot
    from hublatent.publish import load_published
    from hublatent.storage import atomic_path

    files: tuple[str, ...] = (DIRECTIONS_NAME,) if only_directions else MODEL_FILES
    optional = () if only_directions else PUBLISHED_FILES[len(MODEL_FILES) :]
    where = snapshot(repo, revision=revision, files=files, optional=optional)
    if only_directions:
        found = hublatent.DirectionSet.load(where.folder / DIRECTIONS_NAME)
        print(f"directions: {len(found)}")
    else:
        describe(load_published(where.folder))
    for name in (*files, *optional):
        if out is not None and (where.folder / name).is_file():
            with atomic_path(out / name) as temporary:
                shutil.copyfile(where.folder / name, temporary)
    print(f"commit: {where.commit}\nfolder: {out or where.folder}")


def describe(model: HubModel) -> None:
    """Print a model's config, commit and fingerprint; a classifier's names are left to `info`."""
    for name, value in model.config.items():
        if name != "attributes":  # of a classifier: a text of all its names
            print(f"{name}: {value}")
    if model.commit is not None:
        print(f"commit: {model.commit}")
    if hasattr(model, "fingerprint"):
        print(f"fingerprint: {model.fingerprint()}")
