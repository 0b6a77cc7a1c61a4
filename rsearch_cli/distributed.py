"""The processes of one training: who this one is, and how they agree.

Place in the path: under training and evaluation, around what must happen once (files, the display)
and what must happen together (the end of a step). In a training of one process everything here is
that process alone. On failure: what fails in one process ends all, so that none waits for one that
is gone; the main one tells it, the others end with the same error and without a word.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rsearch_cli.errors import RsearchError

T = TypeVar("T")

_told_by_main = False


def rank() -> int:
    """Number of this process, from 0."""
    return _read_number("RANK", 0)


def world_size() -> int:
    """How many processes train together."""
    return _read_number("WORLD_SIZE", 1)


def local_rank() -> int:
    """Number of this process on its machine, from 0: the card that is its own."""
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
            "or let a launcher such as --num-processes set it"
        ) from None


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
def fail_together() -> Iterator[None]:
    """Let the block succeed in all processes, or fail in all.

    Raises:
        RsearchError: What the block raised, here or in the first other process that failed.
    """
    global _told_by_main
    failure: RsearchError | None = None
    try:
        yield
    except RsearchError as error:
        if world_size() == 1:
            raise
        failure = error
    failures = [error for error in gather(failure) if error is not None]
    if failures:
        _told_by_main = not is_main()
        raise failures[0]


def told_by_main() -> bool:
    """Whether the error that ends this process is one that the main process tells."""
    return _told_by_main


def share(items: Sequence[T]) -> list[T]:
    """This process's part of a list that all of them have."""
    return list(items[rank() :: world_size()])


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

        on_cpu = not torch.cuda.is_available()
        if on_cpu:
            # Accelerate would number the CPU, and torch loads no checkpoint saved on «cpu:0».
            os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        # An evaluation, or a service that is down, may keep one process busy for long.
        PartialState(cpu=on_cpu, timeout=timedelta(hours=6))
