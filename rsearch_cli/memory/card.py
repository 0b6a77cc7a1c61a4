"""GPU memory of this machine, from nvidia-smi, because importing torch takes seconds."""

from __future__ import annotations

import os
import subprocess

_MIB_PER_GB = 1024


def find_vram() -> float | None:
    """Return the memory of the largest visible card in GB of 2^30 bytes, or None without a card.

    The largest, because nvidia-smi does not know which card CUDA numbers first, and what does not
    fit there fits nowhere.
    """
    rows = query_cards("uuid", "memory.total")
    sizes = {uuid: float(mib) for uuid, mib in rows if mib.replace(".", "", 1).isdigit()}
    seen = select_visible(sizes, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return max(seen) / _MIB_PER_GB if seen else None


def query_cards(*fields: str) -> list[list[str]]:
    """Query nvidia-smi for each card; return [] if it is missing or fails.

    Args:
        fields: Names from `nvidia-smi --help-query-gpu`.

    Returns:
        One row per card, with a value without unit for each field.
    """
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, encoding="utf-8", check=True, timeout=10)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == len(fields) and all(map(str.isprintable, row))]


def select_visible(sizes: dict[str, float], visible: str | None) -> list[float]:
    """Return the sizes of the cards that `CUDA_VISIBLE_DEVICES` selects, by index or UUID prefix.

    As in CUDA, the selection ends at the first entry that matches no card; None selects all.
    """
    if visible is None:
        return list(sizes.values())
    chosen: list[float] = []
    for entry in (word.strip() for word in visible.split(",")):
        by_index = list(sizes)[int(entry)] if entry.isdigit() and int(entry) < len(sizes) else None
        named = by_index or next((u for u in sizes if entry and u.startswith(entry)), None)
        if named is None:
            break
        chosen.append(sizes[named])
    return chosen
