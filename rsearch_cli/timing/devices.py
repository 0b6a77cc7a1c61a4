"""How fast a device computes, reads its memory, and is given work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rsearch_cli.errors import UsageError
from rsearch_cli.memory.driver import list_cards

LAUNCH_SECONDS = 3.6e-6
TOKEN_SECONDS = 3.7e-3
STEP_SECONDS = 1.0
"""Time of the host for a launch in a layer, for a token outside the layers (sampling, stopping),
and for an optimiser step outside the model (the trainer).

From two runs with Unsloth on the host of an H200 (docs/measurements.md): decoding took 32.1 ms a
token with 28 layers and about 7.8 ms with 4, and the update of the model with 4 layers 1.07 s. They
depend on the host's single thread, not on the card; that of an H100 took 1.4 to 1.6 times as long.
"""

THIS = "this"
"""Name of the device of this machine."""


@dataclass(frozen=True, slots=True)
class Device:
    """A card, or the CPU.

    Attributes:
        name: Its key in `DEVICES`.
        flops: Peak of dense products in 16 bit with float32 accumulation, per second.
        bandwidth: Bytes that it reads from its memory per second.
        memory_gb: Its memory in GB of 2^30 bytes; None on a CPU, and for a card that is not known.
        queues: Whether work is queued, so that host and device work at the same time.
    """

    name: str
    flops: float
    bandwidth: float
    memory_gb: float | None
    queues: bool = True


# Sources: NVIDIA's data sheets of A100 (80 GB, SXM), H100 (SXM) and H200, and its white papers on
# GA102 and Ada. Bandwidths and the flops of A100 and RTX 4090 were read again on 2026-11-27, in
# stored copies of pages that quote them; 71 (RTX 3090) and 989 teraflops (H100, H200) were not.
DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device("rtx-3090", 71e12, 0.936e12, 24.0),
        Device("rtx-4090", 165e12, 1.008e12, 24.0),
        Device("a100", 312e12, 2.039e12, 80.0),
        Device("h100", 989e12, 3.35e12, 80.0),
        Device("h200", 989e12, 4.8e12, 140.0),
    )
}

CPU = Device("cpu", 50e9, 10e9, None, queues=False)
"""Two slow cores, as a start: the figures of a CPU are only used relative to a measured run."""


def find_device(name: str) -> Device | None:
    """Return the device of a name; None for `this` where the machine has no card that is known.

    Args:
        name: A key of `DEVICES`, in any spelling such as `RTX 4090` or `4090`; or `this`.

    Raises:
        UsageError: The name is not known.
    """
    if name == THIS:
        return next(filter(None, (match_card(card.name) for card in list_cards())), None)
    spelled = re.sub(r"[\s_-]", "", name.lower())
    for device in DEVICES.values():
        series, _, number = device.name.rpartition("-")
        if spelled in (series + number, number):
            return device
    # No nearest name: rtx-4080 is another card than rtx-4090, not another spelling of it.
    raise UsageError(
        f"--card: {name!r} is not known; known cards: {', '.join(DEVICES)}, and {THIS} for the "
        "one of this machine"
    )


def describe_run_device(name: str) -> Device:
    """Return the device that a run recorded by the name that torch gives, or `cpu`.

    The figures of a card that is not known are those of an RTX 3090, and only good relative to a
    run that was measured on it.
    """
    if name == CPU.name:
        return CPU
    return match_card(name) or replace(DEVICES["rtx-3090"], name=name, memory_gb=None)


def match_card(name: str) -> Device | None:
    """Return the card that a driver calls by a name such as `NVIDIA GeForce RTX 4090`."""
    words = name.lower().replace("-", " ").split()
    for device in DEVICES.values():
        wanted = device.name.split("-")
        if all(word in words for word in wanted) and "laptop" not in words:
            return device
    return None
