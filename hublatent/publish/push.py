"""What `push_to_hub` and `hublatent push` do: check, write the card where there is none, commit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitOperationAdd, HfApi
from PIL import Image

from hublatent import figures
from hublatent.checkpoint import CONFIG_NAME, read_config
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.editing import edit
from hublatent.errors import HubError
from hublatent.hub import (
    CARD_NAME,
    DIRECTIONS_NAME,
    DISCRIMINATOR_NAME,
    PUBLISHED_FILES,
    SAMPLES_NAME,
    HubModel,
)
from hublatent.hub.client import call_hub, check_repo_id
from hublatent.images import save_png, to_pil
from hublatent.model import LatentModel
from hublatent.models import load
from hublatent.perception.classifier import AttributeClassifier
from hublatent.publish.card import CardInput, check_card, render_card
from hublatent.publish.card_tables import best_of_each, of_headline
from hublatent.publish.licences import Licence
from hublatent.storage import open_safetensors, write_text

MAX_SAMPLE_ROWS = 6
SAMPLE_COLUMNS = 8
UNEDITED_ROWS = 3  # where there is nothing to edit along
SAMPLE_STRENGTH = 3.0
SAMPLE_WIDTH = 128  # pixels; smaller images are enlarged by a whole factor


def publish(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    message: str = "Publish with hublatent",
    files: tuple[str, ...] = PUBLISHED_FILES,
) -> str:
    """Send the published files of a folder to the Hub in one commit.

    Args:
        folder: the folder; only the names in `files` are sent.
        repo: the Hub id; made where it does not exist, unless `create_pr`.
        private: whether a new repository is private; an existing public one is then refused.
        revision: the branch to commit to; made where it does not exist, unless `create_pr`.
        create_pr: open a pull request instead of committing to the branch.
        token: a Hub token with write access; None takes the stored one.
        message: the commit's summary.
        files: the allow-list.

    Returns:
        The URL of the commit or pull request; of the latest commit where nothing has changed.

    Raises:
        HubError: the Hub refused, or somebody else committed in between.
    """
    check_repo_id(repo)
    paths = [Path(folder) / name for name in files if (Path(folder) / name).is_file()]
    if not paths:
        raise HubError(f"{folder} holds none of {', '.join(files)}; there is nothing to publish.")
    api = HfApi(token=token)

    def commit() -> str:
        if not create_pr:
            api.create_repo(repo, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
        info = api.model_info(repo, revision=revision)
        if private and not info.private:
            raise HubError(
                f"{repo} exists and is public; nothing was sent. Drop private to publish."
            )
        additions = [CommitOperationAdd(path_in_repo=p.name, path_or_fileobj=p) for p in paths]
        where: dict[str, Any] = {"revision": revision, "create_pr": create_pr}
        try:
            for addition in additions:
                # One by one in this thread: several would each retry for half a minute.
                api.preupload_lfs_files(repo, [addition], **where)
            result = api.create_commit(
                repo, additions, commit_message=message, parent_commit=info.sha, **where
            )
        except RuntimeError as error:  # in which the client hides why a large file did not arrive
            reason = f" ({error.__cause__})" if error.__cause__ is not None else ""
            first_line = f"{error}{reason}".splitlines()[0].rstrip(". )")
            raise HubError(f"Nothing was published to {repo}: {first_line}. Try again.") from error
        return str(result.pr_url or result.commit_url)

    return call_hub(commit, repo, revision)


def repo_has_file(
    name: str, repo: str, revision: str | None = None, token: str | bool | None = None
) -> bool:
    """Whether a repository of the Hub, if it exists, holds a file, on its main branch or another.

    Raises:
        HubError: the id is none, or the Hub refused.
    """
    check_repo_id(repo)
    api = HfApi(token=token)

    def on(branch: str | None) -> bool:
        return call_hub(lambda: api.file_exists(repo, name, revision=branch), repo, branch)

    return on(None) or (revision is not None and on(revision))


def push_model(
    model: HubModel, repo: str, *, directions: DirectionSet | None = None, **options: Any
) -> str:
    """Publish a model, and a direction set beside it, in one commit; see `HubModel.push_to_hub`."""
    if directions is not None:
        if not isinstance(model, LatentModel):
            raise HubError(f"A {model.architecture} has no latents, and so no directions.")
        directions.check_fits(model)
        directions = directions.with_sigma(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        if directions is not None:
            directions.save(Path(folder) / DIRECTIONS_NAME)
        if not repo_has_file(CARD_NAME, repo, options.get("revision"), options.get("token")):
            shown = best_of_each(of_headline(directions))
            write_card(Path(folder), CardInput(repo, model, directions), model, shown)
        return publish(folder, repo, **options)


def push_directions(
    directions: DirectionSet,
    repo: str,
    *,
    model: LatentModel | None = None,
    base_model: str | None = None,
    **options: Any,
) -> str:
    """Publish a direction set without its model; see `DirectionSet.push_to_hub`."""
    if not len(directions):
        raise HubError(f"There is no direction to publish to {repo}.")
    beside_model = repo_has_file(CONFIG_NAME, repo, options.get("revision"), options.get("token"))
    files = (DIRECTIONS_NAME,) if beside_model else PUBLISHED_FILES
    commit = None
    if model is not None:
        directions.check_fits(model)
        directions, commit = directions.with_sigma(model), model.commit
    given = CardInput(repo, None, directions, base_model=base_model, base_commit=commit)
    with tempfile.TemporaryDirectory() as folder:
        directions.save(Path(folder) / DIRECTIONS_NAME)
        write_card(Path(folder), given, model, best_of_each(directions)[:MAX_SAMPLE_ROWS])
        return publish(folder, repo, files=files, **options)


def write_card(
    folder: Path, given: CardInput, model: HubModel | None, shown: Sequence[Direction] = ()
) -> None:
    """Write README.md and, with a latent model, samples.png, which shows some directions."""
    if isinstance(model, LatentModel):
        picture, caption = draw_samples(model, shown)
        save_png(picture, folder / SAMPLES_NAME)
        given = replace(given, samples_caption=caption)
    write_text(folder / CARD_NAME, render_card(given))


@torch.no_grad()
def draw_samples(
    model: LatentModel, directions: Sequence[Direction] = (), seed: int = 0, n_rows: int = 1
) -> tuple[Image.Image, str]:
    """Draw a model's own samples, and the same ones edited along each of some directions.

    Args:
        model: the model.
        directions: one per row, each with its sigma; without any there are more samples instead.
        seed: of the samples.
        n_rows: rows of samples; the last is edited.

    Returns:
        The picture, and a sentence that says what it shows.
    """
    draws = torch.Generator().manual_seed(seed)
    latents = model.sample_latents(SAMPLE_COLUMNS, generator=draws)
    n_more = (n_rows if directions else max(n_rows, UNEDITED_ROWS)) - 1
    more = [("", model.sample_latents(SAMPLE_COLUMNS, generator=draws)) for _ in range(n_more)]
    if not directions:
        rows, caption = [("samples", latents), *more], "Samples."
    elif more:
        rows = [*more, ("samples", latents)]
        caption = (
            "Samples; those of the row with that name edited along the directions named below."
        )
    else:
        rows = [("samples", latents)]
        caption = "Samples, and the same ones edited along the directions that the rows name."
    for direction in directions:
        label = f"{direction.name} at +{SAMPLE_STRENGTH:g} standard deviations"
        rows.append((label, edit(latents, direction, SAMPLE_STRENGTH)))
    scale = max(1, SAMPLE_WIDTH // model.image_size)
    pictures = [to_pil(model.decode(latents), scale) for _, latents in rows]
    return figures.grid(pictures, [label for label, _ in rows], [""] * SAMPLE_COLUMNS), caption


def converted_card(
    model: LatentModel, name: str, about: str, licence_name: str, licence_link: str, terms: str
) -> str:
    """The card of a model that was converted from another program's file."""
    licence = Licence(licence_name, licence_link, terms)
    return render_card(CardInput(name, model, about=about, licence=licence))


