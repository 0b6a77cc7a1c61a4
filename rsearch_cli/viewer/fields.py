"""Fields of stored rows, checked: files may be damaged, or written by somebody else."""

from __future__ import annotations

from typing import Any


def text(value: object) -> str:
    """Return a text.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {type(value).__name__}")
    return value


def maybe_text(value: object) -> str | None:
    """Return a text, or None for none."""
    return None if value is None else text(value)


def texts(values: object) -> list[str]:
    """Return a list of texts.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(values, list | tuple):
        raise ValueError(f"expected a list, got {type(values).__name__}")
    return [text(value) for value in values]


def whole(value: Any) -> int | None:
    """Return a whole number that JavaScript can represent, or None for anything else."""
    fits = isinstance(value, int | float) and abs(value) < 2**53 and value == int(value)
    return int(value) if fits else None
