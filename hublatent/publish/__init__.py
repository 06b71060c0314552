"""Publishing: cards, what a folder must be to go to the Hub, and the commit that takes it."""
