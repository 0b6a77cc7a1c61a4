"""Checks of this machine: what a run needs, what was found, and the remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rsearch_cli import __version__
from rsearch_cli.compat.isolation import output_to_log
from rsearch_cli.errors import RsearchError, first_line
from rsearch_cli.memory.driver import (
    Card,
    explain_unused_card,
    list_cards,
    torch_cuda_version,
    torch_sees_gpu,
)
from rsearch_cli.policy.loading import quieten_imports
from rsearch_cli.services.cache import cache_root
from rsearch_cli.services.http import check_proxies
from rsearch_cli.services.hub import hub_problem
from rsearch_cli.services.keys import (
    WANDB_VARIABLE,
    describe_flaw,
    environment_with_login,
    read_key,
)

Status = Literal["ok", "note", "problem"]

MODEL_GB = 20
"""Free disk space for a 7B run: 15 GB of weights from the Hub, and checkpoints."""

KEYS = {
    "EXA_API_KEY": "web search by Exa",
    "TAVILY_API_KEY": "web search by Tavily",
    "SERPER_API_KEY": "web search by Serper",
    "OPENAI_API_KEY": "the judge, and servers that need a key",
    "HF_TOKEN": "private models, and `rsearch push`",
    WANDB_VARIABLE: "tracking on Weights & Biases",
}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        status: `problem` if something does not work here, `note` if it matters only to some runs.
        seen: What was found.
        remedy: What to do about it; empty if nothing is needed.
    """

    name: str
    status: Status
    seen: str
    remedy: str = ""


def examine_machine() -> Iterator[Check]:
    """Run all checks, in the order in which a run depends on them."""
    cards = list_cards()
    yield _python()
    yield _card(cards)
    yield _torch()
    for part in (_compiler, _headers, _bitsandbytes):
        yield part(bool(cards))
    yield _unsloth()
    yield from _folders()
    yield from _keys()
    yield _hub()


def _python() -> Check:
    seen = f"rsearch {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return Check("program", "ok", seen)


def _card(cards: list[Card]) -> Check:
    name = "graphics card"
    if cards:
        seen = "; ".join(f"{c.name}, {c.memory} MiB, driver {c.driver}" for c in cards)
        return Check(name, "ok", seen)
    if shutil.which("nvidia-smi"):
        remedy = "run nvidia-smi: its message says whether the driver is missing or not loaded"
        return Check(name, "problem", "nvidia-smi is installed and lists no card", remedy)
    remedy = (
        "the quickstart, infer, eval and servers work without one; training a 7B needs a card with "
        "24 GB and NVIDIA's driver, 525 or later"
    )
    return Check(name, "note", "no NVIDIA card (nvidia-smi is not installed)", remedy)


def _torch() -> Check:
    try:
        with output_to_log("torch"):
            cuda, sees = torch_cuda_version(), torch_sees_gpu()
    except ImportError as error:
        return Check("torch", "problem", f"does not import: {error}", _REINSTALL)
    built = f"torch {version('torch')}, built {f'with CUDA {cuda}' if cuda else 'without CUDA'}"
    if unused := explain_unused_card():
        return Check("torch", "problem", f"{built}: {unused.cause}", unused.remedy)
    return Check("torch", "ok", f"{built}, {'uses the card' if sees else 'computes on the CPU'}")


_REINSTALL = "install rsearch again in a fresh environment: `pip install -c constraints.txt .`"


def _compiler(needed: bool) -> Check:
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    remedy = "Triton compiles its kernels with it on a GPU: `sudo apt install gcc`"
    return _part("C compiler", found, "none found (CC, cc, gcc, clang)", remedy, needed)


def _headers(needed: bool) -> Check:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
    remedy = f"Triton compiles against it on a GPU: `sudo apt install {package}`"
    found = str(header) if header.is_file() else None
    return _part("Python headers", found, f"{header} is missing", remedy, needed)


def _bitsandbytes(needed: bool) -> Check:
    found, missing = None, ""
    try:
        with output_to_log("bitsandbytes"):
            quieten_imports()
            import bitsandbytes  # noqa: F401
        found = f"bitsandbytes {version('bitsandbytes')}"
    except (ImportError, OSError, RuntimeError) as error:
        missing = f"does not import: {first_line(error)}"
    remedy = f"4-bit weights need it; {_REINSTALL}"
    return _part("bitsandbytes", found, missing, remedy, needed)


def _part(name: str, found: str | None, missing: str, remedy: str, needed: bool) -> Check:
    """Return the check of something that only runs on a GPU need."""
    if found is not None:
        return Check(name, "ok", found)
    return Check(name, "problem" if needed else "note", missing, remedy)


def _unsloth() -> Check:
    from rsearch_cli.compat.unsloth import start_unsloth

    try:
        problem = start_unsloth()
    except ImportError as error:  # torch, which has a line of its own
        problem = f"does not import: {error}"
    found = None if problem else f"unsloth {version('unsloth')} runs here"
    remedy = "runs take plain transformers instead, which is slower and needs more memory"
    return _part("Unsloth", found, problem or "", remedy, needed=False)


def _folders() -> Iterator[Check]:
    from huggingface_hub import constants

    yield _folder("models of the Hub", Path(constants.HF_HUB_CACHE), "HF_HOME")
    yield _folder("cache of rsearch", cache_root(), "RSEARCH_CACHE_DIR")
    yield _folder("working folder", Path.cwd(), None)


def _folder(name: str, folder: Path, variable: str | None) -> Check:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        remedy = f"set {variable} to a folder of yours" if variable else "change to another"
        return Check(name, "problem", f"{folder} cannot be written to", remedy)
    free = shutil.disk_usage(there).free / 2**30
    seen = f"{folder}, {free:.0f} GB free"
    if free < MODEL_GB:
        remedy = f"a 7B run wants {MODEL_GB} GB; make room or move the folder"
        return Check(name, "note", seen, remedy)
    return Check(name, "ok", seen)


def _keys() -> Iterator[Check]:
    from huggingface_hub import get_token

    for name, use in KEYS.items():
        value = read_key(name)
        if value and (flaw := describe_flaw(value)):
            remedy = f"copy the key again: export {name}=…"
            yield Check(name, "problem", f"set, but it {flaw}", remedy)
        elif value:
            yield Check(name, "ok", "set")
        elif name == "HF_TOKEN" and get_token():
            yield Check(name, "ok", "not set; logged in by `hf auth login`")
        elif name == WANDB_VARIABLE and environment_with_login().get(name):
            yield Check(name, "ok", "not set; logged in by `wandb login`")
        else:
            yield Check(name, "note", "not set", f"only for {use}")


def _hub() -> Check:
    from huggingface_hub import constants

    name = "Hugging Face Hub"
    if constants.HF_HUB_OFFLINE:
        remedy = "models and data sets that are not on this machine need it: unset HF_HUB_OFFLINE"
        return Check(name, "note", "HF_HUB_OFFLINE is set", remedy)
    try:
        check_proxies()
    except RsearchError as error:
        return Check(name, "problem", str(error), "unset it, or correct it")
    if problem := hub_problem():
        seen = f"{constants.ENDPOINT} cannot be reached ({problem})"
        remedy = (
            "check the network, or HTTPS_PROXY; name local folders with --model and "
            "--data-path, or set HF_HUB_OFFLINE=1 if everything is on this machine"
        )
        return Check(name, "problem", seen, remedy)
    return Check(name, "ok", f"{constants.ENDPOINT} answers")
