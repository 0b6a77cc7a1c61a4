"""The environment of a run, for `environment.json`: versions, hardware, seed and code.

What cannot be determined is null. Environment variables and command lines are not recorded, because
they may contain keys.
"""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("rsearch-cli", "torch", "transformers", "trl", "peft", "unsloth", "unsloth_zoo"),
    *("bitsandbytes", "datasets", "accelerate", "numpy"),
)


def describe_environment(
    seed: int, backend: str, backend_reason: str, dtype: str
) -> dict[str, Any]:
    """Collect everything except the recipe that the result of a run depends on."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "backend": backend,
        "backend_reason": backend_reason,
        "dtype": dtype,
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
        "device_memory_gb": (
            round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if cuda else None
        ),
        "cpu_threads": torch.get_num_threads(),
        "seed": seed,
        "git": _git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Return the commit of the checkout that the code runs from, and whether it was changed."""
    package = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", "--", "."):
            return None  # installed inside another repository
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--", ".")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
