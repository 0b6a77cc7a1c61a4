"""Units of memory."""

GIB = 2**30
"""Bytes of the gigabyte of this package, in which cards are sold too."""
