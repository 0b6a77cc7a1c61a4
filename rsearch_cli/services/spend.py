"""What a run has spent, as one small JSON file that its processes update in turn.

The file is rewritten in place with one write of one page, so a kill leaves the old state or the new
one. Replacing the file would do so too, at fifty times the cost on file systems that flush it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import filelock
from pydantic import ConfigDict, Field, TypeAdapter

from rsearch_cli.errors import RunFolderError, RunFolderOccupied, RunFolderUnwritable
from rsearch_cli.runs.confined_paths import make_private, open_own
from rsearch_cli.runs.file_locks import LockWait, describe_holder
from rsearch_cli.runs.files import SPEND, SPEND_LOCK
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.services.validation import validate

SURCHARGE = 2.0
"""Times the highest excess of a service that is added to a call whose charge is not known."""

ROUNDING_USD = 1e-9
"""Sums of prices drift by less; a limit of 0.50 must allow a hundred calls at 0.005."""

_VERSION = 1
# Bytes: a page of memory on all common systems, with room for twenty services.
_PAGE = 4096

# Anything below or not finite in the file would raise the limit or switch it off.
_Usd = Annotated[float, Field(ge=-ROUNDING_USD, allow_inf_nan=False, strict=True)]
_Count = Annotated[int, Field(ge=0, strict=True)]


@dataclass(slots=True)
class ServiceSpend:
    """What one service has cost and delivered.

    Attributes:
        usd: Paid, including the worst case of calls in flight or cut off by a kill.
        saved_usd: What the answers that needed no call had originally cost.
        calls: Attempts that were sent.
        hits: Requests that needed no call.
        failed: Requests without an answer after all retries.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    usd: _Usd = 0.0
    saved_usd: _Usd = 0.0
    calls: _Count = 0
    hits: _Count = 0
    failed: _Count = 0

    def add(self, other: ServiceSpend, times: int = 1) -> None:
        """Add another's numbers to these, or with `times` -1 subtract them."""
        self.usd += times * other.usd
        self.saved_usd += times * other.saved_usd
        self.calls += times * other.calls
        self.hits += times * other.hits
        self.failed += times * other.failed


@dataclass(frozen=True, slots=True)
class Spend:
    """What a run has spent so far.

    Attributes:
        services: Numbers by service name.
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


@dataclass(slots=True)
class SpendState:
    """What a run has spent, and what it has to know to stay below its limit.

    Attributes:
        services: Numbers by service name. Calls whose charge is not known are part of `usd` at
            their expected price.
        unsettled: Number of those calls by service name: in flight, cut off, or lost by a kill.
        excess: By service name, the most that one call cost above its expected price, in USD.
    """

    services: dict[str, ServiceSpend] = field(default_factory=dict)
    unsettled: dict[str, _Count] = field(default_factory=dict)
    excess: dict[str, _Usd] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.services or self.excess)

    @property
    def changes_spending(self) -> bool:
        """Whether adding this changes a cost, or the number of calls that are not settled."""
        return any(spend.usd for spend in self.services.values()) or any(self.unsettled.values())

    @property
    def usd(self) -> float:
        """Spent, in flight, or lost, in USD."""
        return sum(spend.usd + self.surcharge(name) for name, spend in self.services.items())

    def surcharge(self, service: str) -> float:
        """What its unsettled calls may have cost above their expected price, in USD."""
        return SURCHARGE * self.unsettled.get(service, 0) * self.excess.get(service, 0.0)

    def add(self, service: str, spend: ServiceSpend, unsettled: int = 0) -> None:
        """Add to the numbers of a service."""
        self.services.setdefault(service, ServiceSpend()).add(spend)
        self.unsettled[service] = self.unsettled.get(service, 0) + unsettled

    def merge(self, new: SpendState) -> None:
        """Add all numbers of another state."""
        for name, spend in new.services.items():
            self.add(name, spend, new.unsettled.get(name, 0))
            # Below 0 if somebody has removed the file in the meantime.
            self.unsettled[name] = max(0, self.unsettled[name])
        for name, usd in new.excess.items():
            self.excess[name] = max(usd, self.excess.get(name, 0.0))


class SpendFile:
    """The state on disk, opened by one process at a time.

    Args:
        run_folder: Where it is; nothing is touched yet.
    """

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / SPEND
        self._lock = filelock.FileLock(run_folder / SPEND_LOCK, thread_local=False)
        self._file = -1

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keep the file open and locked for this process.

        Raises:
            RunFolderUnwritable: It cannot be created or opened.
            RunFolderOccupied: Another process has held the lock for too long.
        """
        try:
            make_private(self.path.parent)
            wait = LockWait(
                Path(self._lock.lock_file), f"what {self.path} says is spent", "this run ends"
            )
            with self._lock.acquire(poll_interval=0.002, cancel_check=wait.is_over):
                self._file = open_own(str(self.path), os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    yield
                finally:
                    os.close(self._file)
        except filelock.Timeout:
            holder = describe_holder(Path(self._lock.lock_file))
            raise RunFolderOccupied(
                f"{self.path}, where the run records its spending, is locked by {holder}; end that "
                "process or let it continue, then start again"
            ) from None
        except OSError as error:
            raise RunFolderUnwritable(
                f"{self.path}, where the run records its spending, cannot be used: {error.strerror}"
            ) from error

    def read(self) -> SpendState:
        """Return the stored state; that of a new run is empty.

        Raises:
            RunFolderError: The file is damaged.
        """
        text = os.read(self._file, _PAGE)
        try:
            # A kill between creating the file and the first write leaves it empty.
            return _parse(json.loads(text)) if text else SpendState()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RunFolderError(
                f"{self.path} does not say what the run has spent ({error}); repair it, or start a "
                "new run in another --output-dir"
            ) from error

    def write(self, state: SpendState) -> None:
        """Store the state as one page."""
        document = {"version": _VERSION, **_STATE.dump_python(state)}
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, dump_json(document).ljust(_PAGE - 1).encode() + b"\n")


def _parse(document: Any) -> SpendState:
    if (version := document.pop("version")) != _VERSION:
        raise ValueError(f"version {version}, not {_VERSION}")
    # Runs of earlier versions have neither `unsettled` nor `excess`.
    return validate(_STATE, document)


_STATE = TypeAdapter(SpendState)
