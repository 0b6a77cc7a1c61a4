"""The processes of one training run: ranks, and collectives that fail in all of them or in none.

With a single process every function works on that process alone. An error in one process ends them
all, so that none waits for one that has gone; the main process reports it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rsearch_cli.errors import RsearchError

T = TypeVar("T")

_reported_by_main = False


def rank() -> int:
    """Return the number of this process, from 0."""
    return _read_number("RANK", 0)


def world_size() -> int:
    """Return the number of processes that train together."""
    return _read_number("WORLD_SIZE", 1)


def local_rank() -> int:
    """Return the number of this process on its machine, from 0, which is also its GPU."""
    return _read_number("LOCAL_RANK", 0)


def _read_number(variable: str, default: int) -> int:
    given = os.environ.get(variable)
    if given is None:
        return default
    try:
        return int(given)
    except ValueError:
        raise RsearchError(
            f"the environment variable {variable} must be a whole number, got {given!r}; unset it, "
            "or use --num-processes, which sets it"
        ) from None


def is_main() -> bool:
    """Whether this is the process that writes the files and shows the progress."""
    return rank() == 0


def gather(value: T) -> list[T]:
    """Return the value of each process, in the order of their ranks; all processes must call it."""
    if world_size() == 1:
        return [value]
    import torch.distributed

    _join()
    values: list[T] = [value] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Wait until all processes have called this function."""
    gather(None)


@contextmanager
def fail_together() -> Iterator[None]:
    """Let the block succeed in all processes or raise in all of them.

    Raises:
        RsearchError: The error of the block, from the first process that failed.
    """
    global _reported_by_main
    failure: RsearchError | None = None
    try:
        yield
    except RsearchError as error:
        if world_size() == 1:
            raise
        failure = error
    failures = [error for error in gather(failure) if error is not None]
    if failures:
        _reported_by_main = not is_main()
        raise failures[0]


def reported_by_main() -> bool:
    """Whether the main process reports the error that ends this process."""
    return _reported_by_main


def share(items: Sequence[T]) -> list[T]:
    """Return this process's part of a list that all processes have."""
    return list(items[rank() :: world_size()])


def collect(part: list[T]) -> list[T]:
    """Return the whole list, in order, from the parts of `share`; all processes must call it."""
    parts = gather(part)
    whole: list[T | None] = [None] * sum(map(len, parts))
    for number, its in enumerate(parts):
        whole[number :: len(parts)] = its
    return [item for item in whole if item is not None]


def _join() -> None:
    """Create the process group through Accelerate, as the trainer does."""
    import torch.distributed

    if not torch.distributed.is_initialized():
        from datetime import timedelta

        import torch
        from accelerate import PartialState

        on_cpu = not torch.cuda.is_available()
        if on_cpu:
            # Accelerate would number the CPU, and torch loads no checkpoint saved on `cpu:0`.
            os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        # An evaluation, or a service outage, may keep one process busy for a long time.
        PartialState(cpu=on_cpu, timeout=timedelta(hours=6))
