"""hublatent edit and hublatent project: pictures in, pictures and latents out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

import hublatent
from hublatent.cli.options import DEFAULT_CLASSIFIER, Classifier, FolderOption, Model, Revision
from hublatent.errors import HublatentError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from hublatent.direction_set import DirectionSet
    from hublatent.inversion.projection import Projection
    from hublatent.model import LatentModel

Perceptual = Literal["image-features", "features", "lpips"]
Unit = Literal["sigma", "raw", "probability"]
# Shares of the whole edit that the strip shows.
STRIP_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
STRIP_SIDE = 128
MAX_DEVIATIONS = 100  # of a strength; far before, no model draws a face any more
LATENTS_SUFFIXES = (".safetensors", ".npz", ".npy", ".pt")


def edit(
    model: Model,
    picture: Annotated[Positional[Path], arg(metavar="PICTURE")],
    out: Annotated[Path, arg(metavar="FILE|FOLDER")],
    direction: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=STRENGTH")] = (),
    attribute: Annotated[str | None, arg(metavar="NAME")] = None,
    strength: Annotated[float | None, arg(metavar="NUMBER")] = None,
    method: Annotated[str | None, arg(metavar="METHOD")] = None,
    style: Annotated[int | None, arg(metavar="SEED")] = None,
    unit: Unit = "sigma",
    directions: Annotated[str | None, arg(metavar="MODEL")] = None,
    classifier: Annotated[str | None, arg(metavar="MODEL")] = None,
    revision: Revision = None,
) -> None:
    """Edit pictures: find their latents, move them along directions, decode them.

    Args:
        model: a folder or a Hub id; without an encoder the pictures are projected first.
        picture: a picture, of which the central square is used, a folder of pictures, or the
            latents.safetensors that `hublatent project` wrote, or latents of another program
            (.npz, .npy, .pt), such as NVIDIA's projected_w.npz.
        out: the picture to write, PNG or JPEG by its name; a folder for several. Beside each a
            NAME-strip shows original, reconstruction, edit and the way between them.
        direction: what to change and how far, such as Smiling=2; negative takes the attribute
            away. May be repeated.
        attribute: with --strength, the same for a single direction.
        strength: how far to move along --attribute.
        method: how the directions were found; by default what the direction file says edits best,
            else joint, or the only one there is.
        style: draw another style of the attribute, such as another kind of glasses, where the
            directions have some: a seed of it.
        unit: of the strength: standard deviations, the raw coefficient, or a target probability.
        directions: a direction file, folder or Hub id; by default the model's own.
        classifier: whose features a projection compares, a folder or a Hub id; by default features
            that have seen no labels.
        revision: branch, tag or commit of the model on the Hub.
    """
    import torch

    from hublatent import editing
    from hublatent.images import open_image, save_image, to_pil, to_tensor
    from hublatent.models.style_space import StyleSpace

    wanted = _strengths(direction, attribute, strength)
    is_latents = picture.suffix in LATENTS_SUFFIXES
    if is_latents and not picture.is_file():
        raise HublatentError(
            f"There is no file {picture}; `hublatent project MODEL PICTURE --out FOLDER` writes "
            "the latents.safetensors of pictures."
        )
    files = [] if is_latents else _pictures(picture)
    originals = [open_image(file) for file in files]
    loaded = hublatent.load(model, revision=revision)
    edited, found = _directions(model, loaded, directions)
    moves = []
    for name, amount in wanted:
        way = found.default(name) if method is None else found[name, method]
        way = way if style is None else way.sampled_style(style)
        way = way.with_sigma(edited)
        if unit != "probability":
            _check_strength(way, amount, unit)
        moves.append((way, amount))
    names = [file.name for file in files]
    if is_latents:
        names, latents = _read_latents(picture, loaded)
    targets = _targets(out, names, len(names) > 1 or picture.is_dir())
    if not is_latents:
        images = to_tensor(originals, loaded.image_size, loaded.channels)
        if loaded.has_encoder:
            with torch.inference_mode():
                latents = torch.cat([loaded.encode(part) for part in images.split(32)])
        else:
            kind: Perceptual = "features" if classifier else "image-features"
            latents = _project(loaded, images, kind, classifier or DEFAULT_CLASSIFIER).latents
    with torch.inference_mode():
        if isinstance(edited, StyleSpace):
            latents = edited.to_styles(latents)
        for i, target in enumerate(targets):
            z, told = latents[i : i + 1], []
            moved = z
            for way, amount in moves:
                shift = float(editing.to_sigma(moved, way, amount, unit))
                told.append(f"{way.name} by {shift:+.2f}")
                moved = editing.edit(moved, way, amount, unit)
            path = torch.cat([z + share * (moved - z) for share in STRIP_SHARES])
            save_image(to_pil(edited.decode(moved))[0], target)
            sheet = _sheet(originals[i] if originals else None, to_pil(edited.decode(path)))
            save_image(sheet, target.with_name(f"{target.stem}-strip{target.suffix}"))
            print(f"{target}: {', '.join(told)} standard deviations")


def project(
    model: Model,
    pictures: Annotated[Positional[tuple[Path, ...]], arg(metavar="PICTURE...")],
    out: FolderOption,
    perceptual: Perceptual = "image-features",
    classifier: Classifier = DEFAULT_CLASSIFIER,
    steps: int = 300,
    seed: int = 0,
    revision: Revision = None,
) -> None:
    """Find the latents from which a model draws given pictures, for models without an encoder.

    Args:
        model: a folder or a Hub id.
        pictures: pictures, or folders of them; their central squares are used.
        out: the folder for latents.safetensors and the redrawn pictures.
        perceptual: the perceptual loss: "image-features", which have seen no labels, "features" of
            the classifier, or "lpips".
        classifier: a folder or a Hub id of an attribute classifier.
        steps: maximum number of steps of the descent.
        seed: of its starts.
        revision: branch, tag or commit of the model on the Hub.
    """
    from hublatent.images import open_image, save_png, to_pil, to_tensor
    from hublatent.inversion.latents_file import PROJECTED, describe

    files = [file for given in pictures for file in _pictures(given)]
    names = [file.stem for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise HublatentError(f"Several pictures would be redrawn as {twice[0]}-projected.png.")
    opened = [open_image(file) for file in files]
    loaded = hublatent.load(model, revision=revision)
    images = to_tensor(opened, loaded.image_size, loaded.channels)
    found = _project(loaded, images, perceptual, classifier, n_steps=steps, seed=seed)
    document = describe(loaded, names=names)
    tensors = {"latents": found.latents, "errors": found.errors}
    PROJECTED.write(out / "latents.safetensors", tensors, document)
    for name, picture, error in zip(names, to_pil(found.images), found.errors, strict=True):
        path = out / f"{name}-projected.png"
        save_png(picture, path)
        print(f"{path}: mean squared error {float(error):.5f}")


def _strengths(
    words: Sequence[str], attribute: str | None, strength: float | None
) -> list[tuple[str, float]]:
    """Attribute and strength of every direction asked for."""
    if (attribute is None) != (strength is None):
        raise HublatentError("--attribute and --strength go together.")
    wanted = [] if attribute is None or strength is None else [(attribute, strength)]
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            wanted.append((name, float(number)))
        except ValueError:
            name = ""
        if not name:
            raise HublatentError(f"--direction {word}; expected NAME=STRENGTH, like Smiling=2.")
    for name, amount in wanted:
        if not math.isfinite(amount):
            raise HublatentError(f"{name} by {amount}: a strength is a finite number.")
    if not wanted:
        raise HublatentError("Nothing to change; give --direction NAME=STRENGTH, like Smiling=2.")
    return wanted


def _check_strength(direction: hublatent.Direction, amount: float, unit: Unit) -> None:
    """Refuse a strength at which every picture is ruined."""
    import torch

    from hublatent import editing

    deviations = abs(float(editing.to_sigma(torch.zeros(1), direction, amount, unit)))
    if deviations > MAX_DEVIATIONS:
        shown = "" if unit == "sigma" else f" ({deviations:.3g} standard deviations)"
        raise HublatentError(
            f"{direction.attribute} by {amount:g}{shown}; expected at most {MAX_DEVIATIONS} "
            "standard deviations either way. Faces change well at 1 to 4."
        )


def _pictures(path: Path) -> list[Path]:
    """A picture, or those of a folder, by name."""
    if not path.is_dir():
        return [path]
    from PIL import Image

    Image.init()
    files = [p for p in sorted(path.iterdir()) if p.suffix.lower() in Image.EXTENSION]
    if not files:
        raise HublatentError(f"{path} holds no pictures.")
    return files


def _directions(
    source: str, model: LatentModel, given: str | None
) -> tuple[LatentModel, DirectionSet]:
    """The directions, and the model that they move: the given one, or a StyleGAN2's styles."""
    from hublatent.models.style_space import StyleSpace
    from hublatent.models.stylegan2 import StyleGAN2

    if given is None:
        return model, hublatent.DirectionSet.from_pretrained(source, model, model.commit)
    found = hublatent.DirectionSet.open(given)
    if isinstance(model, StyleGAN2) and found.space == StyleSpace.space:
        model = StyleSpace(model)
    return model, found.of_model(model)


