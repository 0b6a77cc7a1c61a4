"""rsearch: train, measure and use search agents (R-Search, arXiv 2506.08352)."""

import logging

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())
