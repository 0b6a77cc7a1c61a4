"""Memory: what a run needs of a card, worked out before anything is loaded."""
