"""Where the judges come from, and how far they can be trusted."""
