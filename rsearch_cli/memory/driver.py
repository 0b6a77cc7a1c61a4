"""Whether torch can use the NVIDIA cards of this machine, and what stands in the way."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

_QUERY = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""First NVIDIA driver branch on Linux that runs programs built with a major version of CUDA.

From the table of minor version compatibility in NVIDIA's CUDA compatibility guide.
"""


@dataclass(frozen=True, slots=True)
class Card:
    """A card as nvidia-smi lists it: its name, the driver's version and its memory."""

    name: str
    driver: str
    memory: str


def list_cards() -> list[Card]:
    """The NVIDIA cards of this machine; none where nvidia-smi is missing or fails."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [Card(*row) for row in rows if len(row) == 3]


def torch_cuda_version() -> str | None:
    """Version of CUDA that torch was built with, such as `12.8`; None for a build without CUDA."""
    import torch

    return torch.version.cuda


def torch_sees_gpu() -> bool:
    """Whether torch can use a GPU here."""
    import torch

    return torch.cuda.is_available()


def explain_unused_card() -> str | None:
    """Why torch uses no GPU although nvidia-smi lists one, and what to do about it.

    Returns:
        One line, or None where torch sees a GPU or the machine has no NVIDIA card.
    """
    cards = list_cards()
    if not cards or torch_sees_gpu():
        return None
    card, cuda = cards[0], torch_cuda_version()
    seen = f"nvidia-smi lists {card.name} with driver {card.driver}, but torch cannot use it"
    if cuda is None:
        return (
            f"{seen}: this build of torch has no CUDA; reinstall it with "
            "`pip install --force-reinstall -c constraints.txt torch`"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return f"{seen}: CUDA_VISIBLE_DEVICES={visible!r} hides it; unset it"
    least = LEAST_DRIVER.get(int(cuda.split(".")[0]))
    branch = card.driver.split(".")[0]
    if least and branch.isdigit() and int(branch) < least:
        other = (
            ""
            if least <= LEAST_DRIVER[12]
            else (
                f", or install a torch built with CUDA 12 (drivers from {LEAST_DRIVER[12]} on): "
                "`pip install -c constraints.txt torch`"
            )
        )
        return (
            f"{seen}: torch was built with CUDA {cuda}, which needs driver {least} or later; "
            f"update the driver{other}"
        )
    return (
        f"{seen} (built with CUDA {cuda}); `python -c 'import torch; torch.cuda.init()'` shows the "
        "error, and a reboot often helps after a driver update"
    )
