"""Private uses of torch, and whether they are still needed."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from rsearch_cli.compat.torch import launch_config

pytestmark = pytest.mark.stack


def test_processes_have_time_to_save_after_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.multiprocessing.api import PContext

    monkeypatch.setattr(PContext.close, "__defaults__", PContext.close.__defaults__)
    config = launch_config(77, min_nodes=1, max_nodes=1, nproc_per_node=1)
    default = inspect.signature(PContext.close).parameters["timeout"].default
    assert getattr(config, "shutdown_timeout", default) == 77


def test_the_oldest_torch_that_is_supported_still_needs_it(repository: Path) -> None:
    settings = (repository / "pyproject.toml").read_text(encoding="utf-8")
    assert '"torch>=2.10,' in settings, "launch_config can go if this version has shutdown_timeout"