def check_folder(folder: str | Path) -> HubModel:
    """Refuse a model folder that is not fit to be published.

    Args:
        folder: holds config.json, model.safetensors and README.md, perhaps directions and samples.

    Returns:
        The model.

    Raises:
        HublatentError: the weights do not load, the directions belong to other weights, or the card
            does not parse, names no licence, holds a figure that is not finite or does not name a
            discriminator that lies there.
    """
    path = Path(folder)
    if not path.is_dir():
        raise HubError(f"{folder} is not a folder; expected one with {', '.join(PUBLISHED_FILES)}.")
    model = load_published(path)
    check_card(path / CARD_NAME)
    discriminator = path / DISCRIMINATOR_NAME
    if discriminator.is_file():
        with open_safetensors(discriminator, HubError):
            pass  # whole; training/train_stylegan2.py checks that it fits
        if DISCRIMINATOR_NAME not in (path / CARD_NAME).read_text(encoding="utf-8"):
            raise HubError(
                f"The card of {folder} does not say what {DISCRIMINATOR_NAME} is for; write it "
                "with training/cards/make_card.py."
            )
    return model


def load_published(folder: Path) -> HubModel:
    """Load a latent model or an attribute classifier, strictly, and refuse others' directions."""
    if read_config(folder)["architecture"] == AttributeClassifier.architecture:
        model: HubModel = AttributeClassifier.from_pretrained(folder)
    else:
        model = load(folder)
    path = folder / DIRECTIONS_NAME
    if path.is_file():
        if not isinstance(model, LatentModel):
            raise HubError(
                f"{folder} holds directions, but its {model.architecture} has no latents."
            )
        DirectionSet.load(path, model)
    return model
