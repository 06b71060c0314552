"""From a finished run to a folder for the Hub, and from those to the README."""
