"""Checks of this machine: what a run needs, what was found, and the remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rsearch_cli import __version__
from rsearch_cli.compat.isolation import output_to_log
from rsearch_cli.errors import RsearchError
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
    for check in (
        _python,
        lambda: _card(cards),
        _torch,
        lambda: _compiler(bool(cards)),
        lambda: _headers(bool(cards)),
        lambda: _bitsandbytes(bool(cards)),
        _unsloth,
    ):
        yield check()
    yield from _folders()
    yield from _keys()
    yield _hub()


def _python() -> Check:
    seen = f"rsearch {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return Check("program", "ok", seen)


def _card(cards: list[Card]) -> Check:
    if cards:
        seen = "; ".join(f"{c.name}, {c.memory} MiB, driver {c.driver}" for c in cards)
        return Check("graphics card", "ok", seen)
    if shutil.which("nvidia-smi"):
        remedy = "run nvidia-smi: its message says whether the driver is missing or not loaded"
        return Check(
            "graphics card", "problem", "nvidia-smi is installed and lists no card", remedy
        )
    return Check(
        "graphics card",
        "note",
        "no NVIDIA card (nvidia-smi is not installed)",
        "the quickstart, infer, eval and servers work without one; training a 7B needs a card with "
        "24 GB and NVIDIA's driver, 525 or later",
    )


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
    if found:
        return Check("C compiler", "ok", found)
    return Check(
        "C compiler",
        "problem" if needed else "note",
        "none found (CC, cc, gcc, clang)",
        "Triton compiles its kernels with it on a GPU: `sudo apt install gcc`",
    )


def _headers(needed: bool) -> Check:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if header.is_file():
        return Check("Python headers", "ok", str(header))
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
    return Check(
        "Python headers",
        "problem" if needed else "note",
        f"{header} is missing",
        f"Triton compiles against it on a GPU: `sudo apt install {package}`",
    )


def _bitsandbytes(needed: bool) -> Check:
    def load() -> None:
        quieten_imports()
        import bitsandbytes  # noqa: F401

    return _import_check("bitsandbytes", load, needed, "4-bit weights need it")


def _import_check(name: str, load: Callable[[], None], needed: bool, use: str) -> Check:
    try:
        with output_to_log(name):
            load()
    except (ImportError, OSError, RuntimeError) as error:
        seen = f"does not import: {str(error).splitlines()[0]}"
        return Check(name, "problem" if needed else "note", seen, f"{use}; {_REINSTALL}")
    return Check(name, "ok", f"{name} {version(name)}")


def _unsloth() -> Check:
    from rsearch_cli.compat.unsloth import start_unsloth

    try:
        problem = start_unsloth()
    except ImportError as error:  # torch, which has a line of its own
        problem = f"does not import: {error}"
    if problem:
        return Check(
            "Unsloth",
            "note",
            problem,
            "runs take plain transformers instead, which is slower and needs more memory",
        )
    return Check("Unsloth", "ok", f"unsloth {version('unsloth')} runs here")


def _folders() -> Iterator[Check]:
    from huggingface_hub import constants

    folders = {
        "models of the Hub": Path(constants.HF_HUB_CACHE),
        "cache of rsearch": cache_root(),
        "working folder": Path.cwd(),
    }
    for name, folder in folders.items():
        yield _folder(name, folder)


def _folder(name: str, folder: Path) -> Check:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        moved = {"models of the Hub": "HF_HOME", "cache of rsearch": "RSEARCH_CACHE_DIR"}
        remedy = f"set {moved[name]} to a folder of yours" if name in moved else "change to another"
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

    if constants.HF_HUB_OFFLINE:
        remedy = "models and data sets that are not on this machine need it: unset HF_HUB_OFFLINE"
        return Check("Hugging Face Hub", "note", "HF_HUB_OFFLINE is set", remedy)
    try:
        check_proxies()
    except RsearchError as error:
        return Check("Hugging Face Hub", "problem", str(error), "unset it, or correct it")
    if problem := hub_problem():
        return Check(
            "Hugging Face Hub",
            "problem",
            f"{constants.ENDPOINT} cannot be reached ({problem})",
            "check the network, or HTTPS_PROXY; name local folders with --model and "
            "--data-path, or set HF_HUB_OFFLINE=1 if everything is on this machine",
        )
    return Check("Hugging Face Hub", "ok", f"{constants.ENDPOINT} answers")
