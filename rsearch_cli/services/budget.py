"""Hard spending limit for paid services.

Puts the most that a call should cost by before it is sent, and books what the service says that it
charged afterwards, so the limit holds with calls in flight and at other prices than the recipe's.
The state lives in the run folder, survives a kill and is shared by all processes of a run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rsearch_cli.errors import BudgetExceeded, RunFolderOccupied
from rsearch_cli.runs.files import SPEND
from rsearch_cli.services.lifetime import Closing
from rsearch_cli.services.shared_page import SharedPage, describe_damage
from rsearch_cli.services.validation import check_number, is_finite, read_charge

logger = logging.getLogger(__name__)

EXPOSURE = 4.0
"""Calls in flight together have to fit into the limit even at so many times what is put by."""

_SURCHARGE = 2.0

UNPRICED_CALLS = 4
"""Most calls in flight to a service until it has said for the first time what a call costs."""

_VERSION = 1
# Sums of prices drift by less; a limit of 0.50 must allow a hundred calls at 0.005.
_ROUNDING_USD = 1e-9


@dataclass(slots=True)
class ServiceSpend:
    """What one service has cost and given.

    Attributes:
        usd: Paid, with what is put by for calls in flight or cut off by a kill, at their worst.
        saved_usd: What the answers that needed no call had cost when they were bought.
        calls: Attempts that were sent.
        hits: Requests that needed no call.
        failed: Requests that had no answer after all retries.
    """

    usd: float = 0.0
    saved_usd: float = 0.0
    calls: int = 0
    hits: int = 0
    failed: int = 0

    def add(self, other: ServiceSpend) -> None:
        """Add another's numbers to these."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_NUMBERS = tuple(f.name for f in fields(ServiceSpend))


@dataclass(frozen=True, slots=True)
class Spend:
    """What a run has cost so far.

    Attributes:
        services: Service name to its numbers.
        max_usd: The limit, or None.
    """

    services: Mapping[str, ServiceSpend] = field(default_factory=dict)
    max_usd: float | None = None

    @property
    def total(self) -> ServiceSpend:
        """The numbers of all services together."""
        total = ServiceSpend()
        for spend in self.services.values():
            total.add(spend)
        return total


@dataclass(eq=False, slots=True)
class Hold:
    """Money put by for one call; settle, forfeit or cancel it, once.

    Attributes:
        service: Who is called.
        usd: Most that the call should cost by the recipe's prices.
    """

    budget: Budget
    service: str
    usd: float

    def settle(self, charge: object) -> float:
        """Book what a call that was answered cost; less than was put by frees the rest.

        Args:
            charge: What the service says, unchecked. Where it says nothing, or no credible amount,
                the call counts like one that was cut off.

        Returns:
            What the call counts, in USD.
        """
        return self.budget.settle(self, charge)

    def forfeit(self) -> float:
        """Leave put by what was: the call was cut off, and may have been charged for.

        Returns:
            What the call counts, in USD.
        """
        return self.budget.end(self, None)

    def cancel(self) -> float:
        """Book that the call certainly cost nothing."""
        return self.budget.end(self, 0.0)


