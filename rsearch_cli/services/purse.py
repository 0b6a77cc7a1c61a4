"""The purse: what a run has spent, what calls in flight may cost, and what it may not pass.

Place in the path: asked by the gateway before every attempt that could cost money, told after it.
The state lives in the run folder, so a resumed run, and a second process on the same run, go on
from it. On failure: a call that could pass the limit is a `BudgetExceeded` and is not sent; a state
that cannot be read or written is a `RunFolderError`, because a limit that forgets is none.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import filelock

from rsearch_cli.errors import (
    BudgetExceeded,
    RunFolderError,
    RunFolderOccupied,
    RunFolderUnwritable,
)
from rsearch_cli.services.lifetime import Closing
from rsearch_cli.storage.json_text import dump_json
from rsearch_cli.storage.locks import Patience, describe_holder
from rsearch_cli.streams import tell

SPEND = "spend.json"
"""Name of the state in the run folder."""

LOCK = f".{SPEND}.lock"
"""Name of the lock beside it."""

_VERSION = 1
# Bytes; a page of memory on all common systems, and room for thirty services.
_PAGE = 4096
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


class Reservation:
    """Money put by for one call; settle or cancel it, once."""

    def __init__(self, purse: Purse, service: str, usd: float) -> None:
        self._purse = purse
        self._service = service
        self._usd = usd

    def settle(self, actual_usd: float) -> None:
        """Book what the call cost; less than was put by frees the rest."""
        self._purse.book(self._service, ServiceSpend(usd=actual_usd - self._usd))

    def cancel(self) -> None:
        """Book that the call certainly cost nothing."""
        self.settle(0.0)


class Purse(Closing):
    """The money of a run: safe between threads, and between processes that share its folder."""

    def __init__(self, run_folder: Path | None = None, max_usd: float | None = None) -> None:
        """Name the run folder, or None to keep the state in memory; nothing is read yet."""
        self.max_usd = max_usd
        self._file = None if run_folder is None else _StateFile(run_folder / SPEND)
        self._guard = threading.RLock()
        self._stored: dict[str, ServiceSpend] = {}
        self._unstored: dict[str, ServiceSpend] = {}

    def reserve(self, service: str, usd: float) -> Reservation:
        """Put money by for one attempt, and count it.

        Raises:
            BudgetExceeded: It could pass the limit, counting all that is in flight.
            RunFolderError: The state cannot be read or written.
        """
        spend = ServiceSpend(usd=usd, calls=1)
        if usd <= 0:
            self.note(service, spend)
        else:
            self.book(service, spend, limited=True)
        return Reservation(self, service, usd)

    def note(self, service: str, spend: ServiceSpend) -> None:
        """Count what costs nothing; it is stored with the next booking, `snapshot` or `close`."""
        with self._guard:
            self._unstored.setdefault(service, ServiceSpend()).add(spend)

    def book(self, service: str, spend: ServiceSpend, *, limited: bool = False) -> None:
        """Add to a service's numbers and store them all; with `limited`, heed the limit first."""
        with self._guard:
            if not spend.usd:
                self.note(service, spend)
                return
            with self._fresh_state():
                if limited:
                    self._check(spend.usd)
                self.note(service, spend)

    def snapshot(self) -> Spend:
        """The run's numbers up to now, those of other processes included."""
        with self._guard:
            if self._unstored or (self._file is not None and self._file.path.exists()):
                with self._fresh_state():
                    pass
            services = {name: ServiceSpend(**asdict(s)) for name, s in self._stored.items()}
            return Spend(services, self.max_usd)

    def close(self) -> None:
        """Store what has been counted but not stored; what was paid is stored already."""
        with self._guard:
            if self._unstored:
                try:
                    self.snapshot()
                except RunFolderOccupied as held:
                    tell(f"the last calls that cost nothing are not counted: {held}")

    def _check(self, usd: float) -> None:
        spent = sum(s.usd for s in self._stored.values())
        if self.max_usd is not None and spent + usd > self.max_usd + _ROUNDING_USD:
            raise BudgetExceeded(
                f"the next call could cost ${usd:.4f}, and ${spent:.4f} of budget.max_usd "
                f"${self.max_usd:.4f} is spent or in flight; to go on, raise budget.max_usd and "
                "start again (rsearch train: with --resume)"
            )

    @contextmanager
    def _fresh_state(self) -> Iterator[None]:
        """Read the state, let the caller note something, and store all that is noted."""
        if self._file is None:
            yield
            self._merge()
            return
        with self._file.open():
            self._stored = self._file.read()
            yield
            if self._unstored:
                self._merge()
                self._file.write(self._stored)

    def _merge(self) -> None:
        for name, spend in self._unstored.items():
            self._stored.setdefault(name, ServiceSpend()).add(spend)
        self._unstored = {}


class _StateFile:
    """The state on disk, which processes open one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = filelock.FileLock(path.with_name(LOCK), thread_local=False)
        self._file = -1

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keep the file open for this process alone."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            patience = Patience(
                Path(self._lock.lock_file), f"what {self.path} says is spent", "this run ends"
            )
            with self._lock.acquire(poll_interval=0.002, cancel_check=patience.is_over):
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    yield
                finally:
                    os.close(self._file)
        except filelock.Timeout:
            holder = describe_holder(Path(self._lock.lock_file))
            raise RunFolderOccupied(
                f"{self.path}, where the run keeps what it spends, is held by {holder}; end that "
                "process or let it go on, then start again"
            ) from None
        except OSError as error:
            raise RunFolderUnwritable(
                f"{self.path}, where the run keeps what it spends, cannot be used: {error.strerror}"
            ) from error

    def read(self) -> dict[str, ServiceSpend]:
        """What has been stored."""
        try:
            text = os.read(self._file, _PAGE)
            # A kill between making the file and the first booking leaves it empty.
            state: Any = json.loads(text) if text else {"version": _VERSION, "services": {}}
            if state["version"] != _VERSION:
                raise ValueError(f"version {state['version']}, not {_VERSION}")
            return {name: ServiceSpend(**numbers) for name, numbers in state["services"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunFolderError(
                f"{self.path} does not say what the run has spent ({error}); mend it, or start "
                "a new run in another --output-dir"
            ) from error

    def write(self, services: Mapping[str, ServiceSpend]) -> None:
        """Store the state whole.

        One write of one page: a kill leaves the old state or the new. Replacing the file would do
        so too, at fifty times the price on file systems that flush what replaces another file.
        """
        numbers = {name: asdict(spend) for name, spend in sorted(services.items())}
        text = dump_json({"version": _VERSION, "services": numbers})
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, text.ljust(_PAGE - 1).encode() + b"\n")
