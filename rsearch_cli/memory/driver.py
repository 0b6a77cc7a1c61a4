"""Whether torch can use the NVIDIA cards of this machine, and if not, why."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rsearch_cli.memory.card import query_cards

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""Oldest NVIDIA driver branch on Linux that supports a major version of CUDA.

Source: the table of minor version compatibility in NVIDIA's CUDA compatibility guide.
"""


@dataclass(frozen=True, slots=True)
class Card:
    """A card as listed by nvidia-smi: its name, the driver version and its memory in MiB."""

    name: str
    driver: str
    memory: str


@dataclass(frozen=True, slots=True)
class UnusedCard:
    """Why torch uses no GPU although there is a card, and what to do about it."""

    cause: str
    remedy: str

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.cause}; {self.remedy}"


def list_cards() -> list[Card]:
    """Return the NVIDIA cards of this machine; [] if nvidia-smi is missing or fails."""
    return [Card(*row) for row in query_cards("name", "driver_version", "memory.total")]


def torch_cuda_version() -> str | None:
    """Return the CUDA version that torch was built with, such as `12.8`, or None."""
    import torch

    return torch.version.cuda


def torch_sees_gpu() -> bool:
    """Whether torch can use a GPU on this machine."""
    import torch

    return torch.cuda.is_available()


def explain_unused_card() -> UnusedCard | None:
    """Return why torch cannot use a GPU that nvidia-smi lists.

    Returns:
        None if torch can use a GPU, or if the machine has no NVIDIA card.
    """
    cards = list_cards()
    if not cards or torch_sees_gpu():
        return None
    card, cuda = cards[0], torch_cuda_version()
    seen = f"nvidia-smi lists {card.name} with driver {card.driver}, but torch cannot use it"
    if cuda is None:
        return UnusedCard(
            f"{seen}: this build of torch has no CUDA",
            "reinstall it with `pip install --force-reinstall -c constraints.txt torch`",
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return UnusedCard(f"{seen}: CUDA_VISIBLE_DEVICES={visible!r} hides it", "unset it")
    least = LEAST_DRIVER.get(int(cuda.split(".")[0]))
    branch = card.driver.split(".")[0]
    if least and branch.isdigit() and int(branch) < least:
        remedy = "update the driver"
        if least > LEAST_DRIVER[12] and int(branch) >= LEAST_DRIVER[12]:
            remedy += (
                ", or install a torch built with CUDA 12, which this driver runs: "
                "`pip install -c constraints.txt torch`"
            )
        return UnusedCard(
            f"{seen}: torch was built with CUDA {cuda}, which needs driver {least} or later", remedy
        )
    return UnusedCard(
        f"{seen} (built with CUDA {cuda})",
        "`python -c 'import torch; torch.cuda.init()'` shows the error, and a reboot often helps "
        "after a driver update",
    )
