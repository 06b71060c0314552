"""Models and directions of the Hub that the app can open: found by words, shown with a picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.hf_api import ModelInfo
from PIL import Image

from hublatent.checkpoint import CONFIG_NAME
from hublatent.demo.shelf import is_hub_id
from hublatent.errors import HublatentError
from hublatent.hub import SAMPLES_NAME, snapshot
from hublatent.hub.client import call_hub
from hublatent.hub.download import MAX_LISTING_BYTES
from hublatent.images import open_image

TAG, DIRECTIONS_TAG = "hublatent", "latent-directions"
MAX_FOUND, MAX_PICTURE_BYTES = 12, 4 << 20


@dataclass(frozen=True, eq=False)
class FoundRepo:
    """One repository."""

    repo: str
    kind: str  # such as "model with directions"
    downloads: int | None  # in the last month; None where the Hub does not say
    picture: Image.Image | None  # what it draws; None where it shows nothing


def search_hub(words: str, token: bool | None = None) -> list[FoundRepo]:
    """The most downloaded repositories that hublatent can open.

    Args:
        words: that the repository's name contains; "" for any.
        token: None takes the stored one, False none.

    Raises:
        HubError: the Hub cannot be reached, or refuses.
    """

    def ask() -> list[ModelInfo]:
        found = HfApi(token=token).list_models(
            filter=TAG, search=words[:100] or None, sort="downloads", limit=MAX_FOUND, cardData=True
        )
        return list(found)[:MAX_FOUND]

    infos = call_hub(ask, "the search for models", max_bytes=MAX_LISTING_BYTES)
    with ThreadPoolExecutor(4) as pool:
        pictures = pool.map(lambda info: _picture(info.id, token), infos)
        return [
            FoundRepo(info.id, _kind(info), info.downloads, picture)
            for info, picture in zip(infos, pictures, strict=True)
        ]


def holds_model(repo: str, token: bool | None = None) -> bool:
    """Whether a repository of the Hub, if there is one, holds a model, not directions alone."""
    return call_hub(lambda: HfApi(token=token).file_exists(repo, CONFIG_NAME), repo)


def base_models(repo: str) -> tuple[str, ...]:
    """The model that the card of a repository of directions names, if it names one."""
    return _bases(call_hub(lambda: HfApi().model_info(repo), repo))


def _bases(info: ModelInfo) -> tuple[str, ...]:
    named = info.card_data.get("base_model") if info.card_data else None
    return (named,) if isinstance(named, str) and is_hub_id(named) else ()


def _kind(info: ModelInfo) -> str:
    bases = _bases(info)
    if bases:
        return f"directions for {bases[0]}"
    return f"model {'with' if DIRECTIONS_TAG in (info.tags or ()) else 'without'} directions"


def _picture(repo: str, token: bool | None) -> Image.Image | None:
    try:
        where = snapshot(repo, token=token, files=(SAMPLES_NAME,), max_bytes=MAX_PICTURE_BYTES)
        picture = open_image((where.folder / SAMPLES_NAME).read_bytes())
    except HublatentError:
        return None  # it has none: the card is without
    side = min(picture.size)
    return picture.crop((0, 0, side, side))
