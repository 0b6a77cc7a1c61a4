"""Invented web pages for the local search servers: the same ones for the same query and kind."""

from __future__ import annotations

import hashlib


def make_results(query: str, kind: str, count: int) -> list[tuple[str, str, str]]:
    """Return the address, the title and the text of each page."""
    name = hashlib.sha256(f"{kind}/{query}".encode()).hexdigest()[:12]
    return [
        (
            f"https://example.org/{name}/{rank}",
            f"{query.title()}, part {rank}",
            " ".join(f"Sentence {i} of part {rank} tells of {query} ({kind})." for i in range(40)),
        )
        for rank in range(1, count + 1)
    ]
