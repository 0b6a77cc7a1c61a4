"""Whether torch can use the NVIDIA cards of this machine, and what stands in the way."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rsearch_cli.memory.card import query_cards

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""First NVIDIA driver branch on Linux that runs programs built with a major version of CUDA.

From the table of minor version compatibility in NVIDIA's CUDA compatibility guide.
"""


@dataclass(frozen=True, slots=True)
class Card:
    """A card as nvidia-smi lists it: its name, the driver's version and its memory in MiB."""

    name: str
    driver: str
    memory: str


@dataclass(frozen=True, slots=True)
class UnusedCard:
    """Why torch uses no GPU although there is a card, and what to do about it."""

    cause: str
    remedy: str

    def __str__(self) -> str:
        """Both in one line."""
        return f"{self.cause}; {self.remedy}"


def list_cards() -> list[Card]:
    """The NVIDIA cards of this machine; none where nvidia-smi is missing or fails."""
    return [Card(*row) for row in query_cards("name", "driver_version", "memory.total")]


def torch_cuda_version() -> str | None:
    """Version of CUDA that torch was built with, such as `12.8`; None for a build without CUDA."""
    import torch

    return torch.version.cuda


def torch_sees_gpu() -> bool:
    """Whether torch can use a GPU here."""
    import torch

    return torch.cuda.is_available()


def explain_unused_card() -> UnusedCard | None:
    """Find out why torch uses no GPU although nvidia-smi lists one.

    Returns:
        None where torch sees a GPU or the machine has no NVIDIA card.
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
