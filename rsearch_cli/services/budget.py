"""Hard spending limit for paid services.

Reserves the worst-case price of a call before it is sent and settles it afterwards with what the
service says it charged, so the limit holds with calls in flight and at other prices than the
recipe's. State lives in the run folder, survives a kill and is shared by all processes of a run.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from rsearch_cli.errors import BudgetExceeded, RunFolderOccupied
from rsearch_cli.services.spend import (
    ROUNDING_USD,
    SURCHARGE,
    ServiceSpend,
    Spend,
    SpendFile,
    SpendState,
)
from rsearch_cli.services.validation import read_charge

logger = logging.getLogger(__name__)

EXPOSURE = 4.0
"""Calls in flight together must fit into the limit even at this multiple of their reservations."""

UNPRICED_CALLS = 4
"""Most calls in flight to a service that has not yet reported what a call costs."""


@dataclass(slots=True)
class Bill:
    """What the calls of one piece of work have cost so far, in USD."""

    usd: float = 0.0


_bill: ContextVar[Bill | None] = ContextVar("bill", default=None)


@contextmanager
def billed_to(bill: Bill) -> Iterator[None]:
    """Add calls that are started inside the block to a bill, once they are booked."""
    token = _bill.set(bill)
    try:
        yield
    finally:
        _bill.reset(token)


@dataclass(eq=False, slots=True)
class Hold:
    """The reservation of one call; settle, forfeit or cancel it, once.

    Attributes:
        service: The service that is called.
        usd: Most that the call should cost by the recipe's prices.
        bill: Receives what the call counts, or None.
    """

    budget: Budget
    service: str
    usd: float
    bill: Bill | None

    def settle(self, charge: object) -> float:
        """Book the cost of an answered call; what was reserved above it is released.

        Args:
            charge: What the service says, unchecked. If it says nothing, or no credible amount,
                the call counts like one that was cut off.

        Returns:
            What the call counts, in USD.
        """
        return self.budget.settle(self, charge)

    def forfeit(self) -> float:
        """Keep the reservation: the call was cut off and may have been charged for.

        Returns:
            What the call counts, in USD.
        """
        return self.budget.end(self, None)

    def cancel(self) -> float:
        """Book that the call certainly cost nothing."""
        return self.budget.end(self, 0.0)

    def withdraw(self) -> None:
        """Take the reservation back: the call was not sent."""
        self.budget.end(self, 0.0, sent=False)


@dataclass(frozen=True, slots=True)
class _Request:
    """A call that waits for its reservation."""

    service: str
    usd: float
    bill: Bill | None
    granted: asyncio.Future[Hold]


class Budget(AbstractContextManager["Budget"]):
    """The spending of a run, shared by threads, and by processes with the same run folder.

    A service may charge more than the recipe says. From then on twice the highest excess is added
    to every call whose charge is not known: one to be sent, one in flight, and one lost by a
    time-out or a kill. So the price may rise once more by as much. For calls that are in flight
    while a price rises for the first time, see `wait_and_reserve`.

    Args:
        run_folder: Where the state is kept; None keeps it in memory. Nothing is read yet.
        max_usd: The limit, or None.
    """

    def __init__(self, run_folder: Path | None = None, max_usd: float | None = None) -> None:
        self.max_usd = max_usd
        self._file = None if run_folder is None else SpendFile(run_folder)
        self._lock = threading.RLock()
        self._stored, self._unstored = SpendState(), SpendState()
        self._earlier: Spend | None = None
        self._in_flight: set[Hold] = set()
        self._priced: set[str] = set()
        self._reported: set[tuple[str, str]] = set()
        self._waiting: list[_Request] = []
        self._granting = False

    def reserve(self, service: str, usd: float) -> Hold:
        """Reserve the cost of one attempt, and count it.

        Args:
            service: The service to call.
            usd: Most that the call should cost.

        Raises:
            BudgetExceeded: It could exceed the limit, counting everything in flight.
            RunFolderError: The state cannot be read or written.
        """
        with self._lock:
            with self._state_for(self._cost(service, usd)):
                hold = self._hold(service, usd, _bill.get())
            self._in_flight.add(hold)
            return hold

    async def wait_and_reserve(self, service: str, usd: float) -> Hold:
        """Reserve the cost of one attempt as soon as one more call may be in flight, and count it.

        A call has to wait while the limit could be exceeded if every call in flight, itself
        included, cost `EXPOSURE` times its reservation; and while `UNPRICED_CALLS` are in flight to
        a service that has not yet reported what a call costs. So a run has fewer and fewer calls in
        flight as it approaches its limit. Calls that ask in the same turn of the event loop share
        one write.

        Args:
            service: The service to call.
            usd: Most that the call should cost.

        Raises:
            BudgetExceeded: It could exceed the limit, and nothing is in flight in this process.
            RunFolderError: The state cannot be read or written.
        """
        granted = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append(_Request(service, usd, _bill.get(), granted))
            self._grant_soon()
        try:
            hold: Hold = await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                granted.result().withdraw()
            raise
        return hold

    def settle(self, hold: Hold, charge: object) -> float:
        """Book what a call cost; see `Hold.settle`."""
        service, expected = hold.service, hold.usd
        usd = read_charge(charge)
        with self._lock:
            self._priced.add(service)
            if usd is not None and usd - expected > max(ROUNDING_USD, self._excess(service)):
                self._unstored.excess[service] = usd - expected
                self._report(
                    service,
                    f"charged ${usd:.4f} for a call that should cost at most ${expected:.4f}; the "
                    "budget counts with that from now on",
                )
            counted = self.end(hold, usd)
        if usd is None and charge is not None:
            self._report(
                service,
                f"says that a call cost {charge!r:.40} USD, which is not credible; the budget "
                f"counts ${counted:.4f} for it",
            )
        return counted

    def end(self, hold: Hold, usd: float | None, *, sent: bool = True) -> float:
        """Book that a call has ended, and what it cost; None if that is not known.

        While others are in flight, a cost within the reservation is stored with the next one, or
        when the last of them has ended: until then the file counts the whole reservation.
        """
        service, expected = hold.service, hold.usd
        with self._lock:
            self._in_flight.discard(hold)
            self._grant_soon()
            counted = self._cost(service, expected) if usd is None else usd
            if hold.bill is not None:
                hold.bill.usd += counted
            if usd is not None:
                change = ServiceSpend(usd=usd - expected, calls=0 if sent else -1)
                self._unstored.add(service, change, unsettled=-1)
            exceeded = usd is not None and usd > expected
            if exceeded or (not self._in_flight and self._unstored.changes_spending):
                self._store()
            return counted

    def count_hit(self, service: str, saved_usd: float) -> None:
        """Count a request that needed no call; stored with the next booking, or at the end."""
        with self._lock:
            spend = self._unstored.services.get(service)
            if spend is None:
                spend = self._unstored.services[service] = ServiceSpend()
            spend.hits += 1
            spend.saved_usd += saved_usd

    def count_failure(self, service: str) -> None:
        """Count a request without an answer; stored with the next booking, or at the end."""
        with self._lock:
            self._unstored.add(service, ServiceSpend(failed=1))

    def snapshot(self) -> Spend:
        """Return the run's numbers so far, those of other processes included."""
        with self._lock:
            if self._unstored or (self._file is not None and self._file.path.exists()):
                self._store()
            return self._describe_stored()

    def earlier(self) -> Spend:
        """Return what the run had spent before this process read or changed it."""
        self.snapshot()
        return self._earlier or Spend()

    def _describe_stored(self) -> Spend:
        stored = self._stored
        services = {
            name: replace(spend, usd=spend.usd + stored.surcharge(name))
            for name, spend in stored.services.items()
        }
        return Spend(services, self.max_usd)

    def close(self) -> None:
        """Store counts, and what the last calls cost less than reserved, if not stored yet."""
        with self._lock:
            if self._unstored:
                try:
                    self.snapshot()
                except RunFolderOccupied as occupied:
                    logger.warning(
                        f"what the last calls cost less than reserved is not stored: {occupied}"
                    )

    def __exit__(self, *error: object) -> None:
        self.close()

    def _excess(self, service: str) -> float:
        return max(state.excess.get(service, 0.0) for state in (self._stored, self._unstored))

    def _spent(self) -> float:
        """What is spent or in flight, those calls included that are about to be stored."""
        new = self._unstored
        return self._stored.usd + sum(
            spend.usd + SURCHARGE * new.unsettled.get(service, 0) * self._excess(service)
            for service, spend in new.services.items()
        )

    def _cost(self, service: str, usd: float) -> float:
        """What to reserve for a call that should cost at most `usd`."""
        return usd + SURCHARGE * self._excess(service)

    def _grant_soon(self) -> None:
        """Let the calls that wait be looked at in the next turn of their event loop."""
        self._waiting = [request for request in self._waiting if not request.granted.done()]
        if self._waiting and not self._granting:
            self._granting = True
            self._waiting[0].granted.get_loop().call_soon_threadsafe(self._grant)

    def _grant(self) -> None:
        """Reserve what the calls that wait cost, as far as they need not wait any longer."""
        outcomes: list[tuple[_Request, Hold | Exception | None]] = []
        with self._lock:
            self._granting = False
            requests = [request for request in self._waiting if not request.granted.done()]
            self._waiting = []
            costs = [self._cost(request.service, request.usd) for request in requests]
            try:
                with self._state_for(sum(costs), checked=self.max_usd is not None):
                    for request in requests:
                        outcomes.append((request, self._try_to_hold(request)))
            except Exception as error:  # whatever it is, nobody may wait forever
                self._in_flight -= {hold for _, hold in outcomes if isinstance(hold, Hold)}
                outcomes = [(request, error) for request in requests]
            self._waiting += [request for request, outcome in outcomes if outcome is None]
        for request, outcome in outcomes:
            if isinstance(outcome, Hold):
                request.granted.set_result(outcome)
            elif outcome is not None:
                request.granted.set_exception(outcome)

    def _try_to_hold(self, request: _Request) -> Hold | BudgetExceeded | None:
        """Return the reservation, the error that there is none, or None if the call has to wait."""
        service, usd = request.service, request.usd
        if self.max_usd is not None and self._in_flight and self._must_wait(service, usd):
            return None
        try:
            hold = self._hold(service, usd, request.bill)
        except BudgetExceeded as exceeded:
            return exceeded
        self._in_flight.add(hold)
        return hold

    def _hold(self, service: str, usd: float, bill: Bill | None) -> Hold:
        if (cost := self._cost(service, usd)) > 0.0:
            self._check(cost)
        self._unstored.add(service, ServiceSpend(usd=usd, calls=1), unsettled=1)
        return Hold(self, service, usd, bill)

    def _must_wait(self, service: str, usd: float) -> bool:
        if service not in self._priced:
            unpriced = sum(hold.service == service for hold in self._in_flight)
            if unpriced >= UNPRICED_CALLS:
                return True
        cost = self._cost(service, usd)
        in_flight = sum(self._cost(hold.service, hold.usd) for hold in self._in_flight)
        worst = self._spent() + cost + (EXPOSURE - 1.0) * (in_flight + cost)
        return cost > 0.0 and not self._fits(worst)

    def _fits(self, usd: float) -> bool:
        return self.max_usd is None or usd <= self.max_usd + ROUNDING_USD

    def _check(self, usd: float) -> None:
        spent = self._spent()
        if not self._fits(spent + usd):
            raise BudgetExceeded(
                f"the next call could cost ${usd:.4f}, and ${spent:.4f} of budget.max_usd "
                f"${self.max_usd:.4f} is spent or in flight; to continue, raise budget.max_usd and "
                "start again (rsearch train: with --resume)"
            )

    def _report(self, service: str, what: str) -> None:
        """Print what is odd about a service's charges, once for each of the two oddities."""
        kind = (service, what.split()[0])
        if kind not in self._reported:
            self._reported.add(kind)
            logger.warning(f"{service} {what}")

    def _state_for(self, usd: float, checked: bool = False) -> AbstractContextManager[None]:
        """The fresh state, which calls do without that cost nothing as far as is known."""
        return self._fresh_state() if usd > 0.0 or checked else nullcontext()

    def _store(self) -> None:
        with self._fresh_state():
            pass

    @contextmanager
    def _fresh_state(self) -> Iterator[None]:
        """Read the state, run the block on it, and store everything that is not stored yet."""
        with nullcontext() if self._file is None else self._file.open():
            if self._file is not None:
                self._stored = self._file.read()
                self._earlier = self._earlier or self._describe_stored()
            changed = self._merge()
            try:
                yield
            finally:
                changed |= self._merge()
                if changed and self._file is not None:
                    self._file.write(self._stored)

    def _merge(self) -> bool:
        """Add what is not stored yet to the state; return whether there was anything."""
        new, self._unstored = self._unstored, SpendState()
        self._stored.merge(new)
        return bool(new)
