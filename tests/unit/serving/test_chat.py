from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rsearch_cli.errors import (
    AccessDenied,
    BudgetExceeded,
    OfflineMiss,
    OutOfMemory,
    PolicyError,
    QuestionTooLong,
    ServiceFailure,
)
from rsearch_cli.rollout.events import Asked
from rsearch_cli.serving import chat, request_body
from rsearch_cli.serving.api_errors import ApiError, as_api_error
from rsearch_cli.serving.chat import read_body
from rsearch_cli.serving.request_body import ClientGone
from rsearch_cli.serving.requests import AskRequest, Ticket
from rsearch_cli.serving.settings import MAX_BODY_BYTES

JSON = (b"content-type", b"application/json; charset=utf-8")


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def read(*messages: dict[str, Any], headers: tuple[tuple[bytes, bytes], ...] = (JSON,)) -> bytes:
    """Read a body that arrives in these messages, and then never ends."""
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop(0)

    return asyncio.run(read_body({"headers": headers}, receive))


def status_of(read: Callable[[], bytes]) -> int:
    with pytest.raises(ApiError) as caught:
        read()
    return caught.value.status


def test_a_body_in_parts() -> None:
    assert read(part(b"{", more=True), part(b"", more=True), part(b"}")) == b"{}"


def test_a_body_of_another_type() -> None:
    assert status_of(lambda: read(part(b"{}"), headers=())) == 415
    plain = ((b"content-type", b"text/plain"),)
    assert status_of(lambda: read(part(b"{}"), headers=plain)) == 415


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    stated = (JSON, (b"content-length", b"%d" % (MAX_BODY_BYTES + 1)))
    assert status_of(lambda: read(headers=stated)) == 413
    half = part(b" " * (MAX_BODY_BYTES // 2 + 1), more=True)
    assert status_of(lambda: read(half, half)) == 413


def test_a_body_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "BODY_SECONDS", 0.01)
    assert status_of(lambda: read(part(b"{", more=True))) == 408


def test_a_client_that_hangs_up_before_the_end_of_its_body() -> None:
    with pytest.raises(ClientGone):
        read(part(b"{", more=True), {"type": "http.disconnect"})


def test_a_client_that_reads_nothing_has_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "SEND_SECONDS", 0.01)

    async def send(message: Any) -> None:
        await asyncio.sleep(60)

    with pytest.raises(ClientGone):
        asyncio.run(chat.send_json(send, {}))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QuestionTooLong("400 tokens"), 400, "context_length_exceeded"),
        (BudgetExceeded("spent 3 of 3"), 402, "budget_exceeded"),
        (ServiceFailure("http://10.0.0.9 is down"), 502, "upstream_failed"),
        (AccessDenied("the key of http://10.0.0.9 is refused"), 502, "upstream_failed"),
        (OfflineMiss("exa has no answer to 'who is ill?'"), 502, "upstream_failed"),
        (OutOfMemory("10.0 GiB"), 503, "out_of_memory"),
        (MemoryError(), 503, "out_of_memory"),
        (asyncio.CancelledError(), 503, "shutting_down"),
        (PolicyError("/models/x is broken"), 500, "internal_error"),
        (KeyError("x"), 500, "internal_error"),
    ],
)
def test_what_fails_inside_has_a_status_and_no_details(
    error: BaseException, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = as_api_error(error)
    assert (found.status, found.code) == (status, code)
    if status >= 500:
        assert not any(text in found.message for text in ("10.0", "/models", "ill"))
    assert "who is ill" not in caplog.text


def test_keys_are_in_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RSEARCH_API_KEY", "a-key-of-some-length")
    as_api_error(ServiceFailure("refused: a-key-of-some-length"))
    assert "refused: ***" in caplog.text


def test_a_bug_is_one_line_in_the_log_and_its_traceback_is_for_debugging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticket = Ticket(AskRequest("?"), lambda event: 1 / 0, lambda ticket: None)
    with caplog.at_level("DEBUG"):
        ticket.tell(Asked("?"))
        assert ticket.failure
        as_api_error(ticket.failure)
    shown = [record for record in caplog.records if record.levelname != "DEBUG"]
    assert len(shown) == 1 and shown[0].exc_info is None
    assert "division by zero" in shown[0].getMessage()
    assert caplog.records[-1].exc_info