def _read_latents(path: Path, model: LatentModel) -> tuple[list[str], Tensor]:
    """The names and latents of a file, of `project` or of another program."""
    if path.suffix == ".safetensors":
        from hublatent.inversion.latents_file import read_latents

        return read_latents(path, model)
    import torch

    from hublatent.interop.formats import read_latents as read_foreign_latents

    latents = torch.from_numpy(read_foreign_latents(path, model.latent_shape))
    names = [path.stem] if len(latents) == 1 else [f"{path.stem}-{i}" for i in range(len(latents))]
    return names, latents


def _targets(out: Path, names: Sequence[str], several: bool) -> list[Path]:
    """The file of each edited picture: `out` itself, or one in it by the picture's name."""
    from hublatent.images import picture_format

    if not several:
        picture_format(out)
        return [out]
    if out.is_file():
        raise HublatentError(f"{out} is a file; {len(names)} edited pictures need a folder.")
    targets = [(out / name).with_suffix(".png") for name in names]
    twice = sorted({t.name for t in targets if targets.count(t) > 1})
    if twice:
        raise HublatentError(f"Several pictures would be written as {twice[0]}; rename one.")
    return targets


def _sheet(original: Image.Image | None, frames: Sequence[Image.Image]) -> Image.Image:
    """Original | reconstruction | edit, and the way from the second to the third."""
    from hublatent.figures import fit, grid
    from hublatent.images import face_crop

    shown = {"reconstruction": frames[0], "edit": frames[-1]}
    if original is not None:
        side = frames[0].size
        shown = {"original": face_crop(original).resize(side), **shown}
    labels = [*shown, *(f"{share:.0%}" for share in STRIP_SHARES)]
    pictures = [*shown.values(), *frames]
    fitted = [fit(p.convert("RGB"), STRIP_SIDE, STRIP_SIDE) for p in pictures]
    return grid([fitted], [""], labels)


def _project(
    model: LatentModel, images: Tensor, perceptual: Perceptual, classifier: str, **descent: Any
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
            model, images, classifier=features, perceptual=perceptual, progress=show, **descent
        )
