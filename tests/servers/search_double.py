"""A search layer without sources: a test decides what it finds, on a thread per batch."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from rsearch_cli.rollout.state import PlanResults
from rsearch_cli.types import NodeResult, SearchPlan


class SearchDouble(ABC):
    """Implements `rollout.state.Executor` but for `execute`."""

    @abstractmethod
    def execute(
        self,
        plans: Sequence[SearchPlan],
        on_result: Callable[[NodeResult], None] | None = None,
    ) -> PlanResults: ...

    def submit(
        self,
        plans: Sequence[SearchPlan],
        on_result: Callable[[NodeResult], None] | None = None,
    ) -> Future[PlanResults]:
        future: Future[PlanResults] = Future()

        def work() -> None:
            try:
                future.set_result(self.execute(plans, on_result))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    def cancel(self, grace: float = 0.0) -> None:
        self.cancelled_after = grace
