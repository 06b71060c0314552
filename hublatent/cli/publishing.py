"""hublatent push, push-directions and pull: to the Hugging Face Hub and back."""

from __future__ import annotations

import shutil
from pathlib import Path

from hublatent.cli.options import (
    File,
    Folder,
    FolderOption,
    ForModel,
    Repo,
    Revision,
    Text,
    describe,
)


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
    from hublatent.direction_set import DirectionSet
    from hublatent.models import load

    directions = DirectionSet.load(file)
    loaded = None if model is None else load(model)
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
    from hublatent.direction_set import DirectionSet
    from hublatent.hub import DIRECTIONS_NAME, MODEL_FILES, PUBLISHED_FILES, snapshot
    from hublatent.publish import load_published
    from hublatent.storage import atomic_path

    files = (DIRECTIONS_NAME,) if only_directions else MODEL_FILES
    optional = () if only_directions else PUBLISHED_FILES[len(MODEL_FILES) :]
    where = snapshot(repo, revision=revision, files=files, optional=optional)
    present = [name for name in (*files, *optional) if (where.folder / name).is_file()]
    model = None if only_directions else load_published(where.folder)
    if model is None:
        print(f"directions: {len(DirectionSet.load(where.folder / DIRECTIONS_NAME))}")
    else:
        describe(model)
    if out is not None:
        for name in present:
            with atomic_path(out / name) as temporary:
                shutil.copyfile(where.folder / name, temporary)
    print(f"commit: {where.commit}\nfolder: {out or where.folder}")
