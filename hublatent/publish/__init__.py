"""Publishing: cards, what a folder must be to go to the Hub, and the commit that takes it."""

from hublatent.publish.card import CardInput, check_card, render_card
from hublatent.publish.maps import push_map, write_maps_card
from hublatent.publish.push import (
    check_folder,
    converted_card,
    load_published,
    publish,
    push_directions,
    push_model,
)

__all__ = [
    "CardInput", "check_card", "check_folder", "converted_card", "load_published", "publish",
    "push_directions", "push_map", "push_model", "render_card", "write_maps_card",
]  # fmt: skip
