"""Text and numbers from models, the web and metrics rows, made fit for a person's terminal.

Place in the path: the very end of it, under every module that prints. On failure: it has none; what
cannot be shown is replaced or left out.
"""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real

# C0 and C1 without tab and newline. An escape sequence in a passage or a completion would otherwise
# be obeyed by the terminal: clear it, recolour it, set its title. Half a surrogate pair, which a
# server's JSON can hold, cannot be written at all.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with every control character but tab and newline, and what is none, as U+FFFD."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def shorten(text: str, limit: int) -> str:
    """`text` cut in its middle to about `limit` characters; both of its ends stay."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half].rstrip()} […] {text[-half:].lstrip()}"


@contextmanager
def debug_log() -> Iterator[None]:
    """Print our log on stderr in a `with` block, and with it what other libraries print."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("rsearch_cli")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def finite(row: Mapping[str, object], key: str) -> float | None:
    """The number at `key` of a metrics row; None where it is missing, null, nan or infinite."""
    value = row.get(key)
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None
