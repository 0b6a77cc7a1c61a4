"""Signals: the first is noted where the run is patient, any other ends at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from rsearch_cli.errors import HungUp, Interrupted, Terminated
from rsearch_cli.interrupts import Interrupts
from rsearch_cli.services.event_loop import StopNow


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def hint() -> str:
    return "--resume continues from there"


@pytest.mark.parametrize(
    ("number", "kind", "name"),
    [
        (signal.SIGINT, Interrupted, "Ctrl-C"),
        (signal.SIGTERM, Terminated, "SIGTERM"),
        (signal.SIGHUP, HungUp, "SIGHUP"),
    ],
)
def test_a_signal_ends_at_once_what_is_not_patient(
    number: signal.Signals, kind: type[Exception], name: str
) -> None:
    with (
        pytest.raises(kind, match=f"^stopped by {name} at once; --resume continues from there$"),
        Interrupts(hint),
    ):
        send(number)
        pytest.fail("it went on")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_patience_takes_one_signal(first: signal.Signals) -> None:
    said: list[str] = []
    told = threading.Event()

    def tell(line: str) -> None:
        said.append(line)
        told.set()

    with pytest.raises(Interrupted, match="at once"), Interrupts(hint) as signals:  # noqa: SIM117
        with signals.deferred(tell):
            assert not signals.received
            send(first)
            assert signals.received
            assert told.wait(10)
            send(signal.SIGINT)
            pytest.fail("it went on")
    assert said == ["finishing the step, then saving; press Ctrl-C again to stop now"]


def test_a_hang_up_is_never_the_second_signal() -> None:
    told = threading.Event()
    with Interrupts(hint) as signals, signals.deferred(lambda line: told.set()):
        for _ in range(3):
            send(signal.SIGHUP)
        assert signals.received and told.wait(10)
    assert isinstance(signals.as_error("x"), HungUp)
    with (
        pytest.raises(Interrupted),
        Interrupts(hint) as signals,
        signals.deferred(lambda line: None),
    ):
        send(signal.SIGHUP)
        send(signal.SIGINT)
        pytest.fail("it went on")


def test_a_hang_up_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts(hint) as signals:
            send(signal.SIGHUP)
            assert not signals.received
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_signal_says_that_nothing_is_to_be_waited_for() -> None:
    raised: list[type[BaseException]] = []
    with pytest.raises(Interrupted), Interrupts(hint):
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt as first:
            raised.append(type(first))
            try:
                send(signal.SIGINT)
            except KeyboardInterrupt as second:
                raised.append(type(second))
                raise
    assert raised == [KeyboardInterrupt, StopNow]


def test_within_patience_a_block_can_end_at_once() -> None:
    with pytest.raises(Terminated, match=r"^stopped by SIGTERM at once; and saved$"):  # noqa: SIM117
        with Interrupts(hint) as signals, signals.deferred(pytest.fail):
            try:
                with signals.immediate():
                    send(signal.SIGTERM)
                    pytest.fail("it went on")
            except Terminated as stop:  # as who saves the step does
                raise Terminated(f"{stop}; and saved") from stop


def test_after_a_block_that_ends_at_once_patience_is_back() -> None:
    told = threading.Event()
    with Interrupts(hint) as signals, signals.deferred(lambda line: told.set()):
        with signals.immediate():
            pass
        send(signal.SIGINT)
        assert signals.received
        assert told.wait(10)


def test_patience_ends_with_its_block() -> None:
    with pytest.raises(Terminated, match="at once"), Interrupts(hint) as signals:
        with signals.deferred(lambda line: None):
            pass
        send(signal.SIGTERM)
        pytest.fail("it went on")


def test_a_stop_in_good_order_has_the_class_of_its_signal() -> None:
    with Interrupts(hint) as signals, signals.deferred(lambda line: None):
        send(signal.SIGTERM)
        stop = signals.as_error("after a complete step")
    assert isinstance(stop, Terminated) and str(stop) == "stopped by SIGTERM after a complete step"
    assert (Interrupted.exit_code, Terminated.exit_code, HungUp.exit_code) == (130, 143, 129)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts(hint):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_interrupt_that_no_signal_made_is_left_as_it_is() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts(hint):
        raise KeyboardInterrupt


def test_outside_the_main_thread_nothing_is_taken() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with Interrupts(hint):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
