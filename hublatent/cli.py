"""The `hublatent` command: look into, edit with, convert, publish and pull what hublatent reads."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from safetensors import SafetensorError
from tyro.conf import FlagCreatePairsOff, Positional, arg

from hublatent.errors import HublatentError
from hublatent.inversion.perceptual import DEFAULT_CLASSIFIER, Perceptual

if TYPE_CHECKING:
    from torch import Tensor

    from hublatent.direction import Direction
    from hublatent.direction_set import DirectionSet
    from hublatent.hub import HubModel
    from hublatent.inversion.projection import Projection
    from hublatent.model import LatentModel

app = tyro.extras.SubcommandApp()


@app.command
def info(model: Positional[str], revision: str | None = None) -> None:
    """Show a model's config, its fingerprint, and its directions with their scores.

    Args:
        model: a folder or a Hub id.
        revision: branch, tag or commit on the Hub.
    """
    from hublatent.models import load

    loaded = load(model, revision=revision)
    _describe(loaded)
    directions = _own_directions(model, loaded, revision)
    if directions is None:
        print("directions: none")
        return
    print(f"directions: {len(directions)}")
    for direction in directions:
        print(f"  {_line(direction)}")


@app.command
def edit(
    model: Positional[str],
    image: Positional[Path],
    attribute: str,
    strength: float,
    out: Path,
    method: str = "joint",
    unit: Literal["sigma", "raw", "probability"] = "sigma",
    directions: str | None = None,
    classifier: str = DEFAULT_CLASSIFIER,
    revision: str | None = None,
) -> None:
    """Edit one picture: find its latent, move it along a direction, decode it.

    Args:
        model: a folder or a Hub id; without an encoder the picture is projected first.
        image: the picture; its central square is used.
        attribute: what to change, such as Eyeglasses.
        strength: how far; negative takes the attribute away.
        out: the PNG file to write.
        method: how the direction was found.
        unit: of the strength: standard deviations, the raw coefficient, or a target probability.
        directions: a direction file, folder or Hub id; by default the model's own.
        classifier: whose features a projection compares; a folder or a Hub id.
        revision: branch, tag or commit of the model on the Hub.
    """
    import torch

    from hublatent import editing
    from hublatent.direction_set import DirectionSet
    from hublatent.images import open_image, save_png, to_pil, to_tensor
    from hublatent.models import load

    picture = open_image(image)
    loaded = load(model, revision=revision)
    if directions is None:
        found = DirectionSet.from_pretrained(model, loaded, loaded.commit)
    elif Path(directions).is_file():
        found = DirectionSet.load(directions, loaded)
    else:
        found = DirectionSet.from_pretrained(directions, loaded)
    direction = found[attribute, method]
    if direction.sigma is None:
        direction = direction.with_sigma(loaded)
    images = to_tensor([picture], loaded.image_size)
    if not loaded.has_encoder:
        latents = _project(loaded, images, "features", classifier).latents
    with torch.inference_mode():
        if loaded.has_encoder:
            latents = loaded.encode(images)
        moved = editing.edit(latents, direction, strength, unit)
        save_png(to_pil(loaded.decode(moved))[0], out)
        shift = float(editing.to_sigma(latents, direction, strength, unit))
    print(f"{out}: {direction.name} by {shift:+.2f} standard deviations")


@app.command(name="project")
def project_pictures(
    model: Positional[str],
    pictures: Positional[tuple[Path, ...]],
    out: Path,
    perceptual: Perceptual = "features",
    classifier: str = DEFAULT_CLASSIFIER,
    steps: int = 300,
    seed: int = 0,
    revision: str | None = None,
) -> None:
    """Find the latents from which a model draws given pictures, for models without an encoder.

    Args:
        model: a folder or a Hub id.
        pictures: their central squares are used.
        out: the folder for latents.safetensors and the redrawn pictures.
        perceptual: the perceptual loss: "features" of the classifier, or "lpips".
        classifier: a folder or a Hub id of an attribute classifier.
        steps: at most so many steps of the descent.
        seed: of its starts.
        revision: branch, tag or commit of the model on the Hub.
    """
    from hublatent.images import open_image, save_png, to_pil, to_tensor
    from hublatent.inversion.latents_file import describe, write_projected
    from hublatent.models import load

    names = [picture.stem for picture in pictures]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise HublatentError(f"Several pictures would be redrawn as {twice[0]}-projected.png.")
    opened = [open_image(picture) for picture in pictures]
    loaded = load(model, revision=revision)
    images = to_tensor(opened, loaded.image_size)
    found = _project(loaded, images, perceptual, classifier, n_steps=steps, seed=seed)
    document = describe(loaded, names=names)
    tensors = {"latents": found.latents, "errors": found.errors}
    write_projected(out / "latents.safetensors", tensors, document)
    for name, picture, error in zip(names, to_pil(found.images), found.errors, strict=True):
        path = out / f"{name}-projected.png"
        save_png(picture, path)
        print(f"{path}: mean squared error {float(error):.5f}")


@app.command
def compare(
    folders: Positional[tuple[Path, ...]],
    data: str,
    out: Path,
    attributes: tuple[str, ...] = ("Eyeglasses", "Smiling", "Male"),
    judge: str = "model_cards/judge-celeba",
    methods: tuple[str, ...] | None = None,
    faces: int = 200,
    projected: tuple[Path, ...] = (),
    hand_labels: Path | None = None,
    seed: int = 0,
    cache: Path | None = None,
) -> None:
    """Measure how well attributes are read and edited in models' latents; goes on where it stopped.

    Args:
        folders: of models; others are passed over.
        data: folder or Hub dataset of labelled faces.
        out: the folder to write the report, results.json and the tables to.
        attributes: what to compare.
        judge: folder or Hub id of the classifier that judges edits, and does nothing else.
        methods: how directions are found; by default every way there is. In projected pictures
            "svm" is called "svm-projected"; name both to compare both.
        faces: how many faces without the attribute are edited.
        projected: folders that training/project_images.py wrote, for models without an encoder.
        hand_labels: the sheet out/real-faces/strips-to-label.csv, filled in by eye with strong, no
            effect or decohered.
        seed: of every draw.
        cache: folder of the decoded pictures; by default ~/.cache/hublatent/datasets.
    """
    from hublatent import comparison
    from hublatent.discovery.methods import METHODS

    print(f"seed {seed}")
    found = comparison.compare(
        folders, data, out, attributes=attributes, judge=judge,
        methods=tuple(METHODS) if methods is None else methods, n_faces=faces,
        projected=projected, seed=seed, cache=cache, hand_labels=hand_labels,
        report=True,
    )  # fmt: skip
    for problem in found.problems:
        print(f"{problem.model}, {problem.attribute}: {problem.text}")
    print(f"{out}: {len(found.separability)} rows of scores, {len(found.edits)} of edits")


@app.command
def convert(file: Positional[Path], out: Positional[Path]) -> None:
    """Convert NVIDIA's StyleGAN2 pickle into a model folder, executing nothing in it.

    Args:
        file: a .pkl of stylegan2-ada-pytorch or of stylegan3's StyleGAN2.
        out: the folder to write.
    """
    from hublatent.interop import nvidia

    _describe(nvidia.convert(file, out))
    print(f"written: {out}")


@app.command
def import_directions(
    files: Positional[tuple[Path, ...]],
    attribute: str,
    out: Path,
    model: Annotated[str | None, arg(name="for")] = None,
    layers: tuple[int, ...] | None = None,
    space: Literal["z", "w", "w+"] | None = None,
    licence: str | None = None,
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


@app.command
def push(
    folder: Positional[Path],
    repo: Positional[str],
    private: bool = False,
    revision: str | None = None,
    pr: bool = False,
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
    from hublatent.publish.commits import check_folder, publish

    _describe(check_folder(folder))
    print(publish(folder, repo, private=private, revision=revision, create_pr=pr))


@app.command
def push_directions(
    file: Positional[Path],
    repo: Positional[str],
    private: bool = False,
    model: Annotated[str | None, arg(name="for")] = None,
    base_model: str | None = None,
    revision: str | None = None,
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


@app.command
def pull(
    repo: Positional[str],
    revision: str | None = None,
    out: Path | None = None,
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
    from hublatent.publish.commits import check_directions, load_published
    from hublatent.storage import atomic_path

    files = (DIRECTIONS_NAME,) if only_directions else MODEL_FILES
    optional = () if only_directions else PUBLISHED_FILES[len(MODEL_FILES) :]
    where = snapshot(repo, revision=revision, files=files, optional=optional)
    present = [name for name in (*files, *optional) if (where.folder / name).is_file()]
    model = None if only_directions else load_published(where.folder)
    if model is None:
        print(f"directions: {len(DirectionSet.load(where.folder / DIRECTIONS_NAME))}")
    else:
        check_directions(where.folder, model)
        _describe(model)
    if out is not None:
        for name in present:
            with atomic_path(out / name) as temporary:
                shutil.copyfile(where.folder / name, temporary)
    print(f"commit: {where.commit}\nfolder: {out or where.folder}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake ends in one sentence on stderr and exit code 2.

    Args:
        arguments: the words after the command's name; None takes the process's own.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        app.cli(
            prog="hublatent",
            description=__doc__,
            args=arguments,
            config=(FlagCreatePairsOff,),
            sort_subcommands=False,
        )
    except HublatentError as error:
        sys.exit(_fail(str(error)))
    except OSError as error:  # a full disk, a folder that may not be written
        sys.exit(_fail(f"{error.filename or 'The output'}: {error.strerror or error}."))
    except SafetensorError as error:  # how safetensors reports a full disk
        sys.exit(_fail(f"The output could not be written: {error}."))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(sentence: str) -> int:
    print(f"hublatent: {sentence}", file=sys.stderr)
    return 2


def _describe(model: HubModel) -> None:
    for name, value in model.config.items():
        print(f"{name}: {value}")
    if model.commit is not None:
        print(f"commit: {model.commit}")
    fingerprint = getattr(model, "fingerprint", None)
    if fingerprint is not None:
        print(f"fingerprint: {fingerprint()}")


def _project(
    model: LatentModel,
    images: Tensor,
    perceptual: Perceptual,
    classifier: str,
    n_steps: int = 300,
    seed: int = 0,
) -> Projection:
    """Project with a progress bar."""
    from tqdm import tqdm

    from hublatent.inversion.perceptual import load_classifier
    from hublatent.inversion.projection import project

    features = load_classifier(perceptual, classifier)
    with tqdm(desc="project", unit="step") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return project(
            model, images, classifier=features, perceptual=perceptual, n_steps=n_steps, seed=seed,
            progress=show,
        )  # fmt: skip


def _own_directions(source: str, model: LatentModel, revision: str | None) -> DirectionSet | None:
    """The directions beside a model; None where it has none."""
    from hublatent.checkpoint import CONFIG_NAME
    from hublatent.direction_set import DirectionSet
    from hublatent.hub import DIRECTIONS_NAME, snapshot

    pinned = model.commit or revision
    where = snapshot(source, revision=pinned, files=(CONFIG_NAME,), optional=(DIRECTIONS_NAME,))
    path = where.folder / DIRECTIONS_NAME
    return DirectionSet.load(path, model) if path.is_file() else None


def _line(direction: Direction) -> str:
    """A direction's name, its sigma and its scores."""
    parts = [direction.name]
    if direction.sigma is not None:
        parts.append(f"sigma {direction.sigma:.3g}")
    if direction.layers is not None:
        parts.append(f"layers {', '.join(map(str, direction.layers))}")
    parts += [f"{k} {s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for k, s in direction.scores.items()]
    return "; ".join(parts)
