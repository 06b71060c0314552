"""Cards: the README.md that a model's, or a direction file's, repository on the Hub opens with.

model_card.py       a model's card, from its config, its measured results and its directions
directions_card.py  the card of a direction file that is shared alone
samples.py          the card's picture: samples, and the same ones edited
results.py          later measurements, written into a card that exists
parts.py            what the cards share
"""

from hublatent.cards.directions_card import DirectionsCardInput, render_directions_card
from hublatent.cards.model_card import CardInput, render_card
from hublatent.cards.parts import CELEBA_LICENCE, Licence, check_number
from hublatent.cards.results import CardResult, update_results
from hublatent.cards.samples import draw_samples

__all__ = [
    "CELEBA_LICENCE",
    "CardInput",
    "CardResult",
    "DirectionsCardInput",
    "Licence",
    "check_number",
    "draw_samples",
    "render_card",
    "render_directions_card",
    "update_results",
]
