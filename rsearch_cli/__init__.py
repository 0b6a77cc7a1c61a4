"""rsearch: train, measure and use search agents (R-Search, arXiv 2506.08352)."""

__version__ = "0.1.0"
