"""Publishing: cards, what a folder must be to go to the Hub, and the commit that takes it."""

from hublatent.publish.commits import publish, repo_has_file
from hublatent.publish.push import (
    check_card,
    check_directions,
    check_folder,
    load_published,
    push_directions,
    push_model,
)

__all__ = [
    "check_card",
    "check_directions",
    "check_folder",
    "load_published",
    "publish",
    "push_directions",
    "push_model",
    "repo_has_file",
]
