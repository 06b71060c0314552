"""What CelebA's attributes are called on the page, and what else people type for them."""

from __future__ import annotations

from collections.abc import Sequence

FAVOURITES = ("Eyeglasses", "Smiling", "Male", "Young", "Blond_Hair", "Wearing_Hat")
# Attribute: how people say it, where that is not its name, and what else they call it.
NAMES = {
    "5_o_Clock_Shadow": ("Stubble", "five o'clock shadow"),
    "Bags_Under_Eyes": ("", "tired"),
    "Bald": ("", "no hair"),
    "Bangs": ("", "fringe"),
    "Blond_Hair": ("", "blonde"),
    "Chubby": ("", "fat"),
    "Eyeglasses": ("Glasses", "spectacles, eyeglasses"),
    "Goatee": ("", "chin beard"),
    "Gray_Hair": ("", "grey"),
    "Heavy_Makeup": ("", "cosmetics"),
    "Male": ("", "man, woman, female, gender"),
    "Mouth_Slightly_Open": ("", "open mouth"),
    "Mustache": ("", "moustache"),
    "No_Beard": ("", "shaved, beard"),
    "Pale_Skin": ("", "white"),
    "Receding_Hairline": ("", "forehead"),
    "Rosy_Cheeks": ("", "blush"),
    "Smiling": ("Smile", "happy, laugh, grin"),
    "Wavy_Hair": ("", "curly"),
    "Wearing_Earrings": ("Earrings", ""),
    "Wearing_Hat": ("Hat", "cap"),
    "Wearing_Lipstick": ("Lipstick", ""),
    "Wearing_Necklace": ("Necklace", ""),
    "Wearing_Necktie": ("Necktie", "tie"),
    "Young": ("", "age, old"),
}


def human_name(attribute: str) -> str:
    """An attribute as people say it: "Wearing_Hat" is a hat."""
    return NAMES.get(attribute, ("", ""))[0] or attribute.replace("_", " ").capitalize()


def searchable(attributes: Sequence[str]) -> list[tuple[str, str]]:
    """The choices of a list: human names with the words that people look for them by.

    In a list the spaces between them collapse; in a box they keep those words out of sight.
    """
    words = ((name, NAMES.get(name, ("", ""))[1]) for name in attributes)
    return [(human_name(n) + (f"{200 * ' '}· {more}" if more else ""), n) for n, more in words]


def favourites(chosen: str, offered: Sequence[str]) -> list[str]:
    """The attributes that a click picks; the one that is chosen is always among them."""
    shown = [name for name in FAVOURITES if name in offered] or list(offered[:6])
    return shown if not chosen or chosen in shown else [chosen, *shown[:5]]
