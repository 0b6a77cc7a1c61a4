"""How much memory the graphics card of this machine has.

Asks nvidia-smi, because importing torch takes seconds. Nothing is raised if there is no card.
"""

from __future__ import annotations

import os
import subprocess

_MIB_PER_GB = 1024


def find_vram() -> float | None:
    """Memory of the largest card that this process may use, in GB of 2^30 bytes; None without one.

    The largest, since which one CUDA counts as the first is not for nvidia-smi to say: what does
    not fit there fits nowhere.
    """
    rows = query_cards("uuid", "memory.total")
    sizes = {uuid: float(mib) for uuid, mib in rows if mib.replace(".", "", 1).isdigit()}
    seen = select_visible(sizes, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return max(seen) / _MIB_PER_GB if seen else None


def query_cards(*fields: str) -> list[list[str]]:
    """What nvidia-smi says of each card, without units; [] where it is missing or fails.

    Args:
        fields: As `nvidia-smi --help-query-gpu` lists them.

    Returns:
        A row for each card, with a value for each field.
    """
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, encoding="utf-8", check=True, timeout=10)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == len(fields) and all(map(str.isprintable, row))]


def select_visible(sizes: dict[str, float], visible: str | None) -> list[float]:
    """Sizes of the cards that `CUDA_VISIBLE_DEVICES` leaves, by index or by (part of) their UUID.

    As in CUDA, the list ends at its first entry that names no card; unset, it leaves all.
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
