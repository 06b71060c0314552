"""What CelebA's attributes are called on the page, and what else people type for them."""

from __future__ import annotations

from collections.abc import Sequence

FAVOURITES = ("Eyeglasses", "Smiling", "Male", "Young", "Blond_Hair", "Wearing_Hat")

_HUMAN = {
    "5_o_Clock_Shadow": "Stubble",
    "Eyeglasses": "Glasses",
    "Smiling": "Smile",
    "Wearing_Hat": "Hat",
    "Wearing_Earrings": "Earrings",
    "Wearing_Lipstick": "Lipstick",
    "Wearing_Necklace": "Necklace",
    "Wearing_Necktie": "Necktie",
}
_SYNONYMS = {
    "5_o_Clock_Shadow": "five o'clock shadow",
    "Bags_Under_Eyes": "tired",
    "Bald": "no hair",
    "Bangs": "fringe",
    "Blond_Hair": "blonde",
    "Chubby": "fat",
    "Eyeglasses": "spectacles, eyeglasses",
    "Goatee": "chin beard",
    "Gray_Hair": "grey",
    "Heavy_Makeup": "cosmetics",
    "Male": "man, woman, female, gender",
    "Mouth_Slightly_Open": "open mouth",
    "Mustache": "moustache",
    "No_Beard": "shaved, beard",
    "Pale_Skin": "white",
    "Receding_Hairline": "forehead",
    "Rosy_Cheeks": "blush",
    "Smiling": "happy, laugh, grin",
    "Wavy_Hair": "curly",
    "Wearing_Hat": "cap",
    "Wearing_Necktie": "tie",
    "Young": "age, old",
}


def human_name(attribute: str) -> str:
    """An attribute as people say it: "Wearing_Hat" is a hat."""
    return _HUMAN.get(attribute, attribute.replace("_", " ").capitalize())


def searchable_name(attribute: str) -> str:
    """The human name with the words that people look for it by.

    In a list the spaces between them collapse; in a box they keep those words out of sight.
    """
    words = _SYNONYMS.get(attribute)
    return human_name(attribute) + (f"{200 * ' '}· {words}" if words else "")


def favourites(chosen: str, offered: Sequence[str]) -> list[str]:
    """The attributes that a click picks; the one that is chosen is always among them."""
    shown = [name for name in FAVOURITES if name in offered] or list(offered[:6])
    return shown if not chosen or chosen in shown else [chosen, *shown[:5]]