class Budget(Closing):
    """The money of a run: safe between threads, and between processes that share its folder.

    A service may charge more than the recipe says. From then on twice the highest excess is added
    to every call whose charge is not known: one that is to be sent, one in flight, and one that was
    lost by a time-out or a kill. So the price may rise once more by as much. For calls in flight
    while a price rises for the first time, see `try_reserve`.

    Attributes:
        max_usd: The limit, or None.
        settlements: Calls that have ended in this process.
    """

    def __init__(self, run_folder: Path | None = None, max_usd: float | None = None) -> None:
        """Name the run folder, or None to keep the state in memory; nothing is read yet."""
        self.max_usd = max_usd
        self.settlements = 0
        self._file = None if run_folder is None else SharedPage(run_folder / SPEND)
        self._guard = threading.RLock()
        self._stored, self._unstored = _State(), _State()
        self._in_flight: set[Hold] = set()
        self._priced: set[str] = set()
        self._reported: set[tuple[str, str]] = set()

    def reserve(self, service: str, usd: float) -> Hold:
        """Put money by for one attempt, and count it.

        Args:
            service: Who is called.
            usd: Most that the call should cost.

        Raises:
            BudgetExceeded: It could pass the limit, counting all that is in flight.
            RunFolderError: The state cannot be read or written.
        """
        with self._guard:
            if self._cost(service, usd) <= 0.0:
                self._count(service, usd)
            else:
                with self._fresh_state():
                    self._check(self._cost(service, usd))
                    self._count(service, usd)
            hold = Hold(self, service, usd)
            self._in_flight.add(hold)
            return hold

    def try_reserve(self, service: str, usd: float) -> Hold | None:
        """Put money by for one attempt, or give None while it has to wait for those in flight.

        It has to wait while the limit could be passed if every call in flight, this one included,
        cost `EXPOSURE` times what is put by for it; and while `UNPRICED_CALLS` are in flight to a
        service that has not said yet what a call costs. So a run sends less and less at once as
        it comes close to its limit. Ask again when `settlements` has changed.

        Args:
            service: Who is called.
            usd: Most that the call should cost.

        Raises:
            BudgetExceeded: It could pass the limit, and nothing is in flight in this process.
            RunFolderError: The state cannot be read or written.
        """
        with self._guard:
            if self.max_usd is not None and self._in_flight and self._must_wait(service, usd):
                return None
            return self.reserve(service, usd)

    def settle(self, hold: Hold, charge: object) -> float:
        """Book what a call cost; see `Reservation.settle`."""
        service, expected = hold.service, hold.usd
        usd = read_charge(charge)
        with self._guard:
            self._priced.add(service)
            if usd is not None and usd - expected > max(_ROUNDING_USD, self._excess(service)):
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

    def end(self, hold: Hold, usd: float | None) -> float:
        """Book that a call has ended, and what it cost; None if that is not known."""
        service, expected = hold.service, hold.usd
        with self._guard:
            self._in_flight.discard(hold)
            self.settlements += 1
            if usd is None:
                return self._cost(service, expected)
            self._unstored.add(service, ServiceSpend(usd=usd - expected), unsettled=-1)
            if expected or usd:
                with self._fresh_state():
                    pass
            return usd

    def note(self, service: str, spend: ServiceSpend) -> None:
        """Count what costs nothing; it is stored with the next booking, `snapshot` or `close`."""
        with self._guard:
            self._unstored.add(service, spend)

    def snapshot(self) -> Spend:
        """The run's numbers up to now, those of other processes included."""
        with self._guard:
            if self._unstored or (self._file is not None and self._file.path.exists()):
                with self._fresh_state():
                    pass
            stored = self._stored
            services = {
                name: replace(spend, usd=spend.usd + stored.surcharge(name))
                for name, spend in stored.services.items()
            }
            return Spend(services, self.max_usd)

    def close(self) -> None:
        """Store what has been counted but not stored; what was paid is stored already."""
        with self._guard:
            if self._unstored:
                try:
                    self.snapshot()
                except RunFolderOccupied as held:
                    logger.warning(f"the last calls that cost nothing are not counted: {held}")

    def _excess(self, service: str) -> float:
        return max(state.excess.get(service, 0.0) for state in (self._stored, self._unstored))

    def _cost(self, service: str, usd: float) -> float:
        """What to put by for a call that should cost at most `usd`."""
        return usd + _SURCHARGE * self._excess(service)

    def _count(self, service: str, usd: float) -> None:
        self._unstored.add(service, ServiceSpend(usd=usd, calls=1), unsettled=1)

    def _must_wait(self, service: str, usd: float) -> bool:
        if service not in self._priced:
            unpriced = sum(r.service == service for r in self._in_flight)
            if unpriced >= UNPRICED_CALLS:
                return True
        with self._fresh_state():
            cost = self._cost(service, usd)
            in_flight = sum(self._cost(r.service, r.usd) for r in self._in_flight)
        worst = self._stored.usd + cost + (EXPOSURE - 1.0) * (in_flight + cost)
        return cost > 0.0 and not self._fits(worst)

    def _fits(self, usd: float) -> bool:
        return self.max_usd is None or usd <= self.max_usd + _ROUNDING_USD

    def _check(self, usd: float) -> None:
        spent = self._stored.usd
        if not self._fits(spent + usd):
            raise BudgetExceeded(
                f"the next call could cost ${usd:.4f}, and ${spent:.4f} of budget.max_usd "
                f"${self.max_usd:.4f} is spent or in flight; to go on, raise budget.max_usd and "
                "start again (rsearch train: with --resume)"
            )

    def _report(self, service: str, what: str) -> None:
        """Print what is odd about a service's charges, once for each of the two oddities."""
        kind = (service, what.split()[0])
        if kind not in self._reported:
            self._reported.add(kind)
            logger.warning(f"{service} {what}")

    @contextmanager
    def _fresh_state(self) -> Iterator[None]:
        """Read the state, let the caller note something, and store all that is noted."""
        if self._file is None:
            yield
            self._merge()
            return
        with self._file.open():
            self._stored = _read_state(self._file.read(), self._file.path)
            yield
            if self._unstored:
                self._merge()
                self._file.write({"version": _VERSION, **asdict(self._stored)})

    def _merge(self) -> None:
        new, self._unstored = self._unstored, _State()
        for name, spend in new.services.items():
            self._stored.add(name, spend, new.unsettled.get(name, 0))
            # Below 0 where somebody has removed the file meanwhile.
            self._stored.unsettled[name] = max(0, self._stored.unsettled[name])
        for name, usd in new.excess.items():
            self._stored.excess[name] = max(usd, self._stored.excess.get(name, 0.0))


