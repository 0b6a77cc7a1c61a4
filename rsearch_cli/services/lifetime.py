"""What is closed at the end, and calls that are all waited for.

Place in the path: under everything that holds files, connections or an event loop. On failure: none
of its own; what calls raise goes on, once none of them is under way any more.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


class Closing(ABC):
    """A context manager that closes itself at the end."""

    @abstractmethod
    def close(self) -> None:
        """Give up what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


async def finish_all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Wait for all calls, also when one fails: what is under way may be paid for already.

    Returns:
        Their results, in order.

    Raises:
        BaseException: The first failure, in their order.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        raise failures[0]
    return [result for result in results if not isinstance(result, BaseException)]
