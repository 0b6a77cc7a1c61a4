"""Calls in a thread of their own: what Ctrl-C and other threads do to them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest

from rsearch_cli.services import event_loop as module
from rsearch_cli.services.event_loop import EventLoop, StopNow

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

LONG = 60.0  # seconds; nothing here waits for their end


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as loop:
        yield loop


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class Call:
    """A call that interrupts the main thread; notes whether it ended, or was cut off."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ended: list[str] = []

    async def send(self) -> str:
        interrupt()
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.ended.append("cut off")
            raise
        self.ended.append("whole")
        return "answer"


def test_one_loop_serves_all_calls(loop: EventLoop) -> None:
    async def tell() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        return asyncio.get_running_loop(), threading.current_thread()

    first, second = loop.run(tell()), loop.run(tell())
    assert first == second
    assert first[1] is not threading.main_thread()


def test_what_a_call_raises_arrives_as_itself(loop: EventLoop) -> None:
    async def fail() -> None:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        loop.run(fail())


def test_ctrl_c_lets_a_call_end_that_is_nearly_done(loop: EventLoop, capsys) -> None:
    call = Call(1.5)
    with pytest.raises(KeyboardInterrupt):
        loop.run(call.send())
    assert call.ended == ["whole"]
    assert capsys.readouterr().err == (
        "stopping: requests in flight may already be paid for and get 5 s to finish; press Ctrl-C "
        "again to stop now\n"
    )


def test_what_takes_no_time_needs_no_word(loop: EventLoop, capsys) -> None:
    call = Call(0.01)
    with pytest.raises(KeyboardInterrupt):
        loop.run(call.send())
    assert (call.ended, capsys.readouterr().err) == (["whole"], "")


def test_grace_has_an_end(loop: EventLoop) -> None:
    call = Call(LONG)
    with pytest.raises(KeyboardInterrupt):
        loop.run(call.send(), grace=0.1)
    assert call.ended == ["cut off"]


def test_without_grace_nothing_is_waited_for_or_said(loop: EventLoop, capsys) -> None:
    call = Call(LONG)
    with pytest.raises(KeyboardInterrupt):
        loop.run(call.send(), grace=0.0)
    assert (call.ended, capsys.readouterr().err) == (["cut off"], "")


def test_the_second_ctrl_c_cuts_off_at_once(loop: EventLoop, monkeypatch) -> None:
    call = Call(LONG)
    monkeypatch.setattr(loop, "_announce", lambda grace: interrupt())
    with pytest.raises(KeyboardInterrupt):
        loop.run(call.send(), grace=LONG)
    assert call.ended == ["cut off"]


def test_a_second_ctrl_c_that_comes_from_elsewhere_waits_for_nothing(
    loop: EventLoop, capsys
) -> None:
    def stop_now(number: int, frame: object) -> None:
        raise StopNow

    call, before = Call(LONG), signal.signal(signal.SIGINT, stop_now)
    try:
        with pytest.raises(StopNow):
            loop.run(call.send(), grace=LONG)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (call.ended, capsys.readouterr().err) == (["cut off"], "")


def test_another_thread_can_cut_calls_off_and_the_loop_goes_on(loop: EventLoop) -> None:
    async def wait() -> None:
        threading.Thread(target=loop.cancel).start()
        await asyncio.sleep(LONG)

    with pytest.raises(asyncio.CancelledError):
        loop.run(wait())
    assert loop.run(asyncio.sleep(0, "next")) == "next"


def test_closing_gives_up_what_another_thread_waits_for() -> None:
    ended: list[BaseException] = []
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(LONG)

    def work() -> None:
        try:
            loop.run(wait())
        except BaseException as error:
            ended.append(error)

    with EventLoop() as loop:
        thread = threading.Thread(target=work)
        thread.start()
        assert begun.wait(LONG)
    thread.join(LONG)
    assert [type(error) for error in ended] == [asyncio.CancelledError]
    loop.close()  # once more does nothing


def test_a_call_that_blocks_the_loop_holds_nobody_up(monkeypatch) -> None:
    """A source that does not let itself be cut off, such as one with a blocking client."""
    monkeypatch.setattr(module, "_CLEANUP_SECONDS", 0.1)
    free = threading.Event()

    async def block() -> None:
        interrupt()
        free.wait(LONG)

    try:
        with pytest.raises(KeyboardInterrupt), EventLoop() as loop:
            loop.run(block(), grace=0.1)
        assert not free.is_set()
    finally:
        free.set()
