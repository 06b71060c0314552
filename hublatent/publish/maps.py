"""The card of a map between two latent spaces, and the commit that publishes both."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from hublatent.hub import CARD_NAME, MAP_NAME
from hublatent.mapping import SCORES, LatentMap
from hublatent.publish.cells import code, interval_cell, table, text
from hublatent.publish.commits import publish
from hublatent.publish.licences import licence_of
from hublatent.storage import write_text
from hublatent.version import __version__

if TYPE_CHECKING:
    from hublatent.mapping import LatentSpace


def push_map(latent_map: LatentMap, repo: str, **options: Any) -> str:
    """Publish a map and its card in one commit; see `LatentMap.push_to_hub`."""
    with tempfile.TemporaryDirectory() as folder:
        latent_map.save(Path(folder) / MAP_NAME)
        write_text(Path(folder) / CARD_NAME, map_card(latent_map, repo))
        return publish(folder, repo, files=(MAP_NAME, CARD_NAME), **options)


def map_card(latent_map: LatentMap, repo: str) -> str:
    """The README.md of a map."""
    name, licence = repo.rpartition("/")[2], licence_of([latent_map.origin.dataset], None)
    spaces = (latent_map.source, latent_map.target)
    more: dict[str, Any] = {}
    if licence.hub_id == "other":
        more = {"license_name": licence.name, "license_link": licence.link or None}
    head = ModelCardData(
        model_name=name,
        library_name="hublatent",
        license=licence.hub_id,
        tags=["hublatent", "latent-space", "latent-map", *(s.architecture for s in spaces)],
        **more,
    )
    ways = (latent_map.forward, latent_map.backward)
    measured = [
        (what, *(interval_cell(what, way.scores.get(score)) for way in ways))
        for score, what in SCORES.items()
    ]
    body = f"""# {text(name)}

A linear map between the latents of two models, fitted both ways to {text(latent_map.origin)}
(Asperti & Tonelli 2023, arXiv:2207.06812).

{table(("", "source", "target"), _facts(spaces))}
## Use

```python
import hublatent

latent_map = hublatent.LatentMap.from_pretrained("{repo}")
latents = latent_map.apply(source.encode(images))  # of the target model
direction = latent_map.carry(direction).with_sigma(target)
```

## Measured on people that it was not fitted to

{table(("measure", "source to target", "target to source"), measured)}
## Licence

{licence.sentence}

hublatent {__version__} wrote this card.
"""
    return ModelCard(f"---\n{head.to_yaml().strip()}\n---\n\n{body}").content


def _facts(spaces: tuple[LatentSpace, ...]) -> list[tuple[Any, ...]]:
    return [
        ("architecture", *(code(space.architecture) for space in spaces)),
        ("latents", *(f"{s.space}, {' x '.join(map(str, s.latent_shape))}" for s in spaces)),
        ("fingerprint", *(code(space.fingerprint) for space in spaces)),
    ]