@dataclass(slots=True)
class _State:
    """What a run has spent, and what it has to know to stay below its limit.

    Attributes:
        services: Service name to its numbers. Calls whose charge is not known are part of `usd` at
            the price that was expected.
        unsettled: Service name to how many calls those are: in flight, cut off, or lost by a kill.
        excess: Service name to the most that one call cost more than it should, in USD.
    """

    services: dict[str, ServiceSpend] = field(default_factory=dict)
    unsettled: dict[str, int] = field(default_factory=dict)
    excess: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.services or self.excess)

    @property
    def usd(self) -> float:
        """Spent, put by, or lost, in USD."""
        return sum(spend.usd + self.surcharge(name) for name, spend in self.services.items())

    def surcharge(self, service: str) -> float:
        """What its unsettled calls may have cost above the price that was expected, in USD."""
        return _SURCHARGE * self.unsettled.get(service, 0) * self.excess.get(service, 0.0)

    def add(self, service: str, spend: ServiceSpend, unsettled: int = 0) -> None:
        """Add to a service's numbers."""
        self.services.setdefault(service, ServiceSpend()).add(spend)
        self.unsettled[service] = self.unsettled.get(service, 0) + unsettled


def _read_state(document: Any, path: Path) -> _State:
    """Read what `_write_state` gave; None is the state of a run that has not begun.

    Raises:
        RunFolderError: It is not whole.
    """
    if document is None:
        return _State()
    try:
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']}, not {_VERSION}")
        # Runs of earlier versions have neither `unsettled` nor `excess`.
        return _State(
            {n: _read_spend(n, numbers) for n, numbers in document["services"].items()},
            {n: check_number(c, int) for n, c in document.get("unsettled", {}).items()},
            {n: check_number(usd, float) for n, usd in document.get("excess", {}).items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise describe_damage(path, error) from error


def _read_spend(service: str, numbers: Any) -> ServiceSpend:
    """Read a service's numbers.

    Raises:
        ValueError: One would raise the limit or switch it off: it is negative beyond rounding, not
            finite, or no number.
    """
    spend = ServiceSpend(**numbers)
    for name in _NUMBERS:
        number = getattr(spend, name)
        if not is_finite(number) or number < -_ROUNDING_USD:
            raise ValueError(f"{name} of {service} is {number!r:.40}")
    return spend
