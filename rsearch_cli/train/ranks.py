"""The processes of one training: who this one is, and how they agree.

Place in the path: under training and evaluation, around what must happen once (files, the display)
and what must happen together (the end of a step). In a training of one process everything here is
that process alone. On failure: what fails in one process ends all, so that none waits for one that
is gone; the main one raises the error, the others leave without a word and with the same code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from rsearch_cli.errors import RsearchError

T = TypeVar("T")


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the files and shows the progress."""
    return rank() == 0


def gather(value: T) -> list[T]:
    """What each process gives, in the order of their ranks; all have to call it."""
    if world_size() == 1:
        return [value]
    import torch.distributed

    _join()
    values: list[T] = [value] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Go on only when all processes have come here."""
    gather(None)


@contextmanager
def together() -> Iterator[None]:
    """Let the block succeed in all processes, or fail in all.

    Raises:
        RsearchError: What the block raised, here or in the first other process that failed.
        SystemExit: In the other processes, with the error's exit code.
    """
    failure: RsearchError | None = None
    try:
        yield
    except RsearchError as error:
        if world_size() == 1:
            raise
        failure = error
    failures = [error for error in gather(failure) if error is not None]
    if failures:
        if is_main():
            raise failures[0]
        raise SystemExit(failures[0].exit_code)


def share(items: list[T]) -> list[T]:
    """This process's part of a list that all of them have."""
    return items[rank() :: world_size()]


def collect(part: list[T]) -> list[T]:
    """The whole list again, in its order, from the parts that `share` gave; all have to call it."""
    parts = gather(part)
    whole: list[T | None] = [None] * sum(map(len, parts))
    for number, its in enumerate(parts):
        whole[number :: len(parts)] = its
    return [item for item in whole if item is not None]


def _join() -> None:
    """Enter the process group, through Accelerate, which the trainer will use as well."""
    import torch.distributed

    if not torch.distributed.is_initialized():
        from datetime import timedelta

        import torch
        from accelerate import PartialState

        # An evaluation, or a service that is down, may keep one process busy for long.
        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=6))
