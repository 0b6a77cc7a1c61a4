"""The constants that an uncalibrated prediction rests on, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

from rsearch_cli.memory.workload import Backend
from rsearch_cli.timing.devices import LAUNCH_SECONDS, STEP_SECONDS, TOKEN_SECONDS, Device
from rsearch_cli.timing.prediction import JUDGE_SECONDS, SEARCH_SECONDS, START_SECONDS, WAVES
from rsearch_cli.timing.work import DECODE, EFFICIENCY, READ, SLOWER, UPDATE

SHEET = "data sheet of the card"
HOST = "measured on the host of an H200"
COUNTED = "counted with Unsloth's functions"
ALLOWANCE = "allowance, not measured"


@dataclass(frozen=True, slots=True)
class Constant:
    """A figure with its unit, and where it is from."""

    name: str
    value: str
    source: str


def list_constants(device: Device, backend: Backend) -> list[Constant]:
    """Return the constants of a prediction for a card."""
    slower = SLOWER[backend]
    counted = COUNTED if slower == 1 else f"{COUNTED}, x {slower:g} as measured on the H200"
    launches = "/".join(f"{slower * count:.0f}" for count in (DECODE, READ, UPDATE))
    return [
        Constant("peak in 16 bit", f"{device.flops / 1e12:.0f} TFLOPS", SHEET),
        Constant("memory bandwidth", f"{device.bandwidth / 1e9:.0f} GB/s", SHEET),
        Constant("share of the peak reached", f"{EFFICIENCY:.0%}", ALLOWANCE),
        Constant("launches a layer, token/read/update", launches, counted),
        Constant("host, a launch", f"{LAUNCH_SECONDS * 1e6:.1f} us", HOST),
        Constant("host, a token outside the layers", f"{TOKEN_SECONDS * 1e3:.1f} ms", HOST),
        Constant("host, a step outside the model", f"{STEP_SECONDS:.1f} s", HOST),
        Constant("imports, loading, compilation", f"{START_SECONDS:.0f} s", HOST),
        Constant("a search", f"{SEARCH_SECONDS:.0f} s, {WAVES} in a row", ALLOWANCE),
        Constant("a verdict", f"{JUDGE_SECONDS:.0f} s", ALLOWANCE),
    ]
