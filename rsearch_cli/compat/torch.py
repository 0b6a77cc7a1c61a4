"""Private uses of torch."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def launch_config(shutdown_seconds: int, **options: Any) -> Any:
    """Build a `LaunchConfig` whose workers have time to save after a signal.

    torch 2.10 has no `shutdown_timeout` and kills workers after 30 s, which is the default of
    `PContext.close`; a step of a 7B model can take longer. Checked on 2.10.0 and 2.14.1.
    """
    from torch.distributed.elastic.multiprocessing.api import PContext
    from torch.distributed.launcher.api import LaunchConfig

    if any(field.name == "shutdown_timeout" for field in fields(LaunchConfig)):
        return LaunchConfig(**options, shutdown_timeout=shutdown_seconds)
    PContext.close.__defaults__ = (None, shutdown_seconds)
    return LaunchConfig(**options)
