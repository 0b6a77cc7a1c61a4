"""The thread that executes plans while the policy generates."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from rsearch_cli.rollout.state import Executor, Observer, PlanResults
from rsearch_cli.services.event_loop import PATIENCE_SECONDS, StopNow, wait_for
from rsearch_cli.types import SearchPlan

_CANCEL_AGAIN_SECONDS = 0.05


class SearchThread:
    """Executes plans in the background, one micro-batch after another.

    Leaving its block waits for the search in flight, because it may be paid for, and drops those
    that have not started. After Ctrl-C the search has a few seconds, and none with an observer.

    Args:
        executor: Executes the plans.
        observer: Receives the results, if there is one.
    """

    def __init__(self, executor: Executor, observer: Observer | None) -> None:
        self._executor = executor
        self._observer = observer
        self._thread = ThreadPoolExecutor(1, "search")
        self._closing = False

    def submit(self, plans: Sequence[SearchPlan]) -> Future[PlanResults]:
        """Execute plans after those submitted before."""
        return self._thread.submit(self._execute, plans)

    def _execute(self, plans: Sequence[SearchPlan]) -> PlanResults:
        if self._closing:
            return []
        on_result = self._observer.on_result if self._observer else None
        return self._executor.execute(plans, on_result)

    def __enter__(self) -> Self:
        # An interrupt while the pool starts its thread makes it lose track of that thread.
        self._thread.submit(int).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        last = self._thread.submit(int)
        try:
            if not isinstance(error, KeyboardInterrupt):
                wait_for(last)
            elif not self._observer and not isinstance(error, StopNow):
                self._executor.cancel(PATIENCE_SECONDS)
        finally:
            # A search that is only just starting misses the first cancellation.
            while wait([last], _CANCEL_AGAIN_SECONDS).not_done:
                self._executor.cancel()
            self._thread.shutdown()
