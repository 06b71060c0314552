"""Models of the Hub that the app can open: found by words, shown with a picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape

from huggingface_hub import HfApi
from huggingface_hub.hf_api import ModelInfo
from PIL import Image

from hublatent.demo.webpage import image, say
from hublatent.errors import HublatentError
from hublatent.hub.client import call_hub
from hublatent.hub.download import MAX_LISTING_BYTES, SAMPLES_NAME, snapshot
from hublatent.images import open_image

TAG, DIRECTIONS_TAG = "hublatent", "latent-directions"
MAX_FOUND, MAX_PICTURE_BYTES = 12, 4 << 20
PICTURE_SIDE = 240


@dataclass(frozen=True, eq=False)
class FoundModel:
    """One repository.

    Attributes:
        repo: its Hub id.
        tags: what it says of itself.
        downloads: in the last month; None where the Hub does not say.
        picture: what it draws; None where it shows nothing.
    """

    repo: str
    tags: tuple[str, ...]
    downloads: int | None
    picture: Image.Image | None


def search_hub(words: str, token: bool | None = None) -> list[FoundModel]:
    """The most downloaded models that hublatent can open.

    Args:
        words: that the repository's name contains; "" for any.
        token: None takes the stored one, False none.

    Raises:
        HubError: the Hub cannot be reached, or refuses.
    """

    def ask() -> list[ModelInfo]:
        found = HfApi(token=token).list_models(
            filter=TAG, search=words.strip()[:100] or None, sort="downloads", limit=MAX_FOUND
        )
        return list(found)[:MAX_FOUND]

    infos = call_hub(ask, "the search for models", max_bytes=MAX_LISTING_BYTES)
    with ThreadPoolExecutor(4) as pool:
        pictures = pool.map(lambda info: _picture(info.id, token), infos)
        return [
            FoundModel(info.id, tuple(info.tags or ()), info.downloads, picture)
            for info, picture in zip(infos, pictures, strict=True)
        ]


def _picture(repo: str, token: bool | None) -> Image.Image | None:
    try:
        where = snapshot(repo, token=token, files=(SAMPLES_NAME,), max_bytes=MAX_PICTURE_BYTES)
        picture = open_image((where.folder / SAMPLES_NAME).read_bytes())
    except HublatentError:
        return None  # it has none: the card is without
    side = min(picture.size)
    return picture.crop((0, 0, side, side))


def found_html(found: list[FoundModel]) -> str:
    """A card for each model; a click opens it."""
    if not found:
        return "<p>No model of the Hub with the tag hublatent has such a name.</p>"
    return f'<div class="hl-cards">{"".join(map(_card, found))}</div>'


def _card(found: FoundModel) -> str:
    picture = ""
    if found.picture is not None:
        picture = image(found.picture, (1, PICTURE_SIDE), f"Samples of {found.repo}")
    words = ["with directions" if DIRECTIONS_TAG in found.tags else "without directions"]
    if found.downloads is not None:
        words.append(f"{found.downloads:,} downloads")
    return (
        f'<button class="hl-card hl-found" {say(model=found.repo)}>{picture}'
        f"<h3>{escape(found.repo)}</h3><p>{', '.join(words)}</p></button>"
    )
